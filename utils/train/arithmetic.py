"""Quicker arithmetic on processors that multiply in bfloat16, for long runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..env import device


def bfloat16_helps(where: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 itself; emulation would be slower than float32."""
    if where.type == "cuda":
        return torch.cuda.get_device_capability(where) >= (8, 0)
    return where.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


@contextmanager
def quick_arithmetic(model: nn.Module) -> Iterator[None]:
    """Inside, `model` computes in bfloat16 where the CPU can: about twice as fast.

    Attention is computed in plain steps there, because the backward pass of torch's fused kernel
    is slow in bfloat16 on CPUs. On other CPUs, and on GPUs, nothing changes.
    """
    use = device().type == "cpu" and bfloat16_helps(device())
    fused = [part for part in model.modules() if getattr(part, "fused_attn", False)] if use else []
    for part in fused:
        part.fused_attn = False
    try:
        # no cache: it would keep the weights of the first step
        with torch.autocast("cpu", torch.bfloat16, enabled=use, cache_enabled=False):
            yield
    finally:
        for part in fused:
            part.fused_attn = True
