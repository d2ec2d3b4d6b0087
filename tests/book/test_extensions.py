"""The book's own Sphinx extensions, without a build."""

import io
import subprocess
import tarfile
from types import SimpleNamespace

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

    def npm(arguments, cwd):
        assert arguments[-1] == "tiny@1"
        subprocess.run(["cp", str(tmp_path / "tiny.tgz"), cwd], check=True)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(vendored_scripts, "run_npm", npm)
    return SimpleNamespace(folder=tmp_path, packages=packages)


def test_fetch_takes_the_named_files_and_is_current(one_package):
    folder, packages = one_package.folder / "static" / "vendor", one_package.packages
    assert not vendored_scripts.is_current(folder, packages)
    vendored_scripts.fetch(folder, packages)
    assert {p.name for p in folder.iterdir()} == {"x.js", vendored_scripts.STAMP}
    assert (folder / "x.js").read_bytes() == b"let a;"
    assert vendored_scripts.is_current(folder, packages)
    (folder / "x.js").unlink()
    assert not vendored_scripts.is_current(folder, packages)


def test_another_version_is_not_current(one_package):
    folder = one_package.folder / "vendor"
    vendored_scripts.fetch(folder, one_package.packages)
    assert not vendored_scripts.is_current(folder, {"tiny@2": ("other", {"a.js": "x.js"})})


def test_a_changed_archive_is_refused_and_the_old_folder_stays(one_package):
    folder, packages = one_package.folder / "vendor", one_package.packages
    vendored_scripts.fetch(folder, packages)
    archive(one_package.folder / "tiny.tgz", {"a.js": b"let evil;"})
    with pytest.raises(ExtensionError, match="tiny@1 has not the expected checksum"):
        vendored_scripts.fetch(folder, packages)
    assert (folder / "x.js").read_bytes() == b"let a;"
    assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".vendor-")] == []


def test_no_network_says_what_to_do(one_package, monkeypatch):
    answer = SimpleNamespace(returncode=1, stderr="ENOTFOUND", stdout="")
    monkeypatch.setattr(vendored_scripts, "run_npm", lambda *a, **k: answer)
    with pytest.raises(ExtensionError, match=r"ENOTFOUND(.|\n)*copy the folder"):
        vendored_scripts.fetch(one_package.folder / "vendor", one_package.packages)


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
