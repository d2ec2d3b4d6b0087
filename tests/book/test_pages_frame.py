"""The pages' frame as a reader meets it: switch, gallery, contents, player, search, paper."""

import pytest
import vendored_scripts

pytestmark = pytest.mark.browser

CHAPTER = "book/surfaces-and-structure/edpcnn"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
# What is the theme's own: (rule, part of the element's HTML).
THEMES_OWN = [
    ("aria-allowed-role", "pst-search-dialog"),
]


@pytest.fixture
def visit(browser, site):
    """Opens a page of the book from the disk, without network."""
    contexts = []

    def go(address, width=1300, height=800):
        contexts.append(
            browser.new_context(viewport={"width": width, "height": height}, offline=True)
        )
        page = contexts[-1].new_page()
        page.goto(f"file://{site}/{address}", wait_until="load")
        return page

    yield go
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def axe(root):
    folder = root / "_build" / "axe"
    if not vendored_scripts.is_current(folder, vendored_scripts.FOR_TESTS):
        vendored_scripts.fetch(folder, vendored_scripts.FOR_TESTS)
    return (folder / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [1300, 390])
def test_no_barrier_of_level_a_or_aa(visit, axe, document, width):
    page = visit(f"{document}.html", width=width)
    page.evaluate(axe)
    found = page.evaluate("(tags) => axe.run(document, {runOnly: tags})", WCAG)["violations"]
    ours = [
        f"{rule['id']}: {node['html'][:160]}"
        for rule in found
        for node in rule["nodes"]
        if not any(rule["id"] == known and part in node["html"] for known, part in THEMES_OWN)
    ]
    assert ours == []


def open_code(page):
    return page.locator("details.fold.code[open]").count()


def test_the_switch_opens_and_closes_all_code_and_remembers(visit):
    page = visit(f"{CHAPTER}.html")
    all_code = page.locator("details.fold.code").count()
    as_open = page.locator("details.fold.as-open").count()
    assert 0 < as_open < all_code
    assert open_code(page) == as_open
    page.locator(".code-switch input:checked").focus()
    page.keyboard.press("ArrowRight")
    assert open_code(page) == all_code
    page.reload()
    assert open_code(page) == all_code
    page.get_by_role("radio", name="Read").check(force=True)
    assert open_code(page) == 0


def test_no_switch_without_code(visit):
    page = visit("book/guide/settings.html")
    assert page.locator(".code-switch").count() == 0


def test_the_gallery_finds_and_filters(visit):
    page = visit("book/index.html")
    cards = page.locator(".gallery.filtered .sd-col")
    count = page.locator(".gallery-filters output")
    every = cards.count()
    assert count.text_content() == f"{every} chapters"
    page.get_by_label("Level").select_option("advanced")
    shown = [card.inner_text() for card in cards.all() if card.is_visible()]
    assert 0 < len(shown) < every
    assert all("advanced" in text for text in shown)
    assert count.text_content() == f"{len(shown)} of {every} chapters"
    page.reload()  # the address keeps the choice
    assert page.get_by_label("Level").input_value() == "advanced"
    page.get_by_role("button", name="Show all").click()
    page.locator(".gallery-filters input[name=q]").fill("no such word")
    assert count.text_content() == f"0 of {every} chapters"
    links = page.locator(".gallery a").all_text_contents()
    assert len(set(links)) == len(links)


def test_the_player_comes_with_the_first_widget(visit):
    page = visit(f"{CHAPTER}.html")
    scripts = page.locator('script[src*="embed-amd.js"]')
    page.wait_for_timeout(500)
    assert scripts.count() == 0
    page.locator('script[type$="widget-view+json"]').last.evaluate(
        "(v) => v.parentElement.scrollIntoView()"
    )
    page.wait_for_selector("html[data-widgets=drawn]", timeout=60_000)
    assert scripts.count() == 1
    assert visit("book/glossary.html").locator('script[src*="widgets-player"]').count() == 0


def test_contents_mark_the_section_in_view(visit):
    page = visit(f"{CHAPTER}.html")
    links = page.locator("#pst-page-toc-nav a")
    for i in range(0, links.count(), 3):
        address = links.nth(i).get_attribute("href")
        page.evaluate(
            "(id) => document.getElementById(id).scrollIntoView({behavior: 'instant'})", address[1:]
        )
        page.wait_for_timeout(300)
        assert page.locator("#pst-page-toc-nav a.active").get_attribute("href") == address


@pytest.mark.parametrize("word", ["Dice", "bias field", "min cut", "phantom"])
def test_search_finds_the_glossary_first(visit, word):
    page = visit(f"search.html?q={word}")
    first = page.wait_for_selector("#search-results li a")
    assert "glossary.html#term-" in first.get_attribute("href")


def test_a_chapter_prints_its_text_and_no_navigation(visit):
    page = visit(f"{CHAPTER}.html")
    page.emulate_media(media="print")
    for part in (
        ".bd-sidebar-primary",
        ".bd-sidebar-secondary",
        ".code-switch",
        ".bd-header-article",
    ):
        assert not page.locator(part).first.is_visible(), part
    assert page.locator("article h1, .bd-article h1").first.is_visible()


def test_solutions_print_last_and_come_back(visit):
    page = visit(f"{CHAPTER}.html")
    order = """() => [...document.querySelectorAll("article h2, article details.solution")]
        .map((e) => e.matches("h2") ? e.firstChild.textContent : "solution")"""
    before = page.evaluate(order)
    assert before.index("solution") < before.index("To take away")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    count = before.count("solution")
    assert page.evaluate(order)[-count - 1 :] == ["Solutions", *["solution"] * count]
    assert "Exercise 1" in page.locator("details.solution > summary").first.inner_text()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(order) == before


def test_a_tap_enlarges_a_figure_on_a_phone(visit):
    page = visit(f"{CHAPTER}.html", width=390)
    figure = page.locator("button.enlarge").first
    assert figure.evaluate("(b) => b.querySelector('img').alt.length") > 10
    figure.press("Enter")
    large = page.locator("dialog.enlarged img")
    assert large.evaluate("(image) => image.getBoundingClientRect().width") >= 900
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.enlarged", state="detached")
    assert visit(f"{CHAPTER}.html").locator("button.enlarge").count() == 0
