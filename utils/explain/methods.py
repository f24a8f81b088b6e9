"""Attribution methods for image classifiers behind one signature.

METHODS says what there is; explain() runs one of them on uint8 images, in chunks that bound
memory, and gives one map per image at the image's own size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .. import data
from ..models import Question, Targets, evaluating, inner, kind, per_chunk, prepare, unwrapped
from . import gradients
from .registry import METHODS, Method

__all__ = ["METHODS", "IGResult", "Method", "blur_region", "explain", "integrated_gradients"]


@dataclass(frozen=True)
class IGResult:
    """Integrated Gradients with its own check. F is the target's logit, x' the baseline."""

    maps: torch.Tensor  # float32 (B, h, w), signed
    completeness_error: torch.Tensor  # (B,) |sum of attributions - (F(x) - F(x'))|, in logits
    difference: torch.Tensor  # (B,) F(x) - F(x')
    steps: torch.Tensor  # (B,) integration steps taken


# ---------------------------------------------------------------- the one signature


def _resize(heat: torch.Tensor, size: tuple[int, int], cells: bool = False) -> torch.Tensor:
    """(b, H, W) -> float32 (b, h, w) on the CPU: area average going down, else bilinear.

    cells: a coarser map keeps its cells, without values in between.
    """
    mode: dict[str, Any] = dict(mode="bilinear", antialias=True)
    if heat.shape[-2] >= size[0] and heat.shape[-1] >= size[1]:
        mode = dict(mode="area")
    elif cells:
        mode = dict(mode="nearest-exact")
    return F.interpolate(heat.detach().float()[:, None], size, **mode)[:, 0].cpu()


def question_about(images: torch.Tensor, targets: Targets, against: Targets = None) -> Question:
    """The question, its classes as tensors; ValueError unless the images and their number are right."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(
            f"Images must be uint8 (B, 3, h, w), and these are {images.dtype} {tuple(images.shape)}."
        )

    def classes(given: Targets) -> Targets:
        if given is None:
            return None
        classes = torch.as_tensor(given)
        if classes.ndim and len(classes) != len(images):
            raise ValueError(
                f"{len(classes)} targets for {len(images)} images: "
                "give one class for all or one per image."
            )
        return classes if classes.ndim else int(classes)

    return Question(classes(targets), classes(against))


NO_GRADIENT = "eigencam, scorecam or occlusion"  # what works on layers without a derivative


def _refuse_headless(model: nn.Module, how: Method) -> None:
    """ValueError where a class is asked about and the network ends in features."""
    if how.uses_target and getattr(inner(model), "num_classes", None) == 0:
        fits = [n for n, m in METHODS.items() if not m.uses_target and kind(model) in m.works_on]
        raise ValueError(
            f"This {type(inner(model)).__name__} has no head (num_classes=0), so there is no class "
            f"that {how.name} could explain: use one of {', '.join(fits)}."
        )


BROKEN = ("does not require grad", "not have been used in the graph")  # in torch's own words


