"""A CUDA device that is not there: tensors in memory, marked, and torch's rules about devices.

Inside `with PretendCuda():` a marked tensor says that it is on CUDA. What is calculated from marked
tensors is marked; `.to("cuda")` and `device="cuda"` mark, `.cpu()` and `.to("cpu")` do not. What
CUDA refuses is refused: an operation on tensors of both kinds, numbers (no axes) aside, an index
that lies elsewhere, NumPy. So code that forgets where its tensors live fails here as it would on a
GPU, and no arithmetic changes. What torch does inside of one call, a backward pass say, is not
looked at.
"""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)


def mark(x, there=True):
    x.on_pretended_cuda = there
    return x


def marked(x):
    return isinstance(x, Tensor) and getattr(x, "on_pretended_cuda", False)


def tensors(nest):
    if isinstance(nest, Tensor):
        yield nest
    elif isinstance(nest, dict):
        yield from tensors(list(nest.values()))
    elif isinstance(nest, (tuple, list)):
        for part in nest:
            yield from tensors(part)


class PretendCuda(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name, owner = func.__name__, getattr(func, "__self__", None)
        if name == "__get__" and owner in (Tensor.device, Tensor.is_cuda):
            if not marked(args[0]):
                return func(*args)
            return CUDA if owner is Tensor.device else True
        if name == "__set__" and owner is Tensor.data:  # a module that moves its weights
            mark(args[0], marked(args[1]))
            return func(*args)
        if name in ("cpu", "to", "cuda"):
            return moved(name, func, args, kwargs)
        given = list(tensors([args, kwargs]))
        there = any(map(marked, given))
        if name in ("numpy", "__array__") and there:
            raise TypeError("can't convert a cuda tensor to numpy: use Tensor.cpu() first")
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == "cuda"
            kwargs["device"] = "cpu"
        elif there:
            refuse_mixture(name, args, given)
        found = func(*args, **kwargs)
        for x in tensors(found) if there else ():
            mark(x)
        return found


def moved(name, func, args, kwargs):
    """`x.to(...)`, `x.cpu()`, `x.cuda()`: the conversion as it is, the device as a mark."""
    x, there, rest = args[0], marked(args[0]), []
    if name != "to":
        there = name == "cuda"
    for argument in (*args[1:], *([kwargs.pop("device")] if "device" in kwargs else [])):
        if isinstance(argument, (str, torch.device)):
            there = torch.device(argument).type == "cuda"
        elif isinstance(argument, Tensor):
            there = marked(argument)
            rest.append(argument.dtype)
        elif isinstance(argument, torch.dtype):
            rest.append(argument)
    found = Tensor.to(x, *rest, **kwargs) if rest or kwargs else x
    if there != marked(x):  # a copy, as between two devices
        found = found.clone()
    return mark(found, there)


def refuse_mixture(name, args, given):
    if name.startswith("_has_"):  # a module asks before it moves its weights
        return
    if name in ("__getitem__", "__setitem__", "index_put_"):
        # An index on the CPU is carried over; one on CUDA for a tensor on the CPU is not.
        if not marked(args[0]) and any(x.ndim for x in tensors(args[1])):
            raise RuntimeError("indices should be on the same device as the indexed tensor (cpu)")
        return
    if any(x.ndim and not marked(x) for x in given):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, cuda:0 and cpu")
