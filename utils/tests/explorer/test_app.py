"""The app's page: there at once, says what is being prepared, once, and what went wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace

import ipywidgets as W
import pytest

from utils import app, env
from utils.explorer import __main__ as command


def run(build: object) -> app.Page:
    async def session() -> app.Page:
        page = app.serve(build)
        assert "is being prepared" in page.words.value and page.box.children == (page.words,)
        await page.task
        return page

    return asyncio.run(session())


def test_the_page_needs_no_torch() -> None:
    """It is shown before the libraries are loaded; the server never loads them."""
    code = "import sys, utils.app, utils.explorer.__main__; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=env.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_steps_are_shown_and_the_panel_takes_their_place() -> None:
    panel, seen = SimpleNamespace(box=W.HBox()), []

    def build(step: object) -> object:
        step("Reading the images")
        for _ in range(8):
            print("CIFAR-10 is not in data/: using <Shapes-10> instead.")
        step("ResNet: fine-tuning it")
        print("epoch 1 of 2")
        return panel

    page = run(build)
    seen = page.words.value
    assert "✓ Reading the images" in seen and "<b>… ResNet: fine-tuning it</b>" in seen
    assert page.printed.count("CIFAR-10 is not in data/: using <Shapes-10> instead.") == 1
    shown, *notes = page.box.children
    assert shown is panel.box
    assert [note.value for note in notes] == [
        "<small>CIFAR-10 is not in data/: using &lt;Shapes-10&gt; instead.</small>"
    ]


@pytest.mark.parametrize("error", [ValueError("a\nb"), KeyError("x"), OSError(28, "disk full")])
def test_a_failed_preparation_is_one_sentence(error: Exception) -> None:
    def build(step: object) -> object:
        step("Reading the images")
        raise error

    page = run(build)
    assert "could not be prepared" in page.words.value and "\n" not in page.words.value
    assert type(error).__name__ in page.words.value and page.box.children == (page.words,)


def test_a_taken_port_is_passed_over() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert command.free_port(port) > port


def test_ctrl_c_ends_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "serve", interrupted)
    command.main(["--no-browser"])
    assert capsys.readouterr().out.strip().splitlines() == [
        "The explorer has stopped; `make app` starts it again."
    ]
