"""Findings in, labelled images out: the second half of the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import data
from ..data import ImageSet, shapes
from ..explain import explain
from ..models import logits_of
from .findings import Evidence, Finding, appearance, centre

TRIES = 3  # rounds of asking for more where images are unusable


@dataclass(frozen=True)
class Generated:
    """New images, their labels, and which image of the evidence asked for each."""

    images: torch.Tensor  # uint8 (K, 3, H, W)
    labels: torch.Tensor  # int64 (K,)
    asked_by: torch.Tensor  # int64 (K,) indices into the evidence


class Generator(Protocol):
    """make() draws one image uint8 (3, H, W) for each request (finding, index into the evidence)."""

    def make(
        self, evidence: Evidence, requests: Sequence[tuple[Finding, int]], seed: int
    ) -> torch.Tensor: ...


def generate(
    generator: Generator, evidence: Evidence, findings: Sequence[Finding], count: int, seed: int = 0
) -> Generated:
    """`count` images, shared evenly among all members of the findings.

    Unusable images (blank, or copies of an image of the evidence) are dropped, said aloud and asked for again.
    Raises ValueError without findings, and if not one usable image came.
    """
    pairs = [(finding, i) for finding in findings for i in finding.members]
    if not pairs or count < 1:
        raise ValueError(
            "There is no finding to generate images for: give the analyst mistakes, and count of 1 or more."
        )
    order = np.random.default_rng(seed).permutation(len(pairs))
    requests = [pairs[order[k % len(pairs)]] for k in range(count)]
    images, kept, dropped, todo = [], [], 0, requests
    for attempt in range(TRIES):
        made = generator.make(evidence, todo, seed + 1000 * attempt)
        good = usable(made, evidence)
        images += [image for image, fine in zip(made, good, strict=True) if fine]
        kept += [request for request, fine in zip(todo, good, strict=True) if fine]
        todo = [request for request, fine in zip(todo, good, strict=True) if not fine]
        dropped += len(todo)
        if not todo:
            break
    name = type(generator).__name__
    if not images:
        raise ValueError(
            f"{name} gave no usable image (all {dropped} blank or copies): use RecomposeGenerator, or mend the prompts."
        )
    if dropped:
        print(
            f"{name} gave {dropped} unusable images (blank or copies); {len(images)} of {count} are used."
        )
    return Generated(
        torch.stack(images),
        torch.tensor([finding.label for finding, _ in kept]),
        torch.tensor([i for _, i in kept]),
    )


def usable(images: torch.Tensor, evidence: Evidence) -> list[bool]:
    """Whether each image (K, 3, H, W) shows something (deviation above 2 levels) and is no copy from the evidence.

    Raises ValueError if type or size differ from the evidence's images.
    """
    if images.dtype != torch.uint8 or images.shape[1:] != evidence.images.shape[1:]:
        raise ValueError(
            f"Generated images must be uint8 {tuple(evidence.images.shape[1:])} each, and these are "
            f"{images.dtype} {tuple(images.shape[1:])}: resize them as the training images are."
        )
    known = {image.numpy().tobytes() for image in evidence.images}
    return [float(i.float().std()) > 2 and i.numpy().tobytes() not in known for i in images]


def random_findings(
    evidence: Evidence, findings: Sequence[Finding], seed: int = 0
) -> list[Finding]:
    """The control: as many requests of the same classes, by images drawn at random from all of each class."""
    rng = np.random.default_rng(seed)
    drawn = []
    for finding in findings:
        own = np.flatnonzero(evidence.labels.numpy() == finding.label)
        members = rng.choice(own, len(finding.members), replace=len(finding.members) > len(own))
        name = evidence.classes[finding.label]
        drawn.append(
            Finding(
                finding.label,
                finding.other,
                tuple(int(i) for i in members),
                f"{len(members)} images of {name} drawn at random.",
                f"A photograph of a {name}.",
            )
        )
    return drawn


# ---------------------------------------------------------------- offline: pictures put together anew


def cut_out(maps: torch.Tensor, share: float = 0.4) -> torch.Tensor:
    """Soft masks (N, H, W) in 0..1 over the `share` of each picture with the most of a smoothed map."""
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
    """Objects that the model recognises, in the light, place and surroundings of those that it does not.

    The object is cut out by its map from a right training image of the class, moved and
    scaled to where the failing image was looked at, put on another training image whose own object is
    filled in, and given the failing image's mean colours and contrast. No pixel of the evidence is used.
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
        """Sources: up to per_class images of each class that `model` recognises, cut out by the map of `method`.

        Of a class that it never recognises the images that it likes best for that class, said aloud.
        ValueError for a class without any training image.
        """
        chances = logits_of(model, train_set.images).softmax(1)
        right = chances.argmax(1) == train_set.labels
        order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(seed))
        chosen = []
        for label, name in enumerate(train_set.classes):
            own = order[train_set.labels[order] == label]
            if not len(own):
                raise ValueError(f"There is no training image of {name} to cut out: add some.")
            known = own[right[own]]
            if not len(known):
                print(
                    f"The model recognises no training image of {name}: the objects cut out may be poor."
                )
                known = own[chances[own, label].argsort(descending=True, stable=True)]
            chosen.append(known[:per_class])
        some = train_set.subset(torch.cat(chosen))
        maps = explain(model, some.images, some.labels, method=method)
        return cls(some.images, some.labels, cut_out(maps))

    def make(
        self, evidence: Evidence, requests: Sequence[tuple[Finding, int]], seed: int
    ) -> torch.Tensor:
        """One new image for each request; uint8 (K, 3, H, W)."""
        rng = np.random.default_rng(seed)
        asked = torch.tensor([i for _, i in requests])
        by_class = {
            label: np.flatnonzero(self.labels.numpy() == label) for label in self.labels.tolist()
        }
        source = torch.tensor([rng.choice(by_class[finding.label]) for finding, _ in requests])
        wanted, wanted_alpha = evidence.images[asked].float() / 255, cut_out(evidence.maps[asked])

        place = centre(wanted_alpha) - centre(self.alpha[source])
        jitter = torch.from_numpy(rng.uniform(-0.1, 0.1, (len(requests), 2))).float()
        scale = torch.from_numpy(rng.uniform(0.8, 1.2, len(requests))).float()
        both = torch.cat([self.images[source].float() / 255, self.alpha[source][:, None]], 1)
        moved = _moved(
            both, (place + jitter).clamp(-0.5, 0.5), scale, rng.random(len(requests)) < 0.5
        )

        # the surroundings: of a few random training images the one most like the failing image's
        candidates = torch.from_numpy(rng.integers(0, len(self.images), (len(requests), 8)))
        likeness = (_ground(wanted, wanted_alpha)[:, None] - self._grounds()[candidates]).norm(
            dim=2
        )
        ground = candidates.gather(1, likeness.argmin(1, keepdim=True))[:, 0]
        behind = _without(self.images[ground].float() / 255, self.alpha[ground])
        alpha = moved[:, 3:]
        return _in_light_of(alpha * moved[:, :3] + (1 - alpha) * behind, wanted)

    def _grounds(self) -> torch.Tensor:
        return _ground(self.images.float() / 255, self.alpha)


