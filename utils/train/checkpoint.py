"""Checkpoints: atomic safetensors files that hold all a run needs to go on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn


def save(file: Path, tensors: dict[str, torch.Tensor], facts: dict | None = None) -> None:
    """Write tensors and facts as safetensors, so that a kill at any moment leaves the old file or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    try:
        save_file(
            {k: v.detach().contiguous() for k, v in tensors.items()},
            part,
            {"facts": json.dumps(facts or {})},
        )
        with open(part, "rb") as handle:
            os.fsync(handle.fileno())
        part.replace(file)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise OSError(
            f"The checkpoint {file.name} could not be written ({error}): free some disk space and run again; the previous checkpoint is intact."
        ) from error


class State:
    """Model, optimiser and history as one file, so that they never disagree."""

    def __init__(self, file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, facts: dict):
        self.file, self.model, self.optimizer, self.facts = file, model, optimizer, facts

    def save(self, step: int, records: dict[str, torch.Tensor], seconds: float) -> None:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optim.{index}.{k}": torch.as_tensor(v) for k, v in slots.items()}
        tensors |= {f"record.{k}": v for k, v in records.items()}
        save(self.file, tensors, self.facts | {"step": step, "seconds": seconds})

    def load(self, records: dict[str, torch.Tensor]) -> tuple[int, float]:
        """Take up an unfinished run; returns the next step and the seconds already spent."""
        if not self.file.exists():
            return 0, 0.0
        try:
            with safe_open(self.file, "pt") as handle:
                facts = json.loads(handle.metadata()["facts"])
            tensors = load_file(self.file)
        except SafetensorError as error:
            raise ValueError(
                f"{self.file} is damaged ({error}): delete it to train afresh."
            ) from error
        step, seconds = facts.pop("step"), facts.pop("seconds")
        if facts != json.loads(json.dumps(self.facts)):
            print(
                f"{self.file.parent.name}: data or recipe changed since the last run; training afresh."
            )
            return 0, 0.0
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optim."):
                _, index, slot = name.split(".", 2)
                slots.setdefault(int(index), {})[slot] = tensor
        self.optimizer.load_state_dict(
            {"state": slots, "param_groups": self.optimizer.state_dict()["param_groups"]}
        )
        for name, tensor in records.items():
            tensor.copy_(tensors[f"record.{name}"])
        return step, seconds
