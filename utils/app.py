"""The page of `make app`: says at once what is being prepared, then shows the panel.

It stands above the explorer, whose models and numbers it brings together. Nothing heavy is imported
before the page is there: the libraries are a step of the preparation.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from html import escape
from typing import TYPE_CHECKING

import ipywidgets as W
from IPython.display import display

if TYPE_CHECKING:
    from .explorer import Panel

N_IMAGES = 500  # test images to choose from
SMOKE_IMAGES = 50


class Page:
    """A list of steps, the last of which is under way; the panel takes its place."""

    def __init__(self) -> None:
        self.words = W.HTML()
        self.words.add_class("explorer-preparing")
        self.box = W.VBox([self.words])
        self.steps: list[tuple[str, float]] = []  # what, and when it began
        self.printed: list[str] = []  # each line once, however often it is printed
        self.task: asyncio.Task | None = None
        self.notes: list[str] = []  # what stays to be read below the panel

    def step(self, what: str) -> None:
        """The next thing to be done has begun."""
        self.steps.append((what, time.monotonic()))
        self.show()

    def hear(self, line: str) -> None:
        """A line that the preparation printed; what reading the images says is kept as a note."""
        if line.strip() and line not in self.printed:
            self.printed.append(line)
            if self.steps and self.steps[-1][0].startswith("Reading"):
                self.notes.append(line)
            self.show()

    def show(self) -> None:
        rows = []
        ends = [began for _, began in self.steps[1:]]
        for (what, began), end in zip(self.steps, ends, strict=False):
            rows.append(f"✓ {escape(what)} <small>({end - began:.0f} s)</small>")
        if self.steps:
            rows.append(f"<b>… {escape(self.steps[-1][0])}</b>")
        heard = "<br>".join(escape(line) for line in self.printed[-4:])
        self.words.value = f"<h2>The explorer is being prepared</h2>{'<br>'.join(rows)}<p><small>{heard}</small></p>"

    def fail(self, error: Exception) -> None:
        """The preparation ended with an error: one sentence, and what to do."""
        message = " ".join(f"{type(error).__name__}: {error}".split())
        self.words.value = (
            f"<h2>The explorer could not be prepared</h2>{escape(message)}<p>"
            "Reload the page to try again; what was finished is kept.</p>"
        )


class Lines(io.TextIOBase):
    """A file that passes every line it is given on."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        self.hear, self.rest = hear, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text.replace("\r", "\n")).split("\n")
        for line in lines:
            self.hear(line)
        return len(text)


def prepare(step: Callable[[str], None]) -> Panel:
    """Images, models and panel of the course; step() is told what comes next."""
    step("Loading the libraries")
    from . import data, env, train
    from .explorer import Exhibit, Explorer, Panel, imagenet_exhibit
    from .report import load_results

    profile = env.profile()
    sets: dict[str, data.ImageSet | Exhibit] = {}
    step("Reading the photographs")
    try:
        sets["photographs"] = imagenet_exhibit()
    except ModuleNotFoundError as error:
        print(error)
    step("Reading the images")
    parts = data.splits(profile)
    nets = {}
    for title, arch in (("ResNet", profile.cnn), ("ViT", profile.vit)):
        step(f"{title}: loading it, or fine-tuning it the first time (some minutes then)")
        nets[title] = train.finetuned(arch, profile)
    step("Asking both models about the test images")
    some = SMOKE_IMAGES if profile.name == "smoke" else N_IMAGES
    test = parts.test.subset(range(min(some, len(parts.test))))
    sets |= {"test": test, "validation": parts.val}
    trust = load_results(profile.name).get("11_trust")
    return Panel(Explorer(nets, test, trust), sets)


async def _build(page: Page, build: Callable[[Callable[[str], None]], Panel]) -> None:
    loop = asyncio.get_running_loop()

    def work() -> Panel:
        def step(what: str) -> None:
            loop.call_soon_threadsafe(page.step, what)

        def hear(line: str) -> None:
            loop.call_soon_threadsafe(page.hear, line)

        with redirect_stdout(Lines(hear)):
            return build(step)

    try:
        panel = await loop.run_in_executor(None, work)
    except Exception as error:  # of any type: nobody would see a traceback
        page.fail(error)
        return
    notes = [W.HTML(f"<small>{escape(line)}</small>") for line in page.notes]
    page.box.children = [panel.box, *notes]


def serve(build: Callable[[Callable[[str], None]], Panel] = prepare) -> Page:
    """Show the page in the running kernel, and prepare the panel while it is there."""
    page = Page()
    page.step("Starting")
    display(page.box)
    page.task = asyncio.get_running_loop().create_task(_build(page, build))
    return page
