import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medseg_core.physics import deform
from medseg_core.training.augment import Augment
from medseg_core.training.augment_map import (
    SpatialMap,
    bspline_displacement,
    quarter_turns,
    rotation,
)
from medseg_core.training.samplers import batches

GEOMETRY = [
    {"flip": True},
    {"rot90": True},
    {"rotate_deg": 25.0},
    {"scale": (0.7, 1.4)},
    {"shift": 4.0},
    {"elastic": (8.0, 3.0)},
    {"flip": True, "rotate_deg": 20, "scale": (0.8, 1.2), "shift": 2.0, "elastic": (9, 2)},
]
INTENSITY = [{"gamma": (0.5, 2)}, {"contrast": (0.5, 2)}, {"noise": 0.2}, {"invert": 0.5}]


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(size, n=2, channels=1, seed=0):
    g = gen(seed)
    coarse = torch.rand(n, channels, *(max(s // 6, 3) for s in size), generator=g)
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return torch.nn.functional.interpolate(coarse, size=size, mode=mode, align_corners=True)


def batch_of(size, n=2, channels=1, seed=0):
    image = smooth(size, n, channels, seed)
    ndim = len(size)
    points = torch.rand(n, 5, ndim, generator=gen(seed)) * (torch.tensor(size) - 1)
    low = (points[:, :3] * 0.6).floor()
    boxes = torch.cat((low, low + torch.randint(2, 8, low.shape, generator=gen(seed))), -1)
    label = (3 * image[:, 0]).long()
    label[:, 3:5] = 255
    return {
        "image": image,
        "label": label,
        "mask": image > 0.5,
        "weight": image[:, 0] * 2,
        "points": points,
        "boxes": boxes,
        "kind": torch.arange(n),
        "params": {"any": "thing"},
    }


@pytest.mark.parametrize("size", [(24, 20), (12, 16, 10)])
def test_off_by_default_and_off_when_every_range_is_empty(size):
    batch = batch_of(size)
    for augment in (
        Augment(),
        Augment(rotate_deg=0, scale=(1, 1), shift=0, elastic=(8, 0), gamma=(1, 1)),
    ):
        out = augment(batch, gen())
        assert list(out) == list(batch)
        for key, value in batch.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(out[key], value, rtol=1e-4, atol=1e-4)
            else:
                assert out[key] is value
    assert Augment()(batch, gen())["image"] is batch["image"]


@pytest.mark.parametrize("options", GEOMETRY + INTENSITY, ids=str)
@pytest.mark.parametrize("size", [(24, 24), (16, 16, 16)])
def test_the_generator_decides_samples_differ_and_the_batch_given_stays(size, options):
    batch = batch_of(size, n=6)
    batch["image"] = batch["image"][:1].repeat(6, *[1] * (len(size) + 1))
    before = {k: v.clone() for k, v in batch.items() if isinstance(v, torch.Tensor)}
    a, b, c = (Augment(**options)(batch, gen(s)) for s in (1, 1, 2))
    for key, value in before.items():
        assert torch.equal(batch[key], value)
        assert torch.equal(a[key], b[key])
        assert a[key].dtype == value.dtype and a[key].shape == value.shape
    assert not torch.equal(a["image"], c["image"])
    assert any(not torch.equal(a["image"][0], a["image"][i]) for i in range(1, 6))
    for key in ("kind", "params"):
        assert a[key] is batch[key]
    if options in INTENSITY:
        assert all(torch.equal(a[k], v) for k, v in before.items() if k != "image")


@pytest.mark.parametrize("size, spacing", [((30, 22), None), ((30, 22), (1.0, 2.5)),
                                           ((12, 18, 14), (3.0, 1.0, 1.5))])  # fmt: skip
def test_scipy_gives_the_same_affine_image(size, spacing):
    ndim = len(size)
    batch = {"image": smooth(size, n=3)}
    augment = Augment(flip=True, rotate_deg=40, scale=(0.8, 1.3), shift=3, spacing=spacing)
    moves = augment._draw(3, size, gen(5))
    got = augment(batch, gen(5))["image"]
    centre = (np.array(size) - 1) / 2
    for i in range(3):
        inverse = np.linalg.inv(moves.linear[i].numpy().astype(float))
        offset = centre - inverse @ (centre + moves.shift[i].numpy())
        want = ndimage.affine_transform(
            batch["image"][i, 0].numpy(), inverse, offset, order=1, mode="nearest"
        )
        np.testing.assert_allclose(got[i, 0].numpy(), want, atol=2e-4)
    if spacing is not None:  # rigid times a zoom, measured in millimetres
        mm = torch.tensor(spacing)
        f = moves.linear * mm[:, None] / mm
        zoom = torch.linalg.det(f).abs() ** (1 / ndim)
        f = f / zoom[:, None, None]
        torch.testing.assert_close(f @ f.mT, torch.eye(ndim).expand_as(f), atol=1e-5, rtol=0)


def test_a_known_rotation_carries_a_blob_a_point_a_label_and_a_box_together():
    # 90 degrees: +column turns towards +row, about the centre (10, 10)
    turn = rotation(torch.tensor([[math.pi / 2]]))
    moves = SpatialMap((21, 21), turn, torch.zeros(1, 2))
    image = torch.zeros(1, 1, 21, 21)
    image[0, 0, 10, 14:18] = 1.0
    batch = {
        "image": image,
        "label": image[:, 0].long(),
        "points": torch.tensor([[[10.0, 16.0]]]),
        "boxes": torch.tensor([[10.0, 14.0, 11.0, 18.0]]),
    }
    augment = Augment(rotate_deg=90)
    out = augment._move(batch, moves)
    want = torch.zeros(21, 21)
    want[14:18, 10] = 1.0
    torch.testing.assert_close(out["image"][0, 0], want, atol=1e-4, rtol=0)
    assert torch.equal(out["label"][0], want.long())
    torch.testing.assert_close(out["points"], torch.tensor([[[16.0, 10.0]]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        out["boxes"], torch.tensor([[14.0, 10.0, 18.0, 11.0]]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("options", GEOMETRY, ids=str)
@pytest.mark.parametrize("size", [(40, 40), (24, 24, 24)])
def test_points_stay_on_what_they_mark(size, options):
    """Each sample holds one bright blob; its centre of mass moves as the point does."""
    ndim, n = len(size), 4
    centres = torch.tensor(size) * (0.38 + 0.24 * torch.rand(n, ndim, generator=gen(3)))
    grid = deform.identity_grid(size)
    d2 = (grid - centres.reshape(n, *[1] * ndim, ndim)).square().sum(-1)
    batch = {"image": torch.exp(-d2 / (2 * 1.5**2))[:, None], "points": centres[:, None]}
    batch["boxes"] = torch.cat((centres - 3, centres + 4), -1)
    out = Augment(**options)(batch, gen(7))
    image = out["image"][:, 0]
    mass = image.flatten(1).sum(1)
    found = (image[..., None] * grid).flatten(1, ndim).sum(1) / mass[:, None]
    # an elastic map bends the blob, whose centre of mass then moves a little
    tolerance = 0.5 if "elastic" in options else 0.05
    assert (found - out["points"][:, 0]).norm(dim=-1).max() < tolerance
    inside = (out["boxes"][:, :ndim] <= found + 0.5) & (found + 0.5 <= out["boxes"][:, ndim:])
    assert inside.all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), ndim=st.sampled_from([2, 3]), turn=st.booleans())
def test_flips_and_quarter_turns_are_exact_for_boxes_labels_and_masks(seed, ndim, turn):
    size = (9,) * ndim
    g = gen(seed)
    low = torch.randint(0, 6, (2, 1, ndim), generator=g)
    boxes = torch.cat((low, low + torch.randint(1, 4, low.shape, generator=g)), -1)
    label = torch.full((2, *size), 255)
    for i in range(2):
        inside = tuple(slice(int(a), int(b)) for a, b in boxes[i, 0].reshape(2, ndim).T)
        label[i][inside] = 1
    batch = {"image": torch.rand(2, 1, *size, generator=g), "label": label, "boxes": boxes}
    batch["mask"] = (label == 1)[:, None]
    out = Augment(flip=True, rot90=turn)(batch, g)
    assert out["boxes"].dtype == boxes.dtype
    for i in range(2):
        inside = tuple(slice(int(a), int(b)) for a, b in out["boxes"][i, 0].reshape(2, ndim).T)
        want = torch.full(size, 255)
        want[inside] = 1
        assert torch.equal(out["label"][i], want)
        assert torch.equal(out["mask"][i, 0], want == 1)
        torch.testing.assert_close(out["image"][i].sum(), batch["image"][i].sum())


def test_quarter_turns_are_all_rotations_of_the_grid():
    for ndim, axes, count in ((2, (0, 1), 4), (3, (0, 1, 2), 24), (3, (1, 2), 4)):
        turns = quarter_turns(600, ndim, axes, gen())
        kinds = {tuple(t.flatten().int().tolist()) for t in turns}
        assert len(kinds) == count
        assert (torch.linalg.det(turns) - 1).abs().max() < 1e-6
        assert all((t[0, 0] == 1) for t in turns) or 0 in axes


def test_rotations_in_3d_are_proper_and_about_the_axis_named():
    angles = torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, -0.7], [0.2, -0.4, 0.9]])
    turns = rotation(angles)
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(4, 3, 3))
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(4))
    for axis in range(3):
        torch.testing.assert_close(turns[axis] @ torch.eye(3)[axis], torch.eye(3)[axis])
        cos = angles[axis, axis].cos()
        torch.testing.assert_close(turns[axis].trace(), 1 + 2 * cos)
    torch.testing.assert_close(turns[0, 1:, 1:], rotation(torch.tensor([[0.3]]))[0])


