"""What all tests share: clean settings, stated skips, and a closing line that counts them."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from utils import env

SETTINGS = ("XTL_PROFILE", "XTL_DATA", "XTL_DEVICE")
REASONS: dict[str, Callable[[], str]] = {
    "real_data": lambda: (
        "" if (env.DATA / "cifar10").is_dir() else "no real images: data/cifar10 is absent"
    ),
    "browser": lambda: (
        "" if shutil.which("chromium") else "no browser: the program chromium is absent"
    ),
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Unit tests see no XTL_ setting from outside; the notebooks tested after them do."""
    kept = {name: os.environ.pop(name) for name in SETTINGS if name in os.environ}
    try:
        return (yield)
    finally:
        os.environ.update(kept)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, with the reason, what this machine cannot run."""
    for marker, reason in REASONS.items():
        if item.get_closest_marker(marker) and reason():
            pytest.skip(reason())
    if item.get_closest_marker("browser") and importlib.util.find_spec("playwright") is None:
        pytest.skip("no browser: the Python package playwright is absent")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line: how many of the tests that can be skipped did run."""
    parts = []
    for marker, words in (("real_data", "real-data tests"), ("browser", "browser tests")):
        reports = [
            r
            for kind in terminalreporter.stats.values()
            for r in kind
            if hasattr(r, "skipped")
            and marker in getattr(r, "keywords", ())  # deselected ones are no reports
        ]
        skipped = {r.nodeid for r in reports if r.skipped}
        parts.append(
            f"{words}: {len({r.nodeid for r in reports} - skipped)} ran, {len(skipped)} skipped"
        )
    terminalreporter.write_line("; ".join(parts))


@pytest.fixture
def write_notebook(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a small notebook: strings are code cells, `# ...` ones Markdown."""

    def write(name: str, *cells: str | nbformat.NotebookNode, folder: Path = tmp_path) -> Path:
        made = []
        for cell in cells:
            if isinstance(cell, str):
                cell = (
                    v4.new_markdown_cell(cell)
                    if cell.startswith("# ") and "NBVAL" not in cell
                    else v4.new_code_cell(cell)
                )
            made.append(cell)
        file = folder / f"{name}.ipynb"
        file.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(v4.new_notebook(cells=made), file)
        return file

    return write
