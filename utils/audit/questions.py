"""What is asked of an explanation, and how the answer is measured: one number an image.

Each question says which difference a reader would notice (`size`), fixed before any run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn

from .. import explain, models
from ..trust import localisation, sanity
from .subject import Subject

CELLS = 4  # the picture is cut into CELLS x CELLS parts where parts are replaced
TAKEN = 4  # how many of them
LEVELS = 4.0  # standard deviation of the input noise, in levels of 255

Maps = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Measured:
    """One question asked of one method."""

    values: np.ndarray  # (n,) the score of each image
    floor: np.ndarray  # (n,) what the best map without a model scores; or the fixed bar
    references: dict[str, float] = field(default_factory=dict)  # name -> mean score


@dataclass(frozen=True)
class Question:
    """A question, what it needs, and the smallest answer that counts."""

    name: str
    text: str
    size: float  # score above the floor that a reader would notice
    unit: str
    measure: Callable[[Subject, Maps, torch.Tensor, int], Measured]
    classes: int = 1  # outputs that the model must have
    cost: int = 4  # forward passes an image, roughly, beside the maps; for the time estimate


def _against_references(
    score: Callable[[torch.Tensor], np.ndarray], heatmaps: torch.Tensor, images: torch.Tensor
) -> Measured:
    """The score of the maps beside that of every map without a model; the best of those is the floor."""
    others = {k: score(m) for k, m in localisation.reference_maps(images).items()}
    best = max(others, key=lambda name: others[name].mean())
    means = {name: float(values.mean()) for name, values in others.items()}
    return Measured(score(heatmaps), others[best], means)


def _cells(heatmaps: torch.Tensor, side: int = CELLS) -> torch.Tensor:
    """Mean of each cell, (B, side * side): what speaks for the class counts, not the magnitude."""
    return F.adaptive_avg_pool2d(heatmaps.float()[:, None], side).flatten(1)


def _blurred(images: torch.Tensor) -> torch.Tensor:
    """The images without their details: means of 8 x 8 areas, enlarged smoothly; uint8."""
    low = F.adaptive_avg_pool2d(images.float(), 8)
    smooth = F.interpolate(low, images.shape[-2:], mode="bilinear", align_corners=False)
    return smooth.round().clamp(0, 255).to(torch.uint8)


def _score_of(subject: Subject, images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """The explained class's probability, (B,); the output itself of a model with one output."""
    logits = models.logits_of(subject.model, images)
    values = logits if subject.outputs == 1 else logits.softmax(1)
    return values.gather(1, targets[:, None])[:, 0].double().numpy()


