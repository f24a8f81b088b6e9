"""The ways to retrain that are compared: the published four, and the controls that they lack."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from .. import data, models, train
from ..data import ImageSet
from ..train import Recipe
from .generators import Generated
from .late import Early, LateRecipe, fit_late, late_modules, load_late, save_late

PUBLISHED = ("baseline", "generated", "both", "lora")
BLIND = ("other_maps", "uniform_maps")  # the same mistakes, without looking where the model looked
CONTROL_ARMS = (*BLIND, "random_generated", "augmented", "more_steps")
ARMS = PUBLISHED + CONTROL_ARMS
LATE_FILE = "late.safetensors"
TITLES = {
    "baseline": "baseline",
    "generated": "generated only",
    "both": "generated + training",
    "lora": "LoRA, generated + training",
    "other_maps": "control: another image's maps",
    "uniform_maps": "control: uniform maps",
    "random_generated": "control: random generated",
    "augmented": "control: augmented",
    "more_steps": "control: more steps",
}
# Vemula et al., accuracy
PAPER = {"baseline": 0.953, "generated": 0.927, "both": 0.978, "lora": 0.934}
SOURCE_OF = {  # which generated images an arm is trained on
    **dict.fromkeys(PUBLISHED[1:], "both"),
    **{arm: arm for arm in (*BLIND, "random_generated")},
}


def ordinary(images: torch.Tensor, seed: int) -> torch.Tensor:
    """Mirror, shift, and brightness and contrast changed by up to a quarter; uint8 (N, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    moved = data.augment(images, generator).float()
    light, contrast = torch.rand(2, len(images), 1, 1, 1, generator=generator) * 0.5 - 0.25
    middle = moved.mean((1, 2, 3), keepdim=True)
    changed = (moved - middle) * (1 + contrast) + middle + 255 * light
    return changed.clamp(0, 255).round().to(torch.uint8)


def training_set(
    arm: str, train_set: ImageSet, made: Mapping[str, Generated], seed: int
) -> ImageSet:
    """What an arm is retrained on. Every arm gets as many images, so that all take as many steps.

    made: the generated images by their source, as SOURCE_OF names it.
    """
    plain = replace(train_set, masks=None)
    n = len(made["both"].labels)
    again = torch.randint(len(train_set), (n,), generator=torch.Generator().manual_seed(seed))
    if arm == "augmented":
        images, labels = ordinary(train_set.images[again], seed), train_set.labels[again]
    elif arm == "more_steps":
        images, labels = train_set.images[again], train_set.labels[again]
    elif arm in SOURCE_OF:
        generated = made[SOURCE_OF[arm]]
        images, labels = generated.images, generated.labels
    else:
        raise ValueError(f"There is no arm {arm!r} to retrain: use {', '.join(ARMS[1:])}.")
    if arm == "generated":
        index = torch.arange(len(train_set) + n) % n
        return replace(plain, images=images[index], labels=labels[index])
    images, labels = torch.cat([train_set.images, images]), torch.cat([train_set.labels, labels])
    return replace(plain, images=images, labels=labels)


# ---------------------------------------------------------------- LoRA


def add_lora(model: nn.Module, rank: int = 8, first: int = 0) -> None:
    """Low-rank updates beside every linear layer of the blocks (Hu et al. 2022).

    All but these and the head is frozen. first: the first block that gets them. Changes `model`,
    a timm ViT, in place. Raises RuntimeError without the package peft, ValueError for a CNN.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise RuntimeError(
            "The package peft is not installed: run pip install peft, or leave the arm lora out."
        ) from None
    if not hasattr(model, "blocks"):
        raise ValueError(
            f"LoRA is for the blocks of a Vision Transformer, which {model.arch} does not have."
        )
    numbers = "|".join(str(i) for i in range(first, len(model.blocks)))
    layers = rf"blocks\.({numbers})\.(attn\.(qkv|proj)|mlp\.fc\d)"
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers)
    inject_adapter_in_model(config, model)
    nn.ModuleList(models.heads(model)).requires_grad_(True)


def merge_lora(model: nn.Module) -> None:
    """Add the low-rank updates to the weights in place: plain linear layers, all trainable."""
    from peft.tuners.lora import LoraLayer

    for name, layer in [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer)]:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    model.requires_grad_(True)


# ---------------------------------------------------------------- one run


def hash_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """A short hash of named tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def retrain(
    arm: str,
    start: nn.Module,
    train_set: ImageSet,
    val_set: ImageSet,
    recipe: Recipe | LateRecipe,
    folder: Path,
    early: Early | None = None,
) -> nn.Module:
    """A copy of `start` trained on; a run finished before in `folder` is loaded. eval mode.

    val_set chooses the epoch. The start's weights are part of what identifies the run. early: the
    frozen blocks, for a LateRecipe; otherwise all blocks are trained.
    """
    model = copy.deepcopy(start)
    origin = hash_of(start.state_dict())
    model.provenance = f"{arm} from {origin}"
    if arm == "lora":
        torch.manual_seed(recipe.seed)  # the updates' first values
        add_lora(model, first=early.depth if early else 0)
    if early is None:
        if isinstance(recipe, LateRecipe):
            raise ValueError("A LateRecipe needs frozen blocks: set frozen in the plan.")
        model.history = train.fit(model, train_set, val_set, recipe, folder)
    else:
        if not isinstance(recipe, LateRecipe):
            raise ValueError("With frozen blocks the recipe must be a LateRecipe.")
        late = late_modules(model, early.depth)
        facts = {
            "start": origin,
            "recipe": asdict(recipe),
            "train": hash_of({"images": train_set.images, "labels": train_set.labels}),
            "val": hash_of({"images": val_set.images, "labels": val_set.labels}),
        }
        history = load_late(folder / LATE_FILE, late, facts)
        if history is None:
            history = fit_late(model, early, train_set, val_set, recipe)
            save_late(folder / LATE_FILE, late, facts, history)
        model.history = history
    if arm == "lora":
        merge_lora(model)
    return model.eval()
