"""The book itself: every notebook is as it should be, and every one runs at smoke scale."""

import csv
import os
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from medseg_book.cli import main
from medseg_book.run import notebook
from medseg_book.run.catalogue import find_chapter, find_chapters
from medseg_book.run.check import check
from medseg_book.run.run import execute

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = {chapter.slug: chapter for chapter in find_chapters(ROOT)}
WITH_SCALES = [slug for slug, chapter in CHAPTERS.items() if chapter.kind != "page"]
MOST_MIB = 3072  # of a run at smoke scale


@pytest.mark.parametrize("slug", CHAPTERS)
def test_stored_notebook_is_complete_and_current(slug):
    verdict = check(find_chapter(ROOT, slug))
    assert not verdict.problems, "\n".join(map(str, verdict.problems))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """All chapters at smoke scale, two at a time: the folder, and what was printed."""
    folder = tmp_path_factory.mktemp("smoke")
    options = f"run --all --scale smoke --workers 2 --memory-limit {MOST_MIB} --no-progress --out"
    result = CliRunner().invoke(main, [f"--root={ROOT}", *options.split(), str(folder)])
    return folder, result


def test_all_chapters_run_at_smoke_scale(smoke):
    folder, result = smoke
    assert result.exit_code == 0, result.output
    assert f"{len(WITH_SCALES)} done" in result.output and "slowest" in result.output
    expected = {f"{slug}.ipynb" for slug in WITH_SCALES} | {"sweep.csv"}
    assert set(os.listdir(folder)) == expected  # nothing else is left behind
    with (folder / "sweep.csv").open() as table:
        assert {row["slug"]: row["status"] for row in csv.DictReader(table)} == dict.fromkeys(
            WITH_SCALES, "done"
        )


@pytest.mark.parametrize("slug", WITH_SCALES)
def test_claims_are_not_judged_at_smoke_scale(slug, smoke):
    nb = nbformat.read(smoke[0] / f"{slug}.ipynb", as_version=4)
    stored = notebook.payload(nb, notebook.CLAIMS_MIME)
    if CHAPTERS[slug].kind == "chapter":
        judged = {claim["verdict"] for claim in stored["claims"]}
        assert judged <= {"not judged", "paper scale only", "noted"}
        assert stored["metrics"], "no claims.metric: a sweep of this chapter would have no curve"


@pytest.mark.skipif("MEDSEG_DATA" not in os.environ, reason="MEDSEG_DATA names no folder")
def test_edpcnn_runs_on_sunnybrook(tmp_path):
    folder = Path(os.environ["MEDSEG_DATA"]) / "sunnybrook-lv"
    given = {"scale": "smoke", "dataset": "sunnybrook", "data_dir": str(folder)}
    result = execute("edpcnn", tmp_path / "out.ipynb", given, root=ROOT)
    assert result.ok, result.failure