def needed(subject: Subject, maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """Fall of the score when the TAKEN most relevant of the cells are blurred.

    The floor is the best of the maps without a model, random cells among them.
    """
    images, targets = subject.images[rows], subject.preds[rows]
    start, blurred = _score_of(subject, images, targets), _blurred(images)

    def fall(heatmaps: torch.Tensor) -> np.ndarray:
        top = _cells(heatmaps).topk(TAKEN, dim=1).indices
        mask = torch.zeros(len(images), CELLS * CELLS).scatter_(1, top, 1)
        mask = mask.view(-1, 1, CELLS, CELLS)
        mask = F.interpolate(mask, images.shape[-2:], mode="nearest").bool()
        return start - _score_of(subject, torch.where(mask, blurred, images), targets)

    return _against_references(fall, maps(subject.model, images, targets), images)


def points(subject: Subject, maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """Share of a map's positive mass in the tile of its class, on 2 x 2 mosaics of the images.

    Four right-answered images of four classes a mosaic; the map of each of the four classes is
    scored, so that a map which does not look at the class has a mean of exactly 1/4. Needs labels.
    """
    tiles = _mosaic_rows(subject, rows)
    height, width = subject.images.shape[-2:]
    parts = subject.images[tiles]  # (n, 4, 3, h, w)
    picture = torch.cat(
        [torch.cat([parts[:, i], parts[:, i + 1]], dim=3) for i in (0, 2)], dim=2
    )  # (n, 3, 2h, 2w)
    picture = F.interpolate(picture.float(), (height, width), mode="area").round().to(torch.uint8)
    shares = []
    for k in range(4):
        heat = maps(subject.model, picture, subject.preds[tiles[:, k]]).clamp(min=0)
        mass = F.adaptive_avg_pool2d(heat[:, None], 2).flatten(1)  # (n, 4): a tile each
        total = mass.sum(1)
        shares.append(torch.where(total > 0, mass[:, k] / total.clamp(min=1e-30), 0.25))
    values = torch.stack(shares).mean(0).double().numpy()
    return Measured(values, np.full(len(values), 0.25))


def _mosaic_rows(subject: Subject, rows: torch.Tensor) -> torch.Tensor:
    """(len(rows), 4) image numbers: right answers of four classes each, the same at every call.

    Raises ValueError where fewer than four classes have a right answer.
    """
    if subject.labels is None:
        raise ValueError("it needs labels")
    right = subject.preds == subject.labels
    by_class = [
        torch.nonzero(right & (subject.labels == c)).flatten()
        for c in subject.labels[right].unique()
    ]
    if len(by_class) < 4:
        raise ValueError(f"it needs right answers of four classes, and {len(by_class)} have some")
    mosaics = []
    for row in rows.tolist():
        generator = torch.Generator().manual_seed(row)
        chosen = torch.randperm(len(by_class), generator=generator)[:4]
        mosaics.append([int(by_class[c][row % len(by_class[c])]) for c in chosen])
    return torch.tensor(mosaics)


def about_class(subject: Subject, maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """1 - |cosine| between the maps of the two most probable classes: 0 is the same picture.

    A map whose sign turns with the class is the same picture too, so it scores 0.
    """
    images = subject.images[rows]
    first, second = subject.logits[rows].topk(2, dim=1).indices.T
    a, b = (maps(subject.model, images, t).flatten(1).double() for t in (first, second))
    values = 1 - F.cosine_similarity(a, b).abs()
    empty = (a.abs().amax(1) == 0) | (b.abs().amax(1) == 0)
    return Measured(values.masked_fill(empty, 0).numpy(), np.zeros(len(rows)))


def _rank_agreement(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Spearman's rank correlation of magnitudes, image by image; 0 where a map is constant."""
    values = []
    for one, other in zip(a.abs().flatten(1), b.abs().flatten(1), strict=True):
        constant = one.max() == one.min() or other.max() == other.min()
        values.append(0.0 if constant else float(spearmanr(one, other).statistic))
    return np.array(values)


def learned(subject: Subject, maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """1 - rank correlation with the map of the same network with random weights.

    Hedström et al. (2024) call it efficient MPRT's idea: compare the ends of the cascade only. A
    map that shows the picture's edges hardly changes and scores near 0.
    """
    images, targets = subject.images[rows], subject.preds[rows]
    own = maps(subject.model, images, targets)
    other = maps(sanity.randomised(subject.model, seed), images, targets)
    return Measured(1 - _rank_agreement(own, other), np.zeros(len(rows)))


def steady(subject: Subject, maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """Mean rank correlation of a map with those under noise, a small shift and a mirror image.

    Shift and mirror are undone before the maps are compared.
    """
    images, targets = subject.images[rows], subject.preds[rows]
    own = maps(subject.model, images, targets)
    generator = torch.Generator().manual_seed(seed)
    noise = LEVELS * torch.randn(images.shape[1:], generator=generator)
    noisy = (images + noise).round().clamp(0, 255).to(torch.uint8)
    step = max(1, images.shape[-1] // 32)
    each = [
        _rank_agreement(own, maps(subject.model, noisy, targets)),
        _rank_agreement(own, maps(subject.model, images.flip(3), targets).flip(2)),
        _rank_agreement(own, maps(subject.model, images.roll(step, 3), targets).roll(-step, 2)),
    ]
    return Measured(np.mean(each, axis=0), np.zeros(len(rows)))


@lru_cache(maxsize=2)
def _exact(subject: Subject, rows: tuple[int, ...]) -> torch.Tensor:
    """Exact Shapley values of 3 x 3 cells, (len(rows), 9): the same for all methods, so kept."""
    images, targets = subject.images[list(rows)], subject.preds[list(rows)]
    return _cells(explain.explain(subject.model, images, targets, method="shapley", grid=3), 3)


def like_shapley(subject: Subject, maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """Rank correlation of a map's 3 x 3 cell means with the exact Shapley values of the cells."""
    images, targets = subject.images[rows], subject.preds[rows]
    truth = _exact(subject, tuple(rows.tolist()))

    def agree(heatmaps: torch.Tensor) -> np.ndarray:
        cells = _cells(heatmaps, 3)
        pairs = zip(cells, truth, strict=True)
        return np.array(
            [0.0 if c.max() == c.min() else float(spearmanr(c, t).statistic) for c, t in pairs]
        )

    return _against_references(agree, maps(subject.model, images, targets), images)


QUESTIONS: dict[str, Question] = {
    q.name: q
    for q in (
        Question(
            "points",
            "Does the map point at the class?",
            0.1,
            "share of positive mass in the class's tile, beyond 1/4",
            points,
            classes=4,
        ),
        Question(
            "needed",
            "Does the prediction need what the map marks?",
            0.05,
            "fall of probability, beyond the best map without a model",
            needed,
            cost=6,
        ),
        Question(
            "class",
            "Is the map about this class?",
            0.1,
            "1 - |cosine| of two classes' maps",
            about_class,
            classes=2,
        ),
        Question(
            "learned",
            "Does the map depend on what was learned?",
            0.3,
            "1 - rank correlation with random weights",
            learned,
        ),
        Question(
            "steady",
            "Does the map survive noise, a shift and a mirror?",
            0.7,
            "rank correlation",
            steady,
        ),
        Question(
            "shapley",
            "Does it agree with exact Shapley values?",
            0.1,
            "rank correlation, beyond the best map without a model",
            like_shapley,
            cost=64,
        ),
    )
}
