"""The frame of the pages, piece by piece: folds, sidebar, verdicts, the address to clone."""

import clone_command
import code_folds
import page_frame
import pytest
from docutils import nodes


def block(lines, language="ipython"):
    return nodes.literal_block("", "\n".join(["x = 1"] * lines), language=language)


def shown(name, lines):
    return nodes.container("", nodes.paragraph(text=name), block(lines, "python"))


@pytest.mark.parametrize(
    ("prompt", "parts", "words"),
    [
        ("Set-up: settings", [[block(56)]], "Set-up: settings, 56 lines"),
        ("", [[block(23)]], "Code, 23 lines"),
        ("", [[block(1)]], "Code, 1 line"),
        ("", [[block(4, "myst-ansi")]], "Output"),
        ("", [[block(1)], [shown("a.b.Settings", 9)]], "Source of Settings, 10 lines"),
        ("", [[shown("a.f", 1), shown("a.g", 1), shown("a.h", 1), shown("a.i", 1)]],
         "Source of f, g, h and 1 more, 4 lines"),
    ],
)  # fmt: skip
def test_a_fold_says_what_is_in_it(prompt, parts, words):
    assert code_folds.label(prompt, [nodes.container("", *part) for part in parts]) == words


SIDEBAR = """<p class="caption"><span>Surfaces</span></p>
<ul class="{0}"><li><a href="#">EDPCNN: a network</a></li></ul>
<p class="caption"><span>Guide</span></p>
<ul><li><a href="x">Learn</a>
<details><summary></summary><ul><li><a href="y">Y</a></li></ul></details>
</li></ul>"""


@pytest.mark.parametrize("current", [True, False])
def test_themes_fold_and_titles_are_short(current):
    soup = page_frame.tidy_sidebar(SIDEBAR.format("current" if current else ""), {"Surfaces"})
    (theme,) = soup.select("details.theme")
    assert theme.has_attr("open") == current
    assert theme.summary.text == "Surfaces"
    assert theme.a.text == "EDPCNN"
    assert [p.text for p in soup.select("p.caption")] == ["Guide"]
    assert soup.select_one("li > details > summary")["aria-label"] == "Pages under Learn"


def test_the_address_is_cloned():
    assert commands_of("https://host/owner/name") == [
        "git clone https://host/owner/name",
        "cd name",
    ]
    assert commands_of("https://host/owner/name.git")[1] == "cd name"


def commands_of(url):
    return clone_command.commands(url).splitlines()
