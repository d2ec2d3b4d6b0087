"""A gradient through a solver that has none, learnt beside the network that needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import Optimizer

from medseg_core import checks
from medseg_core.rng import generator

Solver = Callable[[Tensor], Tensor]


class SyntheticGradient:
    r"""Train through an argmin by a network F that learns to imitate the solver around g.

    .. math::
        \min_\varphi L\bigl(F_\varphi(g+\sigma\varepsilon), \mathrm{solver}(g+\sigma\varepsilon)
        \bigr), \qquad \min_\psi L\bigl(F_\varphi(g), p\bigr),\quad g = \mathrm{CNN}_\psi(x)

    L is the cross entropy, averaged over lines and batch. The first problem, ``step``, moves only
    F's weights; the second, ``loss``, only those of the network that made g. Source: Nguyen and
    Ray 2019, Algorithm 2, after Jaderberg et al. 2017. Chapter ``edpcnn``.

    Args:
        approximator: F, a module from g ``(B,N,...)`` to logits ``(B,N,M)``: N choices among M.
        solver: from maps ``(b,N,...)`` to what F shall say: class indices ``(b,N)``, integer and
            0-BASED, or a distribution ``(b,N,M)``, one-hot or soft. It is called without gradients
            and with the noisy maps of all inner steps in one batch, b = n_steps·B.
        sigma: standard deviation of the exploration noise added to g; 0 switches it off.
        n_steps: S, inner updates per call of ``step``, each with noise of its own.
        optimizer: of F, kept for the whole training: an ``Optimizer``, or a function of F's
            parameters. Default: Adam with rate 1e-3, fused on CPU and CUDA.
        seed: of the noise.
        gen: a CPU generator for the noise instead.

    Raises:
        ValueError: a negative ``sigma`` or ``n_steps``.
    """

    def __init__(
        self,
        approximator: nn.Module,
        solver: Solver,
        *,
        sigma: float = 1.0,
        n_steps: int = 10,
        optimizer: Optimizer | Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        seed: int = 0,
        gen: torch.Generator | None = None,
    ) -> None:
        if not sigma >= 0 or n_steps < 0:
            raise ValueError(f"sigma and n_steps must be >= 0, got {sigma} and {n_steps}")
        self.approximator, self.solver = approximator, solver
        self.sigma, self.n_steps = float(sigma), int(n_steps)
        if optimizer is None:
            optimizer = _adam
        if not isinstance(optimizer, Optimizer):
            optimizer = optimizer(approximator.parameters())
        self.optimizer = optimizer
        self.gen = gen if gen is not None else generator(seed, stream="exploration")

    def step(self, g: Tensor) -> dict[str, float]:
        """Inner loop: ``n_steps`` updates of F around g, which is detached.

        Returns the means over the steps of ``loss`` and of ``agreement``, the share of lines where
        F, in training mode, names the solver's choice; NaN when there are no steps.
        """
        g = checked_map(g).detach()
        if self.n_steps == 0:
            return {"loss": float("nan"), "agreement": float("nan")}
        # g does not change in here and the solver does not see F: solve all the draws at once.
        maps = self._explore(g)  # (S, B, N, ...)
        with torch.no_grad():
            target = self.solver(maps.flatten(0, 1))
        target = checked_target(target, maps.shape[0] * maps.shape[1], g.shape[1])
        target = target.unflatten(0, maps.shape[:2])  # (S, B, N) or (S, B, N, M)
        losses, agreements = [], []
        self.approximator.train()
        with torch.enable_grad():
            for s in range(self.n_steps):
                noisy, wanted = maps[s % len(maps)], target[s % len(maps)]
                logits = self.approximator(noisy)
                loss = line_cross_entropy(logits, wanted)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                choice = wanted if wanted.ndim == 2 else wanted.argmax(-1)
                losses.append(loss.detach())
                agreements.append((logits.detach().argmax(-1) == choice).float().mean())
        return {
            "loss": float(torch.stack(losses).mean()),
            "agreement": float(torch.stack(agreements).mean()),
        }

    def loss(self, g: Tensor, target: Tensor) -> Tensor:
        """Outer loss: cross entropy of F(g) against the truth, differentiable in g alone.

        F runs in eval mode on detached weights: neither its parameters nor its running statistics
        change, whatever is done with the result. ``target`` as the solver's answer: (B, N) 0-based
        indices or (B, N, M).
        """
        g = checked_map(g)
        target = checked_target(target, g.shape[0], g.shape[1])
        return line_cross_entropy(self._frozen(g), target)

    def gradient(self, g: Tensor, target: Tensor) -> Tensor:
        """The synthetic gradient itself: d loss / d g, of g's shape, for analysis and pictures."""
        g = g.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.loss(g, target), g)[0]

    def _explore(self, g: Tensor) -> Tensor:
        """(S, B, N, ...) noisy copies of g; one clean copy, solved once, where sigma is zero."""
        if self.sigma == 0:
            return g[None]
        shape, where = (self.n_steps, *g.shape), self.gen.device
        noise = torch.randn(shape, generator=self.gen, dtype=g.dtype, device=where)
        return g + self.sigma * noise.to(g.device)

    def _frozen(self, g: Tensor) -> Tensor:
        weights = {k: p.detach() for k, p in self.approximator.named_parameters()}
        modes = {m: m.training for m in self.approximator.modules()}
        self.approximator.eval()
        try:
            return functional_call(self.approximator, weights, (g,))
        finally:
            for module, training in modes.items():
                module.training = training


def line_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over batch and lines of the cross entropy of (B, N, M) with (B, N) or (B, N, M)."""
    m = logits.shape[-1]
    if target.ndim == 3 and target.shape != logits.shape:
        raise ValueError(
            f"target must be (B, N) or {tuple(logits.shape)} like the logits, "
            f"got {tuple(target.shape)}"
        )
    if target.ndim == 2 and (target.min() < 0 or target.max() >= m):
        raise ValueError(
            f"target indices are 0-based and must lie in 0..{m - 1}, "
            f"got {int(target.min())}..{int(target.max())}"
        )
    flat = target.flatten() if target.ndim == 2 else target.flatten(0, 1).to(logits.dtype)
    return F.cross_entropy(logits.flatten(0, 1), flat)  # (B*N, M) against (B*N,) or (B*N, M)


def checked_map(g: Tensor) -> Tensor:
    if g.ndim < 2:
        raise ValueError(f"g must be (B, N, ...), got shape {tuple(g.shape)}")
    checks.finite(g, "g")
    return g


def checked_target(target: Tensor, b: int, n: int) -> Tensor:
    if target.ndim not in (2, 3) or target.shape[:2] != (b, n):
        raise ValueError(
            f"target must be ({b}, {n}) class indices or ({b}, {n}, M) probabilities, "
            f"got shape {tuple(target.shape)}"
        )
    if target.ndim == 3:
        return target
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target of class indices must be integer, got {target.dtype}")
    return target.long()


def _adam(parameters: Iterable[nn.Parameter]) -> Optimizer:
    parameters = list(parameters)
    fused = {p.device.type for p in parameters} <= {"cpu", "cuda"} or None
    return torch.optim.Adam(parameters, lr=1e-3, fused=fused)
