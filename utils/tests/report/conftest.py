"""Folders of their own for figures and runs, and a small figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from utils import env


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(env, "RUNS", tmp_path / "runs")
    monkeypatch.setenv("XTL_PROFILE", "smoke")
    monkeypatch.setenv("XTL_DEVICE", "cpu")


@pytest.fixture
def plot() -> Callable[[], Figure]:
    """A function that draws a small figure, the same each time."""

    def draw() -> Figure:
        fig = Figure(figsize=(3, 2))
        fig.add_subplot().plot([0, 1], [0, 1])
        return fig

    return draw
