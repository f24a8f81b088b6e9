"""What happens to the score when parts of the picture are taken away: occlusion, RISE, Shapley.

Nothing here looks inside the model: pictures go in, scores come out. "Taken away" means replaced
by a fill, and which fill is an option of every method: there is no picture without a cell, only
one with something else in its place.

Every method is run(model, x (b, 3, H, W), question, *, batch, **options) -> (b, H, W), in logits:
each pixel holds the value of its cell. `batch` bounds the changed copies held at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

import torch
import torch.nn.functional as F
from torch import nn

from ..models import Question
from .masking import FILLS, Fill, cells, filled, masked_scores, whole_score

EXACT = 3  # Shapley values are exact up to a grid of this many rows and columns

__all__ = [
    "FILLS",
    "ShapleyResult",
    "cells",
    "filled",
    "occlusion",
    "rise",
    "shapley",
    "shapley_error",
    "shapley_values",
]


# ---------------------------------------------------------------- one part at a time


def occlusion(
    model: nn.Module,
    x: torch.Tensor,
    question: Question,
    *,
    batch: int,
    grid: int = 8,
    overlap: int = 1,
    fill: Fill = "mean",
) -> torch.Tensor:
    """How far the score falls when a window is covered (Zeiler & Fergus 2014, section 4.2).

    The window is as large as one of grid x grid cells and moves by 1/overlap of a cell; 1 takes
    the cells one after the other. A pixel's value is the mean fall over the windows that cover
    it. One forward pass per window and one for the whole picture. Raises ValueError for an
    overlap below 1 and as cells() and filled() do.
    """
    if overlap < 1:
        raise ValueError(f"Occlusion's overlap must be at least 1, not {overlap}.")
    height, width = x.shape[-2:]
    rows, columns = (torch.arange(n) * grid * overlap // n for n in (height, width))
    cells(height, width, grid)  # refuses a grid that does not fit
    starts = torch.arange((grid - 1) * overlap + 1)
    across, down = (
        (place >= starts[:, None]) & (place < starts[:, None] + overlap)
        for place in (columns, rows)
    )  # (starts, pixels)
    covered = (down[:, None, :, None] & across[None, :, None, :]).flatten(0, 1)  # (n, H, W)
    whole, question = whole_score(model, x, question, batch)
    scores = masked_scores(model, x, filled(model, x, fill), question, [~covered], batch)
    shares = covered.flatten(1).double()
    falls = (whole - scores).T @ (shares / shares.sum(0))
    return falls.view(-1, height, width).to(x)


def _rise_masks(
    size: tuple[int, int], masks: int, grid: int, keep: float, seed: int, at_once: int
) -> Iterator[torch.Tensor]:
    """Smooth random masks, blocks of float (n, H, W) in 0..1: a coarse grid enlarged and shifted."""
    generator = torch.Generator().manual_seed(seed)
    coarse = (torch.rand(masks, 1, grid, grid, generator=generator) < keep).float()
    step = [-(-n // grid) for n in size]  # a cell's height and width, rounded up
    large = [(grid + 1) * n for n in step]
    shifts = torch.stack([torch.randint(0, n, (masks,), generator=generator) for n in step], 1)
    for start in range(0, masks, at_once):
        block = F.interpolate(coarse[start : start + at_once], large, mode="bilinear")[:, 0].clamp(
            max=1
        )
        places = shifts[start : start + at_once].tolist()
        yield torch.stack(
            [
                mask[top : top + size[0], left : left + size[1]]
                for mask, (top, left) in zip(block, places, strict=True)
            ]
        )


def rise(
    model: nn.Module,
    x: torch.Tensor,
    question: Question,
    *,
    batch: int,
    masks: int = 512,
    grid: int = 7,
    keep: float = 0.5,
    fill: Fill = "mean",
    seed: int = 0,
) -> torch.Tensor:
    """Randomised input sampling (Petsiuk, Das & Saenko 2018, section 3.2): where visible pixels help.

    Scores of the picture behind `masks` random masks, each of grid x grid cells that stay with
    probability `keep`; the map is sum (score - mean score) x mask / (masks x keep). The paper's
    sum differs by the mean score alone: a constant, were all pixels visible equally often. All
    images get the same masks. Raises ValueError for masks < 2 or keep outside 0..1, and as
    cells() and filled() do.
    """
    if masks < 2 or not 0 < keep < 1:
        raise ValueError(f"RISE needs masks >= 2 and keep between 0 and 1, not {masks} and {keep}.")
    size = (x.shape[-2], x.shape[-1])
    cells(*size, grid)  # refuses a grid that does not fit
    _, question = whole_score(model, x, question, batch)
    drawn = _rise_masks(size, masks, grid, keep, seed, batch)
    away = filled(model, x, fill)
    scores = masked_scores(model, x, away, question, drawn, batch)  # (masks, b)
    weights = (scores - scores.mean(0)) / (masks * keep)
    heat = torch.zeros(len(x), size[0] * size[1]).double()
    drawn = _rise_masks(size, masks, grid, keep, seed, batch)
    for weight, block in zip(weights.split(batch), drawn, strict=True):
        heat += weight.T @ block.flatten(1).double()
    return heat.view(-1, *size).to(x)


# ---------------------------------------------------------------- Shapley values


@dataclass(frozen=True)
class ShapleyResult:
    """Shapley values of a grid's cells. Their sum is whole - empty, exactly."""

    values: torch.Tensor  # float64 (b, grid, grid), logits
    error: torch.Tensor  # (b, grid, grid) standard error of each value; 0 where it is exact
    whole: torch.Tensor  # (b,) score of the picture
    empty: torch.Tensor  # (b,) score with every cell taken away


