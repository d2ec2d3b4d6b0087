import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medseg_core.physics import deform
from medseg_core.training.augment import Augment, _moved, _rotation
from medseg_core.training.samplers import batches

GEOMETRY = [
    {"flip": True},
    {"rotate_deg": 25.0},
    {"scale": (0.7, 1.4)},
    {"flip": True, "rotate_deg": 20, "scale": (0.8, 1.2)},
]
INTENSITY = [{"gamma": (0.5, 2)}, {"invert": 0.5}]


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(size, n=2, channels=1, seed=0):
    g = gen(seed)
    coarse = torch.rand(n, channels, *(max(s // 6, 3) for s in size), generator=g)
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return torch.nn.functional.interpolate(coarse, size=size, mode=mode, align_corners=True)


def batch_of(size, n=2, channels=1, seed=0):
    image = smooth(size, n, channels, seed)
    label = (3 * image[:, 0]).long()
    label[:, 3:5] = 255
    return {
        "image": image,
        "label": label,
        "mask": image > 0.5,
        "weight": image[:, 0] * 2,
        "kind": torch.arange(n),
        "params": {"any": "thing"},
    }


@pytest.mark.parametrize("size", [(24, 20), (12, 16, 10)])
def test_off_by_default_and_off_when_every_range_is_empty(size):
    batch = batch_of(size)
    for augment in (
        Augment(),
        Augment(rotate_deg=0, scale=(1, 1), gamma=(1, 1)),
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


@pytest.mark.parametrize("size", [(30, 22), (12, 18, 14)])
def test_scipy_gives_the_same_affine_image(size):
    batch = {"image": smooth(size, n=3)}
    augment = Augment(flip=True, rotate_deg=40, scale=(0.8, 1.3))
    linear = augment._draw(3, len(size), gen(5))
    got = augment(batch, gen(5))["image"]
    centre = (np.array(size) - 1) / 2
    for i in range(3):
        inverse = np.linalg.inv(linear[i].numpy().astype(float))
        offset = centre - inverse @ centre
        image = batch["image"][i, 0].numpy()
        want = ndimage.affine_transform(image, inverse, offset, order=1, mode="nearest")
        np.testing.assert_allclose(got[i, 0].numpy(), want, atol=2e-4)
    rigid = linear / torch.linalg.det(linear).abs().pow(1 / len(size))[:, None, None]
    torch.testing.assert_close(
        rigid @ rigid.mT, torch.eye(len(size)).expand_as(rigid), atol=1e-5, rtol=0
    )


def test_a_known_rotation_carries_a_blob_a_label_and_a_mask_together():
    # 90 degrees: +column turns towards +row, about the centre (10, 10)
    turn = _rotation(torch.tensor([[math.pi / 2]]))
    image = torch.zeros(1, 1, 21, 21)
    image[0, 0, 10, 14:18] = 1.0
    batch = {"image": image, "label": image[:, 0].long(), "mask": image > 0}
    out = _moved(batch, turn, (21, 21))
    want = torch.zeros(21, 21)
    want[14:18, 10] = 1.0
    torch.testing.assert_close(out["image"][0, 0], want, atol=1e-4, rtol=0)
    assert torch.equal(out["label"][0], want.long()) and torch.equal(out["mask"][0, 0], want > 0)


@pytest.mark.parametrize("options", GEOMETRY, ids=str)
@pytest.mark.parametrize("size", [(40, 40), (24, 24, 24)])
def test_a_blob_moves_as_the_map_says(size, options):
    """Each sample holds one bright blob, whose centre of mass goes from q to c + F(q − c)."""
    ndim, n = len(size), 4
    centres = torch.tensor(size) * (0.38 + 0.24 * torch.rand(n, ndim, generator=gen(3)))
    grid = deform.identity_grid(size)
    d2 = (grid - centres.reshape(n, *[1] * ndim, ndim)).square().sum(-1)
    augment = Augment(**options)
    image = augment({"image": torch.exp(-d2 / (2 * 1.5**2))[:, None]}, gen(7))["image"][:, 0]
    mass = image.flatten(1).sum(1)
    found = (image[..., None] * grid).flatten(1, ndim).sum(1) / mass[:, None]
    middle = (torch.tensor(size) - 1) / 2
    moved = (augment._draw(n, ndim, gen(7)) @ (centres - middle)[..., None])[..., 0] + middle
    assert (found - moved).norm(dim=-1).max() < 0.05


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), ndim=st.sampled_from([2, 3]))
def test_flips_are_exact_for_labels_and_masks(seed, ndim):
    g = gen(seed)
    image = torch.rand(2, 1, *(9,) * ndim, generator=g)
    label = torch.randint(0, 4, (2, *(9,) * ndim), generator=g)
    out = Augment(flip=True)({"image": image, "label": label, "mask": (label == 1)[:, None]}, g)
    for i in range(2):
        axes = [a for k in range(ndim + 1) for a in itertools.combinations(range(ndim), k)]
        (at,) = [a for a in axes if torch.equal(out["label"][i], label[i].flip(a))]
        assert torch.equal(out["mask"][i, 0], (label[i] == 1).flip(at))
        torch.testing.assert_close(out["image"][i, 0], image[i, 0].flip(at))


def test_rotations_in_3d_are_proper_and_about_the_axis_named():
    angles = torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, -0.7], [0.2, -0.4, 0.9]])
    turns = _rotation(angles)
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(4, 3, 3))
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(4))
    for axis in range(3):
        torch.testing.assert_close(turns[axis] @ torch.eye(3)[axis], torch.eye(3)[axis])
        cos = angles[axis, axis].cos()
        torch.testing.assert_close(turns[axis].trace(), 1 + 2 * cos)
    torch.testing.assert_close(turns[0, 1:, 1:], _rotation(torch.tensor([[0.3]]))[0])


