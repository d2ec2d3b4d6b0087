import pytest
import torch

from medseg_core.stacking import stack


def sample(size=8, spacing=(1.0, 1.0)):
    hidden = {"noise_free": torch.zeros(1, 1, size, size)}
    image = torch.rand(1, 1, size, size)
    return {"image": image, "spacing": spacing, "id": ["a"], "hidden": hidden}


def test_stack_joins_tensors_and_lists_and_keeps_the_spacing():
    both = stack([sample(), sample()])
    assert both["image"].shape == (2, 1, 8, 8) and both["image"].is_contiguous()
    assert both["hidden"]["noise_free"].shape == (2, 1, 8, 8)
    assert both["id"] == ["a", "a"] and both["spacing"] == (1.0, 1.0)


def test_stack_names_what_differs():
    with pytest.raises(ValueError, match=r"image differs in size .*position 1.*give size="):
        stack([sample(), sample(9)])
    with pytest.raises(ValueError, match=r"spacing differs .*\(2.0, 2.0\); give spacing="):
        stack([sample(), sample(spacing=(2.0, 2.0))])


def test_nothing_to_stack_is_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        stack([])
