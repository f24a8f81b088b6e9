"""What a planted shortcut needs: a class, a mark, images to train on and images to look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .. import data, models
from ..data import ImageSet
from ..trust import shortcut
from .questions import LEAST
from .removal import FINE
from .subject import Subject


@dataclass(frozen=True)
class Planting:
    """What is trained on, and what the auditor sees."""

    target: int  # the class that the mark stands for
    mark: shortcut.Mark
    train_set: ImageSet
    clean: torch.Tensor  # uint8 (N, 3, h, w), images of other classes that are not trained on
    marked: torch.Tensor  # the same with the mark
    at_mark: torch.Tensor  # bool (N, grid, grid)


def cannot_plant(subject: Subject) -> str:
    """Why no shortcut can be planted; empty if one can."""
    if subject.outputs < 2:
        return "it needs a model with 2 outputs or more"
    if subject.labels is None:
        return "it needs images with labels that fit the model"
    try:
        layer = models.head(subject.model)
    except ValueError:
        return "the model has no last layer that could be trained anew"
    if not hasattr(layer, "reset_parameters") or not layer.weight.is_floating_point():
        return "the model's last layer cannot be trained"
    if _target(subject, *_halves(subject)) is None:
        return (
            f"it needs a class with {LEAST} images to train with and {LEAST} images of other "
            f"classes to look at, and there are {len(subject.images)} images in all"
        )
    return ""


def _halves(subject: Subject) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to train with, two thirds of each class, and rows to look at."""
    assert subject.labels is not None
    n = len(subject.labels)
    sizes = (round(n * 2 / 3), n - round(n * 2 / 3))
    train, seen = data.draw_rows(subject.labels.numpy(), sizes, 0, True)
    return torch.from_numpy(train), torch.from_numpy(seen)


def _target(subject: Subject, train: torch.Tensor, seen: torch.Tensor) -> int | None:
    """The class that needs a shortcut most: by rule the one with the lowest recall."""
    assert subject.labels is not None
    labels = subject.labels
    recall = {}
    for c in labels[train].unique().tolist():
        if (labels[train] == c).sum() >= LEAST and (labels[seen] != c).sum() >= LEAST:
            recall[c] = float((subject.preds[labels == c] == c).float().mean())
    return min(recall, key=lambda c: recall[c]) if recall and len(labels.unique()) > 1 else None


def coarse(maps: torch.Tensor) -> torch.Tensor:
    """What speaks for the class (N, h, w), on at most FINE x FINE places: small enough to keep."""
    sides = tuple(min(FINE, side) for side in maps.shape[-2:])
    return F.interpolate(maps.clamp(min=0)[:, None], sides, mode="area")[:, 0]


def prepared(subject: Subject, n_marked: int) -> Planting:
    """The mark, a sixteenth of a picture, at places that vary; see trust.shortcut.plant."""
    train, seen = _halves(subject)
    target, labels = _target(subject, train, seen), subject.labels
    assert target is not None and labels is not None
    names = subject.classes or tuple(str(c) for c in range(subject.outputs))
    height, width = subject.images.shape[-2:]
    mark = shortcut.Mark(side=max(2, min(height, width) // 4))
    clean = subject.images[seen[labels[seen] != target][:n_marked]]
    places = mark.places(len(clean), height, width)
    at_mark = coarse(mark.masks(places, height, width).float()) > 0.5
    return Planting(
        target,
        mark,
        ImageSet(subject.images[train], labels[train], names, subject.source),
        clean,
        mark.stamp(clean, places),
        at_mark,
    )
