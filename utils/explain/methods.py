"""Attribution methods for image classifiers behind one signature.

METHODS says what there is; explain() runs one of them on uint8 images, in chunks that bound
memory, and gives one map per image at the image's own size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .. import data
from ..models import Targets, as_targets, evaluating, per_chunk
from . import gradients
from .gradients import kind, layers

__all__ = [
    "METHODS",
    "IGResult",
    "Method",
    "blur_region",
    "explain",
    "integrated_gradients",
    "kind",
    "layers",
]


@dataclass(frozen=True)
class Method:
    """One way to explain. run(model, x (b, 3, H, W), targets (b,), **options) -> (b, H', W')."""

    name: str
    title: str
    run: Callable[..., torch.Tensor]
    works_on: frozenset[str] = frozenset({"cnn", "vit"})
    signed: bool = False  # maps can be negative: evidence against the target
    options: dict[str, Any] = field(default_factory=dict)  # names and defaults
    chunk: int = 32  # images at once, unless the caller says otherwise
    predicts: bool = (
        False  # run takes targets None and finds the predicted class in its own forward
    )
    repeats: bool = False  # feeds copies of each image; run gets batch=chunk to bound those too

    def with_defaults(self, options: dict[str, Any]) -> dict[str, Any]:
        """These options and the defaults of the others. Raises ValueError for one that there is not."""
        unknown = sorted(options.keys() - self.options.keys())
        if unknown:
            raise ValueError(
                f"{self.name} has no option {unknown[0]!r}: it has {', '.join(self.options) or 'none'}."
            )
        return {**self.options, **options}


@dataclass(frozen=True)
class IGResult:
    """Integrated Gradients with its own check. F is the target's logit, x' the baseline."""

    maps: torch.Tensor  # float32 (B, h, w), signed
    completeness_error: torch.Tensor  # (B,) |sum of attributions - (F(x) - F(x'))|, in logits
    difference: torch.Tensor  # (B,) F(x) - F(x')
    steps: torch.Tensor  # (B,) integration steps taken


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("saliency", "Saliency", gradients.saliency, predicts=True),
        Method(
            "smoothgrad",
            "SmoothGrad",
            gradients.smoothgrad,
            options=dict(samples=25, sigma=0.15, seed=0),
            repeats=True,
        ),
        Method(
            "integrated_gradients",
            "Integrated Gradients",
            lambda *inputs, **options: gradients.path_integral(*inputs, **options)[0],
            signed=True,
            options=dict(steps=None, baseline="black"),
            repeats=True,
        ),
        Method(
            "gradcam",
            "Grad-CAM",
            gradients.gradcam,
            options=dict(layer=None),
            chunk=64,
            predicts=True,
        ),
        Method(
            "lrp",
            "LRP",
            gradients.relevance,
            signed=True,
            options=dict(start_layer=0),
            chunk=8,
            predicts=True,
        ),
        Method(
            "attention",
            "Attention",
            gradients.raw_attention,
            frozenset({"vit"}),
            options=dict(block=-1, head=None),
            predicts=True,
        ),
        Method(
            "attention_rollout",
            "Attention rollout",
            gradients.rollout,
            frozenset({"vit"}),
            chunk=16,
            predicts=True,
        ),
        Method(
            "gradient_rollout",
            "Gradient rollout",
            gradients.gradient_rollout,
            frozenset({"vit"}),
            chunk=16,
            predicts=True,
        ),
    )
}


# ---------------------------------------------------------------- the one signature


def _resize(heat: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(b, H, W) -> float32 (b, h, w) on the CPU: area average going down, else bilinear."""
    down = heat.shape[-2] >= size[0] and heat.shape[-1] >= size[1]
    mode = dict(mode="area") if down else dict(mode="bilinear", antialias=True)
    return F.interpolate(heat.detach().float()[:, None], size, **mode)[:, 0].cpu()


