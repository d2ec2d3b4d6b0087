import pytest
import torch

from medseg_core.training.device import pick


def test_names():
    assert pick("cpu") == pick(torch.device("cpu")) == torch.device("cpu")
    assert pick("auto").type in ("cpu", "cuda", "mps")


def test_auto_prefers_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick().type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick().type == "mps"


def test_a_card_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ValueError, match=r"'cuda:1' is not there: 1 CUDA"):
        pick("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "meta", "", 3.5])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="choose"):
        pick(name)
