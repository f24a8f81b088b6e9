"""The explorer without its controls: which images a filter keeps, what a view shows, what is kept.

A View says everything that decides a picture. Explorer.heat() computes what it needs, keeps it,
and can be told to give up; Explorer.picture() only draws.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from .. import data, evaluate, explain, plots
from ..data import ImageSet
from ..models import logits_of

KEPT = 256  # maps kept, at most
OWN_SIDE = 256  # pixels: photographs of one's own are cut to this square
CHANGES = {"none": "as it is", "blur": "blurred", "erase": "erased"}


class Stale(Exception):
    """Something newer was asked for: what was being computed is not wanted any more."""


@dataclass(frozen=True)
class View:
    """One question to the models. None stands for the method's own default."""

    image: int = 0  # index into the image set
    models: tuple[str, ...] = ()
    method: str = "gradcam"
    options: tuple[tuple[str, Any], ...] = ()  # the method's, as sorted pairs
    target: int | None = None  # None: what each model predicts for the unchanged image
    strength: float = 0.75  # of the overlay, 0..1
    shared: bool = False  # one colour scale for all maps of a model; two models have no common unit
    change: str = "none"  # a key of CHANGES
    box: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right; end exclusive


@dataclass(frozen=True)
class Answer:
    """What one model says about one image."""

    heatmap: torch.Tensor  # float32 (h, w)
    probabilities: torch.Tensor  # (C,)
    target: int


