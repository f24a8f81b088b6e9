"""The explorer in headless Chromium, in JupyterLab and as an app, as a person uses it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from PIL import Image

from utils import env
from utils.tests.conftest import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
NOTEBOOK = "14_explorer.ipynb"
WAIT = 240_000  # ms: two small models may have to be fine-tuned first
COMMANDS = {
    "lab": "jupyterlab --allow-root --ServerApp.root_dir={root} --IdentityProvider.token= --ip=127.0.0.1",
    "app": "utils.explorer",
}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the repository whose notebook may be saved by JupyterLab."""
    root = tmp_path_factory.mktemp("course")
    (root / "notebooks").mkdir()
    notebook = nbformat.read(env.ROOT / "notebooks" / NOTEBOOK, 4)
    for cell in notebook.cells:  # a page that JupyterLab shows whole: it hides what is far away
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, root / "notebooks" / NOTEBOOK)
    (root / "utils").symlink_to(env.ROOT / "utils")
    return root


@pytest.fixture(scope="module", params=["lab", "app"])
def served(request: pytest.FixtureRequest, course: Path) -> Iterator[tuple[str, str]]:
    """(which server, its address)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = COMMANDS[request.param].format(root=course).split()
    surroundings = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    surroundings |= {"XTL_PROFILE": "smoke", "XTL_DATA": "shapes10", "JUPYTER_PLATFORM_DIRS": "1"}
    surroundings |= {
        "JUPYTER_CONFIG_DIR": str(course / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(course / "lab"),
    }
    log = (course / f"{request.param}.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", *command, "--no-browser", f"--port={port}"],
        env=surroundings,
        cwd=env.ROOT,
        stdout=log,
        stderr=log,
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(
                    address + ("api" if request.param == "lab" else "static/"), timeout=2
                )
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert server.poll() is None, (course / f"{request.param}.log").read_text()[-2000:]
                time.sleep(0.5)
        yield request.param, address
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def run_all(page: Page) -> None:
    """Run All Cells, again if JupyterLab was not ready: it then asks for a kernel, or does nothing."""
    for _ in range(10):
        page.click('.lm-MenuBar-itemLabel:text-is("Run")')
        page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
        for _ in range(20):
            if page.locator('.jp-InputPrompt:text-matches("\\[(\\*|1)\\]")').count():
                return
            dialog = page.locator(".jp-Dialog .jp-mod-accept")
            if dialog.count():
                dialog.first.click()
            page.wait_for_timeout(500)
    raise AssertionError("JupyterLab runs no cell")


@pytest.fixture(scope="module")
def opened(served: tuple[str, str]) -> Iterator[tuple[Page, list[str]]]:
    """The running explorer at 1280 x 720, and what went wrong in the browser's console."""
    from playwright.sync_api import sync_playwright

    kind, address = served
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(60_000)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        if kind == "lab":
            page.goto(address + f"lab/tree/notebooks/{NOTEBOOK}")
            page.wait_for_selector(
                '.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=WAIT
            )
            run_all(page)
        else:
            page.goto(address, timeout=WAIT, wait_until="commit")
            page.wait_for_selector(".explorer-preparing", timeout=WAIT)
            assert "being prepared" in page.locator(".explorer-preparing").text_content()
        page.wait_for_selector(".explorer-picture", state="attached", timeout=WAIT)
        if kind == "lab":  # until the last cell has run
            page.wait_for_function(
                "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'",
                timeout=WAIT,
            )
        page.mouse.move(640, 400)
        for _ in range(100):  # JupyterLab 4.2 stands at the last cell and hides those out of sight
            if page.locator(".explorer-status").is_visible():
                break
            page.mouse.wheel(0, -200)
            page.wait_for_timeout(100)
        page.locator(".explorer-status").scroll_into_view_if_needed()
        page.wait_for_function(  # the last question of the notebook's own cells is answered
            r"/\(\d+ of \d+\)$/.test(document.querySelector('.explorer-status').textContent)",
            timeout=WAIT,
        )
        yield page, errors
        shots = env.RUNS / "screenshots"
        shots.mkdir(parents=True, exist_ok=True)
        page.locator(".explorer-picture").scroll_into_view_if_needed()
        page.screenshot(path=shots / f"explorer_{kind}.png")
        browser.close()


BYTES = """async () => { const b = await (await fetch(document.querySelector('.explorer-picture').src)).arrayBuffer();
const h = await crypto.subtle.digest('SHA-1', b); return [...new Uint8Array(h)].join() }"""


def picture(page: Page) -> str:
    """A hash of the picture's bytes."""
    return page.evaluate(BYTES)


def status(page: Page) -> str:
    return page.locator(".explorer-status").text_content()


def changes(page: Page, act: object, pattern: str = r"\(\d+ of \d+\)$") -> str:
    """Do something; the picture must change and the status settle. The new status."""
    before = picture(page)
    act()
    for _ in range(300):
        page.wait_for_timeout(100)
        if picture(page) != before and re.search(pattern, status(page)):
            return status(page)
    raise AssertionError(f"nothing changed; the status is {status(page)!r}")


