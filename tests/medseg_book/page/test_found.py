import dataclasses

import pytest

from medseg_book.page import claims, found
from medseg_book.page.claims_table import Claim

EFFECT = Claim("C1", "Dice is 0.05 higher.", "holds", 0.19, 0.14, 0.24, 3, "seed",
               bound={"at_least": 0.05}, null=0.0)  # fmt: skip
CLOSE = dataclasses.replace(EFFECT, id="C2", text="Another, closer", mean=0.06, low=0.01, high=0.11)
FAILS = dataclasses.replace(EFFECT, id="C3", text="A | B", verdict="does not hold",
                            if_fails="Too few <b> images.")  # fmt: skip
NOISE = dataclasses.replace(FAILS, id="C4a", verdict="within noise", text="A part")
WHOLE = Claim("C4", "C4a alone", "within noise", parts=["C4a"])
NOTED = Claim("C5", "A count", "noted", mean=3.0, n=1)


def box(*known, headline="", image=""):
    record = {**claims.CONTEXT, "claims": [dataclasses.asdict(c) for c in known]}
    return "\n".join(found.lines(record, headline, image))


def test_one_effect_with_its_interval():
    text = box(NOTED, CLOSE, EFFECT, headline="C1")
    assert "**The effect.** C1: Dice is 0.05 higher. Measured: +0.190 [+0.140, +0.240]" in text
    assert "95 % interval" in text


def test_the_first_judged_claim_where_none_is_named():
    assert "**The effect.** C2:" in box(NOTED, CLOSE, EFFECT)


def test_verdicts_in_a_line_count_wholes():
    text = box(EFFECT, FAILS, NOISE, WHOLE)
    assert "1 of 3 judged claims hold" in text
    assert "Does not hold: c3; within noise: c4." not in text
    assert "Does not hold: C3; within noise: C4." in text


def test_the_weakest_point_is_what_fails_with_its_reason():
    text = box(EFFECT, NOISE, WHOLE, FAILS)
    assert "**The weakest point** (does not hold). C3: A \\| B. Measured" in text
    assert "Too few \\<b> images." in text
    assert "**The weakest point** (within noise). C4a: A part" in box(EFFECT, NOISE, WHOLE)
    assert "(does not hold). C3, the effect above. Too few" in box(EFFECT, FAILS, headline="C3")


def test_where_all_holds_the_nearest_to_its_bound():
    assert "by the least). C2" in box(EFFECT, CLOSE)
    assert "weakest" not in box(EFFECT, CLOSE, headline="C2")  # it stands there already
    assert "weakest" not in box(NOTED)


def test_a_picture_stands_beside():
    text = box(EFFECT, image="![A dot](x.webp)")
    assert text.index("![A dot](x.webp)") < text.index("**The effect.**")
    assert "grid" not in box(EFFECT)


def test_an_unknown_headline_is_refused():
    with pytest.raises(ValueError, match="'C9' is no claim"):
        box(EFFECT, headline="C9")


@pytest.mark.parametrize("classes, id", [(" found c2", "C2"), (" tip found c3a", "C3a"), ("x", "")])
def test_headline(classes, id):
    assert found.headline(classes) == id


def test_the_box_ends_at_its_own_fence():
    source = (
        ":::{admonition} At a glance\n:class: tip\n- x\n:::\n\n"
        ":::{admonition} What we found\n:class: found c2\n\nIt stands here.\n:::\n\nMore.\n:::\n"
    )
    whole = found.BOX.search(source)[0]
    assert whole.startswith(":::{admonition} What") and whole.endswith("here.\n:::")
    assert not found.BOX.search(source.replace("found c2", "tip"))
