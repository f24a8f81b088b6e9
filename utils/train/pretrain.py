"""Make the course weights: pretraining on the CIFAR-10 images that the course does not use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .. import data, models
from ..env import (
    RUNS,
    WEIGHTS,
    device,
    device_name,
    fingerprint,
    seed_everything,
    versions,
    write,
)
from ..models import logits_of
from . import loop, selfsup
from .arithmetic import bfloat16_helps, quick_arithmetic
from .checkpoint import save
from .probe import linear_probe
from .recipes import Recipe
from .supervised import fit
from .task import Batch, Task
from .teacher import probabilities

N_BANK, N_QUERY = 5000, 2000  # labelled pool images and test images that judge features


# ---------------------------------------------------------------- with labels


def pretrain(
    arch: str, recipe: Recipe, command: str, teachers: Sequence[str] = (), start: str = "none"
) -> dict:
    """Make course weights: train on CIFAR-10's last 45,000 training images and ship the result.

    command: the line that was typed, for the card. teachers: course architectures, or "imagenet"
    for the ImageNet network, fine-tuned on the same images first; their probabilities (mean over
    teachers, image and mirror image) make half of the loss. start: "course", or the
    path of a .safetensors file, goes on from those weights. Writes the weights,
    utils/weights/<arch>.cifar10.safetensors in float16, and beside them a card (.json) with
    every training phase and the accuracy on all 10,000 test images. Returns the card.
    """
    whole, test = data.load("cifar10", "train"), data.load("cifar10", "test")
    pool = whole.subset(range(data.PAPER_POOL, len(whole)))
    val = whole.subset(range(1000))  # kept aside; the best epoch on these is shipped
    seed_everything(recipe.seed)
    variant = {"course": "cifar10", "course:imagenet": "imagenet"}.get(start)
    earlier = models.card(arch, variant)["phases"] if variant else []
    model = models.build(arch, len(pool.classes), start, keep_head=variant != "imagenet")
    soft = [probabilities(name, pool, val) for name in teachers]
    folder = RUNS / "pretrain" / (arch if start == "none" else f"{arch}-more")
    with quick_arithmetic(model):
        history = fit(model, pool, val, recipe, folder, sum(soft) / len(soft) if soft else None)

    file = ship(model, f"{arch}.cifar10")
    accuracy = (logits_of(model, test.images).argmax(1) == test.labels).float().mean().item()
    phase = {
        "command": command,
        "recipe": asdict(recipe),
        "teacher": " and ".join(teachers) or None,
        "minutes": round(history.seconds / 60, 1),
        "test_accuracy": accuracy,
    }
    taught = dict.fromkeys(part["teacher"] for part in [*earlier, phase] if part.get("teacher"))
    teacher = f" (teacher: {', '.join(taught)})" if taught else ""
    facts = {
        "classes": list(pool.classes),
        "pretraining": "cifar10",
        "data": f"{pool.source}, training images 5,000 to 49,999",
        "test_accuracy": accuracy,
        "test_images": len(test),
        "summary": f"supervised on {len(pool):,} CIFAR-10 images{teacher}, {accuracy:.1%} on its "
        "test set",
    }
    return write_card(file, arch, facts, [*earlier, phase], recipe, len(pool))


def ship(model: nn.Module, name: str) -> Path:
    """Write the weights in float16 and give the model what a reader of the file will get."""
    file = WEIGHTS / f"{name}.safetensors"
    state = model.state_dict()
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save(file, {k: v.cpu() for k, v in half.items()})
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in half.items()})
    return file


def write_card(
    file: Path, arch: str, facts: dict, phases: list[dict], recipe: Recipe, images: int
) -> dict:
    """Complete the facts about a weights file and write them beside it."""
    card = {"file": file.name, "arch": arch} | facts
    card |= {
        "images": images,
        "seed": recipe.seed,
        "phases": phases,
        "device": device_name() + (", bfloat16" if bfloat16_helps(device()) else ""),
        "minutes": round(sum(p["minutes"] for p in phases), 1),
        "versions": versions(),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    write(file.with_suffix(".json"), json.dumps(card, indent=1) + "\n")
    return card


# ---------------------------------------------------------------- without labels


class SelfSupervision(Task):
    """An objective that makes its own questions about the images of a batch."""

    def __init__(self, objective: nn.Module, images: torch.Tensor, recipe: Recipe):
        kind = type(objective).__name__
        sample = images[:: max(1, len(images) // 1000)]
        facts = {"objective": kind, "arch": objective.encoder.arch, "images": len(images)}
        super().__init__(objective, facts | {"data": fingerprint(sample)})
        self.name, self.smallest = f"{kind} {objective.encoder.arch}", recipe.batch
        self.recipe = recipe

    def measure(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": network(batch.images, batch.generator)}


class Lessons(SelfSupervision):
    """An objective that also needs to know which images these are, and has phases."""

    def begin_epoch(self, epoch: int) -> None:
        self.module.begin_epoch(self.recipe, epoch)

    def measure(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": network(batch.images, batch.indices, batch.generator)}


def learn(
    objective: nn.Module,
    images: torch.Tensor,
    recipe: Recipe,
    run_dir: Path,
    kind: type[SelfSupervision] = SelfSupervision,
) -> dict:
    """Train an objective in place on uint8 images (N, 3, h, w), without labels.

    Goes on with an unfinished run in run_dir, as train.fit does. A last batch that is not full is
    left out. Returns {"loss": one float a step, "seconds"} and leaves the objective in eval mode.
    Raises as loop.run does.
    """
    done = loop.run(kind(objective, images, recipe), images, recipe, run_dir)
    if done.judged is not objective:
        objective.load_state_dict(done.judged.state_dict())
    objective.eval()
    return {"loss": done.records["loss"].tolist(), "seconds": done.seconds}


def features(model: nn.Module, images: torch.Tensor, chunk: int = 256) -> dict[str, torch.Tensor]:
    """A ViT's tokens before its head for uint8 images (N, 3, h, w): {"cls", "mean"} -> (N, D)."""
    parts = []
    with models.evaluating(model), torch.no_grad():
        for part in images.split(chunk):
            tokens = selfsup.encode(model, models.prepare(model, part)).float().cpu()
            parts.append(torch.stack([tokens[:, 0], tokens[:, 1:].mean(1)]))
    cls, mean = torch.cat(parts, 1)
    return {"cls": cls, "mean": mean}


