"""Class activation maps: a layer's feature maps, weighted by what the score thinks of them.

Grad-CAM is ours: one forward pass, and a backward pass that ends at the layer. cam_library runs
the rest of the family, pytorch-grad-cam's classes, on the same activations and gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..models import UNORDERED, Question, candidates, inner, layers

SPECIAL = 16  # most special tokens (class, distillation, registers) before the patches
Score = Callable[[torch.Tensor], torch.Tensor]  # logits (b, C) -> (b,)


def layer_of(model: nn.Module, layer: str | None) -> tuple[str, nn.Module]:
    """Name and module of the layer to read; None: the default. ValueError where there is none."""
    name = layer or layers(model)[-1]
    try:
        return name, inner(model).get_submodule(name)
    except AttributeError:
        try:
            known = layers(model)
        except ValueError:
            known = candidates(model)
        raise ValueError(
            f"There is no Grad-CAM layer {name!r} in this model: use one of {', '.join(known)}."
        ) from None


def _only(output: Any, name: str) -> torch.Tensor:
    """The one tensor in a layer's output; ValueError where there are none or several."""
    if isinstance(output, torch.Tensor):
        return output
    values = list(output.values()) if isinstance(output, dict) else output
    tensors = [v for v in values or () if isinstance(v, torch.Tensor)]
    if len(tensors) > 1:  # feature maps beside tokens, as in PiT
        tensors = [t for t in tensors if t.ndim == 4] or tensors
    if len(tensors) != 1:
        raise ValueError(
            f"The layer {name!r} gives {len(tensors)} tensors instead of one map: "
            "give layer=, the name of a part of it or of a later layer."
        )
    return tensors[0]


def _put_back(output: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """The layer's output with another tensor in the place of one of its own."""
    if isinstance(output, torch.Tensor):
        return new
    if isinstance(output, dict):
        for key, value in output.items():
            if value is old:
                output[key] = new
        return output
    parts = [new if v is old else v for v in output]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


def _read(
    model: nn.Module, x: torch.Tensor, name: str, module: nn.Module, score: Score | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The layer's output and the score's gradient there, raw; score None: the output alone.

    No gradient is recorded before the layer's output, so the backward pass ends there, costs
    only what follows the layer, and works on frozen models.
    """
    kept: list[torch.Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        torch.set_grad_enabled(score is not None)
        read = _only(output, name)
        kept.append(read.detach().requires_grad_(score is not None))
        return _put_back(output, read, kept[-1].clone())  # no later in-place layer may touch it

    hook = module.register_forward_hook(cut)
    try:
        with torch.no_grad():  # until the hook ends it
            logits = model(x)
            total = None if score is None else score(logits).sum()
    finally:
        hook.remove()
    if not kept:
        raise ValueError(
            f"The layer {name!r} takes no part in the forward pass: give layer=, such as "
            f"{' or '.join(map(repr, candidates(model)))}."
        )
    if total is None:
        return kept[-1], None
    (gradient,) = torch.autograd.grad(total, kept[-1], allow_unused=True)
    if gradient is None:
        raise ValueError(
            f"The logits do not depend on the layer {name!r}: give layer=, such as "
            f"{' or '.join(map(repr, candidates(model)))}."
        )
    return kept[-1].detach(), gradient


# ---------------------------------------------------------------- from outputs to maps


def _token_grid(model: nn.Module, count: int, x: torch.Tensor) -> tuple[int, int] | None:
    """Rows and columns of the patches among `count` tokens; None where they make no grid."""
    if type(inner(model)).__name__ in UNORDERED:
        return None
    grid = getattr(getattr(inner(model), "patch_embed", None), "grid_size", None)
    if grid is not None and 0 <= count - grid[0] * grid[1] <= SPECIAL:
        return tuple(grid)
    ratio = x.shape[-2] / x.shape[-1]
    for patches in range(count, max(0, count - SPECIAL - 1), -1):
        rows = round(math.sqrt(patches * ratio))
        if not rows or patches % rows:
            continue
        if math.isclose(rows / (patches // rows), ratio, rel_tol=0.01):
            return rows, patches // rows
    return None


def _channels_last(model: nn.Module, name: str, output: torch.Tensor, x: torch.Tensor) -> bool:
    """Does the layer give (b, rows, columns, channels), as Swin and others do?"""
    stages = getattr(inner(model), "feature_info", None) or ()
    width = {stage["module"]: stage["num_chs"] for stage in stages}.get(name)
    first, last = output.shape[1], output.shape[-1]
    if width is not None:
        return width == last != first
    picture = x.shape[-2] / x.shape[-1]  # feature maps have the picture's proportions
    rows, columns = output.shape[1:3]
    like_picture = rows == max(1, round(columns * picture))
    usual = output.shape[2] == max(1, round(last * picture))
    return like_picture and not usual


def _to_maps(model: nn.Module, name: str, x: torch.Tensor, output: torch.Tensor) -> Score:
    """A function that turns tensors of this output's shape into (b, channels, rows, columns)."""
    if output.ndim == 4:
        if _channels_last(model, name, output, x):
            return lambda t: t.movedim(-1, 1)
        return lambda t: t
    grid = _token_grid(model, output.shape[1], x) if output.ndim == 3 else None
    if grid is None:
        raise ValueError(
            f"The layer {name!r} gives {tuple(output.shape)}, neither feature maps nor a grid of "
            "patch tokens: give layer=, a layer that does."
        )
    special = output.shape[1] - grid[0] * grid[1]
    return lambda t: t[:, special:].transpose(1, 2).unflatten(2, grid)


def activation_and_slopes(
    model: nn.Module, x: torch.Tensor, layer: str | None, score: Score | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The layer's feature maps and the score's gradients there, float32 (b, channels, rows, columns)."""
    name, module = layer_of(model, layer)
    output, gradient = _read(model, x, name, module, score)
    to_maps = _to_maps(model, name, x, output)
    if gradient is None:
        return to_maps(output).float(), None
    on_patches = to_maps(gradient)
    if output.ndim == 3 and not on_patches.any() and gradient.any():
        raise ValueError(
            f"The head does not read the patches that leave {name!r}, so their gradient is zero: "
            "give layer=, an earlier layer such as the last block's first norm."
        )
    return to_maps(output).float(), on_patches.float()


# ---------------------------------------------------------------- the methods


def gradcam(
    model: nn.Module, x: torch.Tensor, question: Question, *, batch: int, layer: str | None
) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2) at the layer's own resolution."""
    activation, gradient = activation_and_slopes(model, x, layer, question.score)
    assert gradient is not None  # it was asked for
    return (gradient.mean((2, 3), keepdim=True) * activation).sum(1).relu()
