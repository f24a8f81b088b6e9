"""Does the model depend on what a map names? Remove pixels in the map's order and watch the probability."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import kendalltau, rankdata
from torch import nn
from tqdm.auto import tqdm

from .. import data
from ..models import logits_of
from .localisation import check

__all__ = ["REPLACEMENTS", "agreement", "area", "curves", "order", "replacement", "sensitivity_n"]

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


def order(heatmaps: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Rank of each pixel, 0 for the largest value: (B, h, w) -> int64 (B, h * w).

    Equal values stand in random order; by position, ties would favour the top of the picture.
    """
    flat = check(heatmaps).flatten(1)
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
    rows = torch.arange(len(images))
    # the two ends do not depend on the map
    first, last = (logits_of(model, x, chunk).softmax(1)[rows, targets] for x in (start, end))
    bar = tqdm(
        total=len(heatmaps) * len(images) * (steps - 1), unit="img", leave=False, mininterval=1.0
    )
    bar.set_description(f"{'inserting' if insert else 'deleting'} by {kind}")
    found = {}
    for name, maps in heatmaps.items():
        ranks = order(maps).view(len(images), *images.shape[-2:])
        between = []
        for step in range(1, steps):
            changed = torch.where((ranks < step * pixels / steps)[:, None], end, start)
            between.append(logits_of(model, changed, chunk).softmax(1)[rows, targets])
            bar.update(len(images))
        found[name] = torch.stack([first, *between, last], 1)
    bar.close()
    return found


def area(curve: torch.Tensor) -> torch.Tensor:
    """Area under curves (B, steps + 1) over the share of pixels 0..1; (B,). Low is good for deletion."""
    return torch.trapezoid(curve, dim=1) / (curve.shape[1] - 1)


def sensitivity_n(
    model: nn.Module,
    images: torch.Tensor,
    heatmaps: Mapping[str, torch.Tensor],
    targets: torch.Tensor,
    share: float = 0.25,
    draws: int = 24,
    cell: int = 4,
    kind: str = "blur",
    seed: int = 0,
    chunk: int = 256,
) -> dict[str, torch.Tensor]:
    """Do regions with more attribution cost more logit? Correlation over random regions, {name: (B,)} in -1..1.

    Ancona et al. 2018, section 4.2, with squares of `cell` pixels for pixels: `share` of the
    squares are drawn, replaced, and the fall of the target's logit is correlated with the sum of
    the map over them, over `draws` draws. All maps share the same forwards. The image sides must
    be multiples of `cell`; ValueError otherwise.
    """
    height, width = images.shape[-2:]
    if height % cell or width % cell:
        raise ValueError(
            f"Squares of {cell} pixels do not tile an image of {height} by {width} pixels."
        )
    generator = torch.Generator().manual_seed(seed)
    squares = (height // cell) * (width // cell)
    chosen = torch.rand(draws, squares, generator=generator).argsort(1) < round(share * squares)
    large = chosen.view(draws, 1, height // cell, width // cell).float()
    large = F.interpolate(large, (height, width), mode="nearest") > 0
    other, rows = replacement(images, kind), torch.arange(len(images))
    falls = []
    for region in tqdm(large, desc="sensitivity-n", unit="draw", leave=False, mininterval=1.0):
        falls.append(-logits_of(model, torch.where(region, other, images), chunk)[rows, targets])
    falls = torch.stack(falls, 1)  # (B, draws); the whole image's logit would only add a constant
    found = {}
    for name, maps in heatmaps.items():
        sums = (
            F.avg_pool2d(check(maps)[:, None].float(), cell).flatten(1) @ chosen.T.float()
        )  # (B, draws)
        found[name] = F.cosine_similarity(sums - sums.mean(1, True), falls - falls.mean(1, True))
    return found


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
