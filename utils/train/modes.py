"""Which parts of a module train, and what a step may change in the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def train_mode(module: nn.Module) -> None:
    """Training mode, except for parts whose parameters are all frozen: those keep eval mode.

    So a frozen batch norm keeps its statistics, and a frozen part its dropout off.
    """
    module.train()
    for part in module.modules():
        own = list(part.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            part.eval()


def recomputed_statistics(module: nn.Module) -> list[torch.Tensor]:
    """The batch norm statistics of a module with gradient checkpointing; none without.

    It computes layers again in the backward pass, which would count each batch twice.
    """
    flags = ("grad_checkpointing", "gradient_checkpointing")
    if not any(getattr(part, flag, False) for part in module.modules() for flag in flags):
        return []
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    return [buffer for norm in norms for buffer in norm.buffers()]


@contextmanager
def unchanged(tensors: list[torch.Tensor]) -> Iterator[None]:
    """Gives tensors their values back at the end."""
    before = [tensor.clone() for tensor in tensors]
    yield
    for tensor, value in zip(tensors, before, strict=True):
        tensor.copy_(value)
