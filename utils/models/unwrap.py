"""The classifier inside its wrappers: several GPUs, a compiler, an output object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

REMEDY = "give models.wrap output=, a function that takes the logits (B, classes) out of it"


class Wrapped(nn.Module):
    """A classifier whose output is reduced to its logits (B, C); the classifier is .module.

    It gets a copy of its input, which it may change, and one image gives one row of logits.
    """

    def __init__(self, module: nn.Module, output: Callable[[Any], torch.Tensor]) -> None:
        super().__init__()
        self.module, self.output = module, output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.output(self.module(x.clone()))
        return logits.reshape(len(x), -1) if len(x) == 1 else logits


def inner(model: nn.Module) -> nn.Module:
    """The network itself, where layers have their own names."""
    return model.module if isinstance(model, Wrapped) else model


def unwrapped(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The network inside DataParallel, torch.compile and Sequentials of one; what was taken off."""
    taken: list[str] = []
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            inside = model.module
        elif type(model).__name__ == "OptimizedModule" and hasattr(model, "_orig_mod"):
            inside = model._orig_mod
        elif type(model) is nn.Sequential and len(model) == 1:
            inside = model[0]
        else:
            return model, taken
        taken.append(type(model).__name__)
        model = inside


def logits_from(output: Any) -> torch.Tensor:
    """The logits (B, C) in what a classifier returns: a tensor, .logits, a dict, a tuple of one.

    One number an image, (B,) or (), becomes (B, 1); maps of one pixel, (B, C, 1, 1), lose their pixel.
    Raises ValueError for anything else.
    """
    if isinstance(output, dict) and not hasattr(output, "logits"):
        logits = output.get("logits", output.get("out"))
        if logits is None and len(output) == 1:
            logits = next(iter(output.values()))
        output = logits
    elif hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, tuple | list):
        tensors = [part for part in output if isinstance(part, torch.Tensor) and part.ndim == 2]
        if len(tensors) > 1:
            shapes = " and ".join(str(tuple(part.shape)) for part in tensors)
            raise ValueError(f"The model returns {shapes}, and either may be its logits: {REMEDY}.")
        output = tensors[0] if tensors else output
    if isinstance(output, torch.Tensor):
        if output.ndim < 2:
            return output.reshape(-1, 1)
        if output.ndim == 4 and output.shape[2:] == (1, 1):
            return output.flatten(1)
        if output.ndim == 2:
            return output
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    raise ValueError(
        f"The model's output, {shape}, holds no logits that could be recognised: {REMEDY}."
    )


def _compiled(model: nn.Module) -> bool:
    return any(
        getattr(m, "_compiled_call_impl", None) is not None or type(m).__name__ == "OptimizedModule"
        for m in model.modules()
    )


def _exact(norm: nn.Module, inputs: tuple[torch.Tensor, ...], _output: Any) -> torch.Tensor | None:
    """What a batch norm in eval mode is, x * scale + shift, for one image on a CPU.

    torch 2.15's own backward pass is wrong there where x came from tokens: its strides fit two
    layouts. In XCiT the gradient of an image alone was 60 % off that of the same image in a batch.
    """
    (x,) = inputs
    if len(x) > 1 or x.is_cuda or norm.training or norm.running_mean is None or not x.requires_grad:
        return None
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = (
        -norm.running_mean * scale if norm.bias is None else norm.bias - norm.running_mean * scale
    )
    shape = (1, -1) + (1,) * (x.ndim - 2)
    out = x * scale.view(shape).to(x.dtype) + shift.view(shape).to(x.dtype)
    return norm.act(norm.drop(out)) if isinstance(norm, BatchNormAct2d) else out


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, BatchNormAct2d)


@contextmanager
def plain(model: nn.Module) -> Iterator[None]:
    """Inside, compiled parts run as written, no activation is recomputed, one image is exact.

    Hooks and rules need the first two: a compiled part ignores hooks that came later, and gradient
    checkpointing runs a layer, with its hooks, twice. For the third see _exact().
    """
    norms = [m.register_forward_hook(_exact) for m in model.modules() if type(m) in NORMS]
    flags = [m for m in model.modules() if getattr(m, "grad_checkpointing", False) is True]
    for module in flags:
        module.grad_checkpointing = False
    stance = torch.compiler.set_stance("force_eager") if _compiled(model) else nullcontext()
    try:
        with stance:
            yield
    finally:
        for hook in norms:
            hook.remove()
        for module in flags:
            module.grad_checkpointing = True
