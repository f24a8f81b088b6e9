"""What is asked of an explanation, and how the answer is measured: one number an image.

Each question says which difference a reader would notice (`size`), fixed before any run. Every
number depends on its own image alone, so that it does not matter how many are measured at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from ..trust import localisation, sanity
from .subject import Subject

LEAST = 6  # images of a part: fewer say nothing
Run = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


class Maps:
    """A method for one subject: run(model, images uint8 (B, 3, h, w), targets (B,)) -> (B, h, w)."""

    def __init__(self, subject: Subject, run: Run, name: str = "") -> None:
        self.subject, self.run = subject, run
        self.name = name or f"function {id(run)}"

    def __call__(
        self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        return self.run(model, images, targets)

    def own(self, rows: torch.Tensor) -> torch.Tensor:
        """The maps of the subject's images at rows for their predicted classes, made once."""

        def make(missing: torch.Tensor) -> torch.Tensor:
            subject = self.subject
            return self.run(subject.model, subject.images[missing], subject.preds[missing])

        return torch.stack(self.subject.once(f"maps of {self.name}", rows, make))


@dataclass(frozen=True)
class Measured:
    """One question asked of one method, for n images."""

    values: np.ndarray  # (n,) the score of each image
    bar: float | np.ndarray = 0.0  # what a map scores by chance; (n,) or the same for all
    references: dict[str, np.ndarray] = field(default_factory=dict)  # (n,) of maps without a model
    beside: dict[str, np.ndarray] = field(default_factory=dict)  # (n,) worth knowing, not judged


@dataclass(frozen=True)
class AuditQuestion:
    """A question, what it needs, and the smallest answer that counts."""

    name: str
    text: str
    size: float  # score above bar and references that a reader would notice
    unit: str
    measure: Callable[[Maps, torch.Tensor, int], Measured]
    classes: int = 1  # outputs that the model must have
    removes: bool = False  # a score by removal is unfit where random order beats a method
    costly: bool = False  # many forward passes an image: begun after the others
    refuses: Callable[[Subject, str], str] = lambda subject, method: ""  # why not; "" if it can


def references(
    maps: Maps,
    name: str,
    rows: torch.Tensor,
    score: Callable[[torch.Tensor, torch.Tensor], np.ndarray],
) -> dict[str, np.ndarray]:
    """score(heatmaps, rows) of every map without a model; made once for all methods."""
    kinds = list(localisation.reference_maps(maps.subject.images[:1]))
    results = {}
    for kind in kinds:

        def make(missing: torch.Tensor, kind: str = kind) -> list[float]:
            images = maps.subject.images[missing]
            each = zip(images, missing.tolist(), strict=True)
            made = [localisation.reference_maps(i[None], seed=row)[kind] for i, row in each]
            return score(ordered(torch.cat(made), missing), missing).tolist()

        results[kind] = np.array(maps.subject.once(f"{name} of {kind}", rows, make))
    return results


def ordered(heatmaps: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The maps; noise in the place of a constant one, which names no place."""
    constant = sanity.empty(heatmaps)
    for i in torch.nonzero(constant).flatten().tolist():
        generator = torch.Generator().manual_seed(int(rows[i]))
        heatmaps = heatmaps.clone()
        heatmaps[i] = torch.rand(heatmaps.shape[1:], generator=generator)
    return heatmaps


def known(values: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    """The scores, with `otherwise` where a map without an order has none."""
    return np.where(np.isfinite(values), values, otherwise)
