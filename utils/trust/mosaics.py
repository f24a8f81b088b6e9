"""Which tile shows the class? Four pictures in one, and a map that has to find the right quarter.

The grid pointing game (Böhle, Fritz & Schiele 2021; Arias-Duart et al. 2022 call it Focus). It
needs no masks and works with any model and images. A map that does not look at the class scores
exactly chance: over the classes of a mosaic its shares add up to 1.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ..explain import explain
from ..models import logits_of

__all__ = ["WAYS", "Mosaics", "accuracy", "adapted", "chance", "make", "score", "scores"]

TILES = 4
WAYS = ("larger", "half")


@dataclass(frozen=True)
class Mosaics:
    """Pictures of 2 x 2 tiles, in the order top left, top right, bottom left, bottom right."""

    images: torch.Tensor  # uint8 (M, 3, 2h, 2w)
    labels: torch.Tensor  # int64 (M, 4), the class that each tile shows
    sources: torch.Tensor  # int64 (M, 4), which image each tile is

    def __len__(self) -> int:
        return len(self.images)

    @property
    def targets(self) -> torch.Tensor:
        """The different classes of each mosaic, int64 (M, k); k is the same for all."""
        return torch.stack([row.unique() for row in self.labels])


def make(images: torch.Tensor, labels: torch.Tensor, n: int, seed: int = 0) -> Mosaics:
    """n mosaics of images uint8 (N, 3, h, w) with labels (N,), each of four different classes.

    Give images that the model classifies correctly: otherwise a wrong map may be a right one. With
    fewer than four classes they take turns in the tiles. Raises ValueError for fewer than two.
    """
    generator = torch.Generator().manual_seed(seed)
    present = labels.unique()
    if len(present) < 2:
        raise ValueError(
            f"Mosaics need images of two classes or more, and these {len(labels)} hold "
            f"{len(present)}: give more images."
        )
    k = min(TILES, len(present))
    members = {int(c): torch.nonzero(labels == c).flatten() for c in present}
    rows = []
    for _ in range(n):
        classes = present[torch.randperm(len(present), generator=generator)[:k]]
        places = torch.randperm(TILES, generator=generator)
        tiles = [members[int(classes[int(place) % k])] for place in places]
        rows.append([int(t[torch.randint(len(t), (1,), generator=generator)]) for t in tiles])
    sources = torch.tensor(rows)
    tiles = images[sources]  # (n, 4, 3, h, w)
    left, right = torch.cat([tiles[:, 0], tiles[:, 2]], 2), torch.cat([tiles[:, 1], tiles[:, 3]], 2)
    return Mosaics(torch.cat([left, right], 3), labels[sources], sources)


def chance(mosaics: Mosaics) -> float:
    """What a map that does not look at the class scores on average over a mosaic's classes: 1/k."""
    return 1 / mosaics.targets.shape[1]


def adapted(model: nn.Module, way: str = "larger") -> nn.Module:
    """The model, ready for mosaics; shares its weights.

    way "larger": the picture keeps its scale and is twice as wide as the model's own input; a ViT
    gets its positions interpolated. "half": the whole mosaic at the model's own size, so that each
    tile has half of its usual width. Raises ValueError for another way.
    """
    if way not in WAYS:
        raise ValueError(f"There is no way {way!r} to show a mosaic: use {' or '.join(WAYS)}.")
    if way == "half":
        return model
    is_vit = isinstance(model, VisionTransformer)
    twin = copy.deepcopy(model) if is_vit else copy.copy(model)
    size = model.input_size  # an int for a square, or (H, W)
    twin.input_size = 2 * size if isinstance(size, int) else tuple(2 * side for side in size)
    if is_vit:
        twin.set_input_size(img_size=twin.input_size)
    return twin


def accuracy(model: nn.Module, mosaics: Mosaics) -> np.ndarray:
    """How many of a mosaic's k classes are among the model's k strongest: (M,) in 0..1.

    A random answer scores k / C on average for C classes. State this before any score of a map.
    """
    logits = logits_of(model, mosaics.images).detach()
    targets = mosaics.targets
    strongest = logits.topk(targets.shape[1], dim=1).indices
    return (strongest[:, :, None] == targets[:, None]).any(1).double().mean(1).numpy()


def score(heatmaps: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Share of a map's positive mass in the tiles of its class: (M,) in 0..1, 1 is perfect.

    heatmaps (M, 2h, 2w), labels (M, 4), targets (M,). NaN for a map that is nowhere positive:
    count those and leave them out.
    """
    positive = heatmaps.double().clamp(min=0)
    height, width = (side // 2 for side in positive.shape[-2:])
    halves = (positive[:, :height], positive[:, height:])
    mass = torch.stack([part.sum((1, 2)) for h in halves for part in h.split(width, dim=2)], 1)
    inside = (mass * (labels == targets[:, None])).sum(1)
    return torch.where(mass.sum(1) > 0, inside / mass.sum(1), torch.nan)


def scores(
    model: nn.Module, mosaics: Mosaics, method: str, way: str = "larger", **options: Any
) -> np.ndarray:
    """Scores of a method's maps for every class of every mosaic: (M, k), NaN for empty maps."""
    ready = adapted(model, way)
    columns = [
        score(
            explain(ready, mosaics.images, targets, method=method, **options),
            mosaics.labels,
            targets,
        )
        for targets in mosaics.targets.T
    ]
    return torch.stack(columns, 1).numpy()
