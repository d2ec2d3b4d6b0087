"""Verdicts against hand-computed intervals, and the claims that a notebook stores."""

import json
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_book.page import claims
from medseg_book.run.differences import differences


@pytest.fixture(autouse=True)
def fresh():
    claims.reset(slug="edpcnn")
    yield
    claims.reset()


def verdict(measured, **options):
    claims.reset()
    return claims.check("C1", "a claim", measured, **options).verdict


# Student's interval of [m - d, m, m + d] is m +- 2.4842 d (t(0.975, 2) / sqrt(3) = 2.48414).


@pytest.mark.parametrize(
    ("measured", "bound", "expected"),
    [
        ([0.09, 0.10, 0.11], {"at_least": 0.05}, "holds"),
        ([0.04, 0.06, 0.08], {"at_least": 0.05}, "holds"),  # beyond 0, though not beyond 0.05
        ([0.03, 0.06, 0.09], {"at_least": 0.05}, "within noise"),  # meets, [-0.015, 0.135]
        ([0.03, 0.04, 0.05], {"at_least": 0.05}, "within noise"),  # misses, [0.015, 0.065]
        ([0.01, 0.02, 0.03], {"at_least": 0.05}, "does not hold"),  # [-0.005, 0.045]
        ([-0.10, -0.09, -0.08], {"at_most": -0.05}, "holds"),
        ([-0.03, -0.02, -0.01], {"at_most": -0.05}, "does not hold"),
        ([-0.09, -0.06, -0.03], {"at_most": -0.05}, "within noise"),
        # A tolerance: the interval must lie beyond the bound itself.
        ([-0.005, 0.0, 0.005], {"at_least": -0.02}, "holds"),
        ([-0.015, -0.005, 0.005], {"at_least": -0.02}, "within noise"),
        ([-0.06, -0.05, -0.04], {"at_least": -0.02}, "does not hold"),
        ([1.2, 1.25, 1.3], {"at_most": 1.5}, "holds"),
        ([1.2, 1.4, 1.6], {"at_most": 1.5}, "within noise"),
        # An absolute level says so.
        ([0.70, 0.85, 1.00], {"at_least": 0.8}, "holds"),
        ([0.70, 0.85, 1.00], {"at_least": 0.8, "null": 0.8}, "within noise"),
        ([1.0, 1.0, 1.0], {"at_least": 1.0, "null": 1.0}, "holds"),
        # No difference at all is no advantage.
        ([0.0, 0.0, 0.0], {"at_least": 0}, "within noise"),
        ([0.01, 0.011, 0.012], {"at_least": 0}, "holds"),
        ([-0.01, -0.011, -0.012], {"at_least": 0}, "does not hold"),
        ([0.01, 0.00, -0.01], {"between": (-0.03, 0.03)}, "holds"),
        ([0.02, 0.00, -0.02], {"between": (-0.03, 0.03)}, "within noise"),
        ([0.06, 0.05, 0.04], {"between": (-0.03, 0.03)}, "within noise"),
        ([0.06, 0.07, 0.065], {"between": (-0.03, 0.03)}, "does not hold"),
        ([-0.06, -0.07, -0.065], {"between": (-0.03, 0.03)}, "does not hold"),
        # Rounding: 0.85 - 0.8 is a little less than 0.05.
        ([0.85 - 0.8] * 3, {"at_least": 0.05}, "holds"),
    ],
)
@pytest.mark.parametrize("unit", ["seed", "fold"])
def test_verdicts_by_hand(measured, bound, expected, unit):
    assert verdict(measured, **bound, unit=unit) == expected


def test_the_interval_is_students():
    claim = claims.check("C1", "x", [1.0, 2.0, 3.0], at_least=0.5)
    assert (claim.mean, claim.n, claim.null) == (2, 3, 0)
    assert claim.low == pytest.approx(2 - 2.48414, abs=1e-4)
    assert claim.high == pytest.approx(2 + 2.48414, abs=1e-4)
    wider = claims.check("C2", "x", [1.0, 2.0, 3.0], at_least=0.5, ci=0.99)
    assert wider.low < claim.low


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(st.floats(-1, 1), min_size=3, max_size=6),
    bound=st.floats(-0.5, 0.5),
)
def test_at_most_mirrors_at_least(values, bound):
    mirrored = [-v for v in values]
    assert verdict(values, at_least=bound) == verdict(mirrored, at_most=-bound)


