"""Do the maps tell the truth? Tests that change the picture where a map says it matters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..explain import blur_region
from ..models import logits_of


def spread(heatmaps: torch.Tensor, share: float = 0.5) -> torch.Tensor:
    """How much of the picture holds `share` of a map's mass; (B, h, w) -> (B,) in 0..1, small is pointed.

    Mass is the magnitude of the map, so signed maps are welcome.
    """
    mass = heatmaps.abs().flatten(1).sort(dim=1, descending=True).values.cumsum(1)
    return (mass < share * mass[:, -1:]).float().mean(1)


def box(
    heatmap: torch.Tensor, share: float = 0.25, strongest: bool = True
) -> tuple[int, int, int, int]:
    """The square covering `share` of the picture with the most (least) magnitude of a map (h, w).

    Returns (top, left, bottom, right) in the map's pixels, end exclusive.
    """
    height, width = heatmap.shape
    side = min(max(1, round((height * width * share) ** 0.5)), height, width)
    mass = F.avg_pool2d(heatmap.abs()[None, None].float(), side, stride=1)[0, 0]
    top, left = divmod(int(mass.argmax() if strongest else mass.argmin()), mass.shape[1])
    return top, left, top + side, left + side


@dataclass(frozen=True)
class BlurTest:
    """How far a class's probability falls when the strongest or weakest square is blurred."""

    strongest: np.ndarray  # (N,) fall of the probability, -1..1
    weakest: np.ndarray  # (N,)

    @property
    def gain(self) -> np.ndarray:
        """strongest minus weakest, (N,): above zero where the map points at what matters."""
        return self.strongest - self.weakest


def blur_test(
    model: nn.Module,
    images: torch.Tensor,
    heatmaps: torch.Tensor,
    targets: torch.Tensor,
    share: float = 0.25,
) -> BlurTest:
    """Blur each map's strongest, and instead its weakest, square and watch the target's probability.

    images uint8 (N, 3, h, w), heatmaps (N, h, w), targets int64 (N,).
    """
    rows = torch.arange(len(images))
    start = logits_of(model, images).softmax(1)[rows, targets]
    falls = []
    for strongest in (True, False):
        pairs = zip(images, heatmaps, strict=True)
        changed = torch.cat([blur_region(i[None], box(m, share, strongest)) for i, m in pairs])
        falls.append((start - logits_of(model, changed).softmax(1)[rows, targets]).numpy())
    return BlurTest(*falls)
