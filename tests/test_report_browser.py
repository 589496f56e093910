"""The report in a real browser: nothing is loaded, nothing overflows, the slider moves, all of it can be read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cheaplip import runs
from cheaplip.report import write_report
from cheaplip.settings import TrainSettings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
WIDTHS = (360, 1200)
# For each text that is seen: how much it stands out from what is behind it, as WCAG 2 measures it.
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.checkVisibility() || element.closest("script, noscript, title, desc")) continue;
    const style = getComputedStyle(element);
    const front = light(parse(element.namespaceURI.endsWith("svg") ? style.fill : style.color));
    const back = light(behind(element));
    found.push([(Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05), element.textContent.trim()]);
  }
  return found;
}"""


def unfold(page: Page) -> None:
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") > 0
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed")
    reason = "needs playwright, which drives the browser"
    driver = pytest.importorskip("playwright.sync_api", reason=reason)
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(OPTIONS), headless=True)
        yield started
        started.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of one run, whose name is long and hostile, and of two."""
    folder = tmp_path_factory.mktemp("browser")
    first = folder / ("<img src=x onerror=alert(1)>" + "a-name-without-end" * 4)
    for out, penalty in ((first, "lipschitz"), (folder / "plain", "none")):
        runs.train(
            TrainSettings(data="digits", model="mlp:64-16-10:relu", penalty=penalty, epochs=3, out=str(out)),
            progress=False,
        )
        runs.evaluate_run(out, ["noise", "pgd-paper", "pgd"], eps=[0.25, 0.5], limit=10, progress=False)
    return {
        "one": write_report([first], folder / "one.html", progress=False),
        "two": write_report([first, folder / "plain"], folder / "two.html", progress=False),
    }


@pytest.fixture
def visit(browser: Browser, made: dict[str, Path]) -> Iterator[Any]:
    """Open a page in a fresh profile; whatever it loads, says or asks for besides is an error in the end."""
    contexts, noise = [], []

    def opened(name: str, width: int = 1200, scheme: Any = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        address = made[name].as_uri()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("dialog", lambda dialog: noise.append(dialog.message))
        page.on("request", lambda r: None if r.url == address or r.url.startswith("data:") else noise.append(r.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert noise == []


@pytest.mark.parametrize("name", ["one", "two"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_and_every_picture_is_there_and_told(visit: Any, name: str, width: int) -> None:
    page: Page = visit(name, width)
    unfold(page)
    inner, seen = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert inner <= seen == width
    wide = page.evaluate(
        "[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll') && e.checkVisibility() && "
        "e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    pictures = page.evaluate("[...document.images].map((i) => [i.alt !== '', i.complete && i.naturalWidth > 0])")
    assert len(pictures) > 300
    assert all(told and there for told, there in pictures)


@pytest.mark.parametrize("name", ["one", "two"])
def test_slider_moves_through_the_updates(visit: Any, name: str) -> None:
    page: Page = visit(name)
    unfold(page)
    for slider in page.locator("input[type=range]").all()[:2]:
        frames = page.locator(f"[id='{slider.get_attribute('data-frames')}'] .frame")
        shown = frames.filter(visible=True)

        def state(shown: Any = shown) -> tuple[str, str]:
            assert shown.count() == 1
            return shown.locator(".quotient").inner_text(), shown.locator("img").first.get_attribute("src")

        slider.press("Home")
        first, told = state(), slider.get_attribute("aria-valuetext")
        slider.press("End")
        last = state()
        assert first[0] != last[0]
        assert first[1] != last[1]
        assert told is not None
        assert told.startswith("update 0 of 30: quotient ")
        slider.press("ArrowLeft")
        assert state() != last
        assert shown.get_attribute("data-update") == "29"
        assert page.locator(f"output[for='{slider.get_attribute('id')}']").inner_text() == "29"


def test_dark_is_dark_and_all_text_stands_out_in_both(visit: Any) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        page: Page = visit("two", scheme=scheme)
        unfold(page)
        grounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        found = page.evaluate(CONTRAST)
        assert len(found) > 200
        assert [pair for pair in found if pair[0] < 4.5] == []
        assert any(text == "epoch" for _, text in found)  # the figures are among them
    light, dark = (sum(map(int, grounds[s][4:-1].split(", "))) for s in ("light", "dark"))
    assert dark < 150 < 600 < light


def test_print_unfolds_all_and_shows_start_and_end_of_each_pair(visit: Any) -> None:
    page: Page = visit("two", scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("input[type=range]").filter(visible=True).count() == 0
    height = page.evaluate("document.querySelector('details.run').getBoundingClientRect().height")
    assert height > 1000
    for pair in page.locator(".pair").all():
        seen = pair.locator(".frame").evaluate_all(
            "fs => fs.filter((f) => f.checkVisibility()).map((f) => +f.dataset.update)"
        )
        assert seen[0] == 0
        assert 1 <= len(seen) <= 2


def test_page_without_script_still_shows_the_steepest_frame(browser: Browser, made: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(made["one"].as_uri())
    assert page.locator(".pair").first.locator(".frame").filter(visible=True).count() == 1
    context.close()
