"""Keep the built book whole: every page there, no other host needed, buttons only with an address.

* A page that the table of contents names and nobody wrote stops the build.
* Scripts of other hosts that Jupyter Book adds unasked (Thebe's loader) are taken out.
* Repository and launch buttons appear when `repository: url:` in `_config.yml`, or the
  environment variable MEDSEG_REPOSITORY_URL, holds an address. Without one they are off.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse

import yaml
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

BUTTONS = ("use_repository_button", "use_issues_button", "use_edit_page_button")


def toc_files(toc: Path) -> list[str]:
    """All pages of a Jupyter Book table of contents, in reading order, without suffix."""

    def walk(node: dict) -> list[str]:
        own = [node[key] for key in ("root", "file") if key in node]
        children = [c for key in ("parts", "chapters", "sections") for c in node.get(key, [])]
        return own + [page for child in children for page in walk(child)]

    return walk(yaml.safe_load(toc.read_text(encoding="utf-8")))


def check_pages(app: Sphinx, config: Config) -> None:
    root = Path(app.confdir)
    missing = [
        page
        for page in toc_files(root / config.external_toc_path)
        if not any((root / f"{page}{suffix}").is_file() for suffix in (".md", ".ipynb"))
    ]
    if missing:
        raise ConfigError(f"_toc.yml names pages that do not exist: {', '.join(missing)}")


def set_address(app: Sphinx, config: Config) -> None:
    options = config.html_theme_options
    url = os.environ.get("MEDSEG_REPOSITORY_URL") or options.get("repository_url") or ""
    if not url:
        options["launch_buttons"] = {}
        return
    address = urlparse(url)
    if address.scheme != "https" or len(address.path.strip("/").split("/")) < 2:
        raise ConfigError(
            f"repository url must look like https://host/owner/name, got {url!r} "
            "(`repository: url:` in _config.yml, or MEDSEG_REPOSITORY_URL)"
        )
    options["repository_url"] = url.rstrip("/")
    known = [name for name in ("github", "gitlab", "bitbucket") if name in address.netloc]
    options["repository_provider"] = (known or ["gitlab"])[0]  # most own servers are GitLab's
    if "github" not in known:
        options["launch_buttons"]["colab_url"] = ""  # Colab opens notebooks from GitHub only
    options.update(dict.fromkeys(BUTTONS, True))


def without_foreign_scripts(app, pagename, templatename, context, doctree) -> None:
    # Thebe's start script names its CDN, and does nothing without a Binder behind the book.
    def names_thebe(script) -> bool:
        return (
            "thebe" in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', '')}"
        )

    context["script_files"] = [s for s in context.get("script_files", []) if not names_thebe(s)]


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", check_pages)
    app.connect("config-inited", set_address)
    app.connect("html-page-context", without_foreign_scripts, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