def _ground(images: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Mean colour (N, 3) of what alpha does not cover; of the whole picture if it covers all."""
    keep = (1 - alpha)[:, None]
    keep = torch.where(keep.mean((2, 3), keepdim=True) < 0.02, 1.0, keep)
    return (images * keep).sum((2, 3)) / keep.sum((2, 3)).clamp(min=1e-6)


def _moved(
    x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, mirror: np.ndarray
) -> torch.Tensor:
    """Layers (N, 4, H, W) scaled about the middle, moved by shift (y, x) in -1..1, some mirrored; outside is empty."""
    theta = torch.zeros(len(x), 2, 3)
    flip = torch.from_numpy(np.where(mirror, -1.0, 1.0)).float()
    theta[:, 0, 0], theta[:, 0, 2] = flip / scale, -flip * shift[:, 1] / scale
    theta[:, 1, 1], theta[:, 1, 2] = 1 / scale, -shift[:, 0] / scale
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _in_light_of(images: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Images in 0..1 with the mean colour and about the contrast of `wanted`, as uint8."""
    middle, goal = images.mean((2, 3), keepdim=True), wanted.mean((2, 3), keepdim=True)
    ratio = wanted.std((1, 2, 3), keepdim=True) / images.std((1, 2, 3), keepdim=True).clamp(
        min=1e-3
    )
    return (
        (((images - middle) * ratio.clamp(0.5, 2) + goal).clamp(0, 1) * 255).round().to(torch.uint8)
    )


# ---------------------------------------------------------------- Shapes-10: the renderer itself


@dataclass(frozen=True)
class ShapesGenerator:
    """Shapes-10 draws many images of the class; those most like the failing image are kept."""

    candidates: int = 12  # drawings for each image that is kept

    def make(
        self, evidence: Evidence, requests: Sequence[tuple[Finding, int]], seed: int
    ) -> torch.Tensor:
        """One new drawing for each request; uint8 (K, 3, H, W)."""
        asked = torch.tensor([i for _, i in requests])
        label = torch.tensor([shapes.CLASSES.index(evidence.classes[f.label]) for f, _ in requests])
        every = label.repeat_interleave(self.candidates)
        # seeds apart from those of the set itself (10 and 11)
        drawn, masks = shapes.draw(every, evidence.images.shape[-1], seed=100_003 + seed)
        known = None if evidence.masks is None else evidence.masks[asked]
        wanted = self._look(evidence.images[asked], known)
        offered = self._look(drawn, None if known is None else masks)
        unit = offered.std(0).clamp(min=1e-6)
        away = ((offered.view(len(requests), -1, offered.shape[1]) - wanted[:, None]) / unit).norm(
            dim=2
        )
        return drawn[torch.arange(len(requests)) * self.candidates + away.argmin(1)]

    @staticmethod
    def _look(images: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
        looks = [*appearance(images).values()]
        if masks is not None:  # size and place
            looks += [masks.float().mean((1, 2)), *centre(masks).T]
        return torch.stack(looks, 1)
