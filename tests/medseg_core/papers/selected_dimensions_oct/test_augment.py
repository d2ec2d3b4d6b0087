import math

import pytest
import torch

from medseg_core.papers.selected_dimensions_oct.augment import augment
from medseg_core.rng import generator


def bscans(n=16, h=12, w=20):
    gen = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(n, 1, h, w, generator=gen),
        "valid": torch.rand(n, w, generator=gen) < 0.8,
    }


def layers(**more):
    batch = bscans(**more)
    rows = 10 * torch.rand(len(batch["image"]), 2, batch["image"].shape[3])
    return batch | {"surfaces": rows, "index": torch.arange(len(rows))}


def test_borders_move_with_the_paint():
    """A painted pixel per column must lie where the moved border says."""
    batch = layers(n=32)
    at = torch.randint(1, 12, (32, 1, 20), generator=torch.Generator().manual_seed(1))
    painted = (torch.arange(12).view(1, 1, -1, 1) == at[:, :, None]).float()
    out = augment(batch | {"image": painted, "surfaces": at}, generator(0), shift=0.3)
    found = out["image"][:, 0].argmax(1)
    assert torch.equal(found[out["valid"][:, 0]], out["surfaces"][:, 0][out["valid"][:, 0]])
    assert 0.3 < out["valid"].float().mean() < 0.8  # some columns and borders have left the image


@pytest.mark.parametrize("target", ["surfaces", "columns"])
def test_without_a_shift_nothing_but_mirroring(target):
    batch = layers() if target == "surfaces" else bscans()
    batch = batch | ({"columns": batch["image"][:, 0].mean(1) > 0.5} if target == "columns" else {})
    out = augment(batch, generator(0), shift=0)
    turned = 0
    for k in range(16):
        same = torch.equal(out[target][k], batch[target][k])
        flip = torch.equal(out[target][k], batch[target][k].flip(-1))
        assert same or flip
        image = batch["image"][k] if same else batch["image"][k].flip(-1)
        # For atrophy the image is a power of the old one: one gamma for all of its pixels.
        gamma = out["image"][k].log() / image.log()
        assert math.exp(-0.4) - 1e-4 < gamma.min() and gamma.max() < math.exp(0.4) + 1e-4
        assert gamma.max() - gamma.min() < 1e-2
        assert target == "columns" or torch.equal(out["image"][k], image)
        turned += not same
    assert 2 < turned < 14


def test_what_enters_repeats_the_edge_and_is_not_valid():
    batch = bscans() | {"columns": torch.zeros(16, 20).bool(), "valid": torch.ones(16, 20).bool()}
    batch["image"] = torch.arange(20.0).expand(16, 1, 12, 20) / 20 + 0.01  # ramp along the columns
    out = augment(batch, generator(3), shift=0.5)
    lost = (~out["valid"]).sum(1)
    assert lost.max() > 5 and (lost <= 10).all()
    for row, valid in zip(out["image"][:, 0, 0], out["valid"], strict=True):
        inner = row[valid]
        assert len(inner.unique()) == len(inner)  # a piece of the ramp
        assert len(row.unique()) == len(inner)  # and what entered equals its end


def test_same_generator_same_batch_and_nothing_else_changes():
    batch = layers()
    a, b = (augment(batch, generator(5), shift=0.125) for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert torch.equal(a["index"], batch["index"]) and set(a) == set(batch)
    other = augment(batch, generator(6), shift=0.125)
    assert not torch.equal(a["image"], other["image"])


def test_wrong_input_is_refused():
    batch = layers()
    with pytest.raises(ValueError, match="image must have the shape"):
        augment(batch | {"image": batch["image"][:, 0]}, generator(0), shift=0.1)
    with pytest.raises(ValueError, match=r"shift must be in \[0, 1\], got 2"):
        augment(batch, generator(0), shift=2)
