import json

from medseg_book.run.differences import differences

CLAIM = {"id": "C1", "text": "A < B", "verdict": "holds", "mean": 0.11, "values": [0.1, 0.12]}
TIMED = {"id": "C7", "text": "fast", "verdict": "holds", "mean": 2.0, "timing": True}
ONE = {"slug": "tiny", "scale": "lesson", "claims": [CLAIM, TIMED], "seconds": 1.0, "core": {},
       "metrics": {"Dice": 0.5}}  # fmt: skip


def changed(id=None, **changes):
    two = json.loads(json.dumps(ONE))
    target = two if id is None else next(c for c in two["claims"] if c["id"] == id)
    target.update(changes)
    return two


def test_what_depends_on_the_machine_is_not_compared():
    assert differences(ONE, changed(seconds=99.0, peak_memory_mb=1.0, core={"a": "1"})) == []
    assert differences(ONE, changed("C7", mean=9.0, verdict="does not hold")) == []
    assert differences(ONE, changed("C7", text="slow")) == ["C7 text: 'fast' and 'slow'"]


def test_every_other_change_is_named():
    assert differences(ONE, changed("C1", mean=0.5)) == ["C1 mean: 0.11 and 0.5"]
    assert differences(ONE, changed(scale="smoke")) == ["scale: 'lesson' and 'smoke'"]
    fewer = changed(claims=[TIMED])
    assert differences(ONE, fewer) == ["C1: only in the first"]
    assert differences(fewer, ONE) == ["C1: only in the second"]


def test_figures_that_both_runs_keep_are_compared():
    assert differences(ONE, changed(metrics={"Dice": 0.6})) == ["metric 'Dice': 0.5 and 0.6"]
    assert differences(ONE, changed(metrics={})) == []  # stored before the chapter had any
