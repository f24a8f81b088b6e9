"""Several processes as one: `accelerate launch -m utils.train` on GPUs of one or many machines.

Every process holds the whole model and runs the same program; a batch or a data set is dealt out
among them, and what they find is merged. Started alone, a process is the whole crew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn


@cache
def crew() -> Any:
    """accelerate's Accelerator where several processes were launched together, else None."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from accelerate import Accelerator

    return Accelerator()


def size() -> int:
    """How many processes work together."""
    return crew().num_processes if crew() else 1


def rank() -> int:
    """This process's number, 0 for the one that writes files and shows progress."""
    return crew().process_index if crew() else 0


def wait() -> None:
    """Until all processes are here."""
    if crew():
        crew().wait_for_everyone()


def joined(model: nn.Module) -> nn.Module:
    """The model with gradients averaged over all processes; itself where there is one.

    Batch norms take their statistics over all processes on GPUs; on CPUs torch cannot, and each
    process keeps to its own share of the batch, which is said.
    """
    if not crew():
        return model
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        if crew().device.type == "cuda":
            model = convert_sync_batchnorm(model)
        elif rank() == 0:
            print(
                "Batch norms see only their own process's share of a batch: "
                "torch joins them on GPUs alone."
            )
    return crew().prepare_model(model)


def share(n: int) -> tuple[slice, float]:
    """This process's rows of a batch of n, and which part of the batch they are.

    A process for which there is no row computes the first, which then counts nothing.
    """
    if rank() >= n:
        return slice(0, 1), 0.0
    mine = slice(rank(), None, size())
    return mine, len(range(n)[mine]) / n


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum of every process's `values`, the same for all."""
    return crew().reduce(values, "sum") if crew() else values


def sharded(run: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """run(*tensors) with the first axis shared out among the processes; all get the whole result.

    Every process must call it. With fewer rows than processes, each computes everything.
    """
    if not crew() or len(tensors[0]) < size():
        return run(*tensors)
    from accelerate.utils import gather_object

    mine = [tensor.tensor_split(size())[rank()] for tensor in tensors]
    return torch.cat(gather_object([run(*mine).cpu()]))
