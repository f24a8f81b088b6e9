"""Faithfulness by removing pixels in the order of a map: deletion, insertion, ROAD.

Does the probability fall when the pixels go that the map calls relevant?
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.stats import kendalltau, rankdata
from torch import nn
from tqdm.auto import tqdm

from .. import data
from ..models import CHUNK, logits_of
from ..stats import difference_interval
from .localisation import check_maps

__all__ = [
    "REPLACEMENTS",
    "agreement",
    "area",
    "beaten_by_random",
    "chance_of",
    "curves",
    "order",
    "replacement",
    "road",
]

REPLACEMENTS = ("blur", "mean")


def replacement(images: torch.Tensor, kind: str = "blur") -> torch.Tensor:
    """What removed pixels show instead: uint8 (B, 3, h, w) in and out.

    "blur": the image itself, blurred by an eighth of its width; "mean": its mean colour. Raises
    ValueError for another kind.
    """
    if kind == "blur":
        return data.blur(images, images.shape[-1] / 8)
    if kind == "mean":
        return images.float().mean((2, 3), keepdim=True).round().to(torch.uint8).expand_as(images)
    raise ValueError(f"There is no replacement {kind!r}: use one of {', '.join(REPLACEMENTS)}.")


def chance_of(
    model: nn.Module, images: torch.Tensor, targets: torch.Tensor, chunk: int = CHUNK
) -> torch.Tensor:
    """Probability of its target for each image: uint8 (B, 3, h, w), classes (B,) -> (B,)."""
    return logits_of(model, images, chunk).softmax(1)[torch.arange(len(images)), targets]


def order(heatmaps: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Rank of each pixel, 0 for the largest value: (B, h, w) -> int64 (B, h * w).

    Equal values stand in random order; by position, ties would favour the top of the picture.
    """
    flat = check_maps(heatmaps).flatten(1)
    shuffled = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed))
    places = shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    return places.argsort(1)


def curves(
    model: nn.Module,
    images: torch.Tensor,
    heatmaps: Mapping[str, torch.Tensor],
    targets: torch.Tensor,
    insert: bool = False,
    kind: str = "blur",
    steps: int = 8,
    chunk: int = 256,
) -> dict[str, torch.Tensor]:
    """Probability of the target as pixels go (deletion) or come (insertion), in each map's order.

    Petsiuk et al. 2018, section 3.2. images uint8 (B, 3, h, w), heatmaps {name: (B, h, w)},
    targets (B,). Returns {name: (B, steps + 1)}: none, then equally more, then all of the pixels
    replaced (insert: restored). Maps of all names share forwards of `chunk` images, with a bar.
    """
    other = replacement(images, kind)
    start, end = (other, images) if insert else (images, other)
    pixels = images[0, 0].numel()
    # the two ends do not depend on the map
    first, last = (chance_of(model, x, targets, chunk) for x in (start, end))
    bar = tqdm(
        total=len(heatmaps) * len(images) * (steps - 1), unit="img", leave=False, mininterval=1.0
    )
    bar.set_description(f"{'inserting' if insert else 'deleting'} by {kind}")
    results = {}
    for name, maps in heatmaps.items():
        ranks = order(maps).view(len(images), *images.shape[-2:])
        between = []
        for step in range(1, steps):
            changed = torch.where((ranks < step * pixels / steps)[:, None], end, start)
            between.append(chance_of(model, changed, targets, chunk))
            bar.update(len(images))
        results[name] = torch.stack([first, *between, last], 1)
    bar.close()
    return results


def area(curve: torch.Tensor) -> torch.Tensor:
    """Area under curves (B, steps + 1) over the share of pixels 0..1; (B,). Low is good for deletion."""
    return torch.trapezoid(curve, dim=1) / (curve.shape[1] - 1)


def road(
    model: nn.Module,
    images: torch.Tensor,
    heatmaps: torch.Tensor,
    targets: torch.Tensor,
    share: float = 0.3,
    seed: int = 0,
) -> np.ndarray:
    """Remove and debias (Rong et al. 2022): does the most relevant share matter more than the least? (B,)

    Fall of the target's probability when the most relevant `share` of the pixels is imputed, less
    the same for the least relevant; in -1..1. Missing pixels are filled from their neighbours, so
    that the hole's shape tells the model less. Imputation: pytorch-grad-cam.
    """
    ranks = order(heatmaps, seed).view(len(images), *images.shape[-2:])
    pixels = images[0, 0].numel()
    count = round(share * pixels)
    imputer = NoisyLinearImputer(noise=0.0)
    probabilities = []
    for gone in (ranks < count, ranks >= pixels - count):
        filled = [imputer(x.float(), (~g).float()) for x, g in zip(images, gone, strict=True)]
        changed = torch.stack(filled).clamp(0, 255).round().to(torch.uint8)
        probabilities.append(chance_of(model, changed, targets))
    return (probabilities[1] - probabilities[0]).numpy()


# ---------------------------------------------------------------- judging the scores


def beaten_by_random(scores: Mapping[str, np.ndarray], random: str = "random") -> list[str]:
    """The methods that random order beats, by the interval of the paired difference.

    scores: {method: (N,)}, higher is better, with the reference `random` among them. If any
    method is in the list, the score is unfit for this model: what it measures is the damage done
    by removing, not the merit of the map. NaN (empty maps) are left out.
    """
    beaten = []
    for name, values in scores.items():
        known = np.isfinite(values) & np.isfinite(scores[random])
        if name == random or known.sum() < 2:
            continue
        if difference_interval(scores[random][known], values[known]).above(0):
            beaten.append(name)
    return beaten


def agreement(scores: Mapping[str, Mapping[str, float]]) -> tuple[list[str], np.ndarray]:
    """Kendall's tau of the ranks that metrics give to the same methods: names and (M, M) in -1..1.

    scores: {metric: {method: score}}, higher is better. 1: the same order, 0: unrelated, -1:
    reversed. Raises ValueError if a metric lacks a method or gives all the same score.
    """
    names = list(scores)
    methods = list(scores[names[0]])
    for name in names:
        if set(scores[name]) != set(methods):
            raise ValueError(f"{name} does not score the same methods as {names[0]}.")
        if len(set(scores[name].values())) == 1:
            raise ValueError(
                f"{name} gives every method the same score: there are no ranks to compare."
            )
    ranks = [rankdata([scores[name][method] for method in methods]) for name in names]
    return names, np.array([[kendalltau(a, b).statistic for b in ranks] for a in ranks])
