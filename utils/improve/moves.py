"""Do maps move onto the object? A rule that was written down before the maps were looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from .. import stats
from ..stats import Interval

SIZE = 0.05  # of a map's mass, moved into the object: less would not be seen in a picture
FIXED, BROKEN, RIGHT = "fixed", "newly wrong", "right before and after"


def middle(height: int, width: int, share: float = 0.5) -> torch.Tensor:
    """The disc in the middle that covers `share` of the picture, bool (height, width).

    A stand-in for the object if there are no masks, good as far as photographers centre it.
    """
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    return x**2 + y**2 <= 4 * share / torch.pi


def inside(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Share of each map's mass (N, h, w) in its mask, bool (N, h, w) or (h, w): (N,) in 0..1."""
    mass = maps.abs()
    return (mass * masks).sum((1, 2)) / mass.sum((1, 2)).clamp(min=1e-12)


@dataclass(frozen=True)
class Move:
    """What became of the maps of one set of images."""

    rise: Mapping[str, Interval]  # of the share inside, for each kind of image
    more: Mapping[str, Interval]  # the fixed images' rise minus that of the other kinds
    needed: int  # images of a kind that a rise of SIZE needs to be seen
    counts: Mapping[str, int]
    verdict: str


def judge(groups: Mapping[str, tuple[np.ndarray, np.ndarray]], size: float = SIZE) -> Move:
    """Did the maps of fixed images move onto the object, and more than the others' did?

    groups: {kind of image: (share inside before (N,), after (N,))}, the kinds FIXED, BROKEN and
    RIGHT. "moved onto it": the fixed images rose by at least `size`, and by more than images that
    were right all the time and than newly wrong ones (intervals of both differences above zero).
    "did not move onto it": the whole interval of the fixed images lies below `size`, or they rose
    no more than the others where there were enough of these. Otherwise "inconclusive", also where
    a kind has fewer images than a rise of `size` needs.
    """
    rises = {kind: after - before for kind, (before, after) in groups.items() if len(before)}
    counts = {kind: len(rises.get(kind, ())) for kind in (FIXED, BROKEN, RIGHT)}
    rise = {kind: stats.mean_interval(values) for kind, values in rises.items()}
    spread = float(np.concatenate(list(rises.values())).std()) if rises else 0.0
    needed = stats.images_needed(size, spread)
    more = {
        kind: stats.bootstrap(lambda a, b: float(a.mean() - b.mean()), rises[FIXED], rises[kind])
        for kind in (BROKEN, RIGHT)
        if counts[FIXED] > 1 and counts[kind] > 1
    }
    short = [kind for kind, count in counts.items() if count < needed]
    if short:
        lacking = ", ".join(f"{counts[kind]} {kind}" for kind in short)
        verdict = f"inconclusive: {lacking} of the {needed} images of each kind that it needs"
    elif (
        rise[FIXED].above(0) and rise[FIXED].mean >= size and all(m.above(0) for m in more.values())
    ):
        verdict = "moved onto it"
    elif rise[FIXED].below(size):
        verdict = "did not move onto it"
    elif any(m.below(size) for m in more.values()):
        verdict = "did not move onto it more than the maps of other images"
    else:
        verdict = "inconclusive: the intervals leave both open"
    return Move(rise, more, needed, counts, verdict)
