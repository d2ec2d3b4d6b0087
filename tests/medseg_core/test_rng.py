import random

import numpy as np
import pytest
import torch

from medseg_core import rng


def draw(*args, **kwargs):
    return torch.rand(4, generator=rng.generator(*args, **kwargs))


def test_same_arguments_give_the_same_numbers():
    assert torch.equal(draw(3, 7, "noise"), draw(3, 7, "noise"))
    a, b = rng.numpy_rng(3, 7, "noise"), rng.numpy_rng(3, 7, "noise")
    assert np.array_equal(a.random(4), b.random(4))


def test_seed_index_and_stream_all_matter():
    keys = [(0, 0, ""), (1, 0, ""), (0, 1, ""), (0, 0, "noise"), (0, 0, "anatomy"), (1, 1, "noise")]
    assert len({tuple(draw(*key).tolist()) for key in keys}) == len(keys)
    assert len({rng.numpy_rng(*key).random() for key in keys}) == len(keys)


def test_the_numbers_are_those_of_the_documented_sequence():
    import zlib

    sequence = np.random.SeedSequence([3, zlib.crc32(b"noise"), 7])
    assert rng.numpy_rng(3, 7, "noise").random() == np.random.default_rng(sequence).random()


def test_no_generator_touches_the_global_state():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draw(5)
    assert torch.equal(before, torch.get_rng_state())


def test_numpy_integers_are_seeds():
    assert torch.equal(draw(np.int64(3)), draw(3))


def test_large_seeds_work():
    assert not torch.equal(draw(2**40), draw(2**40 + 1))


@pytest.mark.parametrize("make", [rng.generator, rng.numpy_rng])
@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((-1,), ValueError, "seed must be 0 or more, got -1"),
        ((0, -2), ValueError, "index must be 0 or more, got -2"),
        ((0.5,), TypeError, "seed must be an integer, got 0.5"),
        ((True,), TypeError, "seed must be an integer, got True"),
        ((0, 0, 3), TypeError, "stream must be a string, got 3"),
    ],
)
def test_bad_arguments_are_named(make, args, error, message):
    with pytest.raises(error, match=message):
        make(*args)


def test_seed_all_seeds_python_numpy_and_torch():
    def numbers():
        rng.seed_all(11)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert numbers() == numbers()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    with pytest.raises(ValueError, match="seed"):
        rng.seed_all(-1)


@pytest.mark.parametrize("seed", [0, 11, 2**32 + 3])
def test_seed_all_gives_the_numbers_of_monai(seed):
    from monai.utils import set_determinism

    def numbers():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    rng.seed_all(seed)
    ours = numbers()
    set_determinism(seed)
    assert ours == numbers()
