"""The offline generator for photographs: objects and surroundings put together anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import data
from ..data import ImageSet
from ..explain import explain
from ..models import logits_of
from .findings import Evidence, Finding, centre


def cut_out(maps: torch.Tensor, share: float = 0.4) -> torch.Tensor:
    """Soft masks (N, H, W) in 0..1 over the `share` of the pixels with the highest smoothed map."""
    size = maps.shape[-1]
    smooth = data.blur(maps.clamp(min=0)[:, None], size / 16)[:, 0]
    edge = smooth.flatten(1).quantile(1 - share, dim=1)[:, None, None]
    return data.blur((smooth >= edge).float()[:, None], size / 40)[:, 0]


def _without(images: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, H, W) in 0..1 with what alpha (N, H, W) covers filled in from around it."""
    keep = 1 - alpha[:, None]
    sigma = images.shape[-1] / 8
    around = data.blur(images * keep, sigma) / (data.blur(keep, sigma) + 1e-3)
    return (images * keep + around * (1 - keep)).clamp(0, 1)


@dataclass(frozen=True)
class RecomposeGenerator:
    """Recognised objects in the light, place and surroundings of images that are not recognised.

    The object is cut out by its map from a right training image of the class, moved and scaled to
    where the failing image's map lies, put on another training image whose own object is filled
    in, and given the failing image's mean colours and contrast. No pixel of the evidence is used.
    """

    images: torch.Tensor  # uint8 (S, 3, H, W), training images, recognised if any of the class are
    labels: torch.Tensor  # int64 (S,)
    alpha: torch.Tensor  # float (S, H, W), their objects

    @classmethod
    def of(
        cls,
        model: nn.Module,
        train_set: ImageSet,
        per_class: int = 60,
        method: str = "lrp",
        seed: int = 0,
    ) -> RecomposeGenerator:
        """Sources: up to per_class images of each class that `model` recognises.

        Cut out by the map of `method`. Of a class that it never recognises the images with the
        highest probability of that class, which is printed. ValueError for a class without any
        training image.
        """
        chances = logits_of(model, train_set.images).softmax(1)
        right = chances.argmax(1) == train_set.labels
        order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(seed))
        sources = []
        for label, name in enumerate(train_set.classes):
            own = order[train_set.labels[order] == label]
            if not len(own):
                raise ValueError(f"There is no training image of {name} to cut out: add some.")
            known = own[right[own]]
            if not len(known):
                print(
                    f"The model recognises no training image of {name}: the objects cut out may be "
                    "poor."
                )
                known = own[chances[own, label].argsort(descending=True, stable=True)]
            sources.append(known[:per_class])
        some = train_set.subset(torch.cat(sources))
        maps = explain(model, some.images, some.labels, method=method)
        return cls(some.images, some.labels, cut_out(maps))

    def make(
        self, evidence: Evidence, requests: Sequence[tuple[Finding, int]], seed: int
    ) -> torch.Tensor:
        """One new image for each request; uint8 (K, 3, H, W)."""
        rng = np.random.default_rng(seed)
        members = torch.tensor([i for _, i in requests])
        by_class = {
            label: np.flatnonzero(self.labels.numpy() == label) for label in self.labels.tolist()
        }
        source = torch.tensor([rng.choice(by_class[finding.label]) for finding, _ in requests])
        wanted, alpha = evidence.images[members].float() / 255, cut_out(evidence.maps[members])

        place = centre(alpha) - centre(self.alpha[source])
        jitter = torch.from_numpy(rng.uniform(-0.1, 0.1, (len(requests), 2))).float()
        scale = torch.from_numpy(rng.uniform(0.8, 1.2, len(requests))).float()
        both = torch.cat([self.images[source].float() / 255, self.alpha[source][:, None]], 1)
        mirror = rng.random(len(requests)) < 0.5
        moved = _moved(both, (place + jitter).clamp(-0.5, 0.5), scale, mirror)

        # the surroundings: of eight random training images the most like the failing image's
        candidates = torch.from_numpy(rng.integers(0, len(self.images), (len(requests), 8)))
        grounds = _ground(self.images.float() / 255, self.alpha)[candidates]
        away = (_ground(wanted, alpha)[:, None] - grounds).norm(dim=2)
        ground = candidates.gather(1, away.argmin(1, keepdim=True))[:, 0]
        behind = _without(self.images[ground].float() / 255, self.alpha[ground])
        alpha = moved[:, 3:]
        return _in_light_of(alpha * moved[:, :3] + (1 - alpha) * behind, wanted)


def _ground(images: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Mean colour (N, 3) of what alpha does not cover; of the whole picture if it covers all."""
    keep = (1 - alpha)[:, None]
    keep = torch.where(keep.mean((2, 3), keepdim=True) < 0.02, 1.0, keep)
    return (images * keep).sum((2, 3)) / keep.sum((2, 3)).clamp(min=1e-6)


def _moved(
    x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, mirror: np.ndarray
) -> torch.Tensor:
    """Layers (N, 4, H, W) scaled about the middle, moved by shift (y, x) in -1..1, some mirrored.

    Outside is empty.
    """
    theta = torch.zeros(len(x), 2, 3)
    flip = torch.from_numpy(np.where(mirror, -1.0, 1.0)).float()
    theta[:, 0, 0], theta[:, 0, 2] = flip / scale, -flip * shift[:, 1] / scale
    theta[:, 1, 1], theta[:, 1, 2] = 1 / scale, -shift[:, 0] / scale
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _in_light_of(images: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Images in 0..1 with the mean colour and about the contrast of `wanted`, as uint8."""
    middle, goal = images.mean((2, 3), keepdim=True), wanted.mean((2, 3), keepdim=True)
    own, theirs = (x.std((1, 2, 3), keepdim=True) for x in (images, wanted))
    ratio = (theirs / own.clamp(min=1e-3)).clamp(0.5, 2)
    lit = ((images - middle) * ratio + goal).clamp(0, 1)
    return (lit * 255).round().to(torch.uint8)