@pytest.mark.parametrize(("n", "why"), [(1, "one value"), (2, "two values")])
@pytest.mark.parametrize("unit", ["seed", "fold", "case"])
def test_too_few_values_are_not_judged(n, why, unit):
    claim = claims.check("C1", "x", [0.5] * n, at_least=0.1, unit=unit)
    assert (claim.verdict, claim.detail, claim.mean, claim.low) == ("not judged", why, 0.5, None)
    assert f"not judged ({why})" in repr(claim)


def test_one_seed_may_come_as_a_number():
    assert claims.check("C1", "x", 0.5, at_least=0.1).verdict == "not judged"


def test_smoke_judges_nothing_and_computes_all():
    claims.reset(scale="smoke")
    claim = claims.check("C1", "x", [0.1, 0.11, 0.12], at_least=0.05)
    assert (claim.verdict, claim.detail, claim.mean) == ("not judged", "smoke scale", 0.11)
    assert claim.low is not None
    false = claims.exact("C2", "x", False, "three differ")
    assert (false.verdict, false.detail) == ("not judged", "smoke scale: false; three differ")


# --- cases ---


def test_cases_average_the_seeds_first():
    gen = np.random.default_rng(0)
    case = 0.1 + 0.1 * gen.normal(size=40)
    noise = gen.normal(size=(1, 40))
    two_seeds = [case + noise[0], case - noise[0]]  # the seeds' noise cancels
    claim = claims.check("C1", "x", two_seeds, at_least=0.05, unit="case")
    alone = claims.check("C2", "x", case, at_least=0.05, unit="case")
    assert claim.verdict == "holds"
    assert np.allclose([claim.mean, claim.low, claim.high], [alone.mean, alone.low, alone.high])
    assert (claim.n, claim.detail) == (40, "mean of 2 seeds")
    spread = 1.96 * case.std() / np.sqrt(40)
    assert claim.high - claim.low == pytest.approx(2 * spread, rel=0.15)


def test_undefined_cases_are_left_out_and_counted():
    nan = float("nan")
    measured = [[0.1, nan, nan, 0.3, 0.2], [0.1, nan, 0.2, 0.3, 0.2]]
    claim = claims.check("C1", "x", measured, at_least=0.05, unit="case")
    assert claim.values == [0.1, 0.2, 0.3, 0.2]
    assert "1 of 5 cases undefined, left out; 1 undefined in some seeds" in claim.detail
    empty = claims.check("C2", "x", [nan, nan], at_least=0.05, unit="case")
    assert (empty.verdict, empty.mean, empty.n) == ("not judged", None, 0)
    assert empty.detail.startswith("no value; 2 of 2 cases undefined")