def test_labels_outside_the_old_image_are_ignored_and_255_stays():
    label = torch.ones(1, 10, 10, dtype=torch.int64)
    label[:, 4:6] = 255
    batch = {"image": torch.ones(1, 1, 10, 10), "label": label, "mask": label[:, None] == 1}
    batch["instances"] = label.clone()
    moves = SpatialMap((10, 10), torch.eye(2)[None], torch.tensor([[3.0, 0.0]]))
    out = Augment(shift=3)._move(batch, moves)
    assert (out["label"][0, :3] == 255).all() and (out["instances"][0, :3] == 0).all()
    assert torch.equal(out["label"][0, 3:], label[0, :-3])
    assert (out["image"] == 1).all() and out["mask"][0, 0, :3].all()  # the edge, repeated
    kept = Augment(shift=3, fill=None)._move(batch, moves)
    assert (kept["label"][0, :3] == 1).all()


def test_a_label_never_gains_a_class():
    batch = batch_of((32, 32), n=8)
    batch["label"] = torch.where(batch["label"] == 1, 7, batch["label"])
    out = Augment(rotate_deg=180, scale=(0.5, 2), elastic=(8, 3))(batch, gen())["label"]
    assert out.dtype == torch.int64 and set(out.unique().tolist()) <= {0, 2, 7, 255}


