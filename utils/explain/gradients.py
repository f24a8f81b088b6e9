"""How each attribution method works: normalised input (b, 3, H, W) and targets (b,) in,
maps (b, H', W') out, at the method's own resolution and in its own unit. explain() runs them.
"""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import IntegratedGradients
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .. import data
from ..models import Targets, as_targets, vit
from . import attention, lrp

BASELINES = ("black", "mean", "blur")
TOLERANCE = 0.005  # completeness error, as a share of F(x) - F(x'), that asks for no more steps
STEPS = 32, 512  # where adaptive integration starts and stops


def kind(model: nn.Module) -> str:
    """ "vit" for timm Vision Transformers, "cnn" for other models with convolutions."""
    if isinstance(model, VisionTransformer):
        return "vit"
    if any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return "cnn"
    raise ValueError(
        f"{type(model).__name__} is neither a timm Vision Transformer nor a CNN: use one of these."
    )


def layers(model: nn.Module) -> list[str]:
    """Layers that Grad-CAM accepts, in order from the input; the last is its default.

    ViT: norm1 of each block (later parts of the last block give patch tokens no gradient);
    ResNet: its residual blocks; other timm models: the stages that timm lists in feature_info;
    models with a `features` chain: the ReLU after each convolution.
    """
    if kind(model) == "vit":
        return [f"blocks.{i}.norm1" for i in range(len(model.blocks))]
    if hasattr(model, "layer4"):
        return [
            f"layer{s}.{i}" for s in range(1, 5) for i in range(len(getattr(model, f"layer{s}")))
        ]
    if hasattr(model, "feature_info"):
        return [stage["module"] for stage in model.feature_info]
    found = [
        f"features.{i}"
        for i, m in enumerate(getattr(model, "features", []))
        if isinstance(m, nn.ReLU)
    ]
    if not found:
        raise ValueError(
            f"Grad-CAM does not know the layers of {type(model).__name__}: use a timm model or AlexNet."
        )
    return found


def _target_logits(model: nn.Module, x: torch.Tensor, targets: Targets) -> torch.Tensor:
    logits = model(x)
    return logits.gather(1, as_targets(targets, logits)[:, None])[:, 0]


