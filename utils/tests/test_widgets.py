"""Widgets: controls of the right kind, a picture that follows them, and errors that are said."""

from __future__ import annotations

from collections.abc import Iterator

import ipywidgets as W
import matplotlib
import pytest

matplotlib.use("Agg")  # before pyplot: no window
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from utils import widgets

PNG = b"\x89PNG\r\n"


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    plt.close("all")
    yield
    plt.close("all")


def draw(step: int = 0, colour: str = "red") -> Figure:
    figure = plt.figure(figsize=(0.6, 0.6))
    figure.add_axes((0, 0, 1, 1)).plot([0, 1], [0, step], color=colour)
    return figure


def parts(panel: W.VBox) -> tuple[dict[str, W.Widget], W.Image, W.Label]:
    row, picture, status = panel.children
    return {knob.description: knob for knob in row.children}, picture, status


# ---------------------------------------------------------------- controls


def test_a_range_is_a_slider():
    knob = widgets.control("start_layer", range(2, 11, 3))
    assert isinstance(knob, W.IntSlider)
    assert (knob.min, knob.max, knob.step, knob.value) == (2, 8, 3, 2)
    assert knob.description == "start layer"
    assert not knob.continuous_update, "a drag draws once, at its end"


@pytest.mark.parametrize(
    "values", [["a", "b"], ("a", "b"), [0.1, 0.5], [("shown", 3), ("other", 4)]]
)
def test_anything_else_is_a_drop_down(values):
    knob = widgets.control("method", values)
    assert isinstance(knob, W.Dropdown)
    first = 3 if values[0] == ("shown", 3) else values[0]
    assert knob.options == tuple(values) and knob.value == first


@pytest.mark.parametrize("values", [range(0), range(5, 5), [], ()])
def test_nothing_to_choose_from_is_one_sentence(values):
    with pytest.raises(ValueError, match="head has no values to choose from: give .* least one."):
        widgets.control("head", values)
    with pytest.raises(ValueError, match="head has no values"):
        widgets.browse(draw, head=values)
    assert plt.get_fignums() == []


# ---------------------------------------------------------------- pictures


def test_png_is_the_figure_and_closes_it():
    assert widgets.png(draw()).startswith(PNG)
    assert plt.get_fignums() == []


def test_the_picture_is_there_at_once():
    knobs, picture, status = parts(widgets.browse(draw, step=range(3), colour=["red", "blue"]))
    assert list(knobs) == ["step", "colour"]
    assert isinstance(picture, W.Image) and picture.format == "png"
    assert picture.value == widgets.png(draw(0, "red")), "the static cell shows the same"
    assert status.value == "showing step 0, colour red"


def test_the_picture_follows_every_control():
    knobs, picture, status = parts(widgets.browse(draw, step=range(3), colour=["red", "blue"]))
    first = picture.value
    knobs["step"].value = 2
    second = picture.value
    assert second == widgets.png(draw(2, "red")) != first
    assert status.value == "showing step 2, colour red"
    knobs["colour"].value = "blue"
    assert picture.value == widgets.png(draw(2, "blue")) != second
    knobs["colour"].value, knobs["step"].value = "red", 0
    assert picture.value == first


def test_draws_once_a_change():
    seen = []

    def counted(step: int) -> Figure:
        seen.append(step)
        return draw(step)

    knobs, *_ = parts(widgets.browse(counted, step=range(5)))
    for step in (1, 1, 4):
        knobs["step"].value = step
    assert seen == [0, 1, 4]


def test_many_steps_leave_no_figure_open():
    kept = plt.figure()  # somebody else's
    knobs, *_ = parts(widgets.browse(lambda step: draw(step), step=range(25)))
    for step in range(1, 25):
        knobs["step"].value = step
        assert plt.get_fignums() == [kept.number]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError, IndexError])
def test_an_error_is_said_and_the_last_picture_stays(kind):
    def refuses(step: int) -> Figure:
        if step == 1:
            raise kind("step 1 cannot be shown: take another.")
        return draw(step)

    knobs, picture, status = parts(widgets.browse(refuses, step=range(3)))
    before = picture.value
    knobs["step"].value = 1
    assert "step 1 cannot be shown: take another." in status.value
    assert picture.value == before
    knobs["step"].value = 2
    assert status.value == "showing step 2" and picture.value == widgets.png(draw(2))


def test_an_error_after_the_figure_was_made_leaves_none_open():
    def half_way(step: int) -> Figure:
        figure = draw(step)
        if step:
            raise ValueError("no.")
        return figure

    knobs, _, status = parts(widgets.browse(half_way, step=range(20)))
    for step in range(1, 20):
        knobs["step"].value = step
    assert status.value == "no."
    assert plt.get_fignums() == []


def test_an_error_at_the_start_gives_a_panel_that_says_so():
    def never(step: int) -> Figure:
        raise ValueError("there is no picture: load one.")

    _, picture, status = parts(widgets.browse(never, step=range(3)))
    assert status.value == "there is no picture: load one." and not picture.value
