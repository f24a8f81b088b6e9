"""Questions that look at maps: where they point, what changes them, what they add up to."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import explain, models
from ..trust import mosaics, sanity
from .questions import Maps, Measured, known
from .subject import Subject

LEVELS = 4.0  # standard deviation of the input noise, in levels of 255
NO_SUM = "the method promises no sum"


def pointing(maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """Share of a map's positive mass in the tiles of its class, on 2 x 2 mosaics of the images.

    Right-answered images of up to four classes a mosaic, shown at the model's own size; every class
    in it is explained, so that a map which does not look at the class has a mean of exactly chance.
    Without labels the images whose class the model is sure of, see Subject.clear.
    """
    subject = maps.subject
    right = subject.clear()
    images, labels = subject.images[right], subject.preds[right]
    made = [mosaics.make(images, labels, 1, seed=int(row)) for row in rows]
    whole = mosaics.Mosaics(
        *(torch.cat([getattr(m, part) for m in made]) for part in ("images", "labels", "sources"))
    )
    chance = mosaics.chance(whole)
    shares = [
        mosaics.score(maps(subject.model, whole.images, targets), whole.labels, targets)
        for targets in whole.targets.T
    ]
    values = known(torch.stack(shares, 1).numpy(), chance).mean(1)
    seen = mosaics.accuracy(subject.model, whole)
    return Measured(values, chance, beside={"classes the model sees in a mosaic": seen})


def no_mosaics(subject: Subject, method: str) -> str:
    classes = len(subject.preds[subject.clear()].unique())
    known = "sure" if subject.labels is None else "right"
    return (
        "" if classes > 1 else f"it needs {known} answers of two classes, and {classes} have some"
    )


def about_class(maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """1 - |cosine| between the maps of the two most probable classes: 0 is the same picture."""
    subject = maps.subject
    second = subject.logits[rows].topk(2, dim=1).indices[:, 1]
    other = maps(subject.model, subject.images[rows], second)
    return Measured(known(sanity.class_sensitivity(maps.own(rows), other)))


def _agreement(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Spearman's rank correlation of magnitudes, image by image; 0 where a map is constant."""
    able = ~(sanity.empty(a.abs()) | sanity.empty(b.abs()))
    values = np.zeros(len(a))
    if able.any():
        values[able.numpy()] = sanity.spearman(a[able], b[able])
    return values


def learned(maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """1 - rank correlation with the map of the same network with random weights.

    The end of Adebayo et al.'s cascade (2018). Beside it, efficient MPRT (Hedström et al. 2024):
    how much more complex the map of the random network is; above 0 as it should be.
    """
    subject, own = maps.subject, maps.own(rows)
    twin = sanity.randomised(subject.model, seed)
    other = maps(twin, subject.images[rows], subject.preds[rows])
    with np.errstate(divide="ignore", invalid="ignore"):
        rise = known(sanity.complexity_rise(own, other))
    return Measured(1 - _agreement(own, other), beside={"rise of complexity (eMPRT)": rise})


def steady(maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """Mean rank correlation of a map with those under noise, a small shift and a mirror image.

    Shift and mirror are undone before the maps are compared.
    """
    subject, own = maps.subject, maps.own(rows)
    images, targets = subject.images[rows], subject.preds[rows]
    generator = torch.Generator().manual_seed(seed)
    noise = LEVELS * torch.randn(images.shape[1:], generator=generator)
    noisy = (images + noise).round().clamp(0, 255).to(torch.uint8)
    step = max(1, images.shape[-1] // 32)
    moved = maps(subject.model, sanity.shifted(images, 0, step), targets)
    each = [
        _agreement(own, maps(subject.model, noisy, targets)),
        _agreement(own, maps(subject.model, images.flip(3), targets).flip(2)),
        _agreement(own[..., :-step], moved[..., step:]),
    ]
    return Measured(np.mean(each, axis=0))


# ---------------------------------------------------------------- what a method promises


def adds_up(maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """1 - the relative error of the sum that a method promises: completeness of Integrated Gradients.

    F(x) - F(black) is to be the sum of the attributions; with the steps that explain() takes when
    it is not told how many.
    """
    subject = maps.subject
    images, targets = subject.images[rows], subject.preds[rows]
    result = explain.integrated_gradients(subject.model, images, targets)
    error = result.completeness_error / result.difference.abs().clamp(min=1e-12)
    steps = {"steps taken": result.steps.double().numpy()}
    return Measured((1 - error).clamp(0, 1).double().numpy(), beside=steps)


def _without_biases(model: nn.Module) -> nn.Module:
    """A copy whose layers add nothing of their own; batch norms forget their means."""
    bare = copy.deepcopy(model)
    with torch.no_grad():
        for module in bare.modules():
            for name in ("bias", "running_mean"):
                if isinstance(getattr(module, name, None), torch.Tensor):
                    getattr(module, name).zero_()
    return bare


def conserves(maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """1 - the relative error of LRP's sum: without biases the map of a CNN adds up to the logit.

    Measured on a copy without biases, because what biases contribute is not passed on.
    """
    subject, size = maps.subject, maps.subject.model.input_size
    bare = _without_biases(subject.model)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    pictures = F.interpolate(subject.images[rows].float(), sides, mode="area")
    pictures = pictures.round().to(torch.uint8)  # as large as the model takes: maps keep their sum
    targets = subject.preds[rows]
    logits = models.logits_of(bare, pictures).gather(1, targets[:, None])[:, 0].double()
    total = maps(bare, pictures, targets).double().sum((1, 2))
    error = (total - logits).abs() / logits.abs().clamp(min=1e-12)
    return Measured((1 - error).clamp(0, 1).numpy())


def promised(maps: Maps, rows: torch.Tensor, seed: int) -> Measured:
    """1 - the relative error of the sum that the method promises; see adds_up and conserves."""
    return (conserves if maps.name == "lrp" else adds_up)(maps, rows, seed)


def no_promise(subject: Subject, method: str) -> str:
    """Why a method has no sum to test; empty if it has."""
    kept = method == "integrated_gradients" or (
        method == "lrp" and models.kind(subject.model) == "cnn"
    )
    return "" if kept else NO_SUM