class Explorer:
    """Models side by side over one image set.

    models: {title: model}, trained on image_set.classes. trust: {"<title>.<method>.<metric>": value}
    from the notebook on trust; what it has for a method is told beside the map.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        image_set: ImageSet,
        trust: Mapping[str, float] | None = None,
    ) -> None:
        self.models, self.trust = dict(models), dict(trust or {})
        self._kept: OrderedDict[tuple, Answer] = OrderedDict()
        self.show(image_set)

    def show(self, image_set: ImageSet) -> None:
        """Look at another image set of the same classes; what was computed is forgotten."""
        self.images, self.labels, self.classes = (
            image_set.images,
            image_set.labels,
            image_set.classes,
        )
        self.said = {n: evaluate.predict(m, image_set) for n, m in self.models.items()}
        self._kept.clear()

    def show_own(self, sources: Sequence[Any]) -> None:
        """Look at photographs, paths or open files: their middle square, true class unknown.

        Raises ValueError, naming the file, if one cannot be read; what was shown before stays.
        """
        self.images = torch.stack([data.read_image(source, OWN_SIDE) for source in sources])
        self.labels = None
        self.said = {
            n: evaluate.Predictions(
                logits := logits_of(m, self.images), logits.argmax(1), self.classes
            )
            for n, m in self.models.items()
        }
        self._kept.clear()

    def kept(
        self,
        models: Sequence[str],
        answers: str = "all",
        label: int | None = None,
        taken_for: int | None = None,
        confidence: tuple[float, float] = (0.0, 1.0),
    ) -> list[int]:
        """Indices of the images that pass the filter, judged by the first of `models`.

        answers: all | right | wrong | disagree (the models differ). label: true class;
        taken_for: predicted class; confidence: of the predicted class. Own photographs have no
        right or wrong and pass those filters.
        """
        said = self.said[models[0]]
        keep = (said.confidence >= confidence[0]) & (said.confidence <= confidence[1])
        if taken_for is not None:
            keep &= said.predicted == taken_for
        if self.labels is not None:
            if label is not None:
                keep &= self.labels == label
            if answers in ("right", "wrong"):
                keep &= said.correct == (answers == "right")
        if answers == "disagree":
            keep &= said.predicted != self.said[list(self.models)[-1]].predicted
        return torch.nonzero(keep).flatten().tolist()

    def methods(self, models: Sequence[str]) -> list[str]:
        """Names of the methods that work on all of `models`."""
        kinds = {explain.kind(self.models[name]) for name in models}
        return [name for name, method in explain.METHODS.items() if kinds <= method.works_on]

    # ------------------------------------------------------------ computing

    def answers(
        self,
        view: View,
        wanted: Callable[[], bool] = lambda: True,
        told: Callable[[int], None] = lambda _: None,
    ) -> dict[str, list[Answer]]:
        """{model: [answer]}, with a second answer for the changed image if the view changes it.

        wanted is asked before every forward pass; when it says no, Stale is raised and nothing is
        kept. told hears how many forward passes were made.
        """
        found = {}
        for name in view.models:
            with _watched(self.models[name], wanted, told):
                first = self._answer(name, replace(view, change="none"), view.target)
                changed = [] if view.change == "none" else [self._answer(name, view, first.target)]
            found[name] = [first, *changed]
        return found

    def _answer(self, name: str, view: View, target: int | None) -> Answer:
        box = view.box if view.change != "none" else None
        key = (name, view.image, view.method, view.options, target, view.change, box)
        if key not in self._kept:
            model, image = self.models[name], self.changed(view)[None]
            probabilities = logits_of(model, image)[0].softmax(0)
            chosen = int(probabilities.argmax()) if target is None else target
            heat = explain.explain(model, image, chosen, view.method, **dict(view.options))[0]
            self._kept[key] = Answer(heat, probabilities, chosen)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def changed(self, view: View) -> torch.Tensor:
        """The view's image, uint8 (3, h, w), with its box blurred or erased if the view says so."""
        image = self.images[view.image]
        if view.change == "none":
            return image
        blurred = explain.blur_region(image[None], view.box)[0]
        if view.change == "blur":
            return blurred
        top, left, bottom, right = view.box
        erased = image.clone()
        erased[:, top:bottom, left:right] = image.float().mean((1, 2)).round().byte()[:, None, None]
        return erased

    # ------------------------------------------------------------ telling

    def picture(self, view: View, answers: Mapping[str, Sequence[Answer]] | None = None) -> Figure:
        """Image, map, overlay and probabilities: a row for each model and version of the image."""
        answers = answers or self.answers(view)
        rows = [(name, i, a) for name, both in answers.items() for i, a in enumerate(both)]
        versions = [self.images[view.image], self.changed(view)]
        signed = {
            name: any(bool((a.heatmap < 0).any()) for a in both) for name, both in answers.items()
        }
        return plots.plot_explanations(
            torch.stack([versions[i] for _, i, _ in rows]),
            torch.stack([a.heatmap for *_, a in rows]),
            [self._row_title(name, i, a, view) for name, i, a in rows],
            torch.stack([a.probabilities for *_, a in rows]),
            self.classes,
            signed=[signed[name] for name, *_ in rows],
            targets=[a.target for *_, a in rows],
            blocks=1,
            strength=view.strength,
            shared=[name for name, *_ in rows] if view.shared else False,
            side=1.9,
            suptitle=self.headline(view),
        )

    def _row_title(self, name: str, version: int, answer: Answer, view: View) -> str:
        said = (
            f"{self.classes[int(answer.probabilities.argmax())]} {answer.probabilities.max():.0%}"
        )
        return f"{name}: {said}" + (f"\nregion {CHANGES[view.change]}" if version else "")

    def headline(self, view: View) -> str:
        """Which image this is and what the map explains."""
        truth = (
            "own" if self.labels is None else f"truly {self.classes[int(self.labels[view.image])]}"
        )
        start = f"Image {view.image} ({truth}): {explain.METHODS[view.method].title}"
        if view.method.startswith("attention"):  # the same for every class
            chosen = dict(view.options)
            block, head = chosen.get("block"), chosen.get("head")
            start += (
                "" if block is None else ", last block" if block == -1 else f", block {block + 1}"
            )
            return start + ("" if head is None else f", head {head + 1}")
        return (
            f"{start} for {'each prediction' if view.target is None else self.classes[view.target]}"
        )

    def numbers(self, view: View) -> dict[str, dict[str, float]]:
        """{model: {metric: value}}: what notebook 10 measured for this method; empty if it did not."""
        found = {}
        for name in view.models:
            start = f"{name.lower()}.{view.method}."
            measured = {
                k[len(start) :]: v for k, v in self.trust.items() if k.lower().startswith(start)
            }
            found[name] = {k: v for k, v in measured.items() if not k.endswith(("_low", "_high"))}
        return {name: values for name, values in found.items() if values}


@contextmanager
def _watched(
    model: nn.Module, wanted: Callable[[], bool], told: Callable[[int], None]
) -> Iterator[None]:
    """Counts the model's forward passes, and stops before the next one when it is not wanted."""
    passes = 0

    def before(*_: object) -> None:
        nonlocal passes
        if not wanted():
            raise Stale
        passes += 1
        told(passes)

    hook = model.register_forward_pre_hook(before)
    try:
        yield
    finally:
        hook.remove()
