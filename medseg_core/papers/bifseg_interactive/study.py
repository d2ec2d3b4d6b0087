"""What the parts of the chapter's experiment share, and the arms that are made of it.

Taught in: bifseg-interactive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_core import rng
from medseg_core.metrics.overlap import dice
from medseg_core.models.isensee import IsenseeUNet
from medseg_core.papers.bifseg_interactive import experiment, methods, sessions
from medseg_core.papers.bifseg_interactive.crf import crf_graphcut
from medseg_core.papers.bifseg_interactive.experiment import Arm, Data, Settings
from medseg_core.papers.bifseg_interactive.knobs import Knobs, Walk, search
from medseg_core.papers.bifseg_interactive.methods import Case
from medseg_core.papers.bifseg_interactive.refine import Refined, bifseg_refine
from medseg_core.papers.bifseg_interactive.sessions import Moment
from medseg_core.papers.bifseg_interactive.weight_map import Doubt


class Study:
    """Crops, the networks of all seeds, and what every method was tuned to.

    Args:
        s: the settings.
        data: {part: crops}.
        device: of the networks.
        doubt: of the weight map.
        lam, sigma: of every graph cut; None: tuned.

    Attributes:
        states, probs: {seed: weights} and {seed: {part: P(object)}}, which the caller fills in.
        found: {method: what its search found}.
        marks: the strokes that all methods are tuned with, a map for each tuning crop.
    """

    def __init__(
        self,
        s: Settings,
        data: Mapping[str, Data],
        device: torch.device,
        doubt: Doubt,
        lam: float | None = None,
        sigma: float | None = None,
    ) -> None:
        self.s, self.data, self.device, self.doubt = s, data, device, doubt
        self.lam, self.sigma = lam, sigma
        self.states: dict[int, Mapping[str, Tensor]] = {}
        self.probs: dict[int, Mapping[str, Tensor]] = {}
        self.found: dict[str, Walk] = {}
        self.marks: list[Tensor] = []

    @property
    def tuned(self) -> dict[str, Knobs]:
        """{method: its knobs}."""
        return {name: walk.best for name, walk in self.found.items()}

    def model(self, seed: int) -> IsenseeUNet:
        """The generalised network of a seed."""
        return experiment.restored(self.states[seed], self.s, self.device)

    def cases(self, part: str, seed: int) -> list[Case]:
        """What the methods are given of each crop of a part."""
        return methods.cases_of(self.model(seed), self.data[part], self.probs[seed][part])

    def tune_cuts(self, seed: int) -> None:
        """Tune the bare cut, let the robot watch it, and tune the cut with the strokes."""
        cases, data = self.cases("tune", seed), self.data["tune"]
        self.found["CNN + CRF"] = self._walk("CNN + CRF", cases, None)
        self.marks = []
        for i, case in enumerate(cases):
            truth, gen = data["mask"][i, 0], rng.generator(seed, i, stream="tuning robot")
            answer = methods.make_method("CNN + CRF", case, self.tuned, self.s, self.doubt)
            _, drawn = sessions.session(answer, truth, gen, max(self.s.tune_at[:2]))
            self.marks.append(sessions.scribble_map(drawn, truth.shape))
        self.found["CRF + scribbles"] = self._walk("CRF + scribbles", cases, self.marks)

    def tuning_arms(self) -> dict[str, Arm]:
        """Arms that tune the methods left, each with the strokes of `tune_cuts`.

        Returns:
            {method: function of the seed}, which gives as extras "found", the search's result.
        """

        def arm(name: str, seed: int) -> dict[str, Any]:
            found = self._walk(name, self.cases("tune", seed), self.marks)
            return {"updates": 0, "images": len(self.marks), "extras": {"found": found}}

        return {name: partial(arm, name) for name in methods.METHODS if name not in self.found}

    def _walk(self, name: str, cases: list[Case], marks: list[Tensor] | None) -> Walk:
        score = sessions.tuning_score(
            name, cases, self.data["tune"], marks, self.tuned, self.s, self.doubt
        )
        grids = methods.grids_of(name, self.s, self.lam, self.sigma)
        return search(score, grids, self.tuned.get("CRF + scribbles", Knobs()))

    def sessions(self, name: str, part: str, **options: Any) -> Arm:
        """Arm: sessions of one method with every crop of a part; options of `session_arm`."""
        crops, data = partial(self.cases, part), self.data[part]
        return sessions.session_arm(name, crops, data, self.tuned, self.s, self.doubt, **options)

    def unaided(self, seed: int) -> dict[str, Tensor]:
        """Dice per unseen crop before any scribble: CNN and CNN + CRF."""
        data, prob = self.data["unseen"], self.probs[seed]["unseen"]
        cut = self.tuned["CNN + CRF"].cut(self.s.connectivity)
        labels = [crf_graphcut(prob[[i]], data["image"][[i]], cut) for i in range(len(prob))]
        crf = dice(torch.stack(labels) > 0, data["mask"], empty="one")[:, 0]
        return {"CNN": experiment.dice_of(prob, data), "CNN + CRF": crf}

    def unsupervised(self, seed: int) -> dict[str, Tensor]:
        """Dice per unseen crop of BIFSeg without scribbles, on the cut of CNN + CRF: "final"."""
        data, model, bare = self.data["unseen"], self.model(seed), self.tuned["CNN + CRF"]
        knobs = replace(self.tuned["BIFSeg"], lam=bare.lam, sigma=bare.sigma)
        cut, tuning = knobs.cut(self.s.connectivity), knobs.tuning(self.s.rounds, self.s.tune_steps)
        labels = [
            bifseg_refine(model, image[None], None, cut, tuning, self.doubt).labels
            for image in data["image"]
        ]
        return {"final": dice(torch.stack(labels) > 0, data["mask"], empty="one")[:, 0]}

    def recording(
        self, i: int, seed: int, strokes: Sequence[Any], refine: Callable[[Tensor, Tensor], Refined]
    ) -> dict[int, Moment]:
        """The session with unseen crop i, before its strokes and after each fine-tuning."""
        case, size = self.cases("unseen", seed)[i], self.data["unseen"]["mask"].shape[2:]
        cut = crf_graphcut(case.prob, case.image, self.tuned["CNN + CRF"].cut(self.s.connectivity))
        ones, none = torch.ones_like(case.prob[:, 0]), sessions.scribble_map([], size)
        found = {0: Moment(case.prob, cut, ones, cut, none)}
        for k in (k for k in self.s.tune_at if k <= self.s.n_scribbles):
            marks = sessions.scribble_map(strokes[:k], size)
            r = refine(case.image, marks)
            found[k] = Moment(r.prob, r.crf, r.weight, r.labels, marks)
        return found

    def row(self, name: str, volumes: Sequence[Any], columns: int) -> list[str]:
        """A row of the table of all arms: method, knobs, and mean ± SD of some Dice values."""
        method = name.split(",")[0]
        method = {"CRF": "CRF + scribbles"}.get(method, method)
        k = self.tuned.get(name, self.tuned[method])
        knobs = f"λ {k.lam:g}, σ {k.sigma:g}"
        if method == "BIFSeg":
            knobs += f", rate {k.lr:g}, {k.finetune} weights"
        cells = [f"{np.mean(v):.3f} ± {np.std(v):.3f}" for v in volumes]
        return [name, knobs, *cells, *["–"] * (columns - len(cells))]

    @property
    def ends(self) -> str:
        """Methods with a knob at an end of its grid, and which, in words."""
        found = [f"{a} ({', '.join(w.at_an_end)})" for a, w in self.found.items() if w.at_an_end]
        return ", ".join(found) or "none"

    def moved(self, seed: int) -> float:
        """Share of the unseen voxels that the first cut labels otherwise than the network."""
        cut, cases = self.tuned["CNN + CRF"].cut(self.s.connectivity), self.cases("unseen", seed)
        cuts = torch.stack([crf_graphcut(c.prob, c.image, cut)[0] > 0 for c in cases])
        return float((cuts != (self.probs[seed]["unseen"][:, 0] > 0.5)).float().mean())


def by_kind(values: Any, data: Data, kind: int | None = None) -> float:
    """Mean of one value per crop, over the crops of one kind or over all."""
    keep = slice(None) if kind is None else (data["kind"] == kind).numpy()
    return float(np.mean(np.asarray(values)[keep]))
