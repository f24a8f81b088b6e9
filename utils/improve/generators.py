"""Findings in, labelled images out: the second half of the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from .findings import Evidence, Finding

TRIES = 3  # rounds of requests while images are unusable


@dataclass(frozen=True)
class Generated:
    """New images, their labels, and which image of the evidence each was requested by."""

    images: torch.Tensor  # uint8 (K, 3, H, W)
    labels: torch.Tensor  # int64 (K,)
    requested_by: torch.Tensor  # int64 (K,) indices into the evidence


class Generator(Protocol):
    """make() draws an image uint8 (3, H, W) for each request (finding, index into the evidence)."""

    def make(
        self, evidence: Evidence, requests: Sequence[tuple[Finding, int]], seed: int
    ) -> torch.Tensor: ...


def generate(
    generator: Generator, evidence: Evidence, findings: Sequence[Finding], count: int, seed: int = 0
) -> Generated:
    """`count` images, shared evenly among all members of the findings.

    Unusable images (blank, or copies of an image of the evidence) are dropped, which is printed,
    and requested again. Raises ValueError without findings, and if not one usable image came.
    """
    pairs = [(finding, i) for finding in findings for i in finding.members]
    if not pairs or count < 1:
        raise ValueError(
            "There is no finding to generate images for: give the analyst mistakes, and count of 1 "
            "or more."
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
            f"{name} gave no usable image (all {dropped} blank or copies): use RecomposeGenerator, "
            "or mend the prompts."
        )
    if dropped:
        print(
            f"{name} gave {dropped} unusable images (blank or copies); {len(images)} of {count} "
            "are used."
        )
    return Generated(
        torch.stack(images),
        torch.tensor([finding.label for finding, _ in kept]),
        torch.tensor([i for _, i in kept]),
    )


def usable(images: torch.Tensor, evidence: Evidence) -> list[bool]:
    """Whether an image of (K, 3, H, W) is not blank (deviation above 2) and no copy of evidence.

    Raises ValueError if type or size differ from the evidence's images.
    """
    if images.dtype != torch.uint8 or images.shape[1:] != evidence.images.shape[1:]:
        raise ValueError(
            f"Generated images must be uint8 {tuple(evidence.images.shape[1:])}, and these are "
            f"{images.dtype} {tuple(images.shape[1:])}: resize them as the training images are."
        )
    known = {image.numpy().tobytes() for image in evidence.images}
    return [float(i.float().std()) > 2 and i.numpy().tobytes() not in known for i in images]


def random_findings(
    evidence: Evidence, findings: Sequence[Finding], seed: int = 0
) -> list[Finding]:
    """The control: as many requests of the same classes, by images drawn at random."""
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
