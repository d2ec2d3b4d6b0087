"""A gradient through a solver that has none, learnt beside the network that needs it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import Optimizer

from medseg_core import checks


class SyntheticGradient:
    r"""Train through an argmin by a network F that learns to imitate the solver around g.

    .. math::
        \min_\varphi L\bigl(F_\varphi(g+\sigma\varepsilon), \mathrm{solver}(g+\sigma\varepsilon)
        \bigr), \qquad \min_\psi L\bigl(F_\varphi(g), p\bigr),\quad g = \mathrm{CNN}_\psi(x)

    L is the cross entropy, averaged over lines and batch. The first problem, ``step``, moves only
    F's weights; the second, ``loss``, only those of the network that made g. Source: Nguyen and
    Ray 2019, Algorithm 2, after Jaderberg et al. 2017.

    Args:
        approximator: F, a module from g ``(B,N,...)`` to logits ``(B,N,M)``: N choices among M.
        solver: from maps ``(b,N,...)`` to what F shall say: class indices ``(b,N)``, integer and
            0-BASED. It is called without gradients and with the noisy maps of all inner steps in
            one batch, b = n_steps·B.
        optimizer: of F, kept for the whole training.
        gen: CPU generator of the noise.
        sigma: standard deviation of the exploration noise added to g; 0 switches it off.
        n_steps: S ≥ 1, inner updates per call of ``step``, each with noise of its own.

    Raises:
        ValueError: a negative ``sigma``, or ``n_steps`` below 1.

    Taught in: edpcnn.
    """

    def __init__(
        self,
        approximator: nn.Module,
        solver: Callable[[Tensor], Tensor],
        optimizer: Optimizer,
        gen: torch.Generator,
        *,
        sigma: float,
        n_steps: int,
    ) -> None:
        self.approximator, self.solver = approximator, solver
        self.optimizer, self.gen = optimizer, gen
        self.sigma = checks.between(sigma, "sigma", 0, None)
        self.n_steps = checks.between(n_steps, "n_steps", 1, None)

    def step(self, g: Tensor) -> float:
        """Inner loop: ``n_steps`` updates of F around g, which is detached.

        Returns the agreement: the share of lines where F, in training mode, names the solver's
        choice, averaged over the steps.
        """
        # g does not change in here and the solver does not see F: solve all the draws at once.
        maps = self._explore(_checked_map(g).detach())  # (S, B, N, ...)
        with torch.no_grad():
            target = _checked_target(self.solver(maps.flatten(0, 1)), maps.flatten(0, 1))
        target = target.unflatten(0, maps.shape[:2])  # (S, B, N)
        agreements = []
        self.approximator.train()
        with torch.enable_grad():
            for s in range(self.n_steps):
                noisy, wanted = maps[s % len(maps)], target[s % len(maps)]
                logits = self.approximator(noisy)
                loss = _line_loss(logits, wanted)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                agreements.append((logits.detach().argmax(-1) == wanted).float().mean())
        return float(torch.stack(agreements).mean())

    def loss(self, g: Tensor, target: Tensor) -> Tensor:
        """Outer loss: cross entropy of F(g) against the truth, differentiable in g alone.

        F runs in eval mode, in which it stays until the next ``step``, on detached weights: neither
        its parameters nor its running statistics change, whatever is done with the result.
        ``target`` (B, N) as the solver's answer.
        """
        target = _checked_target(target, _checked_map(g))
        weights = {k: p.detach() for k, p in self.approximator.named_parameters()}
        return _line_loss(functional_call(self.approximator.eval(), weights, (g,)), target)

    def gradient(self, g: Tensor, target: Tensor) -> Tensor:
        """The synthetic gradient itself: d loss / d g, of g's shape, for analysis and pictures."""
        g = g.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.loss(g, target), g)[0]

    def _explore(self, g: Tensor) -> Tensor:
        """(S, B, N, ...) noisy copies of g; one clean copy, solved once, where sigma is zero."""
        if self.sigma == 0:
            return g[None]
        noise = torch.randn((self.n_steps, *g.shape), generator=self.gen, dtype=g.dtype)
        return g + self.sigma * noise.to(g.device)


def _line_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over batch and lines of the cross entropy of (B, N, M) with (B, N)."""
    m = logits.shape[-1]
    if target.min() < 0 or target.max() >= m:
        raise ValueError(
            f"target indices are 0-based and must lie in 0..{m - 1}, "
            f"got {int(target.min())}..{int(target.max())}"
        )
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())  # (B*N, M) against (B*N,)


def _checked_map(g: Tensor) -> Tensor:
    if g.ndim < 2:
        raise ValueError(f"g must be (B, N, ...), got shape {tuple(g.shape)}")
    return checks.finite(g, "g")


def _checked_target(target: Tensor, g: Tensor) -> Tensor:
    checks.shape(target, "target", "B N", B=g.shape[0], N=g.shape[1])
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target must hold integer class indices, got {target.dtype}")
    return target.long()
