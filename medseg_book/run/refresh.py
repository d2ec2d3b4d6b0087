"""Make a chapter's stored notebook from its source: convert, run, clean, record, replace."""

from __future__ import annotations

import base64
import io
import os
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from . import files, notebook
from .catalogue import Chapter
from .clean import clean
from .errors import UsageError
from .run import Progress, RunResult, execute

THUMBNAIL_WIDTH = 480


def refresh(
    chapter: Chapter, *, scale: str = "lesson", device: str = "cpu", progress: Progress = False
) -> RunResult:
    """Run the chapter's source and store it, with its outputs, as the `.ipynb` of the pair.

    The book shows lesson scale on a CPU; another scale or device is for trying out (and
    `medseg check` says so). A failed run changes nothing: the notebook with the traceback
    stands beside as `<slug>.failed.ipynb`.
    """
    files.check_target(chapter.stored)
    declared = notebook.parameters(chapter.code)
    given = {k: v for k, v in (("scale", scale), ("device", device)) if k in declared}
    with tempfile.TemporaryDirectory(prefix="medseg-refresh-") as folder:
        out = Path(folder) / chapter.stored.name
        result = execute(
            chapter.source, out, given, progress=progress, root=chapter.root, cwd=chapter.root
        )
        if not result.ok:
            failed = chapter.stored.with_suffix(".failed.ipynb")
            files.write_whole(failed, Path(result.output).read_bytes())
            return _replace_output(result, failed)
        executed = notebook.read_stored(out)
    nb = clean(executed, chapter.code, chapter.root)
    nb.metadata["medseg"] = result.provenance
    picture = thumbnail(nb)
    files.write_whole(chapter.stored, nbformat.writes(nb) + "\n")
    if picture:
        chapter.thumbnail.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(chapter.thumbnail, picture)
    chapter.stored.with_suffix(".failed.ipynb").unlink(missing_ok=True)
    # Jupytext in JupyterLab takes the newer file of a pair as the one that was edited.
    os.utime(chapter.source)
    chapter.__dict__.pop("outputs", None)  # forget the stored notebook that was read before
    return _replace_output(result, chapter.stored)


def thumbnail(nb: NotebookNode) -> bytes | None:
    """The image of the cell tagged `thumbnail` as WebP, 480 px wide; None without such a cell."""
    tagged = [cell for cell in nb.cells if "thumbnail" in notebook.tags(cell)]
    if not tagged:
        return None
    from PIL import Image

    for output in tagged[0].outputs:
        for mime in ("image/png", "image/jpeg", "image/webp"):
            if mime in output.get("data", {}):
                image = Image.open(io.BytesIO(base64.b64decode(output.data[mime])))
                image = _on_white(image)
                height = max(1, round(image.height * THUMBNAIL_WIDTH / image.width))
                stream = io.BytesIO()
                image.resize((THUMBNAIL_WIDTH, height), Image.Resampling.LANCZOS).save(
                    stream, "WEBP", quality=82, method=6
                )
                return stream.getvalue()
    raise UsageError("the cell tagged `thumbnail` shows no PNG, JPEG or WebP image")


def _on_white(image: object) -> object:
    from PIL import Image

    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _replace_output(result: RunResult, output: Path) -> RunResult:
    from dataclasses import replace

    return replace(result, output=str(output))
