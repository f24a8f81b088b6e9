"""Mistakes and their maps in, written findings and image prompts out: the first half of the loop.

After Vemula et al., *Does Explainability Help in Improving ViTs?*: look at the maps of the
mistakes, say in words what those images have in common, ask for images that have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn

from ..data import ImageSet
from ..explain import explain
from ..models import logits_of
from ..trust import spread

WORDS = {  # trait: (what a low value looks like, what a high one does)
    "brightness": ("dark", "bright"),
    "contrast": ("flat, without contrast", "harsh in contrast"),
    "saturation": ("almost grey", "strongly coloured"),
    "warmth": ("bluish", "reddish"),
    "distance": ("looked at in the very middle", "looked at away from the middle"),
    "spread": ("judged by one small spot", "judged by the whole picture"),
}
ENOUGH = 5  # recognised images that make a norm; below that, all of the class do
COLOURS = {
    "black": (20, 20, 20),
    "dark grey": (75, 75, 75),
    "grey": (135, 135, 135),
    "white": (235, 235, 235),
    "brown": (110, 75, 45),
    "beige": (200, 175, 145),
    "orange": (205, 120, 50),
    "yellow": (225, 210, 80),
    "green": (85, 145, 70),
    "blue": (75, 105, 190),
    "pink": (225, 150, 190),
    "red": (190, 50, 50),
    "purple": (130, 70, 170),
}


@dataclass(frozen=True)
class Evidence:
    """Predictions of a model on images that it was not trained on, their maps, and its mistakes."""

    images: torch.Tensor  # uint8 (N, 3, H, W)
    labels: torch.Tensor  # int64 (N,)
    predicted: torch.Tensor  # int64 (N,)
    confidence: torch.Tensor  # float (N,), of the predicted class
    maps: torch.Tensor  # float (N, H, W), for the predicted class
    classes: tuple[str, ...]
    failed: torch.Tensor  # int64 (M,) indices of the mistakes, the most confident first
    masks: torch.Tensor | None = None  # bool (N, H, W)
    near: bool = False  # there was no mistake: `failed` are the least certain right answers


@dataclass(frozen=True)
class Rule:
    """Which images a finding is about, so that it can be checked on others."""

    trait: str  # of WORDS
    limit: float
    above: bool  # whether the images concerned lie above the limit

    def concerns(self, measured: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """bool (N,) for the traits of N images."""
        return (measured[self.trait] > self.limit) == self.above

    def __str__(self) -> str:
        return f"{self.trait} {'above' if self.above else 'below'} {self.limit:.2f}"


@dataclass(frozen=True)
class Finding:
    """One weakness: which images show it, in words, and a prompt for images that would help."""

    label: int  # the true class of its members
    other: int  # what they are mostly taken for
    members: tuple[int, ...]  # indices into the evidence
    text: str
    prompt: str  # at most 100 words
    rule: Rule | None = None  # None if the words name nothing that is measured


class Analyst(Protocol):
    """Anything that turns evidence into findings, the largest first."""

    def analyse(self, evidence: Evidence) -> list[Finding]: ...


def gather(
    model: nn.Module, image_set: ImageSet, method: str = "lrp", fallback: int = 8
) -> Evidence:
    """Predictions, maps of the predicted class and mistakes of `model` on `image_set`.

    Without any mistake the `fallback` least certain answers take their place; that is printed.
    Raises ValueError if the set shows one class only: there is nothing to mistake it for.
    """
    present = image_set.labels.unique()
    if len(present) < 2:
        raise ValueError(
            f"All {len(image_set)} images that mistakes are looked for in are of the class "
            f"{image_set.classes[int(present[0])]}: add images of another class to the validation "
            "set."
        )
    confidence, predicted = logits_of(model, image_set.images).softmax(1).max(1)
    wrong = torch.nonzero(predicted != image_set.labels).flatten()
    failed = wrong[confidence[wrong].argsort(descending=True, stable=True)]
    if not len(failed):
        failed = confidence.argsort(stable=True)[:fallback]
        print(
            f"No mistake among {len(image_set)} validation images: the loop works on the "
            f"{len(failed)} least certain answers instead. More validation images would show "
            "real mistakes."
        )
    maps = explain(model, image_set.images, predicted, method=method)
    return Evidence(
        image_set.images,
        image_set.labels,
        predicted,
        confidence,
        maps,
        image_set.classes,
        failed,
        image_set.masks,
        near=not len(wrong),
    )


# ---------------------------------------------------------------- what an image is like


def appearance(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Brightness, contrast, saturation (0..1) and warmth (red minus blue, -1..1), each (N,).

    images: uint8 (N, 3, H, W).
    """
    x = images.float() / 255
    grey = x.mean(1).flatten(1)
    return {
        "brightness": grey.mean(1),
        "contrast": grey.std(1),
        "saturation": (x.amax(1) - x.amin(1)).mean((1, 2)),
        "warmth": (x[:, 0] - x[:, 2]).mean((1, 2)),
    }


