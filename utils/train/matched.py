"""Pretraining compared at equal accuracy: every initialisation is trained until it reaches a level.

Networks that have learned more differ in every number from networks that have learned less. Here
each run is measured at the first check at which its validation accuracy reaches one of LEVELS.
`python -m utils.train matched vit_mini` runs the study, and goes on where an earlier run was
stopped; the result is utils/weights/matched.<arch>.json.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .. import data, evaluate, models
from ..data import ImageSet, Splits
from ..env import WEIGHTS, device, device_name, profile, seed_everything, write
from ..explain import iav
from .arithmetic import bfloat16_helps, quick_arithmetic
from .modes import train_mode
from .recipes import Recipe, build_optimizer

STARTS = ("random", "imagenet", "contrast", "mae")  # none has seen a CIFAR-10 label
LEVELS = (0.3, 0.45)  # validation accuracies; from random weights the first alone is in reach
SEEDS = (0, 1, 2, 3, 4)
RECIPE = Recipe(1, "adamw", 1e-3, 0.02, batch=32, augment=True)  # the level decides the length
MOST = 800  # steps after which a level counts as not reached
N_TRAIN, N_VAL = 4000, 300
SCORED, DAMAGED, TESTED, SAMPLES = 16, 40, 500, 25  # see measure_network()


def share_correct(model: nn.Module, image_set: ImageSet) -> float:
    """Accuracy, 0..1."""
    return evaluate.predict(model, image_set).correct.float().mean().item()


def measure_network(
    model: nn.Module,
    test: ImageSet,
    scored: int = SCORED,
    damaged: int = DAMAGED,
    tested: int = TESTED,
    samples: int = SAMPLES,
) -> dict[str, Any]:
    """What networks are compared by: accuracies (0..1) and head tables, float32 (L, heads).

    accuracy on the first `tested` test images; damaged (18,) on the first `damaged`, for each
    corruption in three severities; iav, other, entropy on the first `scored`: IA-scores, the same
    with another image's attention, attention entropy; floor: the score of uniform attention.
    """
    images, clean = test.images[:scored], test.subset(range(min(damaged, len(test))))
    with quick_arithmetic(model):
        maps = iav.attributions(model, images, samples=samples)
        accuracy = share_correct(model, test.subset(range(min(tested, len(test)))))
        shares = [
            share_correct(model, replace(clean, images=data.corrupt(clean.images, kind, severity)))
            for kind in data.CORRUPTIONS
            for severity in (1, 2, 3)
        ]
    return {
        "accuracy": accuracy,
        "damaged": torch.tensor(shares),
        "iav": iav.ia_scores(model, images, maps).mean(0),
        "other": iav.ia_scores(model, images.roll(1, 0), maps).mean(0),
        "floor": iav.floor(maps).mean().item(),
        "entropy": iav.head_entropy(model, images).mean(0),
    }


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, part: ImageSet, g: torch.Generator
) -> None:
    """One update on the images of `part`, augmented."""
    train_mode(model)
    x = models.prepare(model, data.augment(part.images, g))
    with quick_arithmetic(model):
        loss = F.cross_entropy(model(x).float(), part.labels.to(x.device))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train_to(
    model: nn.Module, parts: Splits, levels: tuple[float, ...], seed: int, most: int = MOST
) -> Iterator[dict[str, float]]:
    """Train `model` in place; pauses at each level with {"level", "steps", "val_accuracy"}.

    Checks come every second step at first, later whenever the steps have grown by a sixth. While
    the caller looks, the model is in eval mode. Ends early after `most` steps.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = build_optimizer(model, RECIPE)
    left, step, check = sorted(levels), 0, 2
    while left and step < most:
        for rows in torch.randperm(len(parts.train), generator=generator).split(RECIPE.batch):
            _step(model, optimizer, parts.train.subset(rows), generator)
            step += 1
            if step >= check or step == most:
                check = step + max(2, step // 6)
                model.eval()
                with quick_arithmetic(model):
                    reached = share_correct(model, parts.val)
                while left and reached >= left[0]:
                    yield {"level": left.pop(0), "steps": step, "val_accuracy": reached}
            if not left or step == most:
                break


def result_file(arch: str) -> Path:
    """Where the study of `arch` is kept."""
    return WEIGHTS / f"matched.{arch}.json"


def _settings(arch: str) -> dict:
    """What decides the result: a stored study with other settings is not gone on with."""
    settings = {
        "arch": arch,
        "weights_sha256": {name: models.card(arch, name)["sha256"] for name in STARTS[1:]},
        "recipe": asdict(RECIPE),
        "levels": LEVELS,
        "images": {"train": N_TRAIN, "validation": N_VAL, "test": TESTED, "damaged": DAMAGED},
        "scored": SCORED,
        "samples": SAMPLES,
        "most_steps": MOST,
    }
    return json.loads(json.dumps(settings))


def _run(arch: str, name: str, seed: int, parts: Splits) -> list[dict]:
    """One initialisation and seed: a row for each level reached. The seed draws head and order."""
    seed_everything(seed)
    weights = "none" if name == "random" else f"course:{name}"
    model = models.build(arch, len(parts.train.classes), weights).to(device())
    levels = LEVELS[:1] if name == "random" else LEVELS
    return [
        {"start": name, "seed": seed} | stop | {k: _plain(v) for k, v in found.items()}
        for stop in train_to(model, parts, levels, seed)
        for found in [measure_network(model, parts.test)]
    ]


def _plain(value: Any) -> Any:
    """A number or tensor as JSON holds it, four digits."""
    return (torch.as_tensor(value).double() * 1e4).round().div(1e4).tolist()


def study(arch: str, command: str) -> dict:
    """Train every initialisation with every seed and write the file after each run.

    Returns what the file holds: settings, device, CPU minutes, and "runs": a list of rows as of
    measure_network(), with start, seed, level, steps and val_accuracy. Runs that an earlier call of
    the same settings has finished are not made again.
    """
    parts = data.splits(replace(profile("paper"), source="cifar10", n_train=N_TRAIN, n_val=N_VAL))
    settings, file = _settings(arch), result_file(arch)
    facts = json.loads(file.read_text()) if file.exists() else {}
    if any(facts.get(key) != value for key, value in settings.items()):
        facts = settings | {"minutes": 0.0, "runs": [], "finished": []}
    facts |= {"command": command, "source": parts.train.source}
    facts["device"] = device_name() + (", bfloat16" if bfloat16_helps(device()) else "")
    # random weights last: they take the most steps, and the types can be compared without them
    order = [(name, seed) for names in (STARTS[1:], STARTS[:1]) for seed in SEEDS for name in names]
    for name, seed in order:
        if [name, seed] in facts["finished"]:
            continue
        begun = time.process_time()
        rows = _run(arch, name, seed, parts)
        facts["runs"] += rows
        facts["finished"].append([name, seed])
        facts["minutes"] = round(facts["minutes"] + (time.process_time() - begun) / 60, 2)
        stops = ", ".join(f"{row['accuracy']:.3f} after {row['steps']} steps" for row in rows)
        print(f"{arch} {name}, seed {seed}: {stops or 'no level reached'}", flush=True)
        write(file, json.dumps(facts) + "\n")
    return facts


def load_matched(arch: str) -> dict | None:
    """The stored study of `arch`, head tables as tensors; None if it was not made."""
    file = result_file(arch)
    if not file.exists():
        return None
    facts = json.loads(file.read_text())
    for row in facts["runs"]:
        row |= {k: torch.tensor(row[k]) for k in ("damaged", "iav", "other", "entropy")}
    return facts
