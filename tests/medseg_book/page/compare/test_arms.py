import math
import sys
import time

import numpy as np
import psutil
import pytest
import torch

from medseg_book.page.compare import Record, Results, run_arms

COST = {"updates": 5, "images": 50}


def arm(offset):
    def go(seed):
        cases = offset + seed + np.array([0.0, 1.0, 2.0])
        return {"dice": cases, "total": float(cases.sum()), **COST, "extras": {"cases": cases}}

    return go


@pytest.fixture(scope="module")
def results():
    return run_arms({"ours": arm(10.0), "base": arm(7.0)}, [0, 1])


def test_values_by_hand(results):
    assert results.arms == ["ours", "base"] and results.seeds("base") == [0, 1]
    assert results.metrics == ["dice", "total"]
    order = [("ours", 0), ("ours", 1), ("base", 0), ("base", 1)]
    assert [(r.arm, r.seed) for r in results.records] == order
    assert results.mean("ours", "dice") == 11.5  # (11 + 12) / 2
    assert results.per_seed("base", "total") == [24.0, 27.0]
    assert results.difference("ours", "base", "dice") == [3.0, 3.0]
    assert results.difference("base", "ours", "total") == [-9.0, -9.0]
    assert results.cases("ours", "base", "dice").tolist() == [3.0, 3.0, 3.0]
    assert results.get("ours", 1).extras["cases"].tolist() == [11.0, 12.0, 13.0]


def test_table(results):
    table = results.table()
    assert list(table.index) == ["ours", "base"]
    assert table.loc["ours", "dice"] == "11.500 ± 0.707"
    assert table.loc["base", "updates"] == "5" and table.loc["base", "seeds"] == 2
    assert results.table(["total"]).columns[0] == "total"


def test_excluded_cases_are_paired_and_counted():
    def record(name, *cases):
        return Record(name, 0, {"hd": np.array(cases)}, 1, 1, 0.0)

    results = Results([record("a", 1.0, 5.0, math.nan), record("b", 4.0, math.nan, 9.0)])
    assert results.difference("a", "b", "hd") == [-3.0]
    assert results.cases("a", "b", "hd").tolist() == [-3.0]
    assert results.mean("a", "hd") == 3.0 and results.excluded("a", "hd") == 1
    assert results.table().loc["a", "hd"] == "3.000 [1 excluded]"


def test_joined_results_pair_the_seeds_they_share(results):
    more = run_arms({"no noise": arm(9.0)}, [1])
    both = results + more
    assert both.difference("ours", "no noise", "dice") == [1.0]
    with pytest.raises(ValueError, match="share no seed"):
        (results + run_arms({"late": arm(0.0)}, [8])).difference("ours", "late", "dice")
    with pytest.raises(ValueError, match="both results hold"):
        both + more


def test_a_row_without_training_joins_by_seed(results):
    more = results.with_row("floor", lambda seed: {"dice": torch.tensor([seed, 2.0])})
    assert more.seeds("floor") == [0, 1] and more.per_seed("floor", "dice") == [1.0, 1.5]
    record = more.get("floor", 1)
    assert (record.updates, record.images, record.seconds, record.extras) == (0, 0, 0.0, {})
    assert "floor" not in results.arms  # the old results stay as they were
    spent = {"dice": 1.0, "updates": 3, "images": 4, "extras": {"w": 2}}
    built = Results().with_row("a", lambda seed: spent, seeds=[5])
    assert (built.get("a", 5).updates, built.get("a", 5).extras) == (3, {"w": 2})
    assert spent["updates"] == 3  # what the caller handed over is not emptied
    with pytest.raises(ValueError, match="both results hold"):
        more.with_row("floor", lambda seed: {"dice": 0.0})
    with pytest.raises(ValueError, match="seeds must not be empty"):
        Results().with_row("a", lambda seed: spent)
    with pytest.raises(ValueError, match="metric 'dice' must be a number"):
        results.with_row("bad", lambda seed: {"dice": "high"})


def test_equal_budgets_can_be_asked_for_later(results):
    results.same_budget("ours", "base")
    other = results.with_row(
        "longer", lambda seed: {"dice": 0.0, "updates": 5 + seed, "images": 50}
    )
    with pytest.raises(ValueError, match=r"'ours' \(seed 1\) made 5 .* 'longer' \(seed 1\) 6"):
        other.same_budget("ours", "longer")
    with pytest.raises(ValueError, match="two arms or more"):
        results.same_budget("ours")


