"""What the paper recipe and the explanations cost on one GPU, against what the chip can do.

Command line:  python -m utils.bench gpu [--only NAME]     writes figures/gpu.json

Seconds of the recipe are those of a fresh process, from its start to its end; everything else is
wall time after one small call of the same kind. Where the hub cannot be reached, the networks start
from random weights: as fast, but what they learn is then not comparable, and the entry says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from .. import data, env, explain, models, train
from ..env import Profile
from ..explain import attention, iav
from ..train import RECIPES
from . import measure
from .measure import Entry

FILE = env.FIGURES / "gpu.json"
COMMAND = "python -m utils.bench gpu"
LIMITS = {"cnn": (10, 0.15), "vit": (15, 0.40)}  # seconds of the recipe, share of the peak
BUDGETS = {"ig": 30, "lrp": 4, "attention": 4, "iav": 4}  # seconds for 2,500 images


def peak(device: torch.device, n: int = 8192) -> float:
    """Operations a second of one product (n, n) x (n, n), best of ten.

    In the device's env.precision().
    """
    a = torch.randn(n, n, device=device, dtype=env.precision(device))
    measure.seconds(lambda: a @ a, device)
    return 2 * n**3 / min(measure.seconds(lambda: a @ a, device) for _ in range(10))


def _size(tiny: bool) -> Profile:
    few = replace(env.profile("smoke"), n_train=40, n_val=10, n_test=4)
    return few if tiny else env.profile("paper")


def _model(arch: str, n_classes: int) -> nn.Module:
    try:
        return models.build(arch, n_classes)
    except RuntimeError as error:
        print(f"{error} Going on from random weights.", file=sys.stderr)
        return models.build(arch, n_classes, "none")


def _step_flops(model: nn.Module, batch: int, device: torch.device) -> float:
    """Operations an image of one forward and backward pass."""
    x = torch.zeros(batch, 3, model.input_size, model.input_size, device=device)
    return measure.flops(lambda: model.to(device)(x).sum().backward()) / batch


def _train(kind: str, tiny: bool) -> dict:
    """The recipe in this process; what a parent wants to know of it."""
    profile, device = _size(tiny), env.device()
    arch = profile.vit if kind == "vit" else profile.cnn
    recipe = RECIPES["smoke" if tiny else "paper", kind]
    parts = data.splits(profile)
    env.seed_everything(profile.seed)
    model = _model(arch, len(parts.train.classes))
    with tempfile.TemporaryDirectory() as folder:

        def fit() -> None:
            model.history = train.fit(model, parts.train, parts.val, recipe, Path(folder))

        held, _ = measure.memory(fit, device)
    return {
        "arch": arch,
        "weights": model.provenance,
        "data": parts.train.source,
        "seconds": model.history.seconds,
        "images": recipe.epochs * len(parts.train),
        "bytes": held,
        "accuracy": max(model.history.val_accuracy),
        "flops": _step_flops(model, 4, device),
    }


def recipe(device: torch.device, tiny: bool, kind: str) -> list[Entry]:
    """Fine-tuning as in the paper, in a fresh process: seconds in all, and the share of the peak."""
    words = [sys.executable, *f"-m utils.bench gpu --case {kind}".split(), *["--tiny"] * tiny]
    begun = time.perf_counter()
    done = subprocess.run(words, cwd=env.ROOT, capture_output=True, text=True)
    wall = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"Training the {kind} failed: {done.stderr.strip().splitlines()[-1]}")
    measured = json.loads(done.stdout.strip().splitlines()[-1])
    limit, share = LIMITS[kind]
    facts = {key: measured[key] for key in ("arch", "weights", "data", "accuracy")}
    rate = measured["images"] / measured["seconds"]
    facts |= {"images_per_second": rate, "peak_mb": measured["bytes"] / 1e6}
    pair = (peak(device, 512 if tiny else 8192), measured["flops"] * rate)
    seen = f"{measured['arch']}, paper recipe, {measured['images']:,} images seen"
    what = f"{seen}: seconds in a fresh process"
    whole = measure.entry(f"{kind}_recipe", what, [(wall, limit)], 1, False)
    what = f"{seen}: operations a second against one large product"
    speed = measure.entry(f"{kind}_share", what, [pair], share, True, "operations/s")
    return [whole | facts, speed | facts]


def _work(name: str, model: nn.Module) -> Callable[[torch.Tensor], object]:
    def patches(images: torch.Tensor) -> torch.Tensor:
        rows = (models.prepare(model, part) for part in images.split(64))
        return torch.cat([attention.maps(model, x, "cls").cpu() for x in rows])

    side = model.patch_embed.grid_size
    works: dict[str, Callable[[torch.Tensor], object]] = {
        "ig": partial(explain.explain, model, targets=0, method="integrated_gradients", steps=50),
        "lrp": partial(explain.explain, model, targets=0, method="lrp"),
        "attention": patches,
        "iav": lambda images: iav.ia_scores(model, images, torch.ones(len(images), *side)),
    }
    return works[name]


def explaining(device: torch.device, tiny: bool, name: str) -> list[Entry]:
    """One explanation of the test set by the ViT: seconds and peak memory."""
    profile = _size(tiny)
    images = data.splits(profile).test.images
    model = _model(profile.vit, 10).to(device)
    work = _work(name, model)
    work(images[:2])
    held, took = measure.memory(lambda: work(images), device)
    what = f"{name} of {len(images):,} images at {model.input_size} px, {profile.vit}"
    facts = {"arch": profile.vit, "weights": model.provenance, "peak_mb": held / 1e6}
    return [measure.entry(name, what, [(took, BUDGETS[name])], 1, False) | facts]


CASES: dict[str, Callable[[torch.device, bool], list[Entry]]] = {
    **{kind: partial(recipe, kind=kind) for kind in LIMITS},
    **{name: partial(explaining, name=name) for name in BUDGETS},
}


def run(only: str | None = None, tiny: bool = False, file: Path = FILE) -> list[Entry]:
    """Measure the cases, or the one called `only`, and write `file` after each; all its entries.

    tiny: sizes for tests, on any device. Raises ValueError for an unknown name, RuntimeError
    where there is no GPU.
    """
    if only and only not in CASES:
        raise ValueError(
            f"There is nothing called {only!r} to measure: use one of {', '.join(CASES)}."
        )
    device = env.device()
    if device.type != "cuda" and not tiny:
        raise RuntimeError("There is no GPU here: python -m utils.bench measures the CPU.")
    kept = {e["name"]: e for e in json.loads(file.read_text("utf-8"))} if file.exists() else {}
    for name in [only] if only else CASES:
        for entry in CASES[name](device, tiny):
            pair = f"{entry['ours']:10.4g} of {entry['peer']:<10.4g}{entry['unit']:14}"
            print(f"{entry['name']:12}{pair}{'holds' if entry['holds'] else 'MISSED'}", flush=True)
            kept[entry["name"]] = entry | {"device": env.device_name(), "command": COMMAND}
        env.write(file, json.dumps(list(kept.values()), indent=1) + "\n")
    return list(kept.values())


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the module's first lines."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--case", choices=list(LIMITS), help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.case:
            print(json.dumps(_train(options.case, options.tiny)))
        else:
            run(options.only, options.tiny)
    except (ValueError, RuntimeError) as error:
        sys.exit(str(error))
