"""The book itself: every notebook is as it should be, and every one runs at smoke scale."""

import os
from pathlib import Path

import pytest

from medseg_book.run.catalogue import find_chapter, find_chapters
from medseg_book.run.check import check
from medseg_book.run.limits import Limits
from medseg_book.run.run import execute

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = {chapter.slug: chapter for chapter in find_chapters(ROOT)}
WITH_SCALES = [slug for slug, chapter in CHAPTERS.items() if chapter.kind != "page"]
MOST_MIB = 3072  # of a run at smoke scale


@pytest.mark.parametrize("slug", CHAPTERS)
def test_stored_notebook_is_complete_and_current(slug):
    verdict = check(find_chapter(ROOT, slug))
    assert not verdict.problems, "\n".join(map(str, verdict.problems))


@pytest.mark.parametrize(
    "slug", [pytest.param(slug, marks=pytest.mark.xdist_group(slug)) for slug in WITH_SCALES]
)
def test_a_chapter_runs_at_smoke_scale_and_judges_nothing(slug, tmp_path):
    out, limits = tmp_path / f"{slug}.ipynb", Limits(memory_mb=MOST_MIB)
    result = execute(slug, out, {"scale": "smoke"}, root=ROOT, cwd=tmp_path, limits=limits)
    assert result.ok, result.failure.report()
    assert os.listdir(tmp_path) == [out.name]  # nothing else is left behind
    if CHAPTERS[slug].kind == "chapter":
        judged = {claim["verdict"] for claim in result.claims["claims"]}
        assert judged <= {"not judged", "paper scale only", "noted"}
        assert result.claims["metrics"], (
            "no claims.metric: a sweep of this chapter would have no curve"
        )


@pytest.mark.skipif("MEDSEG_DATA" not in os.environ, reason="MEDSEG_DATA names no folder")
def test_edpcnn_runs_on_sunnybrook(tmp_path):
    folder = Path(os.environ["MEDSEG_DATA"]) / "sunnybrook-lv"
    given = {"scale": "smoke", "dataset": "sunnybrook", "data_dir": str(folder)}
    result = execute("edpcnn", tmp_path / "out.ipynb", given, root=ROOT)
    assert result.ok, result.failure
