"""What the parts of the experiment share, with a network that has learnt nothing."""

import dataclasses

import numpy as np
import pytest
import torch

from medseg_core.papers.bifseg_interactive import experiment, methods
from medseg_core.papers.bifseg_interactive.crf import crf_graphcut
from medseg_core.papers.bifseg_interactive.experiment import SETTINGS
from medseg_core.papers.bifseg_interactive.refine import Refined
from medseg_core.papers.bifseg_interactive.study import Study, by_kind
from medseg_core.papers.bifseg_interactive.weight_map import Doubt

CPU = torch.device("cpu")
FEW = {f"n_{part}": 2 for part in ("train", "tune", "seen", "unseen")}
S = dataclasses.replace(
    SETTINGS["smoke"], **FEW, size=16, n_transfer=(1, 1), lams=(0.0, 0.5), sigmas=(0.1,)
)


@pytest.fixture(scope="module")
def study():
    data = experiment.load_phantom(S, 0)
    torch.manual_seed(0)
    net = experiment.network(S, CPU)
    study = Study(S, data, CPU, Doubt())
    study.states[0] = experiment.state_of(net)
    study.probs[0] = {p: experiment.predict(net, d["image"]) for p, d in data.items()}
    study.tune_cuts(0)
    return study


def test_the_cuts_are_tuned_on_training_organs_with_strokes(study):
    assert list(study.tuned) == ["CNN + CRF", "CRF + scribbles"]
    assert study.tuned["CNN + CRF"].lam in S.lams
    assert len(study.marks) == 2 and all((m != 255).any() for m in study.marks)
    rest = set(methods.METHODS) - set(study.tuned)
    assert set(study.tuning_arms()) == rest


def test_without_smoothness_a_cut_moves_nothing(study):
    plain = Study(S, study.data, CPU, Doubt(), lam=0.0)
    plain.states, plain.probs = study.states, study.probs
    plain.tune_cuts(0)
    assert plain.tuned["CNN + CRF"].lam == 0 and plain.moved(0) == 0
    before = plain.unaided(0)
    np.testing.assert_allclose(before["CNN"], before["CNN + CRF"], atol=1e-6)
    np.testing.assert_allclose(
        before["CNN"], experiment.dice_of(study.probs[0]["unseen"], study.data["unseen"])
    )


def test_a_recording_starts_with_the_cut_and_every_voxel_counting(study):
    def refine(image, marks):
        p = torch.full_like(image, 0.5)
        answer = torch.zeros(image.shape[0], *image.shape[2:], dtype=torch.int64)
        fields = {f.name: None for f in dataclasses.fields(Refined)}
        return Refined(**fields | {"labels": answer, "crf": answer, "weight": p[0], "prob": p})

    stroke = (torch.tensor([[1, 2, 3]]), 1)
    found = study.recording(1, 0, [stroke, None], refine)
    assert list(found) == [0, *S.tune_at]
    case = study.cases("unseen", 0)[1]
    cut = crf_graphcut(case.prob, case.image, study.tuned["CNN + CRF"].cut(S.connectivity))
    assert torch.equal(found[0].labels, cut) and (found[0].weight == 1).all()
    assert (found[0].marks == 255).all() and found[1].marks[0, 1, 2, 3] == 1


def test_a_row_of_the_table(study):
    cells = study.row("CRF, own scribbles", [[0.1, 0.3]], 2)
    k = study.tuned["CRF + scribbles"]
    assert cells == ["CRF, own scribbles", f"λ {k.lam:g}, σ {k.sigma:g}", "0.200 ± 0.100", "–"]


def test_means_by_kind():
    data = {"kind": torch.tensor([3, 4, 3])}
    assert by_kind([1.0, 5.0, 3.0], data, 3) == 2.0 and by_kind([1.0, 5.0, 3.0], data) == 3.0
