"""The book itself: every notebook is as it should be, and every one runs at smoke scale."""

import os
from pathlib import Path

import nbformat
import pytest

from medseg_core import claims
from medseg_core.chapters.catalogue import find_chapter, find_chapters
from medseg_core.chapters.check import check
from medseg_core.chapters.run import execute

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = {chapter.slug: chapter for chapter in find_chapters(ROOT)}
WITH_SCALES = [slug for slug, chapter in CHAPTERS.items() if chapter.kind != "page"]


@pytest.mark.parametrize("slug", CHAPTERS)
def test_stored_notebook_is_complete_and_current(slug):
    verdict = check(find_chapter(ROOT, slug))
    assert not verdict.problems, "\n".join(map(str, verdict.problems))


@pytest.mark.parametrize("slug", WITH_SCALES)
def test_runs_at_smoke_scale(slug, tmp_path):
    result = execute(slug, tmp_path / "out.ipynb", {"scale": "smoke"}, root=ROOT, cwd=tmp_path)
    assert result.ok, result.failure
    assert os.listdir(tmp_path) == ["out.ipynb"]  # nothing else is left behind
    if CHAPTERS[slug].kind == "chapter":
        judged = claims.read(nbformat.read(tmp_path / "out.ipynb", as_version=4))["claims"]
        assert {claim["verdict"] for claim in judged} <= {"not judged", "paper scale only", "noted"}


@pytest.mark.skipif("MEDSEG_DATA" not in os.environ, reason="MEDSEG_DATA names no folder")
def test_edpcnn_runs_on_sunnybrook(tmp_path):
    folder = Path(os.environ["MEDSEG_DATA"]) / "sunnybrook-lv"
    given = {"scale": "smoke", "dataset": "sunnybrook", "data_dir": str(folder)}
    result = execute("edpcnn", tmp_path / "out.ipynb", given, root=ROOT)
    assert result.ok, result.failure
