"""The classifier inside its wrappers: several GPUs, a compiler, an output object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

REMEDY = "give models.wrap output=, a function that takes the logits (B, classes) out of it"


class Wrapped(nn.Module):
    """A classifier whose output is reduced to its logits (B, C); the classifier is .module."""

    def __init__(self, module: nn.Module, output: Callable[[Any], torch.Tensor]) -> None:
        super().__init__()
        self.module, self.output = module, output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.module(x))


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
    """The logits (B, C) in what a classifier returns: a tensor, .logits, a dict, a tuple.

    One number an image, (B,), becomes (B, 1); maps of one pixel, (B, C, 1, 1), lose their pixel.
    Raises ValueError for anything else.
    """
    if isinstance(output, dict) and not hasattr(output, "logits"):
        found = output.get("logits", output.get("out"))
        if found is None and len(output) == 1:
            found = next(iter(output.values()))
        output = found
    elif hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, tuple | list) and output:
        output = output[0]
    if isinstance(output, torch.Tensor):
        if output.ndim == 1:
            return output[:, None]
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


@contextmanager
def plain(model: nn.Module) -> Iterator[None]:
    """Inside, compiled parts run as written and no activation is recomputed.

    Hooks and rules need both: a compiled part ignores hooks that came later, and gradient
    checkpointing runs a layer, with its hooks, twice.
    """
    flags = [m for m in model.modules() if getattr(m, "grad_checkpointing", False) is True]
    for module in flags:
        module.grad_checkpointing = False
    stance = torch.compiler.set_stance("force_eager") if _compiled(model) else nullcontext()
    try:
        with stance:
            yield
    finally:
        for module in flags:
            module.grad_checkpointing = True
