"""Training the late blocks of a Vision Transformer on kept features of its frozen early blocks.

The early blocks come from pretraining and stay as they are, so that what they make of an image
is computed once for all seeds and ways to retrain. That is what makes ten seeds affordable.
"""

from __future__ import annotations

import copy
import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from ..data import ImageSet
from ..models import evaluating, prepare
from ..train import quick_arithmetic, save

CHUNK = 128  # images per forward


@dataclass(frozen=True)
class LateRecipe:
    """How the late blocks and the head are trained: AdamW, one cycle, mirrored at random."""

    epochs: int
    lr: float
    batch: int = 64
    weight_decay: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class LateHistory:
    """What fit() saw after each epoch."""

    val_loss: list[float]
    val_accuracy: list[float]


class _EnoughError(Exception):
    """The early blocks have run; the rest of the forward pass is not needed."""


class Early:
    """The frozen early blocks of a model, with the features of the images seen so far.

    depth: how many blocks are frozen. Raises ValueError for a model that is no timm ViT.
    """

    def __init__(self, model: nn.Module, depth: int) -> None:
        if not 0 < depth < len(getattr(model, "blocks", ())):
            raise ValueError(
                f"{model.arch} has no {depth} blocks to freeze and others to train: use a Vision "
                "Transformer and fewer frozen blocks."
            )
        self.model, self.depth = model, depth
        self._kept: dict[tuple[bytes, bool], torch.Tensor] = {}  # (T, D) of each image

    def features(
        self, images: torch.Tensor, mirrored: bool = False, keep: bool = True
    ) -> torch.Tensor:
        """What enters the first trained block for uint8 images (N, 3, h, w): (N, T, D), float32.

        Images whose features are kept are not computed again. keep: remember those of the others.
        """
        keys = [(image.numpy().tobytes(), mirrored) for image in images.cpu()]
        digests = [(hashlib.sha256(raw).digest(), side) for raw, side in keys]
        new = {key: i for i, key in enumerate(digests) if key not in self._kept}
        known = dict(self._kept)
        if new:
            rows = self._computed(images[list(new.values())], mirrored)
            known.update(zip(new, rows, strict=True))
        if keep:
            self._kept = known
        return torch.stack([known[key] for key in digests])

    def _computed(self, images: torch.Tensor, mirrored: bool) -> torch.Tensor:
        caught: list[torch.Tensor] = []

        def catch(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            caught.append(inputs[0].float())
            raise _EnoughError

        hook = self.model.blocks[self.depth].register_forward_pre_hook(catch)
        try:
            with evaluating(self.model), torch.no_grad(), quick_arithmetic(self.model):
                for part in images.split(CHUNK):
                    with suppress(_EnoughError):
                        self.model(prepare(self.model, part.flip(3) if mirrored else part))
        finally:
            hook.remove()
        return torch.cat(caught)

    def logits(self, model: nn.Module, features: torch.Tensor) -> torch.Tensor:
        """Logits (N, C) of a model with these early blocks, from kept features."""
        with evaluating(model), torch.no_grad(), quick_arithmetic(model):
            parts = [late_forward(model, self.depth, f) for f in features.split(CHUNK)]
        return torch.cat(parts).float().cpu()


def late_forward(model: nn.Module, depth: int, features: torch.Tensor) -> torch.Tensor:
    """The rest of the forward pass from block `depth` on: (N, T, D) -> (N, C)."""
    for block in model.blocks[depth:]:
        features = block(features)
    return model.forward_head(model.norm(features))


def late_modules(model: nn.Module, depth: int) -> nn.ModuleList:
    """What is trained: the late blocks, the last norms and the head."""
    names = ("norm", "fc_norm", "head")
    return nn.ModuleList([*model.blocks[depth:], *(getattr(model, name) for name in names)])


def fit_late(
    model: nn.Module, early: Early, train_set: ImageSet, val_set: ImageSet, recipe: LateRecipe
) -> LateHistory:
    """Train the late part of `model` in place; the best epoch on val_set is kept, eval mode.

    Of equally accurate epochs the one of the least validation loss.
    """
    views = [early.features(train_set.images, m, keep=False) for m in (False, True)]
    val = early.features(val_set.images)
    device = views[0].device
    labels, val_labels = train_set.labels.to(device), val_set.labels.to(device)
    late = late_modules(model, early.depth)
    trained = [p for p in late.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, recipe.lr, weight_decay=recipe.weight_decay)
    steps = -(-len(labels) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, recipe.epochs * steps)
    generator = torch.Generator().manual_seed(recipe.seed)
    best, state, history = (-1.0, 0.0), {}, LateHistory([], [])
    for _ in range(recipe.epochs):
        late.train()
        for rows in torch.randperm(len(labels), generator=generator).split(recipe.batch):
            mirrored = torch.rand(len(rows), generator=generator) < 0.5
            x = torch.where(mirrored.to(device)[:, None, None], views[1][rows], views[0][rows])
            with quick_arithmetic(model):
                logits = late_forward(model, early.depth, x)
            loss = F.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        logits = early.logits(model.eval(), val).to(device)
        history.val_loss.append(float(F.cross_entropy(logits, val_labels)))
        history.val_accuracy.append(float((logits.argmax(1) == val_labels).float().mean()))
        score = (history.val_accuracy[-1], -history.val_loss[-1])
        if score > best:
            best, state = score, copy.deepcopy(late.state_dict())
    late.load_state_dict(state)
    model.eval()
    return history


# ---------------------------------------------------------------- finished trainings


def load_late(file: Path, late: nn.Module, facts: dict) -> LateHistory | None:
    """Load a finished training into `late`, if `file` holds one of the same facts."""
    try:
        with safe_open(file, "pt") as handle:
            known = json.loads(dict(handle.metadata() or {}).get("facts", "{}"))
        if {name: known.get(name) for name in facts} != json.loads(json.dumps(facts)):
            return None
        late.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError, ValueError):  # absent, broken or another model
        return None
    return LateHistory(**known["history"])


def save_late(file: Path, late: nn.Module, facts: dict, history: LateHistory) -> None:
    """Keep a finished training."""
    state = {name: tensor.contiguous() for name, tensor in late.state_dict().items()}
    save(file, state, {**facts, "history": asdict(history)})
