"""What the controls offer: only what fits the models, the images and each other."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as W

from ..explain import METHODS, kind, layers
from .controls import Situation, limit, offer, reach, show_only
from .state import Explorer
from .views import RUNNER_UP

FIRST = "gradcam"  # the method that shows photographs first
NO_CHOICE = "-"  # for a setting that cannot be chosen


def options_of(explorer: Explorer, knobs: Mapping[str, W.Widget]) -> list[str]:
    """The method's options that these models have in common and a control stands for."""
    models = [explorer.models[title] for title in knobs["models"].value]
    usable = {"layer": len(models) == 1, "start_layer": all(kind(m) == "vit" for m in models)}
    options = METHODS[knobs["method"].value].options
    return [name for name in options if name in knobs and usable.get(name, True)]


def fit_knobs(
    explorer: Explorer, knobs: Mapping[str, W.Widget], own: bool, photographs_first: bool
) -> list[int]:
    """Offer models, methods, layers and images that fit, hide the other controls.

    The indices of the images that pass the filter. own: one's own photographs are looked at;
    photographs_first: the panel begins with photographs, and with the method FIRST.
    """
    k = knobs
    titles = list(explorer.models)
    both = [(" and ".join(titles), tuple(titles))] if len(titles) > 1 else []
    offer(k["models"], [*((t, (t,)) for t in titles), *both])
    classes = [(name, c) for c, name in enumerate(explorer.classes)]
    for name in ("true_class", "predicted_class"):
        offer(k[name], [("any class", None), *classes])
    offer(k["target"], [("predicted", None), *classes])
    offer(k["against"], [("nothing", None), ("the runner-up", RUNNER_UP), *classes])
    methods = explorer.methods(k["models"].value)
    begins = k["method"].value == NO_CHOICE
    offer(k["method"], [(METHODS[m].title, m) for m in methods])
    if begins and photographs_first and FIRST in methods:
        k["method"].value = FIRST
    _fit_options(explorer, k)
    kept = explorer.kept(
        k["models"].value,
        k["answers"].value,
        k["true_class"].value,
        k["predicted_class"].value,
        k["confidence"].value,
    )
    limit(k["image"], len(kept) - 1)
    for name, size in zip(("rows", "columns"), explorer.images.shape[-2:], strict=True):
        reach(k[name], size)
    now = Situation(
        frozenset(options_of(explorer, k)),
        own,
        k["region"].value != "none",
        len(titles) > 1,
        METHODS[k["method"].value].uses_target,
    )
    show_only(k, now)
    return kept


def _fit_options(explorer: Explorer, knobs: Mapping[str, W.Widget]) -> None:
    """Layers, blocks and heads of the models, where the method has such options."""
    models = [explorer.models[title] for title in knobs["models"].value]
    options = options_of(explorer, knobs)
    if "layer" in options:
        try:
            names = layers(models[0])
        except ValueError:  # not known for this model: the method itself says what to do
            names = []
        offer(knobs["layer"], names or [NO_CHOICE], last=True)
    if {"block", "start_layer"} & set(options):
        depth = min(len(m.blocks) for m in models)
        limit(knobs["start_layer"], depth - 1)
        limit(knobs["block"], depth, 1, jump=True)
    if "head" in options:
        limit(knobs["head"], min(m.blocks[0].attn.num_heads for m in models))
