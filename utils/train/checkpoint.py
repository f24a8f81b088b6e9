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
    """Write tensors and facts as safetensors; a kill at any moment leaves a whole file."""
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
            f"The checkpoint {file.name} could not be written ({error}): free some disk space and "
            "run again; the previous checkpoint is intact."
        ) from error


class State:
    """Model, optimiser and curves as one file, so that they never disagree."""

    def __init__(
        self,
        file: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        facts: dict,
    ):
        self.file, self.model, self.optimizer, self.scaler = file, model, optimizer, scaler
        self.facts = json.loads(json.dumps(facts))  # tuples as lists, the way they are read back

    def save(self, step: int, records: dict[str, torch.Tensor], seconds: float) -> None:
        """Write everything that the run needs to go on with `step`."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optim.{index}.{k}": torch.as_tensor(v) for k, v in slots.items()}
        tensors |= {f"record.{k}": v for k, v in records.items()}
        progress = {"step": step, "seconds": seconds, "scaler": self.scaler.state_dict()}
        save(self.file, tensors, self.facts | progress)

    def load(self, records: dict[str, torch.Tensor]) -> tuple[int, float]:
        """Take up a run of the same facts; returns the next step and the seconds already spent.

        (0, 0.0) if there is none, or one of other facts, which is printed. Raises ValueError if
        the file is damaged.
        """
        if not self.file.exists():
            return 0, 0.0
        facts, tensors = self.stored()
        step, seconds, scaler = (facts.pop(key, {}) for key in ("step", "seconds", "scaler"))
        keys = sorted(facts.keys() | self.facts.keys())
        changed = [key for key in keys if facts.get(key) != self.facts.get(key)]
        if changed:
            print(
                f"{self.file.parent.name}: {', '.join(changed)} changed since the last run; "
                "training afresh."
            )
            return 0, 0.0
        self._restore(tensors, records)
        if scaler:  # none from a run in another precision
            self.scaler.load_state_dict(scaler)
        return step, seconds

    def stored(self) -> tuple[dict, dict[str, torch.Tensor]]:
        """What the file holds: facts and tensors. ValueError if it is damaged."""
        try:
            with safe_open(self.file, "pt") as handle:
                facts = json.loads(handle.metadata()["facts"])
            return facts, load_file(self.file)
        except SafetensorError as error:
            raise ValueError(
                f"{self.file} is damaged ({error}): delete it to train afresh."
            ) from error

    def _restore(self, tensors: dict[str, torch.Tensor], records: dict[str, torch.Tensor]) -> None:
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
