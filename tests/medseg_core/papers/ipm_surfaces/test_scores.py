"""Scores of the retina's surfaces and of the artery's contours, by hand; the artery's data."""

import math

import numpy as np
import pytest
import torch

from medseg_core.papers.ipm_surfaces import ivus_experiment, scores
from medseg_core.papers.ipm_surfaces.experiment import Settings

SMALL = Settings(ivus_size=(32, 32), ivus_counts=(3, 2, 2))


class TestScores:
    truth = torch.tensor([[[1.0, 1.0, 1.0], [4.0, 4.0, 4.0]]])
    placed = torch.tensor([[[1.0, 2.0, 4.0], [4.0, 8.0, 3.0]]])

    def data(self, valid=None):
        known = torch.ones(1, 2, 3, dtype=torch.bool)
        if valid is not None:
            known[:] = torch.tensor(valid)
        return {"surfaces": self.truth, "valid": known}

    def test_by_hand(self):
        found = scores.score(self.placed, self.data())
        assert found["masd"].tolist() == pytest.approx([4 / 3, 5 / 3])
        assert found["sd"] == pytest.approx(1 / 6)
        assert found["broken"] == pytest.approx(1 / 3)

    def test_gaps_count_nowhere(self):
        data = self.data([[True, False, False], [False, False, False]])
        data["surfaces"] = torch.where(data["valid"], self.truth, torch.nan)
        found = scores.score(self.placed, data)
        assert found["masd"][0] == 0 and math.isnan(found["masd"][1]) and found["sd"] == 0

    def test_a_touch_is_no_break(self):
        surfaces = torch.tensor([[[1.0, 1.0], [1.0, 1.0 - 1e-5]]])
        assert scores.broken(surfaces).tolist() == [[False, True]]

    def test_a_gap_out_of_range(self):
        surfaces = torch.tensor([[[0.0, 0.0, 0.0], [2.0, 0.5, 2.0], [5.0, 3.5, 9.0]]])
        low, high = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0])
        assert scores.outside(surfaces, low, high).tolist() == [[False, True, True]]

    def test_a_row_keeps_its_surfaces(self):
        found = scores.row(self.placed, self.data())
        assert found["extras"]["placed"] is self.placed
        assert found["sd"] == scores.score(self.placed, self.data())["sd"]


class TestIVUS:
    def test_data(self):
        task, mm = ivus_experiment.load(SMALL, 0)
        parts = [task.train, task.validation, task.test]
        assert [len(p["image"]) for p in parts] == [3, 2, 2] and task.circular
        assert len(torch.cat([p["image"] for p in parts]).flatten(1).unique(dim=0)) == 7
        other = ivus_experiment.load(SMALL, 1)[0]
        assert not torch.equal(other.train["image"], task.train["image"])
        assert mm == pytest.approx(5.0 / 32)  # a field of view of 5 mm

    def test_refuses_a_data_set_without_frames_to_validate(self):
        class Reader:
            def split(self):
                return [0, 1, 2], [3, 4]

        with pytest.raises(ValueError, match="validation"):
            ivus_experiment.load(SMALL, 0, Reader())

    def test_a_disc_has_the_area_of_a_circle(self):
        mask = ivus_experiment.disc(torch.full((2, 90), 20.0), 40, 128)
        assert mask.shape == (2, 1, 128, 128)
        # Half of the image's half side: 32 pixels.
        assert mask[0].sum().item() == pytest.approx(math.pi * 32**2, rel=0.01)

    def test_concentric_circles_by_hand(self):
        truth = torch.tensor([10.0, 20.0])[None, :, None].expand(1, 2, 90)
        placed = torch.tensor([10.0, 15.0])[None, :, None].expand(1, 2, 90)
        data = {
            "image": torch.zeros(1, 1, 40, 90),
            "surfaces": truth,
            "valid": torch.ones(1, 2, 90, dtype=torch.bool),
        }
        found = ivus_experiment.score(placed, data, mm_per_row=0.1, pixels=256)
        for key in ("lumen Dice", "lumen Jaccard"):
            assert found[key] == 1
        assert found["lumen HD"] == 0 and found["lumen PAD"] == 0
        share = (15 / 20) ** 2
        assert found["media Jaccard"] == pytest.approx(share, abs=0.01)
        assert found["media Dice"] == pytest.approx(2 * share / (1 + share), abs=0.01)
        assert found["media PAD"] == pytest.approx(1 - share, abs=0.01)
        assert found["media HD"] == pytest.approx(0.5, abs=0.07)  # 5 rows, within two pixels
        assert found["masd"].tolist() == [0, 5] and np.ndim(found["broken"]) == 0
