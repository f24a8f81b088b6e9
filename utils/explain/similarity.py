"""How alike two maps over patches are, and pixels averaged onto patches."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F


def _centred(x: torch.Tensor) -> torch.Tensor:
    """x minus its mean over the last axis; a constant map becomes exactly zero, not rounding noise."""
    away = x - x.mean(-1, keepdim=True)
    varies = away.norm(dim=-1, keepdim=True) > 1e-6 * x.norm(dim=-1, keepdim=True)
    return torch.where(varies, away, 0)


def _ranks(x: torch.Tensor) -> torch.Tensor:
    """Ranks 1..N over the last axis; equal values share their mean rank, as in scipy."""
    x = x.contiguous()
    order = x.sort(-1).values
    below, upto = (torch.searchsorted(order, x, right=right) for right in (False, True))
    return (below + upto + 1).to(x) / 2


def _cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (F.normalize(a, dim=-1, eps=1e-30) * F.normalize(b, dim=-1, eps=1e-30)).sum(-1)


SIMILARITIES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cosine": _cosine,
    "pearson": lambda a, b: _cosine(_centred(a), _centred(b)),
    "spearman": lambda a, b: _cosine(_centred(_ranks(a)), _centred(_ranks(b))),
}


def check_similarity(name: str) -> None:
    """Raise ValueError for a similarity that does not exist."""
    if name not in SIMILARITIES:
        raise ValueError(f"There is no similarity {name!r}: use one of {', '.join(SIMILARITIES)}.")


def similarity_of(a: torch.Tensor, b: torch.Tensor, similarity: str = "cosine") -> torch.Tensor:
    """How alike two maps over N patches are: (..., N) and (..., N) -> (...), -1..1.

    Cosine is 0..1 for maps without a sign. A map that is zero everywhere has no direction and
    scores 0; with Pearson and Spearman so does a constant one. Raises ValueError for an unknown
    similarity.
    """
    check_similarity(similarity)
    return SIMILARITIES[similarity](a, b)


def _overlap(n_in: int, n_out: int) -> torch.Tensor:
    """Share of each of n_in pixels in the mean over each of n_out equal stretches, (n_out, n_in)."""
    edges = torch.arange(n_out + 1, dtype=torch.float64)[:, None] * n_in / n_out
    pixel = torch.arange(n_in)
    shared = torch.minimum(edges[1:], pixel + 1) - torch.maximum(edges[:-1], pixel)
    return (shared.clamp(min=0) * n_out / n_in).float()


def to_grid(heatmaps: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Mean magnitude over each patch: (B, h, w), any type, -> float (B, rows, columns), 0 or more.

    A pixel that lies across a border counts with its share on either side.
    """
    heat = heatmaps if heatmaps.is_floating_point() else heatmaps.float()
    down, across = (_overlap(*n).to(heat) for n in zip(heat.shape[-2:], grid, strict=True))
    return down @ heat.abs() @ across.T
