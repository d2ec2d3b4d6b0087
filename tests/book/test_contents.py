"""What stands in several files agrees: contents and pages, conda and pip, words and commands."""

import re
import sys

import pytest
import yaml
from self_contained import toc_files
from sphinx_external_toc.parsing import parse_toc_yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def written_pages(root):
    found = [p for suffix in ("md", "ipynb") for p in (root / "book").rglob(f"*.{suffix}")]
    return {
        p.relative_to(root).with_suffix("").as_posix()
        for p in found
        if not {"_static", "_ext", ".ipynb_checkpoints"} & set(p.parts)
    }


def test_every_page_of_the_contents_exists(root, document):
    assert document in written_pages(root)


def test_every_page_stands_in_the_contents(root):
    assert written_pages(root) <= set(toc_files(root / "_toc.yml"))


def test_contents_are_read_as_sphinx_reads_them(root):
    theirs = parse_toc_yaml(root / "_toc.yml")
    assert set(toc_files(root / "_toc.yml")) == set(theirs.keys())


def test_every_notebook_has_its_source(root):
    for notebook in (root / "book").rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in notebook.parts:
            assert notebook.with_suffix(".py").is_file(), notebook


def test_every_folder_of_chapters_is_a_theme(root):
    themes = {theme["folder"] for theme in yaml.safe_load((root / "book/themes.yml").read_text())}
    folders = {p.parent.name for p in (root / "book").glob("*/*.ipynb")}
    assert folders - {"guide", "primers"} <= themes
    assert len(themes) == 9


def test_conda_and_pip_install_the_same(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    packages = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    assert f"python{project['requires-python']}" in packages
    (pip,) = [entry["pip"] for entry in packages if isinstance(entry, dict)]
    assert "--constraint constraints.txt" in pip
    (editable,) = [line for line in pip if line.startswith("--editable")]
    extras = re.search(r"\[(.*)\]", editable)[1].split(",")
    assert set(extras) == set(project["optional-dependencies"])
    assert f".[{','.join(extras)}]" in (root / "Makefile").read_text()


def commands(root):
    """(place, command) of every shell block of the README and of the pages."""
    for path in [root / "README.md", *sorted((root / "book").rglob("*.md"))]:
        for block in re.findall(r"```bash\n(.*?)```", path.read_text(encoding="utf-8"), re.S):
            for line in block.splitlines():
                yield path.name, line


def test_readme_points_to_files_that_exist(root):
    readme = (root / "README.md").read_text(encoding="utf-8")
    images = re.findall(r"<img [^>]*>", readme)
    named = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme)
    named += [re.search(r'src="([^"]+)"', image)[1] for image in images]
    assert images and [path for path in named if not (root / path).exists()] == []
    assert all(re.search(r'alt="[^"]{9,}"', image) for image in images)


def test_readme_and_guide_name_targets_that_exist(root):
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.M))
    named = {(p, m) for p, line in commands(root) for m in re.findall(r"\bmake ([a-z]+)", line)}
    assert {m for _, m in named} >= {"book", "test"}
    assert [pair for pair in named if pair[1] not in targets] == []


def test_readme_and_guide_name_commands_that_exist(root):
    click = pytest.importorskip("click")
    from medseg_book.cli import main

    context = click.Context(main)
    for place, line in commands(root):
        for name, rest in re.findall(r"(?:^|&& )medseg ([a-z]+)([^#&]*)", line):
            command = main.get_command(context, name)
            assert command is not None, f"{place}: medseg {name}"
            options = {o for parameter in command.params for o in parameter.opts}
            for option in re.findall(r"(?<!\S)--?[a-z-]+", re.sub(r"'[^']*'", "", rest)):
                assert option in options, f"{place}: medseg {name} {option}"


def test_citations_have_an_entry(root):
    keys = set(re.findall(r"^@\w+\{(\w+),", (root / "book/references.bib").read_text(), re.M))
    for path in [*(root / "book").rglob("*.md"), *(root / "book").rglob("*.py")]:
        if "_ext" in path.parts:
            continue
        for cited in re.findall(r"\{cite:\w+\}`([^`]+)`", path.read_text(encoding="utf-8")):
            assert set(re.split(r"\s*,\s*", cited)) <= keys, path
