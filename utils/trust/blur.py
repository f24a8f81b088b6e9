"""Does the picture matter where a map says so? Blur a square and watch the class's probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..explain import blur_region
from ..stats import images_needed
from .faithfulness import chance_of

__all__ = ["BLUR_EFFECT", "BLUR_IMAGES", "BLUR_SD", "BlurTest", "blur_test", "box", "spread"]

BLUR_EFFECT = 0.1  # the smallest difference in probability that a reader would care about
BLUR_SD = 0.35  # how much the difference varies between images, from a pilot on CIFAR-10
BLUR_IMAGES = images_needed(BLUR_EFFECT, BLUR_SD)  # the same number in every notebook

Box = tuple[int, int, int, int]


def spread(heatmaps: torch.Tensor, share: float = 0.5) -> torch.Tensor:
    """How much of the picture holds `share` of a map's mass; (B, h, w) -> (B,) in 0..1.

    Small is pointed. Mass is the magnitude of the map, so signed maps are welcome. An empty map
    prefers no place: it counts like an even one and gets `share`.
    """
    mass = heatmaps.abs().flatten(1).sort(dim=1, descending=True).values.cumsum(1)
    covered = (mass < share * mass[:, -1:]).float().mean(1)
    return torch.where(mass[:, -1] > 0, covered, share)


def _side(height: int, width: int, share: float) -> int:
    return min(max(1, round((height * width * share) ** 0.5)), height, width)


def box(heatmap: torch.Tensor, share: float = 0.25) -> Box:
    """The square covering `share` of the picture that speaks most for the class.

    heatmap (h, w); the square holds the largest sum of the map's positive part. Returns
    (top, left, bottom, right) in the map's pixels, end exclusive.
    """
    height, width = heatmap.shape
    side = _side(height, width, share)
    mass = F.avg_pool2d(heatmap.clamp(min=0)[None, None].float(), side, stride=1)[0, 0]
    top, left = divmod(int(mass.argmax()), mass.shape[1])
    return top, left, top + side, left + side


def _random_box(height: int, width: int, share: float, generator: torch.Generator) -> Box:
    side = _side(height, width, share)
    top, left = (
        int(torch.randint(extent - side + 1, (1,), generator=generator))
        for extent in (height, width)
    )
    return top, left, top + side, left + side


def _centred_box(height: int, width: int, share: float) -> Box:
    side = _side(height, width, share)
    top, left = (height - side) // 2, (width - side) // 2
    return top, left, top + side, left + side


@dataclass(frozen=True)
class BlurTest:
    """How far a class's probability falls when one square of the picture is blurred; (N,) each.

    Values lie in -1..1. All squares have the same size.
    """

    strongest: np.ndarray  # the square that speaks most for the class
    random: np.ndarray  # a square anywhere
    centred: np.ndarray  # the middle, where most objects are

    @property
    def gain(self) -> np.ndarray:
        """strongest minus random, (N,): above zero where the map knows more than chance."""
        return self.strongest - self.random

    @property
    def gain_over_centre(self) -> np.ndarray:
        """strongest minus centred, (N,): above zero where it knows more than "in the middle"."""
        return self.strongest - self.centred


def blur_test(
    model: nn.Module,
    images: torch.Tensor,
    heatmaps: torch.Tensor,
    targets: torch.Tensor,
    share: float = 0.25,
    seed: int = 0,
) -> BlurTest:
    """Blur the square that a map names, a random one, and the middle, and watch the probability.

    images uint8 (N, 3, h, w), heatmaps (N, h, w), targets int64 (N,). A map that is nowhere
    positive names no square and gets a random one.
    """
    height, width = images.shape[-2:]
    generator = torch.Generator().manual_seed(seed)
    anywhere, own = (
        [_random_box(height, width, share, generator) for _ in images] for _ in range(2)
    )
    named = [box(m, share) if (m > 0).any() else b for m, b in zip(heatmaps, own, strict=True)]
    centre = [_centred_box(height, width, share)] * len(images)
    start = chance_of(model, images, targets)
    falls = []
    for boxes in (named, anywhere, centre):
        pairs = zip(images, boxes, strict=True)
        changed = torch.cat([blur_region(image[None], b) for image, b in pairs])
        falls.append((start - chance_of(model, changed, targets)).numpy())
    return BlurTest(*falls)
