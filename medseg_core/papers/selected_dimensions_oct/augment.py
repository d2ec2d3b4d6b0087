"""Random changes of B-scans that move the answers per column along."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from medseg_core import checks


def augment(
    batch: Mapping[str, Tensor], gen: torch.Generator, *, shift: float
) -> dict[str, Tensor]:
    """Random translation and flip of images and targets, and for atrophy a random gamma.

    An image that moves down by a row moves its borders by a row; a border that leaves the image,
    and a column that enters it, is no longer valid. What enters repeats the edge. The order of the
    draws is fixed: rows, columns, flip, gamma (uniform in log, from e**-0.4 to e**0.4).

    Args:
        batch: ``image (B,1,H,W)``, ``valid (B,W)`` bool, and either ``surfaces (B,K,W)`` in rows or
            ``columns (B,W)`` bool. What else it holds passes as it is.
        gen: of the random numbers.
        shift: largest translation, as a share of the image's height and width.

    Returns:
        The batch with what it named changed; beside ``surfaces``, ``valid`` is (B,K,W).

    Raises:
        ValueError: an image of another shape, a shift outside 0 to 1.

    Source: Liefers et al. 2019, section 3.4 (the sizes are not stated there).

    Taught in: selected-dimensions-oct.
    """
    checks.shape(batch["image"], "image", "B 1 H W")
    checks.between(shift, "shift", 0, 1)
    image = batch["image"][:, 0]  # (B,H,W)
    b, h, w = image.shape
    down, right = (
        torch.randint(-int(n * shift), int(n * shift) + 1, (b, 1), generator=gen) for n in (h, w)
    )
    row = (torch.arange(h) - down).clamp(0, h - 1)  # (B,H): where each row comes from
    column = torch.arange(w) - right
    column = torch.where(torch.rand(b, 1, generator=gen) < 0.5, column.flip(1), column)
    inside, column = (column >= 0) & (column < w), column.clamp(0, w - 1)
    image = image.gather(1, row[:, :, None].expand(b, h, w))
    image = image.gather(2, column[:, None].expand(b, h, w))[:, None].contiguous()
    valid = batch["valid"].gather(1, column) & inside
    out = {**batch, "image": image, "valid": valid}
    if "columns" in batch:
        gamma = torch.exp(0.4 * (2 * torch.rand(b, 1, 1, 1, generator=gen) - 1))
        return out | {"image": image**gamma, "columns": batch["columns"].gather(1, column)}
    rows = batch["surfaces"]
    rows = rows.gather(2, column[:, None].expand(-1, rows.shape[1], -1)) + down[:, :, None]
    return out | {"surfaces": rows, "valid": valid[:, None] & (rows >= 0) & (rows <= h - 1)}
