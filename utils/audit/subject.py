"""What is audited: a model, images, and their labels where the model's classes fit them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import data, evaluate, models

SIDE = 256  # pixels; loose photographs are cut to a square of this side
SURE = 0.25  # probability of a class that stands for the label where there is none
SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"}


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with the images that its explanations are judged on."""

    model: nn.Module
    images: torch.Tensor  # uint8 (N, 3, h, w)
    labels: torch.Tensor | None  # int64 (N,), in the order of the model's outputs; None: unknown
    source: str
    notes: tuple[str, ...]  # what was assumed or left out, one sentence each
    preds: torch.Tensor  # int64 (N,), the predicted classes
    logits: torch.Tensor  # float32 (N, C)
    classes: tuple[str, ...] = ()  # names of the outputs, where they are known
    made: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False)

    def once(
        self, name: str, rows: torch.Tensor, make: Callable[[torch.Tensor], Sequence[Any]]
    ) -> list[Any]:
        """make(rows), an entry an image; entries made under this name before are taken as they are."""
        missing = torch.tensor([row for row in rows.tolist() if (name, row) not in self.made])
        if len(missing):
            entries = make(missing.long())
            self.made.update({(name, r): e for r, e in zip(missing.tolist(), entries, strict=True)})
        return [self.made[name, row] for row in rows.tolist()]

    def clear(self) -> torch.Tensor:
        """The images whose class is known, int64 (n,): answered right, or, without labels, surely."""
        if self.labels is None:
            good = self.logits.softmax(1).max(1).values >= SURE
        else:
            good = self.preds == self.labels
        return torch.nonzero(good).flatten()

    @property
    def outputs(self) -> int:
        """How many numbers the model gives for an image."""
        return self.logits.shape[1]

    def title(self, i: int) -> str:
        """The predicted class of image i by name, with its probability."""
        label = int(self.preds[i])
        name = self.classes[label] if label < len(self.classes) else f"class {label}"
        if self.outputs == 1:
            return f"output {self.logits[i, 0]:.2f}"
        return f"{str(name)[:22]} {self.logits[i].softmax(0)[label]:.0%}"

    def quality(self) -> dict[str, float]:
        """Accuracy and calibration error on these images; empty without labels."""
        if self.labels is None or self.outputs < 2:
            return {}
        classes = tuple(str(c) for c in range(self.outputs))
        numbers = evaluate.metrics(evaluate.Predictions(self.logits, self.labels, classes))
        return {key: numbers[key] for key in ("accuracy", "ece")}


def _loose(folder: Path) -> tuple[torch.Tensor, str]:
    """The photographs that lie in a folder itself, uint8 (N, 3, SIDE, SIDE), by name, and a note."""
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
    pictures, unreadable = [], []
    for file in files:
        try:
            pictures.append(data.read_image(file, SIDE))
        except ValueError:
            unreadable.append(file.name)
    names = ", ".join(unreadable[:3])
    if not pictures:
        bad = f" ({len(unreadable)} cannot be read: {names})" if unreadable else ""
        raise ValueError(
            f"The folder {folder.name} holds no image that can be read{bad}: "
            "give a folder of photographs, or of one sub-folder for each class."
        )
    note = f"{len(unreadable)} files cannot be read and are left out: {names}." * bool(unreadable)
    return torch.stack(pictures), note


def _in_classes(source: str, folder: Path) -> tuple[data.ImageSet, str]:
    """The test images of a folder, or all where it keeps none apart; unreadable ones are left out."""
    before = os.environ.get("XTL_SKIP_BROKEN")
    os.environ["XTL_SKIP_BROKEN"] = "1"  # an audit goes on without them and says so
    try:
        test = data.load(source, "test")
        own = {unicodedata.normalize("NFC", p.name) for p in folder.iterdir() if p.is_dir()}
        train = data.load(source, "train") if set(test.classes) <= own else None
    finally:
        if before is None:
            del os.environ["XTL_SKIP_BROKEN"]
        else:
            os.environ["XTL_SKIP_BROKEN"] = before
    if train is None:
        return test, ""
    images = torch.cat([train.images, test.images])
    return replace(
        test, images=images, labels=torch.cat([train.labels, test.labels])
    ), "All images are used: the folder keeps none apart for tests."


def _read(source: str) -> tuple[torch.Tensor, torch.Tensor | None, tuple[str, ...], str]:
    """Images, labels, class names and a note, of a data source or a folder without class folders."""
    if source == "photographs":
        return data.at_hand(SIDE), None, (), ""
    if not source.startswith("folder:"):
        image_set, note = data.load(source, "test"), ""
    else:
        folder = Path(source.removeprefix("folder:")).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder.name}: give folder:PATH.")
        if not any(p.is_dir() and not p.name.startswith((".", "__")) for p in folder.iterdir()):
            pictures, note = _loose(folder)
            return pictures, None, (), note
        image_set, note = _in_classes(source, folder)
    return image_set.images, image_set.labels, image_set.classes, note


def _labels(
    model: nn.Module, labels: torch.Tensor | None, classes: tuple[str, ...], outputs: int
) -> tuple[torch.Tensor | None, str]:
    """Labels in the order of the model's outputs, or None, and a sentence on how they fit."""
    if labels is None:
        return (
            None,
            "The images have no labels: mosaics take the images whose class the model is sure of.",
        )
    names = getattr(model, "classes", None)
    if names is not None and set(classes) <= set(names):
        order = torch.tensor([list(names).index(c) for c in classes])
        return order[labels], "Folders and the model's classes are matched by name."
    if len(classes) == outputs:
        return labels, "Folders are taken for the model's outputs in alphabetical order."
    return None, (
        f"The model has {outputs} outputs and the folders {len(classes)} classes: "
        "the audit goes on without labels."
    )


def of(model: nn.Module, image_set: data.ImageSet) -> Subject:
    """A model on an image set, whose classes are matched to the model's outputs."""
    return _judged(model, image_set.images, image_set.labels, image_set.classes, image_set.source)


def open_subject(model: nn.Module, images: str, most: int = 400) -> Subject:
    """The model on the images of a source such as folder:PATH, at most `most` of them.

    Of more images an evenly spaced part is taken. Raises FileNotFoundError or ValueError, with
    the remedy, for images that cannot be had, and ValueError for a model without a gradient.
    """
    pictures, labels, classes, note = _read(images)
    every = torch.linspace(0, len(pictures) - 1, min(most, len(pictures))).long()
    labels = None if labels is None else labels[every]
    source = f"folder:{Path(images).name}" if images.startswith("folder:") else images
    return _judged(model, pictures[every], labels, classes, source, note)


def _judged(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    classes: tuple[str, ...],
    source: str,
    note: str = "",
) -> Subject:
    _has_gradient(model, images[:1])
    logits = models.logits_of(model, images)
    if not logits.isfinite().all():
        raise ValueError(
            f"{type(model).__name__} gives logits that are not finite numbers: "
            "look at its weights, and at the mean and std of its input."
        )
    labels, fit = _labels(model, labels, classes, logits.shape[1])
    notes = tuple(text for text in (fit, note) if text)
    names = getattr(model, "classes", None) or (classes if len(classes) == logits.shape[1] else ())
    preds = logits.argmax(1)
    return Subject(model, images, labels, source, notes, preds, logits, classes=tuple(names))


def _has_gradient(model: nn.Module, image: torch.Tensor) -> None:
    with models.evaluating(model), torch.enable_grad():
        x = models.prepare(model, image).requires_grad_()
        out = model(x)
        if not out.requires_grad:
            raise ValueError(
                f"{type(model).__name__} gives no gradient with respect to its input, which nearly "
                "all methods need: remove torch.no_grad, detach() or quantisation from its forward."
            )
