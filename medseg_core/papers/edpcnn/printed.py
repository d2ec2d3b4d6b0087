"""The paper's first table, digit by digit as printed, and its place beside ours.

Dice, ASSD and HD of Nguyen and Ray 2019; the units of the distances are not stated there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

FEW = {  # 10 training images
    "U-Net": ("0.695", "7.66", "31.34"),
    "U-Net + DP on mask": ("0.719", "4.66", "27.42"),
    "EDPCNN": ("0.907", "0.84", "10.26"),
}
ALL = {  # 1436 of them
    "U-Net": ("0.944", "0.59", "6.88"),
    "U-Net + DP": ("0.936", "0.45", "6.19"),
    "EDPCNN": ("0.947", "0.36", "5.73"),
}
NOT_STATED = (None, None, None)
FIRST = ("mean disc", "floor", "U-Net (", "U-Net in", "U-Net, 3×", "U-Net + DP", "EDPCNN (")


def beside(
    arms: Sequence[str], few: int, many: int, with_dp: str, metrics: Iterable[str]
) -> dict[str, dict[str, str | None]]:
    """The rows of the chapter's table, in their order, with the paper's numbers.

    Args:
        arms: all that have results; those of sizes between and those that only serve another row
            are left out.
        few, many: numbers of training images.
        with_dp: the U-Net + DP that stands for the largest number.
        metrics: what Dice, ASSD and HD are called in the table.

    Returns:
        {arm: {metric: number}}, None where the paper has none.

    Taught in: edpcnn.
    """

    def place(arm: str) -> int:
        return next((i for i, start in enumerate(FIRST) if arm.startswith(start)), len(FIRST))

    small = [a for a in arms if f"({few})" in a and not a.startswith("U-Net for the DP")]
    fixed = [a for a in arms if "(" not in a]
    rows = sorted([a for a in fixed if "ceiling" not in a] + small, key=place)
    large = (f"U-Net ({many})", with_dp, f"EDPCNN ({many})") if many > few else ()
    paper = {f"{method} ({few})": row for method, row in FEW.items()}
    paper |= dict(zip(large, ALL.values(), strict=False))
    rows += [*large, *(a for a in fixed if "ceiling" in a)]
    names = tuple(metrics)
    return {arm: dict(zip(names, paper.get(arm, NOT_STATED), strict=True)) for arm in rows}
