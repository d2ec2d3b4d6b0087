"""The book's own Sphinx extensions, without a build."""

import io
import json
import subprocess
import tarfile
from collections import Counter
from types import SimpleNamespace

import chapter_gallery
import pytest
import self_contained
import vendored_scripts
from sphinx.errors import ConfigError, ExtensionError


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def one_package(tmp_path, monkeypatch):
    """A package `tiny` whose archive a stand-in for npm delivers."""
    archive(tmp_path / "tiny.tgz", {"a.js": b"let a;", "b.js": b"let b;"})
    packages = {"tiny@1": (vendored_scripts.sha512(tmp_path / "tiny.tgz"), {"a.js": "x.js"})}
    monkeypatch.setattr(vendored_scripts, "PACKAGES", packages)

    def npm(arguments, cwd):
        assert arguments[-1] == "tiny@1"
        subprocess.run(["cp", str(tmp_path / "tiny.tgz"), cwd], check=True)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(vendored_scripts, "run_npm", npm)
    return tmp_path


def test_fetch_takes_the_named_files_and_is_current(one_package):
    folder = one_package / "static" / "vendor"
    assert not vendored_scripts.is_current(folder)
    vendored_scripts.fetch(folder)
    assert {p.name for p in folder.iterdir()} == {"x.js", vendored_scripts.STAMP}
    assert (folder / "x.js").read_bytes() == b"let a;"
    assert vendored_scripts.is_current(folder)
    (folder / "x.js").unlink()
    assert not vendored_scripts.is_current(folder)


def test_another_version_is_not_current(one_package, monkeypatch):
    folder = one_package / "vendor"
    vendored_scripts.fetch(folder)
    monkeypatch.setattr(vendored_scripts, "PACKAGES", {"tiny@2": ("other", {"a.js": "x.js"})})
    assert not vendored_scripts.is_current(folder)


def test_a_changed_archive_is_refused_and_the_old_folder_stays(one_package):
    folder = one_package / "vendor"
    vendored_scripts.fetch(folder)
    archive(one_package / "tiny.tgz", {"a.js": b"let evil;"})
    with pytest.raises(ExtensionError, match="tiny@1 has not the expected checksum"):
        vendored_scripts.fetch(folder)
    assert (folder / "x.js").read_bytes() == b"let a;"
    assert [p.name for p in one_package.iterdir() if p.name.startswith(".vendor-")] == []


def test_no_network_says_what_to_do(one_package, monkeypatch):
    answer = SimpleNamespace(returncode=1, stderr="ENOTFOUND", stdout="")
    monkeypatch.setattr(vendored_scripts, "run_npm", lambda *a, **k: answer)
    with pytest.raises(ExtensionError, match=r"ENOTFOUND(.|\n)*copy the folder"):
        vendored_scripts.fetch(one_package / "vendor")


def config(**options):
    return SimpleNamespace(html_theme_options=options)


def test_no_address_no_buttons(monkeypatch):
    monkeypatch.delenv("MEDSEG_REPOSITORY_URL", raising=False)
    c = config(repository_url="", launch_buttons={"colab_url": "https://c"})
    self_contained.set_address(None, c)
    assert c.html_theme_options["launch_buttons"] == {}
    assert "use_repository_button" not in c.html_theme_options


@pytest.mark.parametrize("by_environment", [True, False])
@pytest.mark.parametrize(
    ("host", "provider", "colab"),
    [("github.com", "github", "c"), ("gitlab.com", "gitlab", ""), ("host.example", "gitlab", "")],
)
def test_an_address_brings_the_buttons(monkeypatch, by_environment, host, provider, colab):
    monkeypatch.delenv("MEDSEG_REPOSITORY_URL", raising=False)
    address = f"https://{host}/owner/name/"
    if by_environment:
        monkeypatch.setenv("MEDSEG_REPOSITORY_URL", address)
    c = config(repository_url="" if by_environment else address, launch_buttons={"colab_url": "c"})
    self_contained.set_address(None, c)
    options = c.html_theme_options
    assert options["repository_url"] == f"https://{host}/owner/name"
    assert options["repository_provider"] == provider
    assert options["launch_buttons"]["colab_url"] == colab
    assert all(options[button] for button in self_contained.BUTTONS)


@pytest.mark.parametrize("address", ["host/owner/name", "https://host.example", "git@host:o/n"])
def test_a_bad_address_is_refused(monkeypatch, address):
    monkeypatch.delenv("MEDSEG_REPOSITORY_URL", raising=False)
    with pytest.raises(ConfigError, match="https://host/owner/name"):
        self_contained.set_address(None, config(repository_url=address))


def test_missing_pages_are_named(tmp_path):
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: a\nparts:\n- chapters:\n  - file: b\n    sections: [{file: c}]\n"
    )
    (tmp_path / "a.md").write_text("# A")
    (tmp_path / "c.ipynb").write_text("{}")
    app = SimpleNamespace(confdir=tmp_path)
    with pytest.raises(ConfigError, match=r"do not exist: b$"):
        self_contained.check_pages(app, SimpleNamespace(external_toc_path="_toc.yml"))


def notebook(*markdown, claims=()):
    report = {
        "scale": "lesson",
        "claims": [{"id": str(i), "verdict": v} for i, v in enumerate(claims)],
    }
    cells = [{"cell_type": "markdown", "metadata": {}, "source": [text]} for text in markdown]
    output = {"output_type": "display_data", "data": {chapter_gallery.CLAIMS: report}}
    return {"cells": [*cells, {"cell_type": "code", "source": [], "outputs": [output]}]}


@pytest.mark.parametrize(
    ("text", "idea"),
    [
        ("# T\n\n- **Idea.** A map {cite:p}`x2019` and [a](b) path.\n", "A map and a path."),
        ("# T\n\n| **The idea** | A map. |\n", "A map."),
        ("# T\n\n- **Idea:** a map\n  and a path.\n- **Before:** no.\n:::\n", "a map and a path."),
        ("# T\n\n:::{note}\n:::\n\nFirst words.\n\nMore.", "First words."),
        ("# T\n", ""),
    ],
)
def test_a_card_reads_title_and_idea(tmp_path, text, idea):
    (tmp_path / "x.ipynb").write_text(json.dumps(notebook(text)))
    page = chapter_gallery.read_page(tmp_path, "x")
    assert (page.title, page.idea) == ("T", idea)


def test_a_card_counts_judged_claims_only(tmp_path):
    claims = ["holds", "holds", "within noise", "does not hold", "paper scale only", "noted"]
    (tmp_path / "x.ipynb").write_text(json.dumps(notebook("# T", claims=claims)))
    page = chapter_gallery.read_page(tmp_path, "x")
    assert page.verdicts == Counter(claims)
    assert chapter_gallery.verdict_line(page) == "2 of 4 judged claims hold"


def test_a_card_counts_parts_through_their_claim(tmp_path):
    content = notebook("# T", claims=["holds", "within noise", "within noise"])
    content["cells"][-1]["outputs"][0]["data"][chapter_gallery.CLAIMS]["claims"][2]["parts"] = "01"
    (tmp_path / "x.ipynb").write_text(json.dumps(content))
    assert chapter_gallery.read_page(tmp_path, "x").verdicts == Counter(["within noise"])
    assert chapter_gallery.verdict_line(chapter_gallery.Page("x", "T")) == ""