def inputs(
    model: nn.Module, images: torch.Tensor, targets: Targets, predicts: bool = False
) -> Callable[[slice], tuple[torch.Tensor, Any]]:
    """A function from rows to their preprocessed input (b, 3, H, W) and targets (b,), after checking all.

    predicts: leave targets None as they are and spare the forward pass that would find them.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(
            f"Images must be uint8 (B, 3, h, w), and these are {images.dtype} {tuple(images.shape)}."
        )
    given = targets is not None and torch.as_tensor(targets).ndim > 0
    if given and len(targets) != len(images):
        raise ValueError(
            f"{len(targets)} targets for {len(images)} images: give one class for all or one per image."
        )
    parameter = next(model.parameters())

    def prepared(rows: slice) -> tuple[torch.Tensor, Any]:
        part = images[rows].to(parameter.device)
        x = data.preprocess(part, model.input_size, model.mean, model.std).to(parameter.dtype)
        if predicts and targets is None:
            return x, None
        with torch.no_grad():
            return x, as_targets(targets[rows] if given else targets, model(x))

    return prepared


def explain(
    model: nn.Module,
    images: torch.Tensor,
    targets: Targets = None,
    method: str = "gradcam",
    chunk: int | None = None,
    **options: Any,
) -> torch.Tensor:
    """A heatmap for each image: uint8 (B, 3, h, w) -> float32 (B, h, w) on the CPU.

    targets: a class for all, (B,) classes, or None for the predicted ones. method: a name in
    METHODS, options: that method's. chunk: images at once; less needs less memory and changes
    nothing else. Values are in the method's own unit, not rescaled. Runs in eval mode, also
    inside torch.no_grad and on frozen models; leaves modes, parameters and gradients as they
    were. Raises ValueError for anything unknown and for a method that does not fit the model.
    """
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}: use one of {', '.join(METHODS)}.")
    how = METHODS[method]
    options = how.with_defaults(options)
    if kind(model) not in how.works_on:
        fits = ", ".join(name for name, other in METHODS.items() if kind(model) in other.works_on)
        raise ValueError(f"{method} does not work on a {kind(model).upper()}: use one of {fits}.")
    prepared = inputs(model, images, targets, how.predicts)

    def maps(rows: slice, few: int) -> torch.Tensor:
        copies = dict(batch=few) if how.repeats else {}
        return _resize(how.run(model, *prepared(rows), **options, **copies), images.shape[-2:])

    with evaluating(model), torch.enable_grad():
        return torch.cat(list(per_chunk(maps, len(images), how.chunk if chunk is None else chunk)))


def integrated_gradients(
    model: nn.Module,
    images: torch.Tensor,
    targets: Targets = None,
    steps: int | None = None,
    baseline: str = "black",
    chunk: int = 32,
) -> IGResult:
    """Integrated Gradients (Sundararajan et al. 2017, section 3) with its completeness error.

    images: uint8 (B, 3, h, w). steps=None starts at 32 and doubles, up to 512, for the images
    whose error exceeds 0.5 % of F(x) - F(x'); a number fixes it. chunk bounds both the images
    and the interpolated copies held at once. Sums are over the model's input resolution,
    before maps are resized to (h, w). Raises ValueError as explain() does.
    """
    prepared = inputs(model, images, targets)

    def integrals(rows: slice, few: int) -> list[torch.Tensor]:
        heat, *numbers = gradients.path_integral(model, *prepared(rows), steps, baseline, batch=few)
        return [_resize(heat, images.shape[-2:]), *(value.cpu() for value in numbers)]

    with evaluating(model), torch.enable_grad():
        found = list(per_chunk(integrals, len(images), chunk))
    return IGResult(*(torch.cat(parts) for parts in zip(*found, strict=True)))


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
    changed = images.clone()
    changed[..., top:bottom, left:right] = data.blur(images, sigma or images.shape[-1] / 10)[
        ..., top:bottom, left:right
    ]
    return changed