def test_patients_are_resampled_where_groups_are_given():
    gen = np.random.default_rng(1)
    patient = np.repeat(np.arange(6), 20)
    values = 0.3 * gen.normal(size=6)[patient] + 0.15
    by_case = claims.check("C1", "x", values, at_least=0.05, unit="case")
    by_patient = claims.check("C2", "x", values, at_least=0.05, unit="case", groups=patient)
    assert by_patient.high - by_patient.low > 2 * (by_case.high - by_case.low)
    assert by_patient.detail == "6 groups"
    few = claims.check("C3", "x", values, at_least=0.05, unit="case", groups=patient // 3)
    assert (few.verdict, few.detail) == ("not judged", "two groups")


def test_tensors_are_taken():
    per_seed = [torch.full((4,), 0.1, requires_grad=True), torch.full((4,), 0.3)]
    assert claims.check("C1", "x", per_seed, at_least=0.1, unit="case").mean == pytest.approx(0.2)
    assert claims.check("C2", "x", [torch.tensor(0.5)] * 3, at_least=0.1).verdict == "holds"
    assert claims.check("C3", "x", torch.tensor([0.5] * 3), at_least=0.1).verdict == "holds"


# --- what is refused ---


@pytest.mark.parametrize("id", ["3", "c3", "C", "C3A", "C3ab", "C3 ", "", 3, "C3\n"])
def test_malformed_ids_are_refused(id):
    with pytest.raises(ValueError, match="id must look like"):
        claims.note(id, "x", 1.0)


def test_duplicate_ids_are_refused():
    claims.note("C1", "the first", 1.0)
    for again in (
        lambda: claims.note("C1", "the first", 1.0),
        lambda: claims.check("C1", "x", [1], at_least=0),
        lambda: claims.exact("C1", "x", True),
        lambda: claims.paper_only("C1", "x", "0.9"),
    ):
        with pytest.raises(ValueError, match="id 'C1' is taken by 'the first'"):
            again()


@pytest.mark.parametrize(("first", "second"), [("C3", "C3a"), ("C3b", "C3")])
def test_a_claim_and_its_parts_clash(first, second):
    claims.note(first, "x", 1.0)
    claims.note("C30", "x", 1.0)
    with pytest.raises(ValueError, match=f"'{second}' clashes with '{first}'"):
        claims.note(second, "x", 1.0)


@pytest.mark.parametrize(
    ("measured", "options", "error", "message"),
    [
        ([1, 2, 3], {}, ValueError, "one of at_least, at_most, between; got none"),
        ([1], {"at_least": 0, "at_most": 1}, ValueError, "got at_least, at_most"),
        ([1], {"at_least": float("nan")}, ValueError, "at_least must be finite"),
        ([1], {"between": (1, 0)}, ValueError, "between must be"),
        ([1], {"between": (0, 1), "null": 0}, ValueError, "null does not go with between"),
        ([1], {"at_least": 0.1, "null": 0.2}, ValueError, "stricter than the bound 0.1, got 0.2"),
        ([1], {"at_most": 0.1, "null": 0.0}, ValueError, "stricter than the bound 0.1, got 0"),
        ([], {"at_least": 0}, ValueError, "measured must have values"),
        ([1, float("nan")], {"at_least": 0}, ValueError, r"got nan at index \[1\]"),
        ([[1, 2], [3, 4]], {"at_least": 0}, ValueError, "one number per seed"),
        ([[1, 2], [3]], {"at_least": 0, "unit": "case"}, ValueError, "in each seed, got 2, 1"),
        ([1, np.inf], {"at_least": 0, "unit": "case"}, ValueError, r"got inf at index \[0, 1\]"),
        ([1, 2], {"at_least": 0, "groups": [1, 2]}, ValueError, 'groups needs unit="case"'),
        ([1, 2], {"at_least": 0, "unit": "case", "groups": [1]}, ValueError, "groups must have"),
        ([1], {"at_least": 0, "unit": "image"}, ValueError, "unit must be one of"),
        (["a"], {"at_least": 0}, TypeError, "measured must be numbers"),
        ([1, 2, 3], {"at_least": 0, "ci": 95}, ValueError, "ci must lie between 0 and 1"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_kept(measured, options, error, message):
    with pytest.raises(error, match=message):
        claims.check("C1", "x", measured, **options)
    assert claims.payload()["claims"] == []


def test_other_bad_arguments():
    with pytest.raises(TypeError, match="ok must be True or False, got 1"):
        claims.exact("C1", "x", 1)
    with pytest.raises(ValueError, match="value must be finite"):
        claims.note("C1", "x", float("nan"))
    with pytest.raises(ValueError, match="context must be one of"):
        claims.reset(name="x")


# --- parts ---

GOOD, BAD, NOISY = [0.10, 0.11, 0.12], [-0.1, -0.11, -0.12], [0.3, 0.1, -0.2]


def part(id, kind):
    if kind == "paper":
        claims.paper_only(id, "x", "0.9")
    elif kind == "note":
        claims.note(id, "x", 1.0)
    else:
        claims.check(id, "x", {"one": [0.1], "good": GOOD, "bad": BAD, "noisy": NOISY}[kind],
                     at_least=0.05)  # fmt: skip


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["good", "good"], "holds"),
        (["good", "bad"], "does not hold"),
        (["good", "noisy"], "within noise"),
        (["noisy", "bad"], "does not hold"),
        (["good", "one"], "not judged"),
        (["one", "bad"], "does not hold"),
        (["good", "paper"], "not judged"),
        (["paper", "paper"], "paper scale only"),
        (["good", "note"], "holds"),
        (["note"], "noted"),
    ],
)
def test_a_claim_holds_only_if_all_its_parts_do(kinds, expected):
    for letter, kind in zip("abc", kinds, strict=False):
        part(f"C3{letter}", kind)
    whole = claims.payload()["claims"][-1]
    assert (whole["id"], whole["verdict"]) == ("C3", expected)
    assert whole["parts"] == [f"C3{letter}" for letter in "abc"[: len(kinds)]]


# --- the report ---


def chapter():
    """Claims of every kind, in no order."""
    claims.paper_only("C10", "absolute Dice", "0.907 (0.062)")
    claims.check("C2", "beats U-Net+DP", BAD, at_least=0.03, paper="0.188", if_fails="few images")
    claims.check("C1", "exceeds |U-Net|\nby <b>0.05", GOOD, at_least=0.05, if_fails="unseen")
    claims.check("C3b", "HD", NOISY, at_least=0.05, if_fails="small test set")
    claims.check("C3a", "ASSD", GOOD, at_least=0.05)
    claims.exact("C4", "solvers agree", True, "40 cases")
    claims.note("C5", "share outside", 0.0123)
    claims.check("C7", "cost", [1.25, 1.3, 1.31], at_most=1.5, timing=True, baseline=0.0123456)


@pytest.fixture
def bundle(monkeypatch):
    shown = []
    monkeypatch.setattr(claims.display, "show", shown.append)
    chapter()
    claims.report()
    return shown[0]


def test_the_payload_is_plain_json_in_order(bundle):
    content = bundle[claims.MIME]
    assert content == json.loads(json.dumps(content, allow_nan=False))
    ids = [c["id"] for c in content["claims"]]
    assert ids == ["C1", "C2", "C3a", "C3b", "C3", "C4", "C5", "C7", "C10"]
    assert {"slug", "scale", "seed", "device", "extended", "seconds", "peak_memory_mb"} < {*content}
    assert "medseg_book.page.claims" in content["core"]
    measured = {"verdict", "mean", "low", "high", "n", "unit", "values", "detail", "timing"}
    keys = measured | {"id", "text", "bound", "null", "paper", "baseline"}
    assert all(keys < set(c) for c in content["claims"])
    first = content["claims"][0]
    assert (first["bound"], first["null"], first["values"]) == ({"at_least": 0.05}, 0, GOOD)


def test_every_verdict_is_one_of_six(bundle):
    six = {"holds", "does not hold", "within noise", "paper scale only", "not judged", "noted"}
    assert {c["verdict"] for c in bundle[claims.MIME]["claims"]} <= six


def test_the_table_is_one_row_per_claim(bundle):
    lines = bundle["text/markdown"].splitlines()
    assert lines[0] == "| claim | paper | measured | verdict |"
    rows = [line for line in lines if line.startswith("| **C")]
    assert len(rows) == 9
    for row in rows:
        assert row.replace("\\|", "").count("|") == 5
    assert "+0.110 [+0.085, +0.135], 3 seeds; needs ≥ 0.05" in rows[0]
    assert rows[0].endswith("| ✓ holds |")
    assert "| 0.188 |" in rows[1]
    assert rows[1].endswith("| ✗ does not hold |")
    assert rows[3].endswith("| ≈ within noise |")
    assert "3 repeats; needs ≤ 1.5; baseline 0.01235; depends on the machine" in rows[7]
    assert rows[8].endswith("| 0.907 (0.062) | – | – paper scale only |")
    # C1, C4, C7 of C1, C2, C3, C4, C7: parts count through C3.
    assert lines[-1] == "3 of 5 judged claims hold (lesson scale, seed 0, cpu)."


def test_failing_claims_show_their_likely_reason(bundle):
    for text in (bundle["text/markdown"], bundle["text/plain"]):
        assert "few images" in text
        assert "small test set" in text
        assert "unseen" not in text


def test_the_table_survives_the_book_s_markdown(bundle):
    pytest.importorskip("myst_parser")
    from markdown_it.renderer import RendererHTML
    from myst_parser.config.main import MdParserConfig
    from myst_parser.parsers.mdit import create_md_parser

    html = create_md_parser(MdParserConfig(gfm_only=True), RendererHTML).render(
        bundle["text/markdown"]
    )
    assert html.count("<tr>") == 10
    assert html.count("<td>") == 36
    assert "exceeds |U-Net| by &lt;b&gt;0.05" in html
    assert html.count("<li>") == 2


def test_plain_text_names_each_claim_with_its_verdict(bundle):
    text = bundle["text/plain"]
    assert "C3   ≈ within noise: C3a and C3b together" in text
    assert "C5   – noted: share outside\n     measured 0.0123; paper –" in text


def test_the_output_is_the_same_each_time(bundle, monkeypatch):
    again = []
    monkeypatch.setattr(claims.display, "show", again.append)
    claims.reset(slug="edpcnn")
    chapter()
    claims.report()
    for key in ("text/markdown", "text/plain"):
        assert again[0][key] == bundle[key]
    assert differences(again[0][claims.MIME], bundle[claims.MIME]) == []


def test_a_report_without_claims(capsys):
    claims.report()
    assert capsys.readouterr().out == "No claim was checked (lesson scale, seed 0, cpu).\n"


def test_a_changed_run_says_so(capsys):
    claims.reset(overrides={"steps": 7}, extended=True, device="cuda:0")
    claims.note("C1", "x", "much")
    claims.report()
    assert "cuda:0, extended, changed: steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1234567], "+0.123"),
        ([1e-9], "+1e−09"),
        ([0.0], "0"),
        ([1234567.0], "+1234567"),
        ([31.3, 31.4, 31.5], "+31.40 [+31.15, +31.65]"),
        ([2.0, 2.0, 2.0], "+2.0"),
    ],
)
def test_numbers_have_sensible_digits(values, expected):
    claim = claims.check("C1", "x", values, at_least=0.05)
    assert f": {expected}" in repr(claim).replace("+0,", "0,")