def _input_gradient(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(_target_logits(model, x, targets).sum(), x)[0]


def saliency(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Largest absolute input gradient over the channels (Simonyan et al. 2014, section 3.1)."""
    return _input_gradient(model, x, targets).abs().amax(1)


def smoothgrad(
    model: nn.Module,
    x: torch.Tensor,
    targets: torch.Tensor,
    samples: int,
    sigma: float,
    seed: int,
    batch: int,
) -> torch.Tensor:
    """Mean gradient over noisy copies (Smilkov et al. 2017, section 3.1), absolute, channel sum.

    sigma is a share of each image's range. Every image gets the same noise pattern, so a map
    does not depend on which images are explained with it.
    """
    if samples < 1 or sigma < 0:
        raise ValueError(
            f"SmoothGrad needs samples >= 1 and sigma >= 0, not {samples} and {sigma}."
        )
    generator = torch.Generator().manual_seed(seed)
    scale = sigma * (x.amax((1, 2, 3), True) - x.amin((1, 2, 3), True))
    noise = torch.randn(samples, *x.shape[1:], generator=generator)
    total = torch.zeros_like(x)
    for some in noise.split(max(1, batch // len(x))):
        noisy = x + scale * some.to(x)[:, None]  # (samples at once, b, 3, H, W)
        gradient = _input_gradient(model, noisy.flatten(0, 1), targets.repeat(len(some)))
        total += gradient.view_as(noisy).sum(0)
    return (total / samples).abs().sum(1)


def gradcam(model: nn.Module, x: torch.Tensor, targets: Targets, layer: str | None) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2) at the layer's own resolution.

    No gradient is recorded before the layer's output, so the backward pass ends there, costs
    only what follows the layer, and works on frozen models. targets None: the predicted classes,
    from the same forward pass.
    """
    known = layers(model)
    if layer is not None and layer not in known:
        raise ValueError(
            f"There is no Grad-CAM layer {layer!r} in this model: use one of {', '.join(known)}."
        )
    name, kept = layer or known[-1], []

    def cut(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(True)
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()  # a following in-place ReLU must not touch what was kept

    hook = model.get_submodule(name).register_forward_hook(cut)
    try:
        with torch.no_grad():  # until the hook ends it
            logit = _target_logits(model, x, targets).sum()
    finally:
        hook.remove()
    activation, gradient = kept[0].detach(), torch.autograd.grad(logit, kept[0])[0]
    if kind(model) == "vit":  # tokens to a grid: (b, T, D) -> (b, D, rows, columns)
        rows_columns = model.patch_embed.grid_size
        activation, gradient = (
            t[:, model.num_prefix_tokens :].transpose(1, 2).unflatten(2, rows_columns)
            for t in (activation, gradient)
        )
    width = {stage["module"]: stage["num_chs"] for stage in getattr(model, "feature_info", ())}.get(
        name
    )
    if width == activation.shape[-1] != activation.shape[1]:  # Swin and others keep channels last
        activation, gradient = activation.movedim(-1, 1), gradient.movedim(-1, 1)
    return (gradient.mean((2, 3), keepdim=True) * activation).sum(1).relu()


def relevance(
    model: nn.Module, x: torch.Tensor, targets: torch.Tensor, start_layer: int
) -> torch.Tensor:
    if kind(model) == "vit":
        heat = lrp.transformer_attribution(model, x, targets, start_layer)
        return heat.unflatten(1, model.patch_embed.grid_size)
    if start_layer:
        raise ValueError(
            "LRP's start_layer is for Vision Transformers only: leave it at 0 for a CNN."
        )
    return lrp.resnet_relevance(model, x, targets).sum(1)


def rollout(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same for every target: rollout does not look at the class."""
    heat = attention.rollout(attention.maps(model, x, rows="all"), vit.tokens(model))
    return heat.unflatten(1, model.patch_embed.grid_size)


def gradient_rollout(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return attention.gradient_rollout(model, x, targets).unflatten(1, model.patch_embed.grid_size)


def raw_attention(
    model: nn.Module, x: torch.Tensor, targets: torch.Tensor, block: int, head: int | None
) -> torch.Tensor:
    """What the CLS token attends to in one block, one head or (None) their mean; the same for every target."""
    rows = attention.maps(model, x)
    depth, heads = rows.shape[1:3]
    if not -depth <= block < depth or (head is not None and not 0 <= head < heads):
        raise ValueError(
            f"There is no head {head} in block {block}: blocks are 0..{depth - 1}, heads 0..{heads - 1}."
        )
    rows = rows[:, block].mean(1) if head is None else rows[:, block, head]
    return rows[:, model.num_prefix_tokens :].unflatten(1, model.patch_embed.grid_size)


def _baseline(x: torch.Tensor, model: nn.Module, name: str) -> torch.Tensor:
    """A picture without content: black, the data's mean colour, or x blurred by an eighth."""
    if name not in BASELINES:
        raise ValueError(f"There is no baseline {name!r}: use one of {', '.join(BASELINES)}.")
    if name == "blur":
        return data.blur(x, x.shape[-1] / 8)
    black = (
        torch.tensor([-m / s for m, s in zip(model.mean, model.std, strict=True)])
        .to(x)
        .view(1, 3, 1, 1)
    )
    return (black if name == "black" else torch.zeros_like(black)).expand_as(x)


def path_integral(
    model: nn.Module,
    x: torch.Tensor,
    targets: torch.Tensor,
    steps: int | None,
    baseline: str,
    batch: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attributions (b, H, W), completeness error, F(x) - F(x') and steps, each (b,)."""
    if steps is not None and steps < 1:
        raise ValueError(f"Integrated Gradients needs at least 1 step, not {steps}.")
    start = _baseline(x, model, baseline)
    with torch.no_grad():
        difference = _target_logits(model, x, targets) - _target_logits(model, start, targets)
    heat = x.new_zeros(x[:, 0].shape)
    taken = torch.zeros_like(targets)
    left, n = torch.arange(len(x), device=x.device), steps or STEPS[0]
    while len(left):
        found = IntegratedGradients(model).attribute(
            x[left],
            start[left],
            target=targets[left],
            n_steps=n,
            internal_batch_size=max(batch, len(left)),
        )
        heat[left], taken[left] = found.detach().sum(1).to(heat), n
        error = (heat.sum((1, 2)) - difference).abs()
        left = left[error[left] > TOLERANCE * difference[left].abs()]
        n *= 2
        if steps is not None or n > STEPS[1]:
            break
    return heat, error, difference, taken