def centre(mass: torch.Tensor) -> torch.Tensor:
    """Centre of mass (y, x) of maps or masks (N, H, W): (N, 2) in -1..1; 0, 0 if empty."""
    mass = mass.float().clamp(min=0)
    height, width = mass.shape[-2:]
    y, x = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    total = mass.sum((1, 2)).clamp(min=1e-12)
    return torch.stack([(mass.sum(2) * y).sum(1) / total, (mass.sum(1) * x).sum(1) / total], 1)


def traits(evidence: Evidence) -> dict[str, torch.Tensor]:
    """All of WORDS for each image of the evidence, each (N,): its looks and where its map lies."""
    looked = {"distance": centre(evidence.maps).norm(dim=1), "spread": spread(evidence.maps)}
    return appearance(evidence.images) | looked


def colour_name(image: torch.Tensor, heatmap: torch.Tensor) -> str:
    """The nearest of COLOURS to the mean colour of image, uint8 (3, H, W), weighted by its map."""
    weight = heatmap.clamp(min=0) + 1e-9
    mean = (image.float() * weight).sum((1, 2)) / weight.sum()
    return min(COLOURS, key=lambda name: float((mean - torch.tensor(COLOURS[name])).norm()))


# ---------------------------------------------------------------- offline


@dataclass(frozen=True)
class RuleAnalyst:
    """Groups each class's mistakes by how they differ from what the model gets right, and says how.

    clusters: at most so many findings for a class; smallest: mistakes that a cluster needs on
    average; notable: standard deviations from the class's norm that are worth a word.
    """

    clusters: int = 3
    smallest: int = 8
    notable: float = 0.5

    def analyse(self, evidence: Evidence) -> list[Finding]:
        """A finding for each cluster of mistakes, the largest first. ValueError without any."""
        if not len(evidence.failed):
            raise ValueError(
                "There is no mistake to analyse: give more validation images, or a weaker model."
            )
        measured = traits(evidence)
        table = torch.stack([measured[name] for name in WORDS], 1).double().numpy()
        failed = np.zeros(len(table), bool)
        failed[evidence.failed.numpy()] = True
        labels = evidence.labels.numpy()
        findings = []
        for label in np.unique(labels[failed]):
            own, members = labels == label, np.flatnonzero((labels == label) & failed)
            known = own & ~failed
            norm = table[known if known.sum() >= ENOUGH else own]
            middle, scale = norm.mean(0), norm.std(0) + 1e-6
            away = ((table - middle) / scale).clip(-4, 4)
            k = min(self.clusters, max(1, len(members) // self.smallest))
            group = KMeans(k, n_init=4, random_state=0).fit_predict(away[members])
            for g in range(k):
                some = members[group == g]
                findings.append(self._finding(evidence, some, away, own, failed, table, middle))
        return sorted(findings, key=lambda finding: -len(finding.members))

    def _finding(self, evidence, some, away, own, failed, table, middle) -> Finding:
        label = int(evidence.labels[some[0]])
        wrong = evidence.predicted[some][evidence.predicted[some] != label]
        other = int(wrong.mode().values) if len(wrong) else int(label == 0)
        name, taken = evidence.classes[label], evidence.classes[other]
        shift = away[some].mean(0)
        strongest = [i for i in np.argsort(-np.abs(shift)) if abs(shift[i]) >= self.notable][:3]
        words = [list(WORDS.values())[i][int(shift[i] > 0)] for i in strongest]
        verb = "are least certain" if evidence.near else f"are taken for {taken}"
        known = int((own & ~failed).sum())
        usual = f"a {name} that is recognised" if known >= ENOUGH else f"all images of {name}"
        text, rule = f"{len(some)} of {own.sum()} images of {name} {verb}", None
        if not known:
            text += "; none is recognised, so there is nothing to compare them with."
        elif not words:
            alike = "those that are recognised" if known >= ENOUGH else "all others"
            text += f"; they look like {alike}, so nothing measured here explains them."
        else:
            first = strongest[0]
            theirs = table[some, first].mean()
            # beyond halfway an image is nearer to these than to the norm
            rule = Rule(
                list(WORDS)[first], float(theirs + middle[first]) / 2, bool(shift[first] > 0)
            )
            beyond = own & ((table[:, first] > rule.limit) == rule.above)
            rest = own & ~beyond
            text += (
                f" and are {'; '.join(words)} ({rule.trait} {theirs:.2f}, usual for {usual}: "
                f"{middle[first]:.2f}). Of all such images of {name} {(failed & beyond).sum()} of "
                f"{beyond.sum()} fail, of the others {(failed & rest).sum()} of {rest.sum()}."
            )
        colours = [colour_name(evidence.images[i], evidence.maps[i]) for i in some]
        colour = max(sorted(set(colours)), key=colours.count)
        traits = "".join(f", {word}" for word in words)
        prompt = (
            f"A photograph of a {colour} {name}{traits}, like one that is easily taken "
            f"for a {taken}, but plainly a {name}."
        )
        return Finding(label, other, tuple(int(i) for i in some), text, prompt, rule)