# --- in a notebook ---

SHELL = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("from medseg_book.page import claims", store_history=True)
def cell(code):
    result = shell.run_cell(code, store_history=True, silent=False)
    return result.error_in_exec
first = "claims.note('C1', 'x', 1.0)"
assert cell(first) is None
assert cell(first) is None, "the same cell again"
assert cell("claims.note('C2', 'x', 1.0); claims.note('C2', 'x', 1.0)") is not None
assert cell("claims.note('C1', 'x', 1.0);;  # another cell".replace(";;", "")) is not None
from medseg_book.page import claims
print(len(claims.payload()["claims"]), "claims")
"""


def test_a_cell_that_runs_again_replaces_its_claims_and_no_other_does():
    out = subprocess.run([sys.executable, "-c", SHELL], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert "2 claims" in out.stdout


def test_an_executed_notebook_stores_the_claims():
    from nbclient import NotebookClient

    code = (
        "from medseg_book.page import claims\n"
        "claims.check('C1', 'x', [.10, .11, .12], at_least=.05)\n"
        "claims.report()"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(book, kernel_name="python3", timeout=60).execute()
    (output,) = book.cells[0].outputs
    assert [c["verdict"] for c in output["data"][claims.MIME]["claims"]] == ["holds"]
    assert output["output_type"] == "display_data"
    assert set(output["data"]) == {"text/plain", "text/markdown", claims.MIME}


def test_metrics_are_stored_beside_the_claims():
    claims.metric("Dice, U-Net", 0.123456789)
    claims.metric("Dice, U-Net", np.float32(0.5))  # a cell that runs again replaces its figure
    claims.metric("ASSD (mm)", float("nan"))  # no reference had a surface: no value
    assert claims.payload()["metrics"] == {"Dice, U-Net": 0.5, "ASSD (mm)": None}
    claims.reset()
    assert claims.payload()["metrics"] == {}


@pytest.mark.parametrize(
    ("name", "value"), [("", 1.0), ("two\nlines", 1.0), (3, 1.0), ("a", float("inf"))]
)
def test_metrics_refuse_what_no_table_can_hold(name, value):
    with pytest.raises(ValueError, match=r"name|value"):
        claims.metric(name, value)
