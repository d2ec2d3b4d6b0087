"""The built files, read as text."""

import re
from html.parser import HTMLParser

import pytest


class Sources(HTMLParser):
    """Collects what a browser fetches by itself when it shows a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.found += [values.get("src"), values.get("srcset")]
        if tag == "link" and values.get("rel") not in ("search", "next", "prev", "canonical"):
            self.found.append(values.get("href"))


def foreign(addresses):
    return [a for a in addresses if a and re.match(r"(https?:)?//", a.strip())]


def test_page_was_built_and_is_whole(site, document):
    path = site / f"{document}.html"
    assert path.is_file()
    text = path.read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" not in text
    assert 'class="output stderr' not in text


def test_page_names_no_other_host(site, document):
    sources = Sources()
    sources.feed((site / f"{document}.html").read_text(encoding="utf-8"))
    assert len(sources.found) > 5, "the parser sees nothing"
    assert foreign(sources.found) == []


def test_styles_name_no_other_host(site):
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8", errors="replace")
        urls = re.findall(r"(?:url\(|@import )\s*['\"]?([^'\")\s]+)", text)
        assert foreign(urls) == [], sheet


def test_no_script_of_a_cdn(site, document):
    text = (site / f"{document}.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script(?![^>]*\+json)[^>]*>(.*?)</script>", text, re.S)
    assert not any(re.search(r"unpkg|jsdelivr|cdnjs|googleapis", s) for s in scripts)


def test_without_an_address_there_are_no_buttons(site, document):
    text = (site / f"{document}.html").read_text(encoding="utf-8")
    around = re.sub(r"<article.*?</article>", "", text, flags=re.S)
    for word in ("colab.research", "mybinder", "btn-source-repository-button", "executablebooks"):
        assert word not in around


def test_cover_shows_every_chapter_and_theme(site, root):
    import yaml

    text = (site / "book" / "index.html").read_text(encoding="utf-8")
    for theme in yaml.safe_load((root / "book" / "themes.yml").read_text()):
        assert theme["title"] in text
        for notebook in (root / "book" / theme["folder"]).glob("*.ipynb"):
            assert f'href="{theme["folder"]}/{notebook.stem}.html"' in text


def test_parser_finds_a_foreign_script():
    sources = Sources()
    sources.feed('<script src="//cdn.example/x.js"></script><link rel="icon" href="a.svg">')
    assert foreign(sources.found) == ["//cdn.example/x.js"]


@pytest.mark.parametrize("name", ["require.js", "embed-amd.js", "tex-svg-full.js"])
def test_scripts_lie_beside_the_pages(site, name):
    assert (site / "_static" / "vendor" / name).stat().st_size > 10_000
