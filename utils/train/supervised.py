"""Training: one loop for fine-tuning and pretraining, resumable at any step. `python -m utils.train`: see command."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.layers import PatchDropout
from torch import nn
from tqdm.auto import tqdm

from .. import data, models
from ..data import ImageSet
from ..env import RUNS, Profile, device, profile, seed_everything
from ..models import logits_of
from . import processes
from .checkpoint import State, save
from .recipes import RECIPES, Recipe, build_optimizer, learning_rate, moving_average, phase

SAVE_EVERY = 100  # steps between checkpoints inside an epoch
EXPLODED = 1e4  # a cross-entropy above this comes from weights that are lost


@dataclass
class History:
    """What happened: per step (S,) loss and accuracy (0..1), per epoch (E,) the validation."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    steps_per_epoch: int = 0
    seconds: float = 0.0

    @property
    def best_epoch(self) -> int:
        """Index of the epoch with the highest validation accuracy (the first of equals)."""
        return max(range(len(self.val_accuracy)), key=self.val_accuracy.__getitem__)


def _fingerprint(train_set: ImageSet, soft_labels: torch.Tensor | None) -> str:
    """A hash of all labels and of about 1,000 images, so that other data is seen to be other data."""
    every = max(1, len(train_set) // 1000)
    parts = [train_set.labels, train_set.images[::every]]
    parts += [] if soft_labels is None else [soft_labels[::every]]
    return hashlib.sha256(
        b"".join(part.contiguous().numpy().tobytes() for part in parts)
    ).hexdigest()[:16]


def fit(
    model: nn.Module,
    train_set: ImageSet,
    val_set: ImageSet,
    recipe: Recipe,
    run_dir: Path,
    soft_labels: torch.Tensor | None = None,
    keep_epochs: bool = False,
) -> History:
    """Train `model` in place and return its History; leaves it in eval mode with its best weights.

    Writes into run_dir: last.safetensors (everything needed to go on; every 100 steps and every
    epoch), best.safetensors (weights of the epoch with the best validation accuracy),
    history.json and TensorBoard logs. Resumes run_dir if it holds an unfinished run of the same data
    and recipe; batch order and augmentation depend on seed and step alone, so a resumed run
    ends with the weights of an uninterrupted one. soft_labels: a teacher's probabilities
    (N, C) in the order of train_set (Hinton et al. 2015); half of the loss then. keep_epochs: also
    keep the weights after each epoch that is trained now, epoch_01.safetensors and on. Launched by
    accelerate, the processes share each batch; run_dir must then be one folder for all. Raises
    ValueError if labels and head do not match, FloatingPointError if the loss explodes or is not
    a number, RuntimeError if a batch does not fit into the GPU's memory.
    """
    run_dir = Path(run_dir)
    n_classes = models.head(model).out_features
    if n_classes != len(train_set.classes):
        raise ValueError(
            f"The head has {n_classes} outputs but {train_set.source} has {len(train_set.classes)} classes: build the model with num_classes={len(train_set.classes)}."
        )
    if len(train_set) < 2 or not len(val_set):
        raise ValueError(
            f"{train_set.source} gives {len(train_set)} images to train and {len(val_set)} to validate: "
            "training needs two and one at least."
        )
    if soft_labels is not None and soft_labels.shape != (len(train_set), n_classes):
        raise ValueError(
            f"soft_labels has shape {tuple(soft_labels.shape)} but must be (images, classes): "
            f"({len(train_set)}, {n_classes})."
        )
    where = device()
    model.to(where, memory_format=torch.channels_last)
    average = moving_average(model, recipe)
    judged = average.module if average else model
    optimizer = build_optimizer(model, recipe)
    scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]

    n, batch = len(train_set), recipe.batch
    steps = n // batch + (n % batch > 1)  # batch norm cannot learn from a single image
    total = recipe.epochs * steps
    records = {k: torch.zeros(total) for k in ("loss", "accuracy")} | {
        k: torch.zeros(recipe.epochs) for k in ("val_loss", "val_accuracy")
    }
    facts = {
        "arch": model.arch,
        "provenance": model.provenance,
        "source": train_set.source,
        "images": n,
        "data": _fingerprint(train_set, soft_labels),
        "recipe": asdict(recipe),
    }
    kept = nn.ModuleList([model, judged]) if average else model
    state = State(run_dir / "last.safetensors", kept, optimizer, facts)
    first, spent = state.load(records)
    rank, crew = processes.rank(), processes.size()
    live = {
        k: records[k].to(where) * (rank == 0) for k in ("loss", "accuracy")
    }  # this process's share
    network = processes.joined(model)
    images = train_set.images.to(where) if where.type == "cuda" else train_set.images
    targets = F.one_hot(train_set.labels, n_classes).float()
    targets = targets * (1 - recipe.label_smoothing) + recipe.label_smoothing / n_classes
    if soft_labels is not None:
        targets = 0.5 * targets + 0.5 * soft_labels
    labels, targets = train_set.labels.to(where), targets.to(where)
    begun = time.perf_counter() - spent

    bar = tqdm(
        total=total,
        initial=first,
        desc=f"training {model.arch}",
        unit="step",
        mininterval=1.0,
        disable=rank > 0,
    )
    for step in range(first, total):
        epoch, place = divmod(step, steps)
        if place == 0 or step == first:
            order = torch.randperm(
                n, generator=torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
            )
            order = order.to(where)
            _set_patch_drop(model, phase(recipe.patch_drop, epoch, 0.0))
            size = int(phase(recipe.sizes, epoch, model.input_size))
            model.train()
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout repeats after a resume
        chosen = order[place * batch : (place + 1) * batch]
        pixels = images[chosen]
        if recipe.augment:
            pixels = data.augment(
                pixels, torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
            )
        mine = slice(rank, None, crew) if rank < len(chosen) else slice(0, 1)
        share = len(chosen[mine]) / len(chosen) if rank < len(chosen) else 0.0
        x = data.preprocess(pixels[mine], size, model.mean, model.std).contiguous(
            memory_format=torch.channels_last
        )
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            group["lr"] = learning_rate(recipe, step, steps) * scale
        try:
            with torch.autocast("cuda", torch.bfloat16, enabled=where.type == "cuda"):
                logits = network(x)
                loss = F.cross_entropy(logits.float(), targets[chosen][mine]) * share
            optimizer.zero_grad(set_to_none=True)
            (loss * crew).backward()  # gradients are averaged over the processes
        except torch.cuda.OutOfMemoryError:
            raise RuntimeError(
                f"A batch of {batch} images of {size} px does not fit into the GPU's memory: give a recipe with a smaller batch or choose a smaller profile."
            ) from None
        optimizer.step()
        if average:
            average.update(model, step)
        live["loss"][step] = loss.detach()  # stays on the device: no synchronisation in the step
        live["accuracy"][step] = (logits.argmax(1) == labels[chosen][mine]).float().mean() * share
        bar.update()

        ends = place == steps - 1
        if ends or (place + 1) % SAVE_EVERY == 0:
            for key in live:
                records[key].copy_(processes.total(live[key]))
            bad = torch.nonzero(
                ~(records["loss"][: step + 1] < EXPLODED)
            )  # also where it is not a number
            if len(bad):
                raise FloatingPointError(
                    f"The loss is {records['loss'][bad[0]].item():.3g} at batch {int(bad[0])}: lower the learning rate (now {recipe.lr}). The state before it is kept in {state.file.name}."
                )
        if ends:
            val_logits = processes.sharded(partial(logits_of, judged, size=size), val_set.images)
            records["val_loss"][epoch] = F.cross_entropy(val_logits, val_set.labels)
            records["val_accuracy"][epoch] = (val_logits.argmax(1) == val_set.labels).float().mean()
            bar.set_postfix(val=f"{records['val_accuracy'][epoch]:.3f}")
            best = epoch == records["val_accuracy"][: epoch + 1].argmax()  # the first of equals
            if best and rank == 0:
                save(run_dir / "best.safetensors", judged.state_dict(), facts)
            if keep_epochs and rank == 0:
                save(run_dir / f"epoch_{epoch + 1:02d}.safetensors", judged.state_dict(), facts)
            if rank == 0:
                _log(run_dir, records, epoch, steps)
        if rank == 0 and (ends or (place + 1) % SAVE_EVERY == 0):
            state.save(step + 1, records, time.perf_counter() - begun)
    bar.close()

    _set_patch_drop(model, 0.0)
    model.eval()  # a finished run meets no validation
    history = History(
        **{k: v.tolist() for k, v in records.items()},
        steps_per_epoch=steps,
        seconds=time.perf_counter() - begun,
    )
    if rank == 0:
        (run_dir / "history.json").write_text(json.dumps(asdict(history) | {"facts": facts}))
    processes.wait()
    models.load_state(model, run_dir / "best.safetensors", model.arch)
    return history


