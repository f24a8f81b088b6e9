"""Any classifier made ready for this library: what it takes, what it gives, and where to look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.data import resolve_model_data_config
from torch import nn

from . import parts, vit
from .inference import evaluating
from .unwrap import Wrapped, logits_from, unwrapped
from .zoo import IMAGENET

NAMES = ("input_size", "mean", "std", "arch", "provenance", "classes", "gradcam_layer", "outputs")
GIVE = "give the size (H, W), mean and std that it takes"
Size = int | tuple[int, int]


def _input_of(module: nn.Module, weights: Any) -> tuple[Size | None, Any, Any, Any]:
    """Size, mean, std and classes as the weights, the processor or the model itself state them."""
    if hasattr(weights, "transforms"):  # torchvision's weights
        steps = weights.transforms()
        return steps.crop_size[0], steps.mean, steps.std, weights.meta.get("categories")
    if hasattr(weights, "image_mean"):  # Hugging Face's image processor
        size = getattr(weights, "crop_size", None) or weights.size
        size = (size["height"], size["width"]) if "height" in size else size["shortest_edge"]
        return size, weights.image_mean, weights.image_std, _names(module)
    if weights is not None:
        raise ValueError(
            f"weights={type(weights).__name__} states no size, mean and std: give torchvision's "
            "weights, such as ResNet34_Weights.DEFAULT, or a Hugging Face image processor."
        )
    if hasattr(module, "provenance"):  # from models.build or wrapped before
        return module.input_size, module.mean, module.std, getattr(module, "classes", None)
    if getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None):  # timm
        config = resolve_model_data_config(module)
        return config["input_size"][1:], config["mean"], config["std"], None
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    size = getattr(getattr(module, "config", None), "image_size", size)
    return size, None, None, _names(module)


def _names(module: nn.Module) -> list[str] | None:
    """Class names of a Hugging Face model, in order."""
    table = getattr(getattr(module, "config", None), "id2label", None)
    return [table[i] for i in sorted(table)] if table else None


def _channels(module: nn.Module) -> int:
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels


def _statistics(values: Sequence[float] | None, default: tuple, channels: int) -> tuple[float, ...]:
    """mean or std, one value for a channel; of three values, grey images take the average."""
    values = default if values is None else values
    values = tuple(float(v) for v in ([values] if isinstance(values, float | int) else values))
    if channels == 1 and len(values) == 3:
        values = (sum(values) / 3,)
    if channels not in (1, 3) or len(values) not in (1, channels):
        raise ValueError(
            f"The model's first convolution takes {channels} channels and mean and std have "
            f"{len(values)} values: images are RGB (3) or grey (1)."
        )
    return values * (channels // len(values))


def _side(size: Any) -> Size:
    """An int for a square, (H, W) otherwise."""
    if isinstance(size, int):
        return size
    height, width = (int(side) for side in size)
    return height if height == width else (height, width)


def _try(module: nn.Module, size: Size, channels: int, n: int) -> tuple[Any, bool]:
    """What the module returns for n black images, and whether it changed its input meanwhile.

    Raises ValueError, with the remedy, if it fails.
    """
    height, width = (size, size) if isinstance(size, int) else size
    parameter = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    x = torch.zeros(n, channels, height, width, dtype=parameter.dtype, device=parameter.device)
    picture = f"{channels} x {height} x {width} image"
    picture = f"a {picture}" if n == 1 else f"{n} {picture}s at once"
    try:
        with evaluating(module), torch.no_grad():
            return module(x), x._version > 0
    except Exception as error:  # any module, so any error
        raise ValueError(
            f"{type(module).__name__} fails on {picture} "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}): "
            f"{'let its forward take any number of images' if n > 1 else GIVE}."
        ) from error


def _as_timm(module: nn.Module, mean: tuple | None, std: tuple | None) -> tuple[nn.Module, str]:
    """A copy as timm's ViT, where the relevance and attention methods work, and a note of it."""
    name = type(module).__name__
    try:
        if name == "VisionTransformer" and hasattr(module, "conv_proj"):
            return vit.from_torchvision(module), "as timm's VisionTransformer, with equal logits"
        if name == "ViTForImageClassification":
            given = {n: tuple(v) for n, v in (("mean", mean), ("std", std)) if v is not None}
            converted = vit.from_huggingface(module, **given)
            return converted, "as timm's VisionTransformer, with equal logits"
    except ValueError as error:
        return module, f"not as timm's VisionTransformer, so without attention and LRP ({error})"
    return module, ""