def test_the_elastic_map_never_folds_and_its_amplitude_is_a_bound():
    for size in ((40, 30), (20, 24, 28)):
        disp = bspline_displacement(size, 3, 6.0, 2.4, gen())
        assert disp.abs().max() <= 2.4 and disp.abs().max() > 1.0
        columns = []
        for axis in range(len(size)):
            columns.append(disp.diff(dim=2 + axis)[(..., *[slice(0, s - 1) if a != axis else
                           slice(None) for a, s in enumerate(size)])])  # fmt: skip
        jacobian = torch.stack(columns, -1).movedim(1, -2) + torch.eye(len(size))
        assert (torch.linalg.det(jacobian) > 0).all()
        smoothness = disp.diff(n=2, dim=2).abs().max()
        assert smoothness < 2.4 * 4 / 36 * 1.01  # |Σ c B''| ≤ a Σ|B''| / spacing², Σ|B''| ≤ 4


def test_intensities_by_their_formulas():
    image = smooth((16, 16), n=3, channels=3)
    low, high = image.amin((2, 3), keepdim=True), image.amax((2, 3), keepdim=True)
    inverted = Augment(invert=1.0)({"image": image}, gen())["image"]
    torch.testing.assert_close(inverted, low + high - image)

    out = Augment(gamma=(0.5, 2))({"image": image}, gen())["image"]
    torch.testing.assert_close(out.amin((2, 3), keepdim=True), low)
    torch.testing.assert_close(out.amax((2, 3), keepdim=True), high)
    unit, unit_out = (image - low) / (high - low), (out - low) / (high - low)
    middle = (unit > 0.2) & (unit < 0.8)
    exponent = unit_out.log() / unit.log()  # one number per sample and channel
    per_channel = torch.stack([exponent[i, c][middle[i, c]].median() for i in range(3)
                               for c in range(3)])  # fmt: skip
    for i in range(3):
        for c in range(3):
            spread = exponent[i, c][middle[i, c]] - per_channel[3 * i + c]
            assert spread.abs().max() < 1e-3
    assert len(per_channel.unique()) == 9
    assert per_channel.min() >= 0.5 and per_channel.max() <= 2

    out = Augment(contrast=(0.5, 2))({"image": image}, gen())["image"]
    torch.testing.assert_close(out.mean((2, 3)), image.mean((2, 3)))
    factor = out.std((2, 3)) / image.std((2, 3))
    assert factor.min() >= 0.5 and factor.max() <= 2 and len(factor.unique()) == 9

    flat = torch.zeros(40, 1, 32, 32)
    sd = Augment(noise=0.3)({"image": flat}, gen())["image"].std((2, 3))
    assert sd.max() < 0.32 and sd.min() < 0.1 and 0.1 < sd.mean() < 0.2


