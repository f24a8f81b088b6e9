"""Questions that take parts of the picture away and watch the score: ROAD, SaCo, Shapley values."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_grad_cam.metrics.road import NoisyLinearImputer

from .. import explain, models
from ..trust import faithfulness, single_deletion
from .questions import Maps, Measured, known, ordered, references
from .subject import Subject

SHARE = 0.3  # of the pixels that ROAD removes
FINE = 64  # pixels a side; larger pictures are imputed on this grid, or it would take minutes


def _grid(x: torch.Tensor) -> torch.Tensor:
    """Pictures or maps (B, C, h, w) on at most FINE x FINE pixels."""
    sides = tuple(min(FINE, side) for side in x.shape[-2:])
    return F.interpolate(x.float(), sides, mode="area")


def _imputed(images: torch.Tensor, gone: torch.Tensor) -> torch.Tensor:
    """uint8 images (B, 3, h, w) where `gone`, bool on the _grid, is filled from its neighbours."""
    imputer, size = NoisyLinearImputer(noise=0.0), images.shape[-2:]
    each = zip(_grid(images), gone, strict=True)
    filled = torch.stack([imputer(x, (~g).float()) for x, g in each])
    filled = F.interpolate(filled, size, mode="bilinear") if filled.shape[-2:] != size else filled
    hole = F.interpolate(gone[:, None].float(), size, mode="nearest") > 0
    return torch.where(hole, filled.clamp(0, 255).round().to(torch.uint8), images)


def _road(subject: Subject, heatmaps: torch.Tensor, rows: torch.Tensor) -> np.ndarray:
    """Remove and debias (Rong et al. 2022): fall of the probability without the most relevant pixels.

    Less the fall without the least relevant ones, (B,) in -1..1: trust.faithfulness.road, on a
    coarser grid where the picture is large.
    """
    images, targets = subject.images[rows], subject.preds[rows]
    maps = ordered(_grid(heatmaps[:, None])[:, 0], rows)
    ranks = faithfulness.order(maps).view_as(maps)
    pixels = maps[0].numel()
    count, each = round(SHARE * pixels), torch.arange(len(images))
    most, least = (
        models.logits_of(subject.model, _imputed(images, gone)).softmax(1)[each, targets]
        for gone in (ranks < count, ranks >= pixels - count)
    )
    return (least - most).double().numpy()


def needed(maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """ROAD beside that of every map without a model, random order among them."""

    def score(heatmaps: torch.Tensor, at: torch.Tensor) -> np.ndarray:
        return _road(maps.subject, heatmaps, at)

    beaten = references(maps, "ROAD", rows, score)
    return Measured(score(maps.own(rows), rows), references=beaten)


def in_proportion(maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """SaCo (Wu et al. 2024) on 4 x 4 cells, each replaced by the mean colour alone."""
    subject = maps.subject

    def fall(missing: torch.Tensor) -> torch.Tensor:
        return single_deletion.falls(subject.model, subject.images[missing], subject.preds[missing])

    def score(heatmaps: torch.Tensor, at: torch.Tensor) -> np.ndarray:
        worth = torch.stack(subject.once("falls of cells", at, fall))
        return known(single_deletion.saco(single_deletion.cell_sums(heatmaps), worth))

    beaten = references(maps, "SaCo", rows, score)
    return Measured(score(maps.own(rows), rows), references=beaten)


def like_shapley(maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """Rank correlation of a map's 3 x 3 cell means with the exact Shapley values of the cells."""
    subject = maps.subject

    def exact(missing: torch.Tensor) -> torch.Tensor:
        images, targets = subject.images[missing], subject.preds[missing]
        heat = explain.explain(subject.model, images, targets, method="shapley", grid=3)
        return single_deletion.cell_sums(heat, 3)

    def score(heatmaps: torch.Tensor, at: torch.Tensor) -> np.ndarray:
        truth = torch.stack(subject.once("Shapley values", at, exact))
        return known(single_deletion.idsds(single_deletion.cell_sums(heatmaps, 3), truth))

    beaten = references(maps, "shapley", rows, score)
    return Measured(score(maps.own(rows), rows), references=beaten)