def _giving_logits(
    module: nn.Module, size: Size, channels: int, output: Callable[[Any], torch.Tensor] | None
) -> tuple[nn.Module, int, list[str]]:
    """The module, or a Wrapped around it where what it gives is no logits or its names are taken.

    And how many logits there are, and notes on them. Tried on one image and on two equal ones.
    Raises ValueError where no logits can be recognised.
    """
    taker = output or logits_from
    alone, changes = _try(module, size, channels, 1)
    first = taker(alone)
    if not isinstance(first, torch.Tensor) or first.ndim != 2:
        logits_from(first)  # its sentence
    given, _ = _try(module, size, channels, 2)
    logits = taker(given)
    if logits.ndim != 2 or len(logits) != 2:
        raise ValueError(
            f"{type(module).__name__} gives {tuple(logits.shape)} for two images, which is not a "
            "row of logits for each: let its forward keep the images apart."
        )
    foreign = any(hasattr(module, n) for n in NAMES) and not hasattr(module, "provenance")
    auxiliary = getattr(module, "aux_logits", False)  # GoogLeNet returns a tuple when it trains
    bare = isinstance(alone, torch.Tensor) and alone.shape == (1, logits.shape[1])
    needs = not bare or output is not None or logits is not given or foreign or auxiliary or changes
    return (Wrapped(module, taker) if needs else module), logits.shape[1], _doubts(logits)


def _doubts(logits: torch.Tensor) -> list[str]:
    """What looks wrong in the logits (2, C) of two equal images."""
    first, second = logits.float()
    notes = []
    if (first - second).abs().max() > 0.05 * first.abs().max():
        notes.append("two equal images get different outputs: does dropout stay on in eval mode?")
    if len(first) > 1 and (first >= 0).all() and (first.sum() - 1).abs() < 1e-3:
        notes.append("its outputs look like probabilities: output=torch.log makes them logits")
    return notes


def _checked_names(
    classes: Sequence[str] | None, outputs: int, stated: bool
) -> tuple[str, ...] | None:
    """The class names, if there is one for each logit; those of a configuration may be for others."""
    if classes is None or len(classes) == outputs:
        return None if classes is None else tuple(classes)
    if not stated:
        raise ValueError(f"{len(classes)} class names for {outputs} logits: give one for each.")
    return None


def wrap(
    module: nn.Module,
    size: Size | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    layer: str | None = None,
    output: Callable[[Any], torch.Tensor] | None = None,
    weights: Any = None,
) -> nn.Module:
    """A classifier of any origin, ready for everything here; prints in one line what was assumed.

    size: pixels of a side, or (H, W); mean, std: of RGB in 0..1, one value each for grey images;
    classes: names, in the order of the logits. Left out, they are those of weights= (torchvision's,
    such as ResNet34_Weights.DEFAULT, or a Hugging Face image processor), of timm's or Hugging
    Face's configuration, or else 224 and ImageNet's. layer: the layer that Grad-CAM reads, where
    it is not known (explain.layers). output: takes the logits (B, C) out of what the module
    returns; tensors, tuples, dicts and objects with .logits need none.

    Takes DataParallel and torch.compile off. torchvision's and Hugging Face's plain ViTs become
    timm's, as copies, so that attention and relevance work on them, unless layer names a layer of
    theirs. Others are used as they are, with the attributes .input_size, .mean, .std, .classes and
    .arch. Raises ValueError, naming the remedy, for a module that fails on such an image, for an
    output without logits and for an unknown layer.
    """
    module, taken = unwrapped(module)
    notes = [f"taken out of {name}" for name in taken]
    own = _input_of(module, weights)
    size = _side(size if size is not None else own[0] if own[0] is not None else 224)
    mean, std = (mean if mean is not None else own[1]), (std if std is not None else own[2])
    classes = classes if classes is not None else own[3]
    if layer is None and output is None:
        module, note = _as_timm(module, mean, std)
        notes += [note] * bool(note)
    channels = _channels(module)
    converted = getattr(module, "provenance", "").startswith("converted")
    default = (module.mean, module.std) if converted else IMAGENET
    mean, std = _statistics(mean, default[0], channels), _statistics(std, default[1], channels)
    if layer is not None and not parts.exists(module, layer):
        raise ValueError(
            f"{type(module).__name__} has no layer {layer!r}: give one such as "
            f"{' or '.join(map(repr, parts.candidates(module)))}."
        )
    model, outputs, doubts = _giving_logits(module, size, channels, output)
    notes += doubts
    model.input_size, model.mean, model.std = size, mean, std
    model.classes = _checked_names(classes, outputs, stated=classes is own[3])
    model.arch = getattr(module, "arch", type(module).__name__)
    model.provenance = getattr(module, "provenance", "wrapped")
    model.gradcam_layer, model.outputs = layer, outputs
    print(_summary(model, outputs, notes))
    return model


def _summary(model: nn.Module, outputs: int, notes: list[str]) -> str:
    height, width = (
        (model.input_size,) * 2 if isinstance(model.input_size, int) else model.input_size
    )
    try:
        layer = parts.layers(model)[-1]
    except ValueError:
        layer = "a layer that must be given"
    numbers = " ".join(
        f"{name} {', '.join(f'{v:.3g}' for v in values)};"
        for name, values in (("mean", model.mean), ("std", model.std))
    )
    note = "".join(f" ({note})" for note in notes)
    return (
        f"{model.arch}{note}: {height} x {width} pixels; {numbers} {outputs} "
        f"output{'s' * (outputs != 1)}; Grad-CAM at {layer}."
    )
