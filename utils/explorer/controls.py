"""The explorer's controls as one table: name, group, widget, and when it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import ipywidgets as W

from ..explain import BASELINES, perturbation
from .views import RUNNER_UP

OWN = "own images"
WHICH, WHY, HOW = "which image", "which explanation", "how it is drawn"
GROUPS = (WHICH, WHY, HOW)


@dataclass(frozen=True)
class Situation:
    """What decides which controls have an effect at the moment."""

    options: frozenset[str] = frozenset()  # the chosen method's that a control stands for
    own: bool = False  # one's own photographs are looked at
    region: bool = False  # a region is blurred or erased
    several: bool = False  # there is more than one model
    compares: bool = True  # the method can explain one class against another


def everywhere(_: Situation) -> bool:
    return True


def with_option(name: str) -> Callable[[Situation], bool]:
    return lambda now: name in now.options


@dataclass(frozen=True)
class Control:
    """One row of the table."""

    name: str
    group: str
    make: Callable[[], W.Widget]
    shown: Callable[[Situation], bool] = everywhere
    title: str = ""  # the name with spaces, unless given


def _menu(*options: Any) -> Callable[[], W.Widget]:
    """A drop-down whose first option is chosen; the panel may offer others later."""
    return lambda: W.Dropdown(options=list(options), index=0)


def _slider(kind: type, **settings: Any) -> Callable[[], W.Widget]:
    return partial(kind, continuous_update=False, **settings)


USUAL = ("as usual", None)  # None leaves a setting to the method
STEPS = [USUAL, *((str(n), n) for n in (8, 16, 32, 64, 128, 256))]
GRIDS = [USUAL, *((f"{n} x {n}", n) for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 16))]
FILLS = [USUAL, *((name, name) for name in perturbation.FILLS)]
REGIONS = [("keep", "none"), ("blur", "blur"), ("erase", "erase")]
UNIT = dict(min=0.0, max=1.0, step=0.05)

TABLE: tuple[Control, ...] = (
    Control("images", WHICH, _menu(OWN)),
    Control("answers", WHICH, _menu("all", "right", "wrong", "disagree"), lambda now: not now.own),
    Control("true_class", WHICH, _menu(("any class", None)), lambda now: not now.own),
    Control("predicted_class", WHICH, _menu(("any class", None)), title="predicted"),
    Control("confidence", WHICH, _slider(W.FloatRangeSlider, value=(0, 1), **UNIT)),
    Control("image", WHICH, _slider(W.IntSlider, value=0, min=0, max=0)),
    Control("models", WHY, _menu(("-", ())), lambda now: now.several),
    Control("method", WHY, _menu(("-", "-"))),
    Control("target", WHY, _menu(("predicted", None))),
    Control(
        "against",
        WHY,
        _menu(("nothing", None), ("the runner-up", RUNNER_UP)),
        lambda now: now.compares,
        "compare with",
    ),
    Control("layer", WHY, _slider(W.SelectionSlider, options=["-"]), with_option("layer")),
    Control(
        "start_layer",
        WHY,
        _slider(W.IntSlider, value=0, min=0, max=0),
        with_option("start_layer"),
    ),
    Control("block", WHY, _slider(W.IntSlider, value=1, min=1, max=1), with_option("block")),
    Control(
        "head",
        WHY,
        _slider(W.IntSlider, value=0, min=0, max=0),
        with_option("head"),
        "head (0: mean)",
    ),
    Control("steps", WHY, _menu(*STEPS), with_option("steps")),
    Control("baseline", WHY, _menu(*BASELINES), with_option("baseline")),
    Control("grid", WHY, _menu(*GRIDS), with_option("grid"), "cells"),
    Control("fill", WHY, _menu(*FILLS), with_option("fill"), "removed: by"),
    Control("overlay", HOW, _slider(W.FloatSlider, value=0.75, **UNIT)),
    Control("colour_scale", HOW, _menu("per map", "shared")),
    Control("region", HOW, _menu(*REGIONS)),
    Control(
        "rows", HOW, _slider(W.IntRangeSlider, value=(0, 0), min=0, max=0), lambda now: now.region
    ),
    Control(
        "columns",
        HOW,
        _slider(W.IntRangeSlider, value=(0, 0), min=0, max=0),
        lambda now: now.region,
    ),
)


def build_knobs(table: tuple[Control, ...] = TABLE) -> dict[str, W.Widget]:
    """A widget for every row of the table, with its title and a CSS class explorer-<name>."""
    knobs = {}
    for control in table:
        knob = control.make()
        knob.description = control.title or control.name.replace("_", " ")
        knob.style.description_width = "92px"
        knob.add_class("explorer-knob")
        knob.add_class(f"explorer-{control.name}")
        knobs[control.name] = knob
    return knobs


def show_only(knobs: Mapping[str, W.Widget], now: Situation) -> None:
    """Hide the controls that have no effect in this situation."""
    for control in TABLE:
        knobs[control.name].layout.display = "" if control.shown(now) else "none"


# ---------------------------------------------------------------- changing what is offered


def offer(knob: W.Dropdown | W.SelectionSlider, options: list, last: bool = False) -> None:
    """Replace a list's options and keep its value where it is still offered, else the first (last)."""
    if list(knob.options) == options:
        return
    value = knob.value
    values = [option[1] if isinstance(option, tuple) else option for option in options]
    knob.options = options
    knob.value = value if value in values else values[-1 if last else 0]


def reach(knob: W.IntRangeSlider, size: int) -> None:
    """Let a range slider reach `size` pixels, starting with the middle half."""
    if knob.max != size:
        knob.value = (0, 0)
        knob.max = size
        knob.value = (size // 4, size * 3 // 4)


def limit(knob: W.IntSlider, highest: int, low: int = 0, jump: bool = False) -> None:
    """Let a slider end at `highest`; jump: and stand there if that is new."""
    highest = max(highest, low)
    if knob.max != highest:
        knob.value = min(knob.value, highest)
        knob.max = highest
        if jump:
            knob.value = highest
