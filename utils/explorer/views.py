"""What the explorer speaks of: a question (View), its answer, and what is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .. import evaluate
from ..data import ImageSet

OWN_SIDE = 256  # pixels: photographs of one's own are cut to this square


RUNNER_UP = -1  # as `against`: the most probable class other than the target


CHANGES = {"none": "as it is", "blur": "blurred", "erase": "erased"}


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
    against: int | None = None  # a class, or RUNNER_UP: why the target rather than this class?


@dataclass(frozen=True)
class Answer:
    """What one model computes for one image."""

    heatmap: torch.Tensor  # float32 (h, w)
    probabilities: torch.Tensor  # (C,)
    target: int
    against: int | None = None


@dataclass(frozen=True)
class Exhibit:
    """Images, and the models that are asked about them: all know the same classes."""

    models: Mapping[str, nn.Module]  # by title
    images: ImageSet


@dataclass(frozen=True)
class Shown:
    """What the explorer looks at now; replaced as a whole, never changed."""

    models: Mapping[str, nn.Module]
    images: torch.Tensor  # uint8 (N, 3, h, w)
    labels: torch.Tensor | None  # (N,), None for one's own photographs
    classes: tuple[str, ...]
    preds: Mapping[str, evaluate.Predictions]