def _exact_weights(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All coalitions of n players, bool (2^n, n), and the weight of each in each value, (2^n, n).

    A player's value is the mean of what it adds, over all orders in which the players may come
    in: coalition S weighs 1 / (n C(n-1, |S|-1)) for its members and -1 / (n C(n-1, |S|)) for the
    others (Shapley 1953).
    """
    members = (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1 == 1
    joined = torch.tensor([0.0] + [1 / (n * comb(n - 1, s - 1)) for s in range(1, n + 1)]).double()
    absent = torch.tensor([-1 / (n * comb(n - 1, s)) for s in range(n)] + [0.0]).double()
    size = members.sum(1)
    return members, torch.where(members, joined[size][:, None], absent[size][:, None])


def _orders(n: int, permutations: int, seed: int) -> torch.Tensor:
    """Random orders of n players, each followed by its reverse: (2 x pairs, n)."""
    generator = torch.Generator().manual_seed(seed)
    pairs = [torch.randperm(n, generator=generator) for _ in range(permutations // 2)]
    return torch.stack([order for pair in pairs for order in (pair, pair.flip(0))])


def shapley_values(
    model: nn.Module,
    x: torch.Tensor,
    question: Question,
    *,
    batch: int,
    grid: int = EXACT,
    fill: Fill = "mean",
    permutations: int | None = None,
    seed: int = 0,
) -> ShapleyResult:
    """Shapley values of grid x grid cells: what each adds to the score, mean over all orders.

    permutations None: exact, all 2^(grid x grid) coalitions, for a grid of at most 3. A number:
    that many random orders, in pairs of an order and its reverse, the same for all images, with
    the standard error over the pairs (Castro et al. 2009; Mitchell et al. 2022, section 4.1).
    Raises ValueError for a larger exact grid, fewer than 4 or an odd number of permutations, and
    as cells() and filled() do.
    """
    n = grid * grid
    place = cells(x.shape[-2], x.shape[-1], grid)
    whole, question = whole_score(model, x, question, batch)
    away = filled(model, x, fill)

    def scores(members: torch.Tensor) -> torch.Tensor:
        """Of coalitions, bool (n, cells): (n, b)."""
        kept = (part[:, place] for part in members.split(4 * batch))
        return masked_scores(model, x, away, question, kept, batch)

    if permutations is None:
        if grid > EXACT:
            raise ValueError(
                f"Exact Shapley values of {n} cells need 2^{n} forward passes: use a grid of "
                f"{EXACT} at most, or give permutations to sample."
            )
        members, weights = _exact_weights(n)
        reached = torch.cat([scores(members[:-1]), whole[None]])
        values = (reached.T @ weights).unflatten(1, (grid, grid))
        return ShapleyResult(values, torch.zeros_like(values), whole, reached[0])
    if permutations < 4 or permutations % 2:
        raise ValueError(
            f"Shapley sampling needs an even number of permutations, 4 or more, not {permutations}."
        )
    orders = _orders(n, permutations, seed)
    joined = torch.arange(n + 1)[:, None] > orders.argsort(1)[:, None]  # (orders, 0..n in, n)
    empty = scores(joined[:1, 0])
    paths = torch.empty(permutations, n + 1, len(x)).double()
    paths[:, 0], paths[:, -1] = empty, whole
    if n > 1:
        between = scores(joined[:, 1:-1].flatten(0, 1))
        paths[:, 1:-1] = between.unflatten(0, (permutations, n - 1))
    added = paths.diff(dim=1)[torch.arange(permutations)[:, None], orders.argsort(1)]
    pairs = added.unflatten(0, (-1, 2)).mean(1).transpose(1, 2)  # (pairs, b, cells)
    error = pairs.std(0) / len(pairs) ** 0.5
    shape = (len(x), grid, grid)
    return ShapleyResult(pairs.mean(0).view(shape), error.view(shape), whole, empty[0])


def _spread(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(b, grid, grid) -> (b, H, W): each pixel gets its cell's number."""
    return values.flatten(1)[:, cells(x.shape[-2], x.shape[-1], values.shape[-1])].to(x)


def shapley(
    model: nn.Module,
    x: torch.Tensor,
    question: Question,
    *,
    batch: int,
    grid: int = EXACT,
    fill: Fill = "mean",
    permutations: int = 32,
    seed: int = 0,
) -> torch.Tensor:
    """Shapley values of grid x grid cells, exact up to 3 x 3, else from random orders.

    (b, H, W): each pixel holds its cell's value, and the cells' values sum to the score of the
    picture less that of the fill. `permutations` and `seed` matter for finer grids only;
    shapley_error() says how far those values may be off. Raises as shapley_values() does.
    """
    sampled = None if grid <= EXACT else permutations
    options = dict(grid=grid, fill=fill, permutations=sampled, seed=seed)
    return _spread(shapley_values(model, x, question, batch=batch, **options).values, x)


def shapley_error(
    model: nn.Module,
    x: torch.Tensor,
    question: Question,
    *,
    batch: int,
    grid: int = EXACT,
    fill: Fill = "mean",
    permutations: int = 32,
    seed: int = 0,
) -> torch.Tensor:
    """Standard error of the sampled Shapley values, (b, H, W), also where exact ones could be had.

    Raises as shapley_values() does.
    """
    options = dict(grid=grid, fill=fill, permutations=permutations, seed=seed)
    return _spread(shapley_values(model, x, question, batch=batch, **options).error, x)
