"""What happens to the score when parts of the picture are taken away: occlusion, RISE, Shapley.

Nothing here looks inside the model: pictures go in, scores come out. "Taken away" means replaced
by a fill, and which fill is an option of every method: there is no picture without a cell, only
one with something else in its place.

Every method is run(model, x (b, 3, H, W), question, *, batch, **options) -> (b, H, W), in logits:
each pixel holds the value of its cell. `batch` bounds the changed copies held at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from ..models import Question
from .coalitions import ShapleyResult, shapley, shapley_values
from .masking import FILLS, Fill, cells, filled, masked_scores, whole_score

__all__ = [
    "FILLS",
    "ShapleyResult",
    "cells",
    "filled",
    "occlusion",
    "rise",
    "shapley",
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
        rows = slice(start, start + at_once)
        block = F.interpolate(coarse[rows], large, mode="bilinear")[:, 0].clamp(max=1)
        places = zip(block, shifts[rows].tolist(), strict=True)
        yield torch.stack([mask[t : t + size[0], s : s + size[1]] for mask, (t, s) in places])


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