def test_invert_is_a_probability_for_each_sample():
    image = smooth((8, 8), n=1, channels=2).expand(400, -1, -1, -1)
    out = Augment(invert=0.3)({"image": image}, gen())["image"]
    changed = (out != image).flatten(2).any(2)
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert 0.2 < changed[:, 0].float().mean() < 0.4


@pytest.mark.parametrize("options", INTENSITY, ids=str)
def test_a_constant_image_stays_finite(options):
    out = Augment(**options)({"image": torch.full((2, 1, 8, 8), 0.5)}, gen())["image"]
    assert out.isfinite().all()


def test_lists_give_what_tensors_give_and_may_be_empty():
    batch = batch_of((24, 24), n=3)
    batch["points"][0, 0] = float("nan")
    augment = Augment(flip=True, rotate_deg=30, elastic=(8, 2))
    as_lists = {
        "image": batch["image"],
        "points": list(batch["points"]),
        "boxes": list(batch["boxes"]),
    }
    a, b = augment(batch, gen()), augment(as_lists, gen())
    for key in ("points", "boxes"):
        torch.testing.assert_close(torch.stack(b[key]), a[key], equal_nan=True)
    assert a["points"][0, 0].isnan().all() and a["points"][0, 1:].isfinite().all()
    empty = {
        "image": batch["image"][:1],
        "points": [torch.zeros(0, 2)],
        "boxes": [torch.zeros(0, 4)],
    }
    out = augment(empty, gen())
    assert out["points"][0].shape == (0, 2) and out["boxes"][0].shape == (0, 4)


def test_batches_use_it():
    data = batch_of((16, 16), n=4)
    data["spacing"] = (1.0, 1.0)
    augment = Augment(flip=True, rotate_deg=15, gamma=(0.7, 1.5))
    runs = [list(batches(data, 3, steps=4, seed=0, augment=augment)) for _ in range(2)]
    plain = list(batches(data, 3, steps=4, seed=0))
    for a, b, c in zip(*runs, plain, strict=True):
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["index"], c["index"])
        assert not torch.equal(a["image"], c["image"])


def test_refusals():
    with pytest.raises(ValueError, match=r"elastic must be .* \(no folds"):
        Augment(elastic=(8, 4))
    with pytest.raises(ValueError, match="gamma must be"):
        Augment(gamma=(1.5, 0.7))
    with pytest.raises(ValueError, match="invert must be in"):
        Augment(invert=1.5)
    with pytest.raises(ValueError, match="rotate_deg must be at least 0"):
        Augment(rotate_deg=-15)
    with pytest.raises(ValueError, match="spacing must be positive"):
        Augment(spacing=(1, 0))
    image = {"image": torch.rand(1, 1, 8, 10)}
    with pytest.raises(ValueError, match="rot90 needs axes of one size"):
        Augment(rot90=True)(image, gen())
    with pytest.raises(ValueError, match="flip must name spatial axes"):
        Augment(flip=(0, 2))(image, gen())
    with pytest.raises(ValueError, match="rotate_deg must be one number in 2-D"):
        Augment(rotate_deg=(1, 2, 3))(image, gen())
    with pytest.raises(ValueError, match="batch must hold 'image'"):
        Augment()({"label": torch.zeros(1, 4, 4)}, gen())
    with pytest.raises(TypeError, match="image must hold real numbers"):
        Augment()({"image": torch.zeros(1, 1, 4, 4, dtype=torch.uint8)}, gen())
    with pytest.raises(ValueError, match="boxes must have the shape"):
        Augment(flip=True)(image | {"boxes": torch.zeros(1, 3, 6)}, gen())
    with pytest.raises(ValueError, match="points must hold 1 tensors, got 2"):
        Augment(flip=True)(image | {"points": [torch.zeros(1, 2)] * 2}, gen())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu():
    batch = batch_of((16, 16, 16))
    there = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    options = GEOMETRY[-1] | {"gamma": (0.7, 1.5), "invert": 0.5, "noise": 0.1}
    a, b = (Augment(**options)(x, gen()) for x in (batch, there))
    for key in ("image", "weight", "points", "boxes"):
        torch.testing.assert_close(b[key].cpu(), a[key], rtol=1e-3, atol=1e-3)
    assert (b["label"].cpu() != a["label"]).float().mean() < 1e-3
