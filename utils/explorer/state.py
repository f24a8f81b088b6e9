"""The explorer without its controls: which images a filter keeps, what a view shows, what is kept.

A View says everything that decides a picture. Explorer.answers() computes what it needs, keeps it,
and can be stopped; Explorer.picture() only draws.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from .. import data, evaluate, explain, plots
from ..data import ImageSet
from ..models import logits_of
from .views import CHANGES, OWN_SIDE, RUNNER_UP, Answer, Shown, View
from .watch import always, silent, watched

KEPT = 256  # maps kept, at most


class Explorer:
    """Models side by side over one image set.

    models: {title: model}, all for image_set.classes. trust: {"<title>.<method>.<metric>": value}
    from the notebook on trust; what it has for a method is shown beside the map.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        image_set: ImageSet,
        trust: Mapping[str, float] | None = None,
    ) -> None:
        self.trust = dict(trust or {})
        self.shown: Shown
        self._lock = threading.RLock()  # two threads in one model would mix up its hooks
        self._answers: OrderedDict[tuple, Answer] = OrderedDict()
        self.show(image_set, models)

    @property
    def models(self) -> Mapping[str, nn.Module]:
        return self.shown.models

    @property
    def images(self) -> torch.Tensor:
        return self.shown.images

    @property
    def labels(self) -> torch.Tensor | None:
        return self.shown.labels

    @property
    def classes(self) -> tuple[str, ...]:
        return self.shown.classes

    @property
    def preds(self) -> Mapping[str, evaluate.Predictions]:
        return self.shown.preds

    def show(
        self,
        image_set: ImageSet,
        models: Mapping[str, nn.Module] | None = None,
        wanted: Callable[[], bool] = always,
    ) -> None:
        """Look at another image set, with the same models or others; what was computed is forgotten.

        Nothing changes before every prediction is made. Raises Stale when wanted() says no.
        """
        models = dict(self.shown.models if models is None else models)
        with self._lock, ExitStack() as stack:
            for model in models.values():
                stack.enter_context(watched(model, wanted, silent))
            preds = {title: evaluate.predict(model, image_set) for title, model in models.items()}
        self.shown = Shown(models, image_set.images, image_set.labels, image_set.classes, preds)
        self._answers.clear()

    def show_own(self, sources: Sequence[Any], wanted: Callable[[], bool] = always) -> None:
        """Look at photographs, paths or open files: their middle square, true class unknown.

        Raises ValueError, naming the file, if one cannot be read; what was shown before stays.
        """
        images = torch.stack([data.read_image(source, OWN_SIDE) for source in sources])
        preds = {}
        for title, model in self.shown.models.items():
            with self._lock, watched(model, wanted, silent):
                logits = logits_of(model, images)
            preds[title] = evaluate.Predictions(logits, logits.argmax(1), self.shown.classes)
        self.shown = Shown(self.shown.models, images, None, self.shown.classes, preds)
        self._answers.clear()

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
        shown = self.shown
        preds = shown.preds[models[0]]
        keep = (preds.confidence >= confidence[0]) & (preds.confidence <= confidence[1])
        if taken_for is not None:
            keep &= preds.predicted == taken_for
        if shown.labels is not None:
            if label is not None:
                keep &= shown.labels == label
            if answers in ("right", "wrong"):
                keep &= preds.correct == (answers == "right")
        if answers == "disagree":
            keep &= preds.predicted != shown.preds[list(shown.models)[-1]].predicted
        return torch.nonzero(keep).flatten().tolist()

    def methods(self, models: Sequence[str]) -> list[str]:
        """Names of the methods that work on all of `models`."""
        kinds = {explain.kind(self.shown.models[title]) for title in models}
        return [name for name, method in explain.METHODS.items() if kinds <= method.works_on]

    # ------------------------------------------------------------ computing

    def answers(
        self,
        view: View,
        wanted: Callable[[], bool] = always,
        progress: Callable[[int], None] = silent,
    ) -> dict[str, list[Answer]]:
        """{model: [answer]}, with a second answer for the changed image if the view changes it.

        wanted is asked before every forward pass; when it says no, Stale is raised and nothing is
        kept. progress is given the number of forward passes made so far.
        """
        result = {}
        for title in view.models:
            with self._lock, watched(self.shown.models[title], wanted, progress):
                first = self._answer(title, replace(view, change="none"), view.target, view.against)
                changed = []
                if view.change != "none":  # the same question as before the change
                    changed = [self._answer(title, view, first.target, first.against)]
            result[title] = [first, *changed]
        return result

    def _answer(self, title: str, view: View, target: int | None, against: int | None) -> Answer:
        box = view.box if view.change != "none" else None
        key = (title, view.image, view.method, view.options, target, against, view.change, box)
        if key not in self._answers:
            model, image = self.shown.models[title], self.changed(view)[None]
            probabilities = logits_of(model, image)[0].softmax(0)
            target = int(probabilities.argmax()) if target is None else target
            if against == RUNNER_UP:
                order = probabilities.argsort(descending=True, stable=True).tolist()
                against = next((c for c in order if c != target), None)
            if against == target:
                raise ValueError(
                    f"{self.classes[target]} cannot be compared with itself: choose another class "
                    "under “compare with”."
                )
            compared = {} if against is None else {"against": against}
            heat = explain.explain(
                model, image, target, view.method, cells=True, **compared, **dict(view.options)
            )[0]
            self._answers[key] = Answer(heat, probabilities, target, against)
            if len(self._answers) > KEPT:
                self._answers.popitem(last=False)
        self._answers.move_to_end(key)
        return self._answers[key]

    def changed(self, view: View) -> torch.Tensor:
        """The view's image, uint8 (3, h, w), with its box blurred or erased if the view says so."""
        image = self.shown.images[view.image]
        if view.change == "none":
            return image
        blurred = explain.blur_region(image[None], view.box)[0]
        if view.change == "blur":
            return blurred
        top, left, bottom, right = view.box
        erased = image.clone()
        erased[:, top:bottom, left:right] = image.float().mean((1, 2)).round().byte()[:, None, None]
        return erased

    # ------------------------------------------------------------ drawing

    def picture(self, view: View, answers: Mapping[str, Sequence[Answer]] | None = None) -> Figure:
        """Image, map, overlay and probabilities: a row for each model and version of the image."""
        answers = answers or self.answers(view)
        rows = [(title, i, a) for title, both in answers.items() for i, a in enumerate(both)]
        versions = [self.shown.images[view.image], self.changed(view)]
        signed = {
            title: any(bool((a.heatmap < 0).any()) for a in both) for title, both in answers.items()
        }
        return plots.plot_explanations(
            torch.stack([versions[i] for _, i, _ in rows]),
            torch.stack([a.heatmap for *_, a in rows]),
            [self._row_title(title, i, a, view) for title, i, a in rows],
            torch.stack([a.probabilities for *_, a in rows]),
            self.shown.classes,
            signed=[signed[title] for title, *_ in rows],
            targets=[a.target for *_, a in rows],
            blocks=1,
            strength=view.strength,
            shared=[title for title, *_ in rows] if view.shared else False,
            side=1.9,
            suptitle=self.headline(view),
        )

    def _row_title(self, title: str, version: int, answer: Answer, view: View) -> str:
        probabilities = answer.probabilities
        label = f"{self.shown.classes[int(probabilities.argmax())]} {probabilities.max():.0%}"
        return f"{title}: {label}" + (f"\nregion {CHANGES[view.change]}" if version else "")

    def headline(self, view: View) -> str:
        """Which image this is and what the map explains."""
        shown = self.shown
        truth = "own"
        if shown.labels is not None:
            truth = f"truly {shown.classes[int(shown.labels[view.image])]}"
        method = explain.METHODS[view.method]
        start = f"Image {view.image} ({truth}): {method.title}"
        if not method.uses_target:  # the same for every class
            options = dict(view.options)
            block, head = options.get("block"), options.get("head")
            if block is not None:
                start += ", last block" if block == -1 else f", block {block + 1}"
            return start + ("" if head is None else f", head {head + 1}")
        start += f" for {'each prediction' if view.target is None else shown.classes[view.target]}"
        if view.against is None:
            return start
        other = "the runner-up" if view.against == RUNNER_UP else shown.classes[view.against]
        return f"{start} rather than {other}"

    def numbers(self, view: View) -> dict[str, dict[str, float]]:
        """{model: {metric: value}}: what notebook 11 measured for this method; empty if it did not."""
        result = {}
        for title in view.models:
            start = f"{title.lower()}.{view.method}."
            measured = {
                k[len(start) :]: v for k, v in self.trust.items() if k.lower().startswith(start)
            }
            result[title] = {k: v for k, v in measured.items() if not k.endswith(("_low", "_high"))}
        return {title: values for title, values in result.items() if values}
