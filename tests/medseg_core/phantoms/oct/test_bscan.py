"""Geometry of the B-scans: what is drawn, what is annotated, and that no row gives it away."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.phantoms.oct.anatomy import bscan_surfaces, bump
from medseg_core.phantoms.oct.bscan import (
    oct_bscan,
    oct_bscan_params,
    region_label,
    surface_names,
)


def test_changed_parameters_reach_no_other_slice():
    options = {"size": 32, "slices": 4, "pathology": "drusen"}
    first = oct_bscan_params(0, 4, **options)
    first["bm"] += 1
    first["reflectivity"]["RPE"] = first["pit"] = 0
    second = oct_bscan_params(0, 5, **options)
    oct_bscan_params(1, 0, size=32)  # another volume
    fresh = oct_bscan_params(0, 5, **options)
    assert torch.equal(second["bm"], fresh["bm"])
    assert second["reflectivity"] == fresh["reflectivity"] and second["pit"] == fresh["pit"]


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (128, 1024), (33, 47), 48])
def test_the_retina_lies_inside_an_image_of_any_size(size):
    data = oct_bscan(2, size, 0)
    h, w = (size, size) if isinstance(size, int) else size
    assert data["surfaces"].shape == (2, 9, w) and data["valid"].all()
    assert data["surfaces"].min() > 0 and data["surfaces"].max() < h - 1
    assert data["spacing"] == (0.0039 * 128 / h, 6.0 / w)


def test_the_kinds_have_their_own_keys(drusen, ga):
    five = oct_bscan(2, 64, 0, layers=5)
    assert five["surfaces"].shape == (2, 5, 64) and len(five["surface_names"]) == 5
    assert torch.equal(five["surfaces"], five["hidden"]["surfaces"][:, [0, 1, 4, 6, 8]])
    assert drusen["surface_names"] == ("ILM", "RPEDC", "BM") and "columns" not in drusen
    assert drusen["surfaces"].shape == (60, 3, 128)
    assert drusen["valid"].sum(1).unique().tolist() == [102]  # the central 80 % of 128
    assert drusen["valid"][0, 13:115].all()
    assert not {"surfaces", "label", "amd", "surface_names"} & set(ga)
    assert ga["columns"].shape == ga["hidden"]["columns_clean"].shape == (96, 64)
    assert ga["columns"].dtype == torch.bool and ga["hidden"]["surfaces"].shape == (96, 9, 64)
    assert ga["group"].tolist() == [i // 8 for i in range(96)]


def test_every_other_volume_has_drusen(drusen):
    assert drusen["amd"][::4].tolist() == [v % 2 == 1 for v in range(15)]
    drawn = [len(p["drusen"]) for p in drusen["params"]]
    assert max(drawn) > 3 and max(drawn) <= 8
    assert all(n == 0 for n, a in zip(drawn, drusen["amd"].tolist(), strict=True) if not a)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from([(None, 1), (None, 3), ("drusen", 3), ("ga", 3)]),
    size=st.sampled_from([(64, 64), (128, 64), (48, 96)]),
)
def test_surfaces_never_cross_and_stay_inside(seed, kind, size):
    data = oct_bscan(3, size, seed, pathology=kind[0], slices=kind[1])
    s = data["hidden"]["surfaces"]
    assert (s.diff(dim=1) > 0).all()
    assert s.min() >= 0 and s.max() < 0.98 * size[0]


def test_region_label_counts_the_surfaces_at_or_above_a_pixel():
    s = torch.tensor([[1.0, 0.4, 5.0], [1.0, 2.5, 5.0]])
    expected = [[0, 0, 0], [2, 1, 0], [2, 1, 0], [2, 2, 0]]
    assert region_label(s, 4).tolist() == expected


def test_label_agrees_with_surfaces(layers):
    label, s = layers["label"], layers["surfaces"]
    assert (label.diff(dim=1) >= 0).all() and label.unique().tolist() == list(range(10))
    entry = (label[:, None] <= torch.arange(9)[:, None, None]).sum(2)  # rows above surface i
    assert torch.equal(entry.float(), s.ceil())


def test_the_pit_pinches_the_inner_layers_in_60_percent(layers):
    gaps = layers["surfaces"].diff(dim=1)  # (80, 8, W)
    pinched = gaps[:, :4].amin((1, 2)) < 0.8
    assert 0.4 < float(pinched.float().mean()) < 0.8
    assert 0.1 < float(gaps.min()) < 0.5
    open_ = oct_bscan(40, (128, 64), seed=3, pinch=False)["surfaces"]
    assert float(open_.diff(dim=1)[:, :4].min()) > 2
    assert torch.equal(open_[:, 4:], layers["surfaces"][:40, 4:])  # the outer layers are the same


def test_thicknesses_follow_their_means():
    s = oct_bscan(100, (128, 64), seed=9, pinch=False)["surfaces"].diff(dim=1)
    mean = s.mean((0, 2))
    drawn = torch.tensor([13.0, 14, 12, 10, 20, 8, 5, 6])
    ratio = mean / drawn
    assert 0.8 < float(ratio.mean()) <= 1.02  # retinas that would leave the image are thinner
    assert float(ratio.std() / ratio.mean()) < 0.05
    along = (s / s.mean(2, keepdim=True)).std(2).mean()
    assert 0.07 < float(along) < 0.16  # 15 % in the ensemble, less within one field of view


def test_volumes_vary_smoothly_from_slice_to_slice():
    s = oct_bscan(64, (64, 64), 0, slices=16)["hidden"]["surfaces"].reshape(4, 16, 9, 64)
    step = s.diff(dim=1).abs().mean()
    between = (s[0] - s[1]).abs().mean()
    assert float(step) < 0.3 * float(between)


def test_bm_is_smooth_and_drusen_lift_only_the_rpe(drusen):
    p = next(p for p in drusen["params"] if len(p["drusen"]) >= 2)
    s, lower = bscan_surfaces(p)
    flat, flat_lower = bscan_surfaces(p | {"drusen": []})
    assert torch.equal(s[8], flat[8]) and torch.equal(flat_lower, flat[8])
    assert torch.allclose(flat[7] - s[7], bump(p), atol=1e-4)
    assert (s.diff(dim=0) > 0).all() and (lower <= s[8]).all()
    rough = drusen["surfaces"].diff(n=2, dim=2).abs().amax(2)[drusen["amd"]].mean(0)
    assert float(rough[2]) < 0.05 < float(rough[1])


def test_bump_is_the_druse_drawn_and_merges_without_a_kink():
    p = oct_bscan_params(0, 0, size=(100, 60), pathology="drusen") | {"drusen": [(30, 5.0, 8.0)]}
    expected = 8 * torch.exp(-0.5 * ((torch.arange(60.0) - 30) / 5) ** 2)
    assert torch.allclose(bump(p), expected, atol=1e-4)
    twice = bump(p | {"drusen": [(30, 5.0, 8.0)] * 2})
    assert float(twice.max()) == pytest.approx(8 * 2**0.25, rel=1e-4)


def test_leak_no_surface_at_a_known_row(layers, drusen):
    """The mean curves of a training set are more than three times worse than one pixel."""
    for data, rows in ((layers, 128), (drusen, 64)):
        s = data["surfaces"]
        train, test = s[: len(s) // 2], s[len(s) // 2 :]
        error = (test - train.mean(0)).abs().mean((0, 2)) * 128 / rows
        assert float(error.mean()) > 3 and float(error.min()) > 2.5


def test_surface_names_and_an_unknown_kind():
    assert surface_names(5) == ("ILM", "RNFL-GCL", "OPL-ONL", "IS-OS", "BM")
    assert len(surface_names(9)) == 9 and surface_names("drusen")[1] == "RPEDC"
    with pytest.raises(ValueError, match="kind"):
        surface_names(4)
