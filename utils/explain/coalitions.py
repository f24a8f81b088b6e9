"""Shapley values: what each cell of a picture adds to the score, mean over all orders of the cells.

Exact on a coarse grid, from random orders on a finer one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import torch
from torch import nn

from ..models import Question
from .masking import Fill, cells, filled, masked_scores, whole_score

EXACT = 3  # Shapley values are exact up to a grid of this many rows and columns


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
    shapley_values() says how far those values may be off, and what it raises.
    """
    sampled = None if grid <= EXACT else permutations
    options = dict(grid=grid, fill=fill, permutations=sampled, seed=seed)
    values = shapley_values(model, x, question, batch=batch, **options).values
    return values.flatten(1)[:, cells(x.shape[-2], x.shape[-1], grid)].to(x)
