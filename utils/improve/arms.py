"""The ways to retrain that are compared: the published four, and the controls that they lack."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .. import data, models, train
from ..data import ImageSet
from ..train import Recipe
from .generators import Generated

PUBLISHED = ("baseline", "generated", "both", "lora")
CONTROLS = ("random_generated", "augmented", "more_steps")
ARMS = PUBLISHED + CONTROLS
TITLES = {
    "baseline": "baseline",
    "generated": "generated only",
    "both": "generated + training",
    "lora": "LoRA, generated + training",
    "random_generated": "control: random generated",
    "augmented": "control: augmented",
    "more_steps": "control: more steps",
}
PAPER = {
    "baseline": 0.953,
    "generated": 0.927,
    "both": 0.978,
    "lora": 0.934,
}  # Vemula et al., accuracy


def ordinary(images: torch.Tensor, seed: int) -> torch.Tensor:
    """Mirror, shift, and brightness and contrast changed by up to a quarter; uint8 (N, 3, H, W) in and out."""
    generator = torch.Generator().manual_seed(seed)
    moved = data.augment(images, generator).float()
    light, contrast = torch.rand(2, len(images), 1, 1, 1, generator=generator) * 0.5 - 0.25
    middle = moved.mean((1, 2, 3), keepdim=True)
    return (
        ((moved - middle) * (1 + contrast) + middle + 255 * light)
        .clamp(0, 255)
        .round()
        .to(torch.uint8)
    )


def training_set(
    arm: str, train_set: ImageSet, made: Generated, random_made: Generated, seed: int
) -> ImageSet:
    """What an arm is retrained on. Every arm gets as many images, so that all take as many steps."""
    plain = replace(train_set, masks=None)
    n, total = len(made.labels), len(train_set) + len(made.labels)
    again = torch.randint(len(train_set), (n,), generator=torch.Generator().manual_seed(seed))
    if arm == "generated":
        index = torch.arange(total) % n
        return replace(plain, images=made.images[index], labels=made.labels[index])
    extra = {
        "both": (made.images, made.labels),
        "lora": (made.images, made.labels),
        "random_generated": (random_made.images, random_made.labels),
        "augmented": (ordinary(train_set.images[again], seed), train_set.labels[again]),
        "more_steps": (train_set.images[again], train_set.labels[again]),
    }
    if arm not in extra:
        raise ValueError(f"There is no arm {arm!r} to retrain: use {', '.join(ARMS[1:])}.")
    images, labels = extra[arm]
    return replace(
        plain,
        images=torch.cat([train_set.images, images]),
        labels=torch.cat([train_set.labels, labels]),
    )


# ---------------------------------------------------------------- LoRA


def add_lora(model: nn.Module, rank: int = 8) -> None:
    """Low-rank updates beside every linear layer of the blocks (Hu et al. 2022); all but these and the head is frozen.

    Changes `model`, a timm ViT, in place. Raises RuntimeError without the package peft, ValueError for a CNN.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise RuntimeError(
            "The package peft is not installed: run pip install peft, or leave the arm lora out."
        ) from None
    if not hasattr(model, "blocks"):
        raise ValueError(
            f"LoRA is for the blocks of a Vision Transformer, which {model.arch} has not."
        )
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc\d)"
    )
    inject_adapter_in_model(config, model)
    for layer in models.heads(model):
        layer.requires_grad_(True)


def merge_lora(model: nn.Module) -> None:
    """Add the low-rank updates to the weights and leave plain linear layers, all trainable, in place."""
    from peft.tuners.lora import LoraLayer

    for name, layer in [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer)]:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    model.requires_grad_(True)


# ---------------------------------------------------------------- one run


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """A short hash of named tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def retrain(
    arm: str, start: nn.Module, train_set: ImageSet, val_set: ImageSet, recipe: Recipe, folder: Path
) -> nn.Module:
    """A copy of `start` trained on; a run finished before in `folder` is loaded. eval mode.

    val_set chooses the epoch. The start's weights are part of what identifies the run.
    """
    model = copy.deepcopy(start)
    model.provenance = f"{arm} from {fingerprint(start.state_dict())}"
    if arm == "lora":
        torch.manual_seed(recipe.seed)  # the updates' first values
        add_lora(model)
    model.history = train.fit(model, train_set, val_set, recipe, folder)
    if arm == "lora":
        merge_lora(model)
    return model.eval()
