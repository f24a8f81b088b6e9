"""The report in headless Chromium: nothing loaded from anywhere, everything drawn, no sideways scrolling."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from utils import env
from utils.tests.conftest import CHROMIUM

from .test_page import example_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
COMMITTED = env.ROOT / "figures" / "demo" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(params=["example", "committed"])
def report_file(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A small page with everything in it, and the report of the repository."""
    if request.param == "committed":
        if not COMMITTED.exists():
            pytest.skip("figures/demo/report.html has not been built")
        return COMMITTED
    monkeypatch.setattr(env, "FIGURES", tmp_path / "figures")
    monkeypatch.setenv("XTL_PROFILE", "smoke")
    write: Callable[..., Path] = request.getfixturevalue("write_notebook")
    return example_page(write, tmp_path, request.getfixturevalue("plot"))


@pytest.fixture
def opened(browser: Browser, report_file: Path) -> Iterator[tuple[Page, list[str], list[str]]]:
    """The page at telephone size, every address it asked for, and every complaint of the console."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report_file.as_uri(), wait_until="networkidle")
    yield page, asked, complaints
    context.close()


def test_it_asks_nothing_of_the_network(opened: tuple[Page, list[str], list[str]]) -> None:
    page, asked, complaints = opened
    assert asked[0] == page.url
    assert [url for url in asked[1:] if not url.startswith("data:")] == []
    assert complaints == []


def test_pictures_and_formulas_are_drawn(opened: tuple[Page, list[str], list[str]]) -> None:
    page = opened[0]
    assert (
        page.evaluate(
            "Promise.all([...document.images].map(i => i.decode())).then(all => all.length)"
        )
        > 0
    )
    assert page.evaluate("[...document.images].filter(i => !i.naturalWidth || !i.alt).length") == 0
    sizes = page.evaluate(
        "[...document.querySelectorAll('math')].map(m => m.getBoundingClientRect()).map(b => b.width * b.height)"
    )
    assert sizes and min(sizes) > 0
    # a fraction's parts stand above each other: MathML is laid out, not only present
    parts = page.evaluate(
        "[...document.querySelectorAll('mfrac')].map(f => [...f.children].map(c => c.getBoundingClientRect().y))"
    )
    assert all(above < below for above, below in parts)
    prose = "[...document.querySelectorAll('main p, main li, main td')].filter(e => !e.querySelector('code'))"
    left = page.evaluate(
        f"{prose}.map(e => e.innerText).filter(t => /\\$[^$]+\\$|\\\\frac|xFormula/.test(t))"
    )
    assert left == []  # no formula was left as text


def test_it_fits_a_telephone(opened: tuple[Page, list[str], list[str]]) -> None:
    page = opened[0]
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_claim_is_a_list_on_a_telephone_and_the_contents_are_folded(
    opened: tuple[Page, list[str], list[str]],
) -> None:
    page = opened[0]
    assert page.locator("nav ol").first.is_hidden()
    cells = page.locator(".claims td")
    for k in range(min(6, cells.count())):
        assert cells.nth(k).get_attribute("data-head")
        assert cells.nth(k).bounding_box()["width"] > 300  # a line of its own


def test_the_committed_report_prints_in_thirty_pages(browser: Browser) -> None:
    if not COMMITTED.exists():
        pytest.skip("figures/demo/report.html has not been built")
    assert COMMITTED.stat().st_size < 6e6
    page = browser.new_page()
    page.goto(COMMITTED.as_uri())
    page.emulate_media(media="print")
    appendix = page.locator("#appendix-every-notebook ~ figure").last
    assert appendix.is_visible()  # nothing is hidden to save paper
    pages = re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True))
    assert 5 < len(pages) <= 30
    page.close()


def test_it_is_dark_at_night_and_white_on_paper(opened: tuple[Page, list[str], list[str]]) -> None:
    page = opened[0]
    light = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every(v => v > 200)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(light) is False
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate(light) is True
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_the_contents_lead_to_the_sections(opened: tuple[Page, list[str], list[str]]) -> None:
    page = opened[0]
    missing = "[...document.querySelectorAll('nav a')].filter(a => !document.getElementById(decodeURIComponent(a.hash.slice(1))))"
    assert page.locator("nav a").count() > 0
    assert page.evaluate(f"{missing}.length") == 0
