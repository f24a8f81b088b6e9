"""Supervised training: fine-tuning a model on labelled images, and keeping its best epoch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.layers import PatchDropout
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .. import data, models
from ..data import ImageSet
from ..env import device, fingerprint, write
from ..models import logits_of
from . import loop, processes
from .checkpoint import save
from .probe import start_head
from .recipes import Recipe, phase
from .task import Batch, Task


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
        """Index of the epoch that is kept; see best_epoch()."""
        return best_epoch(self.val_accuracy, self.val_loss)


def best_epoch(accuracy: list[float], loss: list[float]) -> int:
    """Index of the highest accuracy; of equal ones the lowest loss; of equal ones the first."""
    return min(range(len(accuracy)), key=lambda epoch: (-accuracy[epoch], loss[epoch]))


class Classification(Task):
    """Cross-entropy with labels, or half with them and half with a teacher's probabilities."""

    per_step = ("loss", "accuracy")
    per_epoch = ("val_loss", "val_accuracy")
    smallest = 2  # batch norm cannot learn from a single image
    shared = True

    def __init__(
        self,
        model: nn.Module,
        train_set: ImageSet,
        val_set: ImageSet,
        recipe: Recipe,
        run_dir: Path,
        soft_labels: torch.Tensor | None = None,
        keep_epochs: bool = False,
    ):
        n_classes = len(train_set.classes)
        every = max(1, len(train_set) // 1000)
        parts = [train_set.labels, train_set.images[::every]]
        parts += [] if soft_labels is None else [soft_labels[::every]]
        every = max(1, len(val_set) // 1000)
        facts = {
            "arch": model.arch,
            "provenance": model.provenance,
            "source": train_set.source,
            "images": len(train_set),
            "data": fingerprint(*parts),
            "validation data": fingerprint(val_set.labels, val_set.images[::every]),
        }
        super().__init__(model, facts)
        self.name, self.guess = f"training {model.arch}", torch.tensor(n_classes).log().item()
        self.train_set, self.val_set, self.recipe = train_set, val_set, recipe
        self.run_dir, self.keep_epochs = run_dir, keep_epochs
        targets = F.one_hot(train_set.labels, n_classes).float()
        targets = targets * (1 - recipe.label_smoothing) + recipe.label_smoothing / n_classes
        if soft_labels is not None:
            targets = 0.5 * targets + 0.5 * soft_labels
        self.labels, self.targets = train_set.labels.to(device()), targets.to(device())
        self.size = model.input_size
        self.patch_drop = getattr(model, "patch_drop", None)
        if recipe.patch_drop and not _drops_patches(model):
            print(f"{model.arch} is trained without patch_drop: only timm's plain ViT has it.")

    def begin(self) -> None:
        if self.recipe.head == "probe":
            start_head(self.module, self.train_set)

    def begin_epoch(self, epoch: int) -> None:
        size = phase(self.recipe.sizes, epoch, self.module.input_size)
        self.size = size if isinstance(size, tuple) else int(size)
        if self.recipe.patch_drop and _drops_patches(self.module):
            share = phase(self.recipe.patch_drop, epoch, 0.0)
            self.module.patch_drop = PatchDropout(share) if share else nn.Identity()

    def measure(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        pixels, model = batch.images, self.module
        if self.recipe.augment:
            pixels = data.augment(pixels, batch.generator)
        x = models.prepare(model, pixels[batch.mine], self.size)
        logits = network(x.contiguous(memory_format=models.memory_format(model)))
        rows = batch.indices[batch.mine]
        hits = logits.argmax(1) == self.labels[rows]
        return {
            "loss": F.cross_entropy(logits.float(), self.targets[rows]),
            "accuracy": hits.float().mean(),
        }

    def validate(self, judged: nn.Module, epoch: int) -> dict[str, torch.Tensor]:
        # at the model's own size in every phase, or an epoch of small images could be kept as best
        run = partial(logits_of, judged)
        logits, labels = processes.sharded(run, self.val_set.images), self.val_set.labels
        hits = logits.argmax(1) == labels
        return {"val_loss": F.cross_entropy(logits, labels), "val_accuracy": hits.float().mean()}

    def keep(self, judged: nn.Module, epoch: int, records: dict[str, torch.Tensor]) -> None:
        curves = (records[key][: epoch + 1].tolist() for key in ("val_accuracy", "val_loss"))
        if best_epoch(*curves) == epoch:
            save(self.run_dir / "best.safetensors", judged.state_dict(), self.facts)
        if self.keep_epochs:
            file = self.run_dir / f"epoch_{epoch + 1:02d}.safetensors"
            save(file, judged.state_dict(), self.facts)

    def end(self) -> None:
        if self.recipe.patch_drop and _drops_patches(self.module):
            self.module.patch_drop = self.patch_drop


def _drops_patches(model: nn.Module) -> bool:
    """Whether patches can be left out in training (Liu et al. 2022); other ViTs do it otherwise."""
    return type(model) in (VisionTransformer, VisionTransformerDistilled)


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
    epoch), best.safetensors (weights of the epoch with the best validation accuracy; of equals,
    the one with the lowest validation loss), history.json and TensorBoard logs. Goes on with
    run_dir if it holds a run of the same data, recipe, initial weights and trainable parameters,
    and ends with the weights of an uninterrupted run. Parts whose parameters are all frozen
    (requires_grad False) stay as they are, batch norm statistics included. soft_labels: a
    teacher's probabilities (N, C) in the order of train_set (Hinton et al. 2015); half of the
    loss then. keep_epochs: also keep the weights after each epoch that is trained now,
    epoch_01.safetensors and on. Launched by accelerate, the processes share each batch; run_dir
    must then be one folder for all. If training stops early, the model keeps the weights and
    modes it came with. Raises ValueError if labels and head do not match, FloatingPointError if
    the loss explodes or is not a number, RuntimeError if a batch does not fit into the GPU's
    memory.
    """
    run_dir = Path(run_dir)
    _check(model, train_set, val_set, soft_labels)
    task = Classification(model, train_set, val_set, recipe, run_dir, soft_labels, keep_epochs)
    done = loop.run(task, train_set.images, recipe, run_dir)
    models.load_state(model, run_dir / "best.safetensors", model.arch)
    model.eval()
    curves = {key: values.tolist() for key, values in done.records.items()}
    history = History(**curves, steps_per_epoch=done.steps, seconds=done.seconds)
    if processes.rank() == 0:
        facts = task.facts | {"recipe": asdict(recipe)}
        write(run_dir / "history.json", json.dumps(asdict(history) | {"facts": facts}))
    return history


def _check(
    model: nn.Module, train_set: ImageSet, val_set: ImageSet, soft_labels: torch.Tensor | None
) -> None:
    """ValueError if these cannot be trained on."""
    n, n_classes, n_needed = len(train_set), models.outputs(model), len(train_set.classes)
    if n_classes != n_needed:
        raise ValueError(
            f"The head has {n_classes} outputs but {train_set.source} has {n_needed} classes: "
            f"build the model with num_classes={n_needed}."
        )
    if n < 2 or not len(val_set):
        raise ValueError(
            f"{train_set.source} gives {n} images to train and {len(val_set)} to validate: "
            "training needs two and one at least."
        )
    if soft_labels is not None and soft_labels.shape != (n, n_classes):
        raise ValueError(
            f"soft_labels has shape {tuple(soft_labels.shape)} but must be (images, classes): "
            f"({n}, {n_classes})."
        )
