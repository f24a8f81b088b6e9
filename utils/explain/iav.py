"""Does each attention head look where the input mattered? IA-scores and the vector of all of them.

Park & Choi (2022, arXiv 2211.15428) call the agreement of a head's attention map with an input
attribution its IA-score, and the scores of all heads of all blocks the IAV (Input-Attribution and
Attention Score Vector). Their full formula was not public when this was written: what follows is a
reconstruction from their words, with the variants that the words allow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from ..models import Targets, evaluating, kind, per_chunk, prepare
from . import attention
from .methods import METHODS, question_about
from .similarity import SIMILARITIES, check_similarity, similarity_of, to_grid

__all__ = [
    "SIMILARITIES",
    "HeadRanges",
    "attention_rows",
    "attributions",
    "floor",
    "head_entropy",
    "head_ranges",
    "ia_scores",
    "late_mean",
    "published",
    "similarity_of",
    "to_grid",
]

# ---------------------------------------------------------------- the two maps


def attributions(
    model: nn.Module,
    images: torch.Tensor,
    attribution: str = "smoothgrad",
    targets: Targets = None,
    chunk: int = 32,
    progress: bool = False,
    **options: Any,
) -> torch.Tensor:
    """An attribution on the patch grid: uint8 (B, 3, h, w) -> float32 (B, rows, columns), CPU.

    The method's map at its own resolution, absolute, averaged over each patch. attribution: a name
    in explain.METHODS that works on this model; options: that method's; targets as in
    explain.explain. Raises ValueError for anything unknown.
    """
    if attribution not in METHODS or kind(model) not in METHODS[attribution].works_on:
        fits = ", ".join(name for name, how in METHODS.items() if kind(model) in how.works_on)
        raise ValueError(
            f"There is no attribution {attribution!r} for this model: use one of {fits}."
        )
    how, question = METHODS[attribution], question_about(images, targets)
    options = how.with_defaults(options)
    with evaluating(model), torch.enable_grad(), _bar(len(images), attribution, progress) as bar:

        def places(rows: slice, batch: int) -> torch.Tensor:
            x = prepare(model, images[rows])
            heat = how.run(model, x, question[rows], batch=batch, **options)
            bar.update(len(x))
            return to_grid(heat, _grid(model)).detach().float().cpu()

        most = min(chunk, how.chunk)  # what the method itself can hold at once
        return torch.cat(list(per_chunk(places, len(images), most)))


def attention_rows(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the CLS token takes from each patch: x (B, 3, H, W) -> (B, L, heads, patches).

    After the softmax; columns of CLS, register and distillation tokens are left out, so a row sums
    to at most 1. A model without a CLS token gives the mean of its rows, see attention.maps().
    """
    return attention.maps(model, x)[..., getattr(model, "num_prefix_tokens", 0) :]


def _grid(model: nn.Module) -> tuple[int, int]:
    if not hasattr(model, "patch_embed"):
        raise ValueError(
            f"{type(model).__name__} has no patches to compare on: use a Vision Transformer."
        )
    return model.patch_embed.grid_size


def _bar(n: int, words: str, progress: bool) -> tqdm:
    return tqdm(
        total=n, desc=words.replace("_", " "), unit="img", disable=not progress, mininterval=1.0
    )


def _of_rows(
    model: nn.Module,
    images: torch.Tensor,
    chunk: int,
    progress: bool,
    make: Callable[[torch.Tensor, slice], torch.Tensor],
) -> torch.Tensor:
    """What `make` gives for the attention rows (b, L, heads, patches) of each slice, joined."""
    with _bar(len(images), "attention", progress) as bar:

        def run(rows: slice, _: int) -> torch.Tensor:
            x = prepare(model, images[rows])
            made = make(attention_rows(model, x).float().cpu(), rows)
            bar.update(len(x))
            return made

        return torch.cat(list(per_chunk(run, len(images), chunk)))


# ---------------------------------------------------------------- scores


def ia_scores(
    model: nn.Module,
    images: torch.Tensor,
    attribution: str | torch.Tensor = "smoothgrad",
    similarity: str = "cosine",
    targets: Targets = None,
    chunk: int = 32,
    progress: bool = False,
    **options: Any,
) -> torch.Tensor:
    """Agreement of every head's attention with the attribution: float32 (B, L, heads), CPU.

    images: uint8 (B, 3, h, w). attribution: as in attributions(), or maps (B, h', w') of any size,
    such as true masks; similarity: cosine (0..1), pearson or spearman (-1..1). The published
    choice, as we read it: SmoothGrad of the predicted class's logit (25 samples, sigma 15 % of
    the range), absolute, averaged over patches, cosine with the CLS row. chunk: images at once;
    only scores and patch maps are kept of all. Raises ValueError for anything unknown.
    """
    grid = _grid(model)
    check_similarity(similarity)  # before the slow part
    if isinstance(attribution, str):
        maps = attributions(model, images, attribution, targets, chunk, progress, **options)
    elif attribution.ndim != 3 or len(attribution) != len(images):
        raise ValueError(
            f"The attribution has shape {tuple(attribution.shape)}: give a map (h, w) for each of "
            f"the {len(images)} images."
        )
    else:
        maps = to_grid(attribution.cpu(), grid).float()
    places = maps.flatten(1)[:, None, None]  # (B, 1, 1, patches), the same for all heads

    def scores(seen: torch.Tensor, rows: slice) -> torch.Tensor:
        return similarity_of(seen, places[rows].expand_as(seen), similarity)

    return _of_rows(model, images, chunk, progress, scores)


def floor(maps: torch.Tensor, similarity: str = "cosine") -> torch.Tensor:
    """The score of a head that looks everywhere alike: maps (B, rows, columns) -> (B,).

    An attention map says something about places only as far as it scores above this.
    """
    flat = to_grid(maps, maps.shape[-2:]).flatten(1)
    return similarity_of(torch.ones_like(flat), flat, similarity)


def late_mean(scores: torch.Tensor) -> torch.Tensor:
    """Mean over the heads of the last third of the blocks: (B, L, heads) -> (B,)."""
    return scores[:, -max(1, scores.shape[1] // 3) :].mean((1, 2))


def head_entropy(
    model: nn.Module, images: torch.Tensor, chunk: int = 32, progress: bool = False
) -> torch.Tensor:
    """Entropy of every head's attention row: uint8 (B, 3, h, w) -> float32 (B, L, heads), 0..1."""
    return _of_rows(model, images, chunk, progress, lambda seen, _: attention.entropy(seen))


def published(panel: str = "IAV") -> dict[str, torch.Tensor]:
    """The published curves: {pretraining: (12 blocks, 12 heads)}, descending within a block.

    NaN if the figure cannot be read. Read off the result figure of Park & Choi (2022, arXiv
    2211.15428) to about 0.03: four ViT-B after fine-tuning, BEiT and DINO pretrained without
    labels, DeiT and ImageNet-21k with labels. panel: "IAV" or "AAV", as the figure names its two
    halves. Raises ValueError for another panel.
    """
    table = pd.read_csv(Path(__file__).with_name("iav_published.csv"))
    if panel not in set(table["panel"]):
        raise ValueError(f"There is no panel {panel!r}: use {', '.join(table['panel'].unique())}.")
    rows = table[table["panel"] == panel]
    return {
        str(model): torch.tensor(
            part.pivot(index="block", columns="rank_in_block", values="ia_score").to_numpy()
        )
        for model, part in rows.groupby("model", sort=False)
    }


# ---------------------------------------------------------------- does a head keep its range?


@dataclass(frozen=True)
class HeadRanges:
    """How much of the scores' variance is owed to which head it is."""

    icc: float  # between / (between + within): 1, each head has its value; 0, the head says nothing
    low: float  # 95 % percentile bootstrap over images
    high: float
    between: float  # variance of the heads' true means
    within: float  # variance of one head's score over images


def _icc(scores: np.ndarray) -> tuple[float, float, float]:
    """One-way random effects, images as repeats: (B, heads) -> ICC and the two variances."""
    repeats = len(scores)
    within = scores.var(0, ddof=1).mean()
    between = (repeats * scores.mean(0).var(ddof=1) - within) / repeats
    total = between + within
    return (float(between / total) if total > 0 else 0.0), float(between), float(within)


def head_ranges(scores: torch.Tensor, n: int = 1000, seed: int = 0) -> HeadRanges:
    """Intraclass correlation ICC(1) of heads (Shrout & Fleiss 1979) with a bootstrap interval.

    scores: (B, L, heads), B >= 2; n draws of whole images, so that what all heads of an image
    share counts as variation within heads. Draws repeat images and so understate the variation
    within: the interval is moved until the median draw is the ICC. Raises ValueError for fewer
    than two images.
    """
    table = scores.flatten(1).double().numpy()
    if len(table) < 2:
        raise ValueError(
            "One image shows no variation: give the scores of two or more to compare heads with "
            "images."
        )
    rng = np.random.default_rng(seed)
    draws = [_icc(table[rng.integers(0, len(table), len(table))])[0] for _ in range(n)]
    icc, between, within = _icc(table)
    low, high = np.minimum(np.percentile(draws, [2.5, 97.5]) - np.median(draws) + icc, 1.0)
    return HeadRanges(icc, float(low), float(high), between, within)
