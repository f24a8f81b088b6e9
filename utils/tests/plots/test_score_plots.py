"""Figures of IA-scores: they show the numbers they are given, and name each curve once."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")  # before pyplot: no window
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from utils.plots import scores

OTHER, UNIFORM = "another image's attention", "uniform attention"


@pytest.fixture(autouse=True)
def no_figure_stays() -> Iterator[None]:
    yield
    plt.close("all")


def named(figure: Figure) -> list[str]:
    """The names in the legend, once drawn."""
    figure.canvas.draw()
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_published_curves_are_dashed_by_type_and_ours_is_thick():
    kinds = {"A": "no labels", "B": "labels"}
    curves = {name: torch.rand(12, 12) for name in kinds}
    figure = scores.plot_published(curves, kinds, {"here": torch.rand(12, 3)}, 0.9, "title")
    a, b, ours, _ = figure.axes[0].lines
    assert (a.get_linestyle(), b.get_linestyle()) == ("-", "--")
    assert ours.get_linewidth() > a.get_linewidth() and len(ours.get_xdata()) == 36
    assert named(figure) == ["A (no labels)", "B (labels)", "here", f"{UNIFORM}, here"]


def test_ranges_are_sorted_by_the_mean_and_controls_follow_the_same_order():
    values = np.array([[0.9, 0.1, 0.5], [0.7, 0.3, 0.5]])
    figure = scores.plot_ranges(values, {OTHER: np.array([3.0, 1.0, 2.0])}, 0.9, "title")
    median, _, control = figure.axes[0].lines
    assert list(median.get_ydata()) == pytest.approx([0.2, 0.5, 0.8])
    assert list(control.get_ydata()) == [1, 2, 3]


def test_groups_and_objects_have_one_legend_for_both_panels():
    curves = {
        "right": torch.rand(4),
        f"right, {OTHER}": torch.rand(4),
        "random weights": torch.rand(4),
    }
    marks = {UNIFORM: [0.9, 0.8], OTHER: [0.3, 0.4]}
    rows = {"cat (2)": (0.5, 0.4, 0.7), "dog (3)": (0.6, 0.5, 0.7)}
    figure = scores.plot_groups(rows, marks, curves, "title")
    assert {"right", f"right, {OTHER}", "random weights"} < set(named(figure))
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(rows)
    right, control, _ = figure.axes[1].lines
    assert right.get_color() == control.get_color() and control.get_linestyle() == ":"
    figure = scores.plot_object(torch.rand(4, 3), torch.rand(4, 3), curves, 0.3, "title")
    assert named(figure).count(UNIFORM) == 1


def test_stages_components_and_levels_show_every_group():
    stages = {name: torch.rand(3, 3) for name in "abc"}
    figure = scores.plot_stages(stages, 0.9, "title")
    assert sum(ax.axison for ax in figure.axes) == 3
    groups = {"a": np.eye(2), UNIFORM: np.ones((1, 2)), "b": np.eye(2)}
    figure = scores.plot_components({"IAV": groups}, {"IAV": (0.6, 0.3)}, "title")
    assert figure.axes[0].get_xlabel() == "component 1 (60%)" and len(named(figure)) == 3
    runs = {"late blocks": [0.4, 0.5], OTHER: [0.3, 0.4], UNIFORM: [0.9, 0.9]}
    figure = scores.plot_matched({"stopped at 30%": {"mae": runs, "random": runs}}, "title")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["mae", "random"]
    assert sorted(named(figure)) == sorted(runs)
