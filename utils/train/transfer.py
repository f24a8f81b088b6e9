"""The transfer study: test accuracy against the number of training images, for three ways to train.

From scratch, with a linear probe on frozen features, and by fine-tuning; the latter two from the
course weights "imagenet". `python -m utils.train transfer ARCH` runs it, and goes on where an
earlier run was stopped; the result is utils/weights/transfer.<arch>.json.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean

import numpy as np
from torch import nn

from .. import data, evaluate, models
from ..data import draw_rows
from ..env import WEIGHTS, device, device_name, profile, seed_everything, write
from . import probe
from .arithmetic import bfloat16_helps, quick_arithmetic
from .chapter_models import run_dir
from .recipes import TRANSFER, Recipe
from .supervised import fit

SIZES = (50, 200, 1000, 4050)  # training images
SEEDS = (0, 1, 2)
STATISTICS = 1000  # images that are enough for batch norms to learn from
METHODS = ("scratch", "probe", "finetune")
START = "course:imagenet"  # the weights of probe and finetune


def subset(image_set: data.ImageSet, n: int, seed: int) -> data.ImageSet:
    """`n` images drawn with this seed, classes in proportion; the whole set if it is no larger."""
    if n >= len(image_set):
        return image_set
    (rows,) = draw_rows(image_set.labels.numpy(), (n,), seed, stratify=True)
    return image_set.subset(rows)


def recipe_for(arch: str, method: str, n: int, seed: int) -> Recipe:
    """The recipe for `n` training images, each shown (4,050 / n)^0.5 times as often as of 4,050."""
    recipe, more = TRANSFER[arch, method], (SIZES[-1] / n) ** 0.5
    sizes = tuple((round(epochs * more), pixels) for epochs, pixels in recipe.sizes)
    return replace(recipe, epochs=round(recipe.epochs * more), sizes=sizes, seed=seed)


def train_cell(arch: str, method: str, n: int, seed: int, parts: data.Splits) -> nn.Module:
    """`arch` trained on `n` images by "scratch" or "finetune"; goes on with an unfinished run.

    The seed draws the images, the new head, the random weights and the order. At most as many
    validation images as training images choose the epoch. Fine-tuning on fewer than STATISTICS
    images leaves batch norms as they are: statistics of 50 images are worse than those of 45,000.
    """
    seed_everything(seed)
    weights = "none" if method == "scratch" else START
    model = models.build(arch, len(parts.train.classes), weights)
    if method == "finetune" and n < STATISTICS:
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.requires_grad_(False)
    train_set, val_set = subset(parts.train, n, seed), subset(parts.val, n, seed)
    recipe = recipe_for(arch, method, n, seed)
    folder = run_dir(
        arch, profile("paper"), parts.train.source, weights, f"transfer-{method}-{n}-{seed}"
    )
    with quick_arithmetic(model):
        fit(model, train_set, val_set, recipe, folder)
    return model


def accuracy(arch: str, method: str, n: int, seed: int, parts: data.Splits) -> float:
    """Test accuracy (0..1) of one cell of the table; see METHODS, SIZES and SEEDS."""
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}: use {', '.join(METHODS)}.")
    if method == "probe":
        model = models.build(arch, len(parts.train.classes), START)
        known = subset(parts.train, n, seed)
        features = (probe.frozen_features(model, part.images) for part in (known, parts.test))
        mine, theirs = features
        return probe.linear_probe(mine, known.labels, theirs, parts.test.labels)
    model = train_cell(arch, method, n, seed, parts)
    return evaluate.predict(model, parts.test).correct.float().mean().item()


def result_file(arch: str) -> Path:
    """Where the study of `arch` is kept."""
    return WEIGHTS / f"transfer.{arch}.json"


def _settings(arch: str) -> dict:
    """What decides the result: a stored study with other settings is not gone on with."""
    settings = {
        "arch": arch,
        "weights_sha256": models.card(arch, START.partition(":")[2])["sha256"],
        "recipes": {m: asdict(TRANSFER[arch, m]) for m in METHODS if (arch, m) in TRANSFER},
        "sizes": SIZES,
    }
    return json.loads(json.dumps(settings))


def study(arch: str, command: str, sizes: tuple[int, ...] = SIZES) -> dict:
    """Fill the table of `arch` cell by cell, small sets first, and write it after each cell.

    Returns what the file holds: settings, device, minutes, and "accuracy"[method][images][seed].
    Cells that an earlier run of the same settings has filled are not computed again.
    """
    parts = data.splits(replace(profile("paper"), source="cifar10"))
    settings, file = _settings(arch), result_file(arch)
    facts = json.loads(file.read_text()) if file.exists() else {}
    if any(facts.get(key) != value for key, value in settings.items()):
        if facts:
            print(f"{file.name}: recipes or weights changed since the last run; starting afresh.")
        facts = settings | {"minutes": 0.0, "accuracy": {m: {} for m in METHODS}}
    facts |= {"command": command, "test_images": len(parts.test), "source": parts.train.source}
    facts["device"] = device_name() + (", bfloat16" if bfloat16_helps(device()) else "")
    for n in sizes:
        for seed in SEEDS:
            for method in METHODS:
                cells = facts["accuracy"][method].setdefault(str(n), {})
                if str(seed) in cells:
                    continue
                begun = time.perf_counter()
                cells[str(seed)] = accuracy(arch, method, n, seed, parts)
                facts["minutes"] = round(facts["minutes"] + (time.perf_counter() - begun) / 60, 2)
                print(
                    f"{arch} {method}, {n} images, seed {seed}: {cells[str(seed)]:.3f}", flush=True
                )
                write(file, json.dumps(facts, indent=1) + "\n")
    return facts


def summary(facts: dict) -> list[dict]:
    """The rows of the figure: method, images, mean, lowest, highest (0..1), number of seeds."""
    rows = []
    for method, by_size in facts["accuracy"].items():
        for n, cells in by_size.items():
            if cells:
                values = list(cells.values())
                row = {
                    "method": method,
                    "images": int(n),
                    "mean": mean(values),
                    "seeds": len(values),
                }
                rows.append(
                    row | {"lowest": float(np.min(values)), "highest": float(np.max(values))}
                )
    return rows


def load_study(arch: str) -> dict | None:
    """The stored study of `arch`; None if it was not made."""
    file = result_file(arch)
    return json.loads(file.read_text()) if file.exists() else None


def finding(facts: dict) -> str:
    """What a study says, from the smallest and the largest set that all methods were run on."""
    rows = {(row["method"], row["images"]): row for row in summary(facts)}
    whole = {key for key, row in rows.items() if row["seeds"] == len(SEEDS)}
    sizes = sorted({n for _, n in whole if all((method, n) in whole for method in METHODS)})
    if not sizes:
        return "Finding: not known yet; no number of images has been tried in all three ways."
    few, many = sizes[0], sizes[-1]
    scratch, probed, tuned = (rows[method, many] for method in METHODS)
    apart = tuned["lowest"] > scratch["highest"] or scratch["lowest"] > tuned["highest"]
    matched = [n for n in sizes if rows["scratch", n]["mean"] <= rows["probe", few]["mean"]]
    small = (
        f"A linear probe on {few:,} images does at least as well as training from scratch "
        f"on {matched[-1]:,}."
        if matched
        else f"On {few:,} images training from scratch does better than a linear probe."
    )
    return (
        f"Finding: on {many:,} images pretraining is worth "
        f"{100 * (tuned['mean'] - scratch['mean']):+.0f} points of test accuracy "
        f"({scratch['mean']:.0%} from scratch, {tuned['mean']:.0%} fine-tuned; the ranges over "
        f"{tuned['seeds']} seeds {'do not overlap' if apart else 'overlap'}). {small} "
        f"On {many:,} images the probe reaches {probed['mean']:.0%}: fine-tuning all weights changes "
        f"that by {100 * (tuned['mean'] - probed['mean']):+.0f} points."
    )
