"""What is audited: a model, images, and their labels where the model's classes fit them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from .. import data, evaluate, models

SIDE = 256  # pixels; loose photographs are cut to a square of this side
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

    @property
    def outputs(self) -> int:
        """How many numbers the model gives for an image."""
        return self.logits.shape[1]

    def title(self, i: int) -> str:
        """The predicted class of image i by name, with its probability."""
        names = getattr(self.model, "classes", None)
        label = int(self.preds[i])
        name = names[label] if names is not None and label < len(names) else f"class {label}"
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


def _loose(folder: Path) -> torch.Tensor:
    """The photographs that lie in a folder itself, uint8 (N, 3, SIDE, SIDE), by name."""
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
    pictures, unreadable = [], []
    for file in files:
        try:
            pictures.append(data.read_image(file, SIDE))
        except ValueError:
            unreadable.append(file.name)
    if unreadable:
        print(
            f"{len(unreadable)} files cannot be read and are left out: {', '.join(unreadable[:3])}."
        )
    if not pictures:
        raise ValueError(
            f"The folder {folder.name} holds no image that can be read: "
            "give a folder of photographs, or of one sub-folder for each class."
        )
    return torch.stack(pictures)


def _read(source: str) -> tuple[torch.Tensor, torch.Tensor | None, tuple[str, ...]]:
    """Images, labels and class names of a data source, or of a folder without class folders."""
    folder = Path(source.removeprefix("folder:")).expanduser()
    if source.startswith("folder:"):
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder.name}: give folder:PATH.")
        if not any(p.is_dir() and not p.name.startswith((".", "__")) for p in folder.iterdir()):
            return _loose(folder), None, ()
    image_set = data.load(source, "test")
    return image_set.images, image_set.labels, image_set.classes


def _labels(
    model: nn.Module, labels: torch.Tensor | None, classes: tuple[str, ...], outputs: int
) -> tuple[torch.Tensor | None, str]:
    """Labels in the order of the model's outputs, or None, and a sentence on how they fit."""
    if labels is None:
        return None, "The images have no labels: questions about right answers are left out."
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


def load(model: nn.Module, images: str, most: int = 400) -> Subject:
    """The model on the images of a source such as folder:PATH, at most `most` of them.

    Of more images an evenly spaced part is taken. Raises FileNotFoundError or ValueError, with
    the remedy, for images that cannot be had, and ValueError for a model without a gradient.
    """
    pictures, labels, classes = _read(images)
    every = torch.linspace(0, len(pictures) - 1, min(most, len(pictures))).long()
    labels = None if labels is None else labels[every]
    return _judged(model, pictures[every], labels, classes, images)


def _judged(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    classes: tuple[str, ...],
    source: str,
) -> Subject:
    _has_gradient(model, images[:1])
    logits = models.logits_of(model, images)
    labels, note = _labels(model, labels, classes, logits.shape[1])
    return Subject(model, images, labels, source, (note,), logits.argmax(1), logits)


def _has_gradient(model: nn.Module, image: torch.Tensor) -> None:
    with models.evaluating(model), torch.enable_grad():
        x = models.prepare(model, image).requires_grad_()
        out = model(x)
        if not out.requires_grad:
            raise ValueError(
                f"{type(model).__name__} gives no gradient with respect to its input, which nearly "
                "all methods need: remove torch.no_grad, detach() or quantisation from its forward."
            )