def test_labels_outside_the_old_image_are_ignored_and_255_stays():
    label = torch.ones(1, 12, 12, dtype=torch.int64)
    label[:, 4:8] = 255
    batch = {"image": torch.ones(1, 1, 12, 12), "label": label, "mask": label[:, None] == 1}
    out = _moved(batch, torch.eye(2)[None] / 2, (12, 12))  # half its size, in the middle
    inside = torch.zeros(12, 12, dtype=torch.bool)
    inside[3:9, 3:9] = True
    assert (out["label"][0, ~inside] == 255).all()
    assert (out["label"][0, 3:5, 3:9] == 1).all() and (out["label"][0, 5:7] == 255).all()
    assert (out["image"] == 1).all() and out["mask"][0, 0, :3].all()  # the edge, repeated


def test_a_label_never_gains_a_class():
    batch = batch_of((32, 32), n=8)
    batch["label"] = torch.where(batch["label"] == 1, 7, batch["label"])
    out = Augment(rotate_deg=180, scale=(0.5, 2))(batch, gen())["label"]
    assert out.dtype == torch.int64 and set(out.unique().tolist()) <= {0, 2, 7, 255}


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
    with pytest.raises(ValueError, match="gamma must be"):
        Augment(gamma=(1.5, 0.7))
    with pytest.raises(ValueError, match="scale must be"):
        Augment(scale=(0.0, 1.0))
    with pytest.raises(ValueError, match="invert must be in"):
        Augment(invert=1.5)
    with pytest.raises(ValueError, match="rotate_deg must be at least 0"):
        Augment(rotate_deg=-15)
    with pytest.raises(ValueError, match="batch must hold 'image'"):
        Augment()({"label": torch.zeros(1, 4, 4)}, gen())
    with pytest.raises(ValueError, match="axes of image"):
        Augment()({"image": torch.zeros(1, 4, 4)}, gen())
    with pytest.raises(TypeError, match="image must be a floating-point tensor"):
        Augment()({"image": torch.zeros(1, 1, 4, 4, dtype=torch.uint8)}, gen())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu():
    batch = batch_of((16, 16, 16))
    there = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    options = GEOMETRY[-1] | {"gamma": (0.7, 1.5), "invert": 0.5}
    a, b = (Augment(**options)(x, gen()) for x in (batch, there))
    for key in ("image", "weight"):
        torch.testing.assert_close(b[key].cpu(), a[key], rtol=1e-3, atol=1e-3)
    assert (b["label"].cpu() != a["label"]).float().mean() < 1e-3
