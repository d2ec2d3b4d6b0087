"""One table of calls, three lanes: the same call must give the same answer in each.

A test module holds `TABLE`, {name: entry}. An entry is a dict:
    call: a function of the tensors, by name; returns tensors (nested in tuples, lists or dicts).
    inputs: a function without arguments that makes the tensors, on the CPU in float32.
    wrt: names of the inputs whose gradient is compared too.
    skip: {lane: why}, where a lane says nothing.
    on_cpu: why the answer lies on the CPU wherever the inputs do; absent: it lies where they do.
    tol: relative to the answer's largest value.

Lanes: "float64", the CPU in double precision against single; "pretend", a CUDA device that is not
there (`pretend_cuda`), so that the table is right about devices on every machine; "cuda".
"""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from pretend_cuda import PretendCuda, mark

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
LANES = {"float64": [], "pretend": [], "cuda": GPU}


def pytest_generate_tests(metafunc):
    if {"entry", "lane"} <= set(metafunc.fixturenames):
        cases = [
            pytest.param(entry, lane, id=f"{name}-{lane}", marks=marks)
            for name, entry in metafunc.module.TABLE.items()
            for lane, marks in LANES.items()
            if lane not in entry.get("skip", {})
        ]
        metafunc.parametrize("entry, lane", cases)


@pytest.fixture
def agrees():
    """Check an entry in a lane against the CPU in single precision."""

    def check(entry, lane):
        torch.manual_seed(0)
        inputs = entry["inputs"]()
        expected = outcome(entry, moved(inputs, "cpu", torch.float32))
        dtype = torch.float64 if lane == "float64" else torch.float32
        there = moved(inputs, "cuda" if lane == "cuda" else "cpu", dtype)
        if lane == "pretend":
            there = {k: mark(x.clone()) if torch.is_tensor(x) else x for k, x in there.items()}
        with PretendCuda() if lane == "pretend" else nullcontext():
            found = outcome(entry, there)
            where = {x.device.type for x in found}
        assert len(found) == len(expected) > 0
        assert where == {"cpu" if lane == "float64" or "on_cpu" in entry else "cuda"}
        for one, other in zip(found, expected, strict=True):
            same(one, other, entry.get("tol", 1e-4))

    # Convolutions in full single precision: CUDA's faster format keeps three digits.
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield check


def moved(inputs, device, dtype):
    def move(x):
        if not isinstance(x, torch.Tensor):
            return x
        return x.to(device, dtype if x.dtype == torch.float32 else x.dtype)

    return {name: move(x) for name, x in inputs.items()}


def outcome(entry, inputs):
    """All tensors that the call returns, then the gradients of a fixed mixture of them."""
    wrt = [inputs[name].requires_grad_() for name in entry.get("wrt", ())]
    found = flat(entry["call"](**inputs))
    if wrt:
        assert any(x.requires_grad for x in found), "the answer has no gradient"
        score = sum(mixture(x) for x in found if x.requires_grad)
        found += torch.autograd.grad(score, wrt)
    return [x.detach() for x in found]


def mixture(x):
    weights = torch.arange(x.numel(), dtype=x.dtype, device=x.device).cos().view(x.shape)
    return (weights * x).sum()


def flat(result):
    if isinstance(result, torch.Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result
    return [x for part in parts for x in flat(part)]


def same(found, expected, tol):
    found = found.cpu()
    if not expected.is_floating_point():
        assert torch.equal(found, expected)
        return
    size = expected[expected.isfinite()].abs().max() if expected.isfinite().any() else 0
    torch.testing.assert_close(
        found.double(), expected.double(), rtol=0, atol=tol * float(size) + 1e-12, equal_nan=True
    )
