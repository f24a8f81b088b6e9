"""Make the course weights: pretraining on the CIFAR-10 images that the course does not use, with and without labels."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn
from tqdm.auto import tqdm

from .. import data, models
from ..env import RUNS, WEIGHTS, device, device_name, seed_everything, versions
from ..models import logits_of
from . import selfsup
from .checkpoint import State, save
from .recipes import Recipe, build_optimizer, learning_rate, moving_average
from .supervised import fit

SAVE_EVERY = 100  # steps between checkpoints
N_BANK, N_QUERY = 5000, 2000  # labelled pool images and test images that judge features


def pretrain(
    arch: str, recipe: Recipe, command: str, teacher: str | None = None, start: str = "none"
) -> dict:
    """Make course weights: train on CIFAR-10's last 45,000 training images and ship the result.

    command: the line that asked for it, for the card. teacher: a course architecture whose
    probabilities (mean over image and mirror image) make half of the loss. start: "course", or the
    path of a .safetensors file, goes on from those weights. Writes the weights,
    utils/weights/<arch>.supervised.safetensors in float16, and beside them a card (.json) with every
    training phase and the accuracy on all 10,000 test images. Returns the card.
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
        soft = (
            sum(logits_of(guide, view).softmax(1) for view in (pool.images, pool.images.flip(3)))
            / 2
        )
    history = fit(
        model,
        pool,
        val,
        recipe,
        RUNS / "pretrain" / (arch if start == "none" else f"{arch}-more"),
        soft,
    )

    file = WEIGHTS / f"{arch}.supervised.safetensors"
    half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save(file, {k: v.cpu() for k, v in half.items()})
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in half.items()})
    accuracy = (logits_of(model, test.images).argmax(1) == test.labels).float().mean().item()
    phase = {
        "command": command,
        "recipe": asdict(recipe),
        "teacher": teacher,
        "minutes": round(history.seconds / 60, 1),
        "test_accuracy": accuracy,
    }
    phases = [*earlier, phase]
    facts = {
        "file": file.name,
        "arch": arch,
        "classes": list(pool.classes),
        "pretraining": "supervised",
        "data": f"{pool.source}, training images 5,000 to 49,999",
        "images": len(pool),
        "seed": recipe.seed,
        "phases": phases,
        "test_accuracy": accuracy,
        "test_images": len(test),
        "summary": f"supervised on {len(pool):,} CIFAR-10 images, {accuracy:.1%} on its test set",
        "device": device_name(),
        "minutes": round(sum(p["minutes"] for p in phases), 1),
        "versions": versions(),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    file.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def learn(
    objective: selfsup.Objective, images: torch.Tensor, recipe: Recipe, run_dir: Path
) -> dict:
    """Train an objective in place on uint8 images (N, 3, h, w), without labels.

    Like train.fit it writes run_dir/last.safetensors every 100 steps and TensorBoard logs at
    the end, resumes an unfinished run of the same data and recipe, and depends on seed and step
    alone; float32 on a CPU, bfloat16 on a GPU. Returns {"loss": one float a step, "seconds"}.
    Raises ValueError if there are fewer images than a batch, FloatingPointError if the loss is
    not finite.
    """
    n, steps = len(images), len(images) // recipe.batch
    if not steps:
        raise ValueError(
            f"{n} images are fewer than a batch of {recipe.batch}: lower recipe.batch."
        )
    where = device()
    gpu = where.type == "cuda"
    objective.to(where, memory_format=torch.channels_last).train()
    average = moving_average(objective, recipe)
    optimizer = build_optimizer(objective, recipe)
    scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
    sample = hashlib.sha256(
        images[:: max(1, n // 1000)].contiguous().numpy().tobytes()
    ).hexdigest()[:16]
    facts = {"objective": type(objective).__name__, "arch": objective.encoder.arch, "images": n}
    facts |= {"data": sample, "recipe": asdict(recipe)}
    total = recipe.epochs * steps
    records = {"loss": torch.zeros(total)}
    kept = nn.ModuleList([objective, average.module]) if average else objective
    state = State(run_dir / "last.safetensors", kept, optimizer, facts)
    first, spent = state.load(records)
    losses = records["loss"].to(where)
    images = images.to(where) if gpu else images
    begun = time.perf_counter() - spent

    name = facts["objective"]
    bar = tqdm(
        total=total, initial=first, desc=f"{name} {facts['arch']}", unit="step", mininterval=1.0
    )
    for step in range(first, total):
        epoch, place = divmod(step, steps)
        if place == 0 or step == first:
            order = torch.randperm(
                n, generator=torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
            )
            order = order.to(where)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            group["lr"] = learning_rate(recipe, step, steps) * scale
        with torch.autocast("cuda", torch.bfloat16, enabled=gpu):
            loss = objective(
                images[order[place * recipe.batch : (place + 1) * recipe.batch]], generator
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if average:
            average.update(objective, step)
        losses[step] = loss.detach()  # stays on the device: no synchronisation in the step
        bar.update()
        if (step + 1) % SAVE_EVERY == 0 or step == total - 1:
            records["loss"].copy_(losses)
            if not records["loss"][: step + 1].isfinite().all():
                raise FloatingPointError(
                    f"The loss of {name} is no longer a finite number at step {step}: lower the learning rate (now {recipe.lr})."
                )
            bar.set_postfix(
                loss=f"{losses[step + 1 - min(SAVE_EVERY, step + 1) : step + 1].mean():.3f}"
            )
            state.save(step + 1, records, time.perf_counter() - begun)
    bar.close()
    if average:
        objective.load_state_dict(average.module.state_dict())
    objective.eval()
    _log(run_dir, records["loss"])
    return {"loss": records["loss"].tolist(), "seconds": time.perf_counter() - begun}


def _log(run_dir: Path, losses: torch.Tensor) -> None:
    """The curve for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(run_dir / "tensorboard", purge_step=0) as writer:
        for step, loss in enumerate(losses.tolist()):
            writer.add_scalar("train/loss", loss, step)


@torch.inference_mode()
def features(model: nn.Module, images: torch.Tensor, chunk: int = 256) -> dict[str, torch.Tensor]:
    """What a ViT says about uint8 images (N, 3, h, w) before its head: {"cls", "mean"} -> (N, D)."""
    where, out = next(model.parameters()).device, []
    model.eval()
    for part in images.split(chunk):
        x = data.preprocess(part.to(where), model.input_size, model.mean, model.std)
        tokens = selfsup.encode(model, x).float().cpu()
        out.append(torch.stack([tokens[:, 0], tokens[:, 1:].mean(1)]))
    cls, mean = torch.cat(out, 1)
    return {"cls": cls, "mean": mean}


def judge(
    model: nn.Module, bank: data.ImageSet, query: data.ImageSet, neighbours: int = 20
) -> dict:
    """How well frozen features tell the classes: accuracy (0..1) on `query` after seeing `bank`.

    <cls|mean>.knn: vote of the 20 nearest by cosine, weighted by exp(cosine / 0.07) (Wu et al.
    2018); <cls|mean>.linear: logistic regression on standardised features. Nothing is tuned.
    """
    known, asked, out = features(model, bank.images), features(model, query.images), {}
    for kind in known:
        alike = F.normalize(asked[kind], dim=1) @ F.normalize(known[kind], dim=1).T
        near, at = alike.topk(min(neighbours, len(bank)), dim=1)
        votes = torch.zeros(len(query), len(bank.classes))
        votes.scatter_add_(1, bank.labels[at], (near / 0.07).exp())
        out[f"{kind}.knn"] = (votes.argmax(1) == query.labels).float().mean().item()
        middle, spread = known[kind].mean(0), known[kind].std(0) + 1e-6
        probe = LogisticRegression(max_iter=2000).fit(
            ((known[kind] - middle) / spread).numpy(), bank.labels
        )
        out[f"{kind}.linear"] = probe.score(((asked[kind] - middle) / spread).numpy(), query.labels)
    return out


def pretrain_without_labels(arch: str, recipe: Recipe, command: str, objective: str) -> dict:
    """Make self-supervised course weights: utils/weights/<arch>.<objective>.{safetensors,json}.

    Trained on the same 45,000 images as the supervised weights; float16, encoder only. The card
    says how well 5,000 labelled ones of them and the frozen features name 2,000 test images, and
    the same for the random weights that training started from. Returns the card. Raises
    ValueError for an unknown objective or an architecture without patches.
    """
    whole, test = data.load("cifar10", "train"), data.load("cifar10", "test")
    pool = whole.subset(range(data.PAPER_POOL, len(whole)))
    bank = pool.subset(range(min(N_BANK, len(pool))))
    query = test.subset(range(min(N_QUERY, len(test))))
    seed_everything(recipe.seed)
    model = models.build(arch, len(pool.classes), "none")
    task = selfsup.build_objective(objective, model)
    before = judge(model, bank, query)
    told = learn(task, pool.images, recipe, RUNS / "pretrain" / f"{arch}-{objective}")

    file = WEIGHTS / f"{arch}.{objective}.safetensors"
    half = {
        k: v.cpu().half() if v.is_floating_point() else v.cpu()
        for k, v in model.state_dict().items()
    }
    save(file, half)
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in half.items()})
    after = judge(model, bank, query)
    minutes = round(told["seconds"] / 60, 1)
    phase = {
        "command": command,
        "recipe": asdict(recipe),
        "teacher": None,
        "minutes": minutes,
        "loss": sum(told["loss"][-100:]) / len(told["loss"][-100:]),
    }
    facts = {
        "file": file.name,
        "arch": arch,
        "classes": [],
        "pretraining": objective,
        "data": f"{pool.source}, training images 5,000 to 49,999, without labels",
        "images": len(pool),
        "seed": recipe.seed,
        "phases": [phase],
        "test_accuracy": after["mean.linear"],
        "test_images": len(query),
        "test_accuracy_of": f"logistic regression on the frozen mean token, {len(bank):,} labelled pool images",
        "frozen_accuracy": after,
        "frozen_accuracy_random_weights": before,
        "summary": f"{selfsup.SUMMARY[objective]} on {len(pool):,} CIFAR-10 images without labels; frozen features name "
        f"{after['mean.linear']:.1%} of {len(query):,} test images (linear; {before['mean.linear']:.1%} from random weights)",
        "device": device_name(),
        "minutes": minutes,
        "versions": versions(),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    file.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts
