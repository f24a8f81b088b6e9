"""In-domain single deletion: does a cell to which the map gives more cost more when it is deleted?

IDSDS (Hesse et al. 2024) and SaCo (Wu et al. 2024), from the same 16 deletions of an image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from ..data import ImageSet
from ..models import logits_of
from .faithfulness import replacement
from .sanity import rank_correlation

__all__ = [
    "CELLS",
    "cell_sums",
    "falls",
    "idsds",
    "saco",
    "with_deletions",
    "without_cells",
]

CELLS = 4  # per side: 16 cells in a picture


def cell_sums(heatmaps: torch.Tensor, cells: int = CELLS) -> torch.Tensor:
    """Mean of each map (B, h, w) over cells x cells squares, rows first: (B, cells * cells).

    Of the raw map, sign and all. Means in place of sums: the ranks are the same.
    """
    return F.adaptive_avg_pool2d(heatmaps[:, None].double(), cells).flatten(1)


def without_cells(images: torch.Tensor, gone: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 3, h, w) with the cells that `gone` bool (B, cells * cells) names in the mean colour."""
    cells = round(gone.shape[1] ** 0.5)
    grid = gone.view(-1, 1, cells, cells).float()
    mask = F.interpolate(grid, tuple(images.shape[-2:]), mode="nearest") > 0
    return torch.where(mask, replacement(images, "mean"), images)


def with_deletions(image_set: ImageSet, cells: int = CELLS, seed: int = 0) -> ImageSet:
    """The set to fine-tune on before cells are deleted: one random cell gone in half of the images.

    A model that has seen such holes judges them by what is missing, not by how strange they are
    (Hesse et al. 2024, section 4: the "in-domain" in in-domain single deletion).
    """
    generator = torch.Generator().manual_seed(seed)
    n = len(image_set)
    gone = torch.zeros(n, cells * cells, dtype=torch.bool)
    gone[torch.arange(n), torch.randint(cells * cells, (n,), generator=generator)] = True
    gone &= (torch.rand(n, generator=generator) < 0.5)[:, None]
    return replace(
        image_set,
        images=without_cells(image_set.images, gone),
        source=f"{image_set.source} with deleted cells",
    )


def falls(
    model: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    cells: int = CELLS,
    chunk: int = 256,
) -> torch.Tensor:
    """What each cell is worth: fall of the target's logit when it alone is deleted, (B, cells * cells).

    images uint8 (B, 3, h, w), targets (B,). One forward per cell; all methods share them.
    """
    rows = torch.arange(len(images))
    whole = logits_of(model, images, chunk)[rows, targets]
    worth = []
    for cell in tqdm(range(cells * cells), desc="deleting cells", leave=False, mininterval=1.0):
        gone = torch.zeros(len(images), cells * cells, dtype=torch.bool)
        gone[:, cell] = True
        changed = without_cells(images, gone)
        worth.append(whole - logits_of(model, changed, chunk)[rows, targets])
    return torch.stack(worth, 1)


def idsds(sums: torch.Tensor, worth: torch.Tensor) -> np.ndarray:
    """In-domain single deletion score: Spearman of a map's cell sums with the falls, (B,) in -1..1.

    sums, worth (B, K). Hesse et al. 2024, arXiv 2407.11910. An additive model's own contributions
    score 1; random maps average 0 with variance 1 / (K - 1). NaN for a map without an order.
    """
    return rank_correlation(sums, worth)


def saco(sums: torch.Tensor, worth: torch.Tensor) -> np.ndarray:
    """Salience-guided faithfulness coefficient from the same numbers, (B,) in -1..1.

    Wu et al. 2024, arXiv 2404.01415, algorithm 1, with cells for the groups of pixels: of every
    two cells the one with more attribution should cost more; a pair counts with the difference of
    their attributions, so that size matters and not order alone. NaN for a map without an order.
    """
    s, w = sums.double(), worth.double()
    more = s[:, :, None] - s[:, None]  # (B, K, K)
    agree = (w[:, :, None] >= w[:, None]).double() * 2 - 1
    weight = more.clamp(min=0)
    total = weight.sum((1, 2))
    return torch.where(total > 0, (weight * agree).sum((1, 2)) / total, torch.nan).numpy()
