from pathlib import Path

import pytest

from medseg_core.datasets._report import Report, content_line, folder_problem


def report(**options):
    return Report("Hearts", Path("data"), "\nROOT/a.png\n", "https://example.org", "CC0", **options)


def test_a_complete_report_passes_and_names_its_source():
    complete = report(found=["3 pairs"])
    assert complete.ok
    assert complete.require() is complete
    for part in ("Hearts", "'data'", "complete", "3 pairs", "https://example.org", "CC0"):
        assert part in str(complete)
    assert "Layout" not in str(complete)


def test_an_incomplete_report_raises_with_its_own_text():
    broken = report(missing=["a.png is missing"], hint="the folder below")
    assert not broken.ok
    with pytest.raises(ValueError) as caught:
        broken.require()
    assert str(caught.value) == str(broken)
    for part in ("a.png is missing", "Layout expected", "ROOT/a.png", "the folder below"):
        assert part in str(broken)


def test_a_thousand_problems_fit_on_one_screen():
    text = str(report(missing=[f"image {i}" for i in range(1000)], found=["x"] * 1000))
    assert len(text.splitlines()) < 30
    assert "… and 992 more" in text


def test_folder_problem(tmp_path):
    assert "does not exist" in folder_problem(tmp_path / "nothing")
    assert "empty" in folder_problem(tmp_path)
    (tmp_path / ".hidden").touch()
    assert "empty" in folder_problem(tmp_path)
    (tmp_path / "file").touch()
    assert "file" in folder_problem(tmp_path / "file")
    assert folder_problem(tmp_path) == ""


def test_content_line_counts_what_it_does_not_name(tmp_path):
    for i in range(9):
        (tmp_path / f"d{i}").mkdir()
    assert content_line(tmp_path) == "d0/, d1/, d2/, d3/, d4/, d5/, … (9 entries)"