def test_every_run_starts_from_its_seed():
    def draw(seed):
        return {"x": torch.rand(()), "y": np.random.rand(), **COST}  # noqa: NPY002

    results = run_arms({"a": draw, "b": draw}, [0, 1])
    assert results.difference("a", "b", "x") == [0.0, 0.0]
    assert results.value("a", 0, "y") == results.value("b", 0, "y")
    assert results.value("a", 0, "x") != results.value("a", 1, "x")


def test_unequal_budgets_are_refused():
    def more(seed):
        return {"dice": 1.0, "updates": 6, "images": 50}

    arms = {"a": arm(0.0), "b": more}
    with pytest.raises(ValueError, match=r"unequal budgets: 'a' .* 5 updates .* 'b' .* 6 on 50"):
        run_arms(arms, [0])
    results = run_arms(arms, [0], budget="declared")
    assert results.table().loc["b", "updates"] == "6"
    assert results.table().loc["b", "total"] == "–"


def test_two_processes_give_what_one_gives():
    data = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))

    def train(rate):
        def go(seed):
            net = torch.nn.Linear(3, 1)
            opt = torch.optim.SGD(net.parameters(), lr=rate)
            for _ in range(5):
                opt.zero_grad()
                net(data).square().mean().backward()
                opt.step()
            return {"loss": net(data).square()[:, 0], **COST, "extras": {"model": net}}

        return go

    arms = {"slow": train(0.01), "fast": train(0.1)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = run_arms(arms, [0, 1])
        two = run_arms(arms, [0, 1], workers=2)
    finally:
        torch.set_num_threads(threads)
    assert [(r.arm, r.seed) for r in one.records] == [(r.arm, r.seed) for r in two.records]
    for a, b in zip(one.records, two.records, strict=True):
        assert np.array_equal(a.metrics["loss"], b.metrics["loss"])
        assert torch.equal(a.extras["model"].weight, b.extras["model"].weight)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_arm_is_named(workers):
    def fails(seed):
        raise KeyError("lost")

    with pytest.raises(RuntimeError, match=r"arm 'bad', seed 4: KeyError: 'lost'"):
        run_arms({"bad": fails}, [4], workers=workers)


KILLED = """
import os, time
from medseg_book.page.compare import run_arms

def endless(seed):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\\n")
    while True:
        time.sleep(0.01)

path = os.environ["PIDS"]
run_arms({"a": endless}, [0, 1], workers=2)
"""


@pytest.mark.skipif(
    sys.platform == "win32", reason="a killed process is noticed by its children on POSIX only"
)
def test_workers_end_with_the_process_that_is_killed(tmp_path, monkeypatch):
    pids = tmp_path / "pids"
    monkeypatch.setenv("PIDS", str(pids))
    process = psutil.Popen([sys.executable, "-c", KILLED])
    workers = []
    try:
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        workers = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(runs, workers)))
    finally:
        for left in filter(runs, (process, *workers)):
            left.kill()


def runs(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_until(done, seconds=60):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("out", "text"),
    [
        ({"dice": 1.0}, "must return"),
        ({"dice": np.ones((2, 2)), **COST}, "one number per case"),
        ({"dice": [], **COST}, "one number per case"),
        ({"model": object(), **COST}, "extras"),
    ],
)
def test_wrong_returns_are_refused(out, text):
    with pytest.raises(ValueError, match=text):
        run_arms({"a": lambda seed: out}, [0])


def test_bad_input_is_refused(results):
    for arms, seeds in (({}, [0]), ({"a": arm(0.0)}, []), ({"a": arm(0.0)}, [1, 1])):
        with pytest.raises(ValueError, match="arms and seeds"):
            run_arms(arms, seeds)
    with pytest.raises(ValueError, match="workers"):
        run_arms({"a": arm(0.0)}, [0], workers=0)
    with pytest.raises(ValueError, match="budget"):
        run_arms({"a": arm(0.0)}, [0], budget="any")
    with pytest.raises(ValueError, match="did you mean 'ours'"):
        results.mean("our", "dice")
    with pytest.raises(ValueError, match="metric must be one of"):
        results.mean("ours", "hd")
    with pytest.raises(ValueError, match="one value per case"):
        results.cases("ours", "base", "total")