def judge(
    model: nn.Module, bank: data.ImageSet, query: data.ImageSet, neighbours: int = 20
) -> dict:
    """How well frozen features tell the classes: accuracy (0..1) on `query` after seeing `bank`.

    <cls|mean>.knn: vote of the 20 nearest by cosine, weighted by exp(cosine / 0.07) (Wu et al.
    2018); <cls|mean>.linear: logistic regression on standardised features. Nothing is tuned.
    """
    banks, queries, scores = features(model, bank.images), features(model, query.images), {}
    for kind, known in banks.items():
        new = queries[kind]
        similarity = F.normalize(new, dim=1) @ F.normalize(known, dim=1).T
        nearest, at = similarity.topk(min(neighbours, len(bank)), dim=1)
        votes = torch.zeros(len(query), len(bank.classes))
        votes.scatter_add_(1, bank.labels[at], (nearest / 0.07).exp())
        scores[f"{kind}.knn"] = (votes.argmax(1) == query.labels).float().mean().item()
        scores[f"{kind}.linear"] = linear_probe(known, bank.labels, new, query.labels, 1.0)
    return scores


def pretrain_without_labels(arch: str, recipe: Recipe, command: str, objective: str) -> dict:
    """Make self-supervised course weights: utils/weights/<arch>.<objective>.{safetensors,json}.

    Trained on the same 45,000 images as the weights cifar10; float16, encoder only. The card
    says how many of 2,000 test images a linear classifier gets right that sees the frozen
    features of 5,000 labelled pool images, and the same for the random initial weights. Returns
    the card. Raises ValueError for an unknown objective or an architecture without patches.
    """
    whole, test = data.load("cifar10", "train"), data.load("cifar10", "test")
    pool = whole.subset(range(data.PAPER_POOL, len(whole)))
    bank = pool.subset(range(min(N_BANK, len(pool))))
    query = test.subset(range(min(N_QUERY, len(test))))
    seed_everything(recipe.seed)
    model = models.build(arch, len(pool.classes), "none")
    task = selfsup.build_objective(objective, model)
    before = judge(model, bank, query)
    done = learn(task, pool.images, recipe, RUNS / "pretrain" / f"{arch}-{objective}")
    file = ship(model, f"{arch}.{objective}")
    after = judge(model, bank, query)
    last = done["loss"][-100:]
    phase = {
        "command": command,
        "recipe": asdict(recipe),
        "teacher": None,
        "minutes": round(done["seconds"] / 60, 1),
        "loss": sum(last) / len(last),
    }
    facts = {
        "classes": [],
        "pretraining": objective,
        "data": f"{pool.source}, training images 5,000 to 49,999, without labels",
        "test_accuracy": after["mean.linear"],
        "test_images": len(query),
        "test_accuracy_of": "logistic regression on the frozen mean token, "
        f"{len(bank):,} labelled pool images",
        "frozen_accuracy": after,
        "frozen_accuracy_random_weights": before,
        "summary": f"{selfsup.SUMMARY[objective]} on {len(pool):,} CIFAR-10 images without "
        f"labels; a linear classifier on its frozen features gets {after['mean.linear']:.1%} of "
        f"{len(query):,} test images right ({before['mean.linear']:.1%} from random weights)",
    }
    return write_card(file, arch, facts, [phase], recipe, len(pool))
