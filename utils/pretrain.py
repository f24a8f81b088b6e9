"""Make the course weights: pretraining on the CIFAR-10 images that the course does not use."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from . import data, models
from .checkpoint import save
from .env import RUNS, WEIGHTS, device, device_name, seed_everything, versions
from .recipes import Recipe
from .train import fit, logits_of


def pretrain(arch: str, recipe: Recipe, teacher: str | None = None, start: str = "none") -> dict:
    """Make course weights: train on CIFAR-10's last 45,000 training images and ship the result.

    teacher: a course architecture whose probabilities (mean over image and mirror image) make
    half of the loss. start: "course", or the path of a .safetensors file, goes on from those
    weights. Writes utils/weights/<arch>.supervised.{safetensors,json}: float16, and a card with
    every training phase and the accuracy on all 10,000 test images. Returns the card.
    """
    whole, test = data.load("cifar10", "train"), data.load("cifar10", "test")
    pool = whole.subset(range(data.PAPER_POOL, len(whole)))
    val = whole.subset(range(1000))  # kept aside; the best epoch on these is shipped
    seed_everything(recipe.seed)
    earlier = models.card(arch)["phases"] if start == "course" else []
    model = models.build(arch, len(pool.classes), start, keep_head=True)
    soft = None
    if teacher:
        guide = models.build(teacher, len(pool.classes), "course", keep_head=True).to(device())
        soft = sum(logits_of(guide, view).softmax(1) for view in (pool.images, pool.images.flip(3))) / 2
    history = fit(
        model, pool, val, recipe, RUNS / "pretrain" / (arch if start == "none" else f"{arch}-more"), soft
    )

    file = WEIGHTS / f"{arch}.supervised.safetensors"
    half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save(file, {k: v.cpu() for k, v in half.items()})
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in half.items()})
    accuracy = (logits_of(model, test.images).argmax(1) == test.labels).float().mean().item()
    command = f"python -m utils.train pretrain {arch}" + (f" --teacher {teacher}" if teacher else "")
    if start != "none":
        command += f" --start {start} --epochs {recipe.epochs} --lr {recipe.lr}"
    phase = {
        "command": command,
        "recipe": asdict(recipe),
        "teacher": teacher,
        "minutes": round(history.seconds / 60, 1),
        "test_accuracy": accuracy,
    }
    phases = [*earlier, phase]
    facts = {
        "file": file.name, "arch": arch, "classes": list(pool.classes), "pretraining": "supervised",
        "data": f"{pool.source}, training images 5,000 to 49,999", "images": len(pool),
        "seed": recipe.seed, "phases": phases,
        "test_accuracy": accuracy, "test_images": len(test),
        "summary": f"supervised on {len(pool):,} CIFAR-10 images, {accuracy:.1%} on its test set",
        "device": device_name(), "minutes": round(sum(p["minutes"] for p in phases), 1), "versions": versions(),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }  # fmt: skip
    file.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts
