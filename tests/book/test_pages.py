"""Every page as a reader opens it: from the disk, with no network, on a screen and on a phone."""

import re
import time
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.browser

# Harmless messages of others' scripts. The widgets' schema checker complains of its own schema. The
# theme that Python 3.10 gets preloads an icon font, which a page from the disk may not; its icons
# are drawn without it. Failed requests are looked at by themselves.
KNOWN = ("strict mode: use allowUnionTypes", "Access to font at", "Failed to load resource")
VIEWS = 'script[type="application/vnd.jupyter.widget-view+json"]'
PRELOADED = "/_static/vendor/fontawesome/"


@pytest.fixture(scope="module")
def opened(browser, site, document):
    context = browser.new_context(viewport={"width": 1300, "height": 900}, offline=True)
    page = context.new_page()
    seen = SimpleNamespace(page=page, errors=[], foreign=[], failed=[])

    def gate(route):
        if route.request.url.startswith(("file://", "data:", "blob:")):
            return route.continue_()
        seen.foreign.append(route.request.url)
        return route.abort()

    page.route("**/*", gate)
    page.on("pageerror", lambda error: seen.errors.append(error.message))
    page.on("console", lambda m: seen.errors.append(m.text) if m.type == "error" else None)
    page.on("requestfailed", lambda request: seen.failed.append(request.url))
    page.goto(f"file://{site}/{document}.html")
    wait_until_drawn(page)
    yield seen
    context.close()


def wait_until_drawn(page):
    """Formulas are typeset, and a widget stands in the place of each of its scripts.

    The player comes when the first widget comes near, so the test goes there first.
    """
    page.wait_for_function("!window.MathJax?.startup || MathJax.startup.promise.then(() => true)")
    views = page.locator(VIEWS).count()
    if views:
        page.locator(VIEWS).first.evaluate("(view) => view.parentElement.scrollIntoView()")
    until = time.monotonic() + 20
    while page.locator(".widget-subarea > .jupyter-widgets, .jupyter-widgets-view").count() < views:
        if time.monotonic() > until:
            break  # the tests below say what is missing
        page.wait_for_timeout(100)
    page.wait_for_timeout(200)


def test_no_request_leaves_the_book(opened):
    assert opened.foreign == []
    assert [url for url in opened.failed if PRELOADED not in url] == []


def test_no_script_fails(opened):
    assert [text for text in opened.errors if not text.startswith(KNOWN)] == []


def test_every_picture_has_words(opened):
    silent = opened.page.evaluate(
        """() => [...document.querySelectorAll("article img, .bd-article img")]
              .filter((image) => !image.alt.trim())
              .map((image) => image.outerHTML.slice(0, 200))"""
    )
    assert silent == []
    assert opened.page.locator("img:not([alt])").count() == 0


def test_formulas_are_typeset(opened):
    untouched = opened.page.evaluate(
        """() => [...document.querySelectorAll("article .math")]
              .filter((element) => !element.querySelector("mjx-container"))
              .map((element) => element.textContent.slice(0, 80))"""
    )
    assert untouched == []
    prose = opened.page.evaluate(
        """() => {
          const copy = document.querySelector("article").cloneNode(true);
          copy.querySelectorAll("pre, code, script, mjx-container").forEach((e) => e.remove());
          return copy.textContent;
        }"""
    )
    assert re.findall(r"\$[^$\n]{1,80}\$|\\\(.{1,80}\\\)|\\\[|\$\$", prose) == []
    assert opened.page.locator("mjx-merror, [data-mjx-error]").count() == 0


def test_every_slider_moves_its_picture(opened):
    page = opened.page
    views = page.locator(VIEWS).count()
    handles = page.locator(".noUi-handle")
    if views == 0:
        pytest.skip("no widgets on this page")
    assert handles.count() > 0, "the page holds widgets, but none was drawn"
    dead = [i for i in range(handles.count()) if not moves_picture(page, handles.nth(i))]
    assert dead == [], f"sliders (in page order) that change nothing: {dead}"


def moves_picture(page, handle):
    """Go to the slider's start, then step by step until the pixels of a picture differ."""
    output = handle.locator("xpath=ancestor::*[contains(@class, 'cell_output')][1]")

    def pixels():
        page.wait_for_timeout(150)
        images = output.locator("img.widget-image").all()
        return [image.screenshot() for image in images if image.is_visible()]

    handle.focus()
    page.keyboard.press("Home")
    start = pixels()
    assert start, "no picture beside this slider"
    for _ in range(12):
        page.keyboard.press("ArrowRight")
        if pixels() != start:
            return True
    return False


def test_the_words_follow_the_slider(opened):
    page = opened.page
    handles = page.locator(".noUi-handle")
    if handles.count() == 0:
        pytest.skip("no slider on this page")
    for told, shown in (("aria-label", "label"), ("aria-valuetext", "readout")):
        texts = page.locator(f".widget-slider .widget-{shown}").all_text_contents()
        assert handles.evaluate_all(f"all => all.map((h) => h.getAttribute('{told}'))") == texts
        assert all(texts)

    def words():
        page.wait_for_timeout(150)
        return page.locator("img.widget-image").evaluate_all("all => all.map((i) => i.alt)")

    handles.first.focus()
    page.keyboard.press("Home")
    start = words()
    page.keyboard.press("ArrowRight")
    assert words() != start


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_fits_a_phone(opened, theme):
    page = opened.page
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme=theme)
    page.wait_for_function("(theme) => document.documentElement.dataset.theme === theme", arg=theme)
    try:
        width = page.evaluate("document.documentElement.scrollWidth")
        culprits = page.evaluate(
            """() => [...document.querySelectorAll("article *")]
                  .filter((e) => e.getBoundingClientRect().right > 391
                              && !e.closest("pre, table, .math, mjx-container, .cell_output"))
                  .slice(0, 5).map((e) => e.outerHTML.slice(0, 120))"""
        )
        assert width <= 390, culprits
    finally:
        page.set_viewport_size({"width": 1300, "height": 900})


def test_search_works_from_the_disk(browser, site):
    page = browser.new_context(offline=True).new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(error.message))
    page.goto(f"file://{site}/search.html?q=claims")
    page.wait_for_selector("#search-results li a")
    page.wait_for_timeout(300)
    links = page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    assert any("how-to-read-claims.html" in link for link in links)
    assert errors == []


def test_every_question_says_which_answer_is_right(opened):
    page = opened.page
    questions = page.locator(".medseg-question")
    if questions.count() == 0:
        pytest.skip("no questions on this page")
    for question in questions.all():
        assert question.locator("details > p:visible").count() == 0  # nothing is given away
        answer = question.locator("details.right").first
        answer.locator("summary").focus()
        page.keyboard.press("Enter")
        assert answer.locator("p").is_visible() and "Right" in answer.locator("p").inner_text()
        page.keyboard.press("Enter")
    assert page.locator(".medseg-question mjx-merror").count() == 0


def test_solutions_are_folded_until_asked_for(opened):
    folds = opened.page.locator("details.solution")
    if folds.count() == 0:
        pytest.skip("no folded cells of solutions on this page")
    for fold in folds.all():
        assert fold.locator("p:visible, .cell:visible").count() == 0
        fold.locator("> summary").focus()
        opened.page.keyboard.press("Enter")
        assert fold.locator(".cell_output:visible").count() > 0  # its answer
        assert fold.locator("h1, h2, h3, h4").count() == 0
        opened.page.keyboard.press("Enter")