def choose(page: Page, name: str, label: str) -> None:
    page.locator(f".explorer-{name} select").select_option(value=label)


def upload(page: Page, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator(".explorer-upload").click()
    chooser.value.set_files(file)


def test_it_opens_with_a_picture(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    assert re.search(r"\(1 of \d+\)$", status(page))
    assert page.evaluate("document.querySelector('.explorer-picture').naturalWidth") > 300


def test_sliders_by_keyboard_and_mouse(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    handle = page.locator(".explorer-image .noUi-handle")
    handle.focus()
    assert "(2 of" in changes(page, lambda: page.keyboard.press("ArrowRight"))

    def drag() -> None:
        box = handle.bounding_box()
        page.mouse.move(box["x"] + 5, box["y"] + 5)
        page.mouse.down()
        page.mouse.move(box["x"] + 60, box["y"] + 5, steps=5)
        page.mouse.up()

    assert "(2 of" not in changes(page, drag)


def test_method_layer_model_block_and_head(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    changes(page, lambda: choose(page, "images", "test"))
    changes(page, lambda: choose(page, "method", "Saliency"), "Saliency.* of ")
    assert "Grad-CAM" in changes(page, lambda: choose(page, "method", "Grad-CAM"), "Grad-CAM.* of ")
    page.locator(".explorer-layer .noUi-handle").focus()
    changes(page, lambda: page.keyboard.press("ArrowLeft"))
    changes(page, lambda: choose(page, "models", "ViT"))
    changes(page, lambda: choose(page, "method", "Attention"), "Attention, .*block .* of ")
    page.locator(".explorer-block .noUi-handle").focus()
    changes(page, lambda: page.keyboard.press("ArrowLeft"))
    page.locator(".explorer-head .noUi-handle").focus()
    changes(page, lambda: page.keyboard.press("ArrowRight"))
    assert not page.locator(".explorer-layer").is_visible()


def test_a_slow_method_is_overtaken(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    changes(page, lambda: choose(page, "method", "Integrated Gradients"), "Integrated.* of ")
    page.locator(".explorer-image .noUi-handle").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    changes(page, lambda: choose(page, "method", "Saliency"), "Saliency.* of ")
    page.wait_for_timeout(1500)
    assert "Saliency" in status(page)


def test_uploads_good_and_broken(opened: tuple[Page, list[str]], tmp_path: Path) -> None:
    page, errors = opened
    Image.effect_noise((120, 80), 90).convert("RGB").save(tmp_path / "good.jpg")
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:300])
    choose(page, "images", "own images")
    page.wait_for_function(
        "document.querySelector('.explorer-status').textContent.startsWith('Choose')"
    )

    assert "own" in changes(page, lambda: upload(page, tmp_path / "good.jpg"))
    before = picture(page)
    upload(page, tmp_path / "broken.jpg")
    page.wait_for_function(
        "document.querySelector('.explorer-status').textContent.startsWith('broken.jpg cannot')"
    )
    assert picture(page) == before
    changes(page, lambda: choose(page, "images", "test"))
    assert errors == []
    printed = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']"
    assert page.locator(printed).filter(has_text="Traceback").count() == 0


def test_a_photograph_above_the_usual_limit_is_read(
    opened: tuple[Page, list[str]], served: tuple[str, str], tmp_path: Path
) -> None:
    """Servers close the connection on messages above 10 MB; the app takes them."""
    page, errors = opened
    if served[0] != "app":
        pytest.skip("JupyterLab's own limit holds unless `make lab` raises it")
    Image.effect_noise((2400, 2000), 90).convert("RGB").save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 10_500_000
    choose(page, "images", "own images")
    changes(page, lambda: upload(page, tmp_path / "large.png"), "own.* of 1")
    changes(page, lambda: choose(page, "images", "test"))
    assert errors == []


def test_the_app_is_the_panel_alone_and_fits(
    opened: tuple[Page, list[str]], served: tuple[str, str]
) -> None:
    page, _ = opened
    if served[0] != "app":
        pytest.skip("the notebook has prose around it")
    page.evaluate("window.scrollTo(0, 0)")
    box = page.locator(".explorer-picture").bounding_box()
    assert box["y"] + box["height"] <= 720 and box["x"] + box["width"] <= 1280
    assert page.evaluate("document.documentElement.scrollHeight") <= 720
    page.set_viewport_size({"width": 390, "height": 844})
    try:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        box = page.locator(".explorer-picture").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 500
        knob = page.locator(".explorer-method").bounding_box()
        assert knob["x"] >= 0 and knob["x"] + knob["width"] <= 390
    finally:
        page.set_viewport_size({"width": 1280, "height": 720})


def test_too_large_an_upload_is_refused_in_words(
    opened: tuple[Page, list[str]], served: tuple[str, str], tmp_path: Path
) -> None:
    page, _ = opened
    if served[0] != "app":
        pytest.skip("only the app's page can say it")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(300_000_000)
    choose(page, "images", "own images")
    upload(page, tmp_path / "huge.png")
    page.wait_for_function(
        "document.querySelector('.explorer-status').textContent.startsWith('300 MB are more')"
    )
    changes(page, lambda: choose(page, "images", "validation"))  # the connection has held
