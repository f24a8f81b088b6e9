"""Does a map point at the object? Measured against masks that are known, and against maps that know no model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import rankdata

from .. import data

__all__ = [
    "LOCALISATION",
    "auc",
    "check_maps",
    "evidence",
    "iou",
    "localisation",
    "mass_inside",
    "pointing_game",
    "reference_maps",
]


def check_maps(heatmaps: torch.Tensor) -> torch.Tensor:
    """The maps (B, h, w) themselves, if each of them orders the pixels.

    Raises ValueError for another shape, for values that are not finite and for a constant map,
    which prefers no pixel: no metric of this course can judge it.
    """
    if heatmaps.ndim != 3 or not len(heatmaps):
        raise ValueError(f"Heatmaps must be (B, h, w), and these are {tuple(heatmaps.shape)}.")
    flat = heatmaps.flatten(1)
    if not flat.isfinite().all():
        raise ValueError(
            "A heatmap holds values that are not finite numbers: look at how it was made."
        )
    constant = torch.nonzero(flat.amax(1) == flat.amin(1)).flatten().tolist()
    if constant:
        raise ValueError(
            f"Heatmap {constant[0]} of {len(flat)} is constant, so it points nowhere: leave it out, or let evidence() give it a random order."
        )
    return heatmaps


def evidence(heatmaps: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """What speaks for the class: the positive part of maps (B, h, w), and which of them had none.

    A map without any order left, because it is constant or nowhere positive, becomes random
    noise: it said nothing, and it shall neither win nor crash. Returns maps (B, h, w) >= 0 and
    bool (B,), true where that happened.
    """
    positive = heatmaps.float().clamp(min=0)
    flat = positive.flatten(1)
    empty = flat.amax(1) <= flat.amin(1)
    noise = torch.rand(positive.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(empty[:, None, None], noise, positive), empty


def reference_maps(images: torch.Tensor, seed: int = 0) -> dict[str, torch.Tensor]:
    """Maps that have never seen a model, each (B, h, w) >= 0, for uint8 images (B, 3, h, w).

    "centre" is a Gaussian in the middle (deviation a quarter of the width), "edges" the length
    of the brightness gradient, smoothed by half a pixel, "brightness" the mean of the channels,
    "colour contrast" the distance from the mean colour of the border, "random" uniform noise.
    Where one of them, or its reverse, passes a test, the test is too easy.
    """
    n, _, height, width = images.shape
    y, x = (torch.arange(size) - (size - 1) / 2 for size in (height, width))
    centre = torch.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * (width / 4) ** 2))
    pixels = images.float()
    grey = data.blur(pixels.mean(1, keepdim=True), 0.5)[:, 0]
    down, across = torch.gradient(grey, dim=(1, 2))
    border = [pixels[..., 0, :], pixels[..., -1, :], pixels[..., 0], pixels[..., -1]]
    ground = torch.cat(border, 2).mean(2)[..., None, None]
    return {
        "centre": centre.expand(n, height, width).clone(),
        "edges": (down**2 + across**2).sqrt(),
        "brightness": pixels.mean(1),
        "colour contrast": (pixels - ground).norm(dim=1),
        "random": torch.rand(n, height, width, generator=torch.Generator().manual_seed(seed)),
    }


def _both(heatmaps: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Checked maps and masks, flattened to (B, pixels)."""
    if masks.shape != heatmaps.shape or masks.dtype != torch.bool:
        raise ValueError(
            f"Masks must be bool {tuple(heatmaps.shape)} like the heatmaps, and these are {masks.dtype} {tuple(masks.shape)}."
        )
    covered = masks.flatten(1).sum(1)
    if (covered == 0).any() or (covered == masks[0].numel()).any():
        raise ValueError("A mask is empty or covers the whole picture: leave that image out.")
    return check_maps(heatmaps).flatten(1), masks.flatten(1)


def pointing_game(heatmaps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Does the largest value lie on the object (Zhang et al. 2018, section 4.2, no tolerance)? (B,), 0 or 1.

    Among equal largest values the share that lies on the object. heatmaps (B, h, w), masks bool.
    Raises ValueError for a constant map and an empty mask, as all metrics here.
    """
    flat, inside = _both(heatmaps, masks)
    best = flat == flat.amax(1, keepdim=True)
    return (best & inside).sum(1) / best.sum(1)


def mass_inside(heatmaps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Share of a map's mass that lies on the object; (B,) in 0..1. A flat map would get the mask's area.

    The maps must not be negative (take their evidence() first); ValueError otherwise.
    """
    flat, inside = _both(heatmaps, masks)
    if (flat < 0).any():
        raise ValueError(
            "Mass needs maps without a sign: take evidence(heatmaps)[0] or their magnitude."
        )
    return (flat * inside).sum(1) / flat.sum(1)


def iou(heatmaps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Overlap of mask and the map's strongest pixels, as many as the mask has; (B,) in 0..1.

    Pixels that tie at the threshold count with the share of them that fits in.
    """
    flat, inside = _both(heatmaps, masks)
    area = inside.sum(1)
    threshold = flat.sort(1, descending=True).values.gather(1, area[:, None] - 1)
    above, ties = flat > threshold, flat == threshold
    share = (area - above.sum(1)) / ties.sum(1)
    common = (above & inside).sum(1) + share * (ties & inside).sum(1)
    return common / (2 * area - common)


def auc(heatmaps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Probability that an object pixel has a larger value than one of the ground; (B,) in 0..1, ties a half.

    The area under the ROC curve of map against mask (Mann-Whitney); 0.5 is chance.
    """
    flat, inside = _both(heatmaps, masks)
    ranks = torch.from_numpy(rankdata(flat.numpy(), axis=1))
    objects, ground = inside.sum(1), (~inside).sum(1)
    above = (ranks * inside).sum(1) - objects * (objects + 1) / 2
    return (above / (objects * ground)).float()


LOCALISATION: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "pointing": pointing_game,
    "mass": mass_inside,
    "iou": iou,
    "auc": auc,
}


def localisation(heatmaps: torch.Tensor, masks: torch.Tensor) -> dict[str, np.ndarray]:
    """All of LOCALISATION for maps (B, h, w) >= 0 and bool masks (B, h, w): name -> (B,), 1 is perfect."""
    return {name: metric(heatmaps, masks).numpy() for name, metric in LOCALISATION.items()}