def _set_patch_drop(model: nn.Module, share: float) -> None:
    """Leave out a share of a timm ViT's patches while training (Liu et al. 2022)."""
    if hasattr(model, "patch_drop"):
        model.patch_drop = PatchDropout(share) if share else nn.Identity()


def _log(run_dir: Path, records: dict[str, torch.Tensor], epoch: int, steps: int) -> None:
    """One epoch's curves for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(run_dir / "tensorboard", purge_step=epoch * steps) as writer:
        for step in range(epoch * steps, (epoch + 1) * steps):
            writer.add_scalar("train/loss", records["loss"][step], step)
            writer.add_scalar("train/accuracy", records["accuracy"][step], step)
        for key in ("val_loss", "val_accuracy"):
            writer.add_scalar(key.replace("_", "/"), records[key][epoch], (epoch + 1) * steps - 1)


def run_dir(
    arch: str, chosen: Profile, source: str, weights: str = "auto", label: str = ""
) -> Path:
    """Where a fine-tuning lives: runs/<profile>/<source>/<arch>, `-none` from random weights, `-<label>`."""
    place = "".join(c if c.isalnum() else "-" for c in source.lower()).strip("-")
    parts = [arch, "" if weights == "auto" else Path(weights).stem.replace(":", "-"), label]
    return RUNS / chosen.name / place / "-".join(part for part in parts if part)


def finetuned(
    arch: str,
    chosen: Profile | None = None,
    weights: str = "auto",
    recipe: Recipe | None = None,
    label: str = "",
) -> nn.Module:
    """`arch` fine-tuned on the profile's training set: loaded if that was done, else trained now.

    The model is in eval mode on the profile's device and carries .history. weights: as in
    models.build ("none" gives the comparison from random weights). recipe: another than the
    profile's; give it a label to keep both results.
    """
    chosen = chosen or profile()
    parts = data.splits(chosen)
    kind = "vit" if arch == chosen.vit else "cnn"
    recipe = replace(recipe or RECIPES[chosen.name, kind], seed=chosen.seed)
    seed_everything(chosen.seed)  # the new head's values
    model = models.build(arch, len(parts.train.classes), weights)
    where = run_dir(arch, chosen, parts.train.source, weights, label)
    model.history = fit(model, parts.train, parts.val, recipe, where)
    return model
