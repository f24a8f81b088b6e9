"""What the training loop trains: the parts in which supervised and other objectives differ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Batch:
    """One step's images, the same in every process, and which of them this process computes."""

    indices: torch.Tensor  # int64 (B,): which images of the set these are
    images: torch.Tensor  # uint8 (B, 3, h, w), on the device
    generator: torch.Generator  # on the CPU; everything random in the step comes from here
    mine: slice  # this process's rows


class Task:
    """What is trained. Subclasses give measure(), and what they need of the rest."""

    name = "training"  # for the progress bar and for messages
    per_step: tuple[str, ...] = ("loss",)  # what measure() gives
    per_epoch: tuple[str, ...] = ()  # what validate() gives
    smallest = 1  # images that a batch needs at least; a smaller last batch is left out
    shared = False  # whether processes share out a batch; otherwise each computes all of it
    guess = 1.0  # the loss of a model that knows nothing: 1 where targets have variance 1

    def __init__(self, module: nn.Module, facts: dict) -> None:
        self.module = module  # everything that is trained
        self.facts = facts  # what decides the result, besides recipe and initial weights

    def begin(self) -> None:
        """Before the first step of a run that starts afresh; the module is on its device."""

    def begin_epoch(self, epoch: int) -> None:
        """Before the first step of an epoch, and where a run is taken up inside one."""

    def measure(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Scalars for this process's rows; "loss" is differentiated. network: what to call."""
        raise NotImplementedError

    def validate(self, judged: nn.Module, epoch: int) -> dict[str, torch.Tensor]:
        """Scalars after an epoch. judged: the module, or its moving average."""
        return {}

    def keep(self, judged: nn.Module, epoch: int, records: dict[str, torch.Tensor]) -> None:
        """After validate(), in the first process only: write what is worth keeping."""

    def end(self) -> None:
        """Undo what begin_epoch() changed, also after an error."""
