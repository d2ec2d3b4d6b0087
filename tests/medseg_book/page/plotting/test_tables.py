import pytest

from medseg_book.page import plotting


def test_paper_table_keeps_the_sides_apart():
    ours = {"U-Net": {"Dice": [0.7, 0.8], "time": 3}, "disc": {"Dice": 0.61}}
    table = plotting.paper_table(ours, {"U-Net": {"Dice": 0.9}, "A|B": {"Dice": "0.72 (0.19)"}})
    assert table.header == ["method", "Dice, paper", "Dice, ours"]
    assert table.rows == [
        ["U-Net", "0.9", "0.750 ± 0.071"],
        ["A|B", "0.72 (0.19)", "–"],
        ["disc", "–", "0.610"],
    ]
    lines = table._repr_markdown_().splitlines()
    assert lines[1] == "| :-- | --: | --: |" and lines[3].startswith("| A\\|B |")
    assert "over 2 seeds" in repr(table)


def test_paper_table_reads_the_results_of_arms():
    from medseg_book.page.compare import run_arms

    arm = lambda seed: {"Dice": [0.5, 0.7 + seed], "updates": 1, "images": 1}  # noqa: E731
    results = run_arms({"U-Net": arm}, [0, 1])
    table = plotting.paper_table(results, {"U-Net": {"Dice": 0.9}})
    assert table.rows == [["U-Net", "0.9", "0.850 ± 0.354"]]


def test_a_paper_without_metrics_is_refused():
    with pytest.raises(ValueError, match="at least one metric"):
        plotting.paper_table({}, {})