@contextmanager
def _derivable(model: nn.Module) -> Iterator[None]:
    """One sentence where a quantised layer, or the model, has no derivative."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if any(".quantized" in type(m).__module__ for m in model.modules()):
            raise ValueError(
                f"Quantised layers of this {type(inner(model)).__name__} have no derivative: explain "
                f"the model as it was before quantisation, or use {NO_GRADIENT}."
            ) from error
        if any(words in str(error) for words in BROKEN):
            raise ValueError(
                f"{type(inner(model)).__name__} gives no gradient with respect to its input: remove "
                "torch.no_grad, detach() or rounding from its forward, or use "
                f"{NO_GRADIENT.replace('eigencam, ', '')}."
            ) from error
        raise


def _finite(maps: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """The maps; ValueError where one is not made of numbers."""
    bad = int((~maps.isfinite()).flatten(1).any(1).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(maps)} maps of {type(inner(model)).__name__} hold values that are not "
            "finite: look at its weights, at its precision, and at the mean and std of its input."
        )
    return maps


def _fitting(model: nn.Module, method: str) -> Method:
    """The method of this name; ValueError unless it works on the model."""
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}: use one of {', '.join(METHODS)}.")
    if kind(model) not in METHODS[method].works_on:
        fits = ", ".join(name for name, other in METHODS.items() if kind(model) in other.works_on)
        name = type(inner(model)).__name__
        raise ValueError(f"{method} does not work on a {name}: use one of {fits}.")
    return METHODS[method]


def explain(
    model: nn.Module,
    images: torch.Tensor,
    targets: Targets = None,
    method: str = "gradcam",
    against: Targets = None,
    chunk: int | None = None,
    cells: bool = False,
    **options: Any,
) -> torch.Tensor:
    """A heatmap for each image: uint8 (B, 3, h, w) -> float32 (B, h, w) on the CPU.

    targets: a class for all, (B,) classes, or None for the predicted ones. against: likewise,
    classes that the targets are compared with: the difference of the two logits is explained (of
    a model with one output, its negative). method: a name in METHODS, options: that method's.
    chunk: images at once; less needs less memory and changes nothing else. cells: a map coarser
    than its image is drawn cell by cell, as a figure should show it; otherwise values between
    the cells are interpolated. Values are in the method's own unit, not rescaled. Runs in eval
    mode, also inside torch.no_grad, on frozen, compiled and DataParallel models; leaves modes,
    parameters and gradients as they were. Raises ValueError for anything unknown and for a method
    that does not fit the model.
    """
    model, _ = unwrapped(model)
    how = _fitting(model, method)
    _refuse_headless(model, how)
    options = how.with_defaults(options)
    question = question_about(images, targets, against)

    def maps(rows: slice, batch: int) -> torch.Tensor:
        x = prepare(model, images[rows], precise=how.precise)
        heat = how.run(model, x, question[rows], batch=batch, **options)
        return _resize(heat, images.shape[-2:], cells)

    with _derivable(model), evaluating(model), torch.enable_grad():
        parts = list(per_chunk(maps, len(images), how.chunk if chunk is None else chunk))
    return _finite(torch.cat(parts), model)


def integrated_gradients(
    model: nn.Module,
    images: torch.Tensor,
    targets: Targets = None,
    steps: int | None = None,
    baseline: str = "black",
    chunk: int = 32,
    against: Targets = None,
) -> IGResult:
    """Integrated Gradients (Sundararajan et al. 2017, section 3) with its completeness error.

    images: uint8 (B, 3, h, w). steps=None starts at 32 and doubles, up to 512, for the images
    whose error exceeds 0.5 % of F(x) - F(x'); a number fixes it. chunk bounds both the images
    and the interpolated copies held at once. Sums are over the model's input resolution,
    before maps are resized to (h, w). Raises ValueError as explain() does.
    """
    model, _ = unwrapped(model)
    question = question_about(images, targets, against)

    def integrals(rows: slice, batch: int) -> list[torch.Tensor]:
        heat, *numbers = gradients.path_integral(
            model,
            prepare(model, images[rows]),
            question[rows],
            batch=batch,
            steps=steps,
            baseline=baseline,
        )
        return [_resize(heat, images.shape[-2:]), *(value.cpu() for value in numbers)]

    with _derivable(model), evaluating(model), torch.enable_grad():
        parts = list(per_chunk(integrals, len(images), chunk))
    return IGResult(*(torch.cat(part) for part in zip(*parts, strict=True)))


def blur_region(
    images: torch.Tensor, box: tuple[int, int, int, int], sigma: float | None = None
) -> torch.Tensor:
    """uint8 (B, 3, h, w) with (top, left, bottom, right) blurred, end exclusive; a copy.

    sigma in pixels, by default a tenth of the width: little but the mean colour stays. Raises
    ValueError if the box is empty or leaves the picture.
    """
    top, left, bottom, right = box
    if not (0 <= top < bottom <= images.shape[-2] and 0 <= left < right <= images.shape[-1]):
        raise ValueError(
            f"Box {box} does not lie in an image of {tuple(images.shape[-2:])} (rows, columns)."
        )
    changed, inside = images.clone(), (..., slice(top, bottom), slice(left, right))
    changed[inside] = data.blur(images, sigma or images.shape[-1] / 10)[inside]
    return changed
