"""Taking parts of a picture away: the cells, what stands in their place, and the scores after it.

What occlusion, RISE and Shapley values have in common.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from ..data import blur
from ..models import Question, evaluating, prepare

FILLS = ("mean", "black", "blur")
Fill: TypeAlias = str | torch.Tensor


def cells(height: int, width: int, grid: int) -> torch.Tensor:
    """Which cell each pixel belongs to, int64 (H, W): 0..grid * grid - 1, by rows.

    Raises ValueError unless each cell gets a pixel.
    """
    if not 1 <= grid <= min(height, width):
        raise ValueError(
            f"A grid of {grid} rows and columns does not fit an input of {height} x {width} "
            f"pixels: give 1 to {min(height, width)}."
        )
    rows, columns = (torch.arange(n) * grid // n for n in (height, width))
    return rows[:, None] * grid + columns


def filled(model: nn.Module, x: torch.Tensor, fill: Fill = "mean") -> torch.Tensor:
    """What stands where something was taken away, for inputs x (b, 3, H, W): the same shape.

    fill: "mean" (the data's mean colour), "black", "blur" (each picture itself, blurred by an
    eighth of its width), or another picture, uint8 (3, h, w), the same one for all. Raises
    ValueError for anything else.
    """
    if isinstance(fill, torch.Tensor):
        if fill.dtype != torch.uint8 or fill.ndim != 3 or fill.shape[0] != 3:
            raise ValueError(
                f"A picture as fill must be uint8 (3, h, w), not {fill.dtype} {tuple(fill.shape)}."
            )
        other = prepare(model, fill[None])
        if other.shape[-2:] != x.shape[-2:]:
            other = F.interpolate(other, x.shape[-2:], mode="bilinear", antialias=True)
        return other.to(x).expand_as(x)
    if fill not in FILLS:
        raise ValueError(
            f"There is no fill {fill!r}: use one of {', '.join(FILLS)}, or a uint8 picture."
        )
    if fill == "blur":
        return blur(x, x.shape[-1] / 8)
    if fill == "mean":
        return torch.zeros_like(x)
    black = [-mean / std for mean, std in zip(model.mean, model.std, strict=True)]
    return torch.tensor(black).to(x).view(1, -1, 1, 1).expand_as(x)


def whole_score(
    model: nn.Module, x: torch.Tensor, question: Question, batch: int
) -> tuple[torch.Tensor, Question]:
    """The score of the whole pictures, float64 (b,) on the CPU, and the question with its classes."""
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}.")
    with evaluating(model), torch.no_grad():
        logits = torch.cat([model(part) for part in x.split(batch)])
    question = question.settled(logits)
    return question.score(logits).cpu().double(), question


def masked_scores(
    model: nn.Module,
    x: torch.Tensor,
    away: torch.Tensor,
    question: Question,
    kept: Iterable[torch.Tensor],
    batch: int,
) -> torch.Tensor:
    """Scores, float64 (masks, b) on the CPU, behind blocks of masks (n, H, W): 1 keeps, 0 takes away.

    question: a settled one. At most `batch` changed copies are held at once.
    """
    results = []
    with evaluating(model), torch.no_grad():
        for block in kept:
            scores = torch.empty(len(block), len(x), dtype=torch.float64)
            for first in range(0, len(x), batch):
                rows = slice(first, first + batch)
                inside, outside = x[rows], away[rows]
                size = max(1, batch // len(inside))
                for start in range(0, len(block), size):
                    masks = block[start : start + size].to(x.device)[:, None, None]
                    if masks.dtype == torch.bool:
                        copies = torch.where(masks, inside, outside)  # (masks, b, 3, H, W)
                    else:
                        copies = outside + masks.to(x) * (inside - outside)
                    logits = model(copies.flatten(0, 1))
                    score = question[rows].repeat(len(masks)).score(logits)
                    scores[start : start + size, rows] = score.view(len(masks), -1).cpu().double()
            results.append(scores)
    return torch.cat(results)
