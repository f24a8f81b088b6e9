"""The models that the notebooks look at: fine-tuned once, or shipped, and then loaded."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from torch import nn

from .. import data, evaluate, models
from ..env import RUNS, Profile, alone, device, profile, seed_everything
from . import processes
from .recipes import RECIPES, Recipe
from .supervised import fit


def run_dir(
    arch: str, settings: Profile, source: str, weights: str = "auto", label: str = ""
) -> Path:
    """Where a run lives: runs/<profile>/<source>/<arch>, `-none` for random weights, `-<label>`."""
    place = "".join(c if c.isalnum() else "-" for c in source.lower()).strip("-")
    parts = [arch, "" if weights == "auto" else Path(weights).stem.replace(":", "-"), label]
    return RUNS / settings.name / place / "-".join(part for part in parts if part)


def finetuned(
    arch: str,
    settings: Profile | None = None,
    weights: str = "auto",
    recipe: Recipe | None = None,
    label: str = "",
) -> nn.Module:
    """`arch` fine-tuned on the profile's training set: loaded if that was done, else trained now.

    The model is in eval mode on the profile's device and carries .history. weights: as in
    models.build ("none" gives the comparison from random weights). recipe: another than the
    profile's; give it a label to keep both results. XTL_MODEL puts the reader's own model in the
    place of the profile's CNN or ViT (models.own); its .history is None.
    """
    settings = settings or profile()
    parts = data.splits(settings)
    kind = "vit" if arch == settings.vit else "cnn"
    if arch in (settings.cnn, settings.vit) and weights == "auto" and not (recipe or label):
        own = models.own(kind, len(parts.train.classes))
        if own is not None:
            own.history = None
            return own.to(device()).eval()
    recipe = replace(recipe or RECIPES[settings.name, kind], seed=settings.seed)
    folder = run_dir(arch, settings, parts.train.source, weights, label)
    # another notebook may want the same model meanwhile: one trains it, the other then loads it
    with alone(folder) if processes.size() == 1 else nullcontext():
        seed_everything(settings.seed)  # the new head's values
        model = models.build(arch, len(parts.train.classes), weights)
        model.history = fit(model, parts.train, parts.val, recipe, folder)
    seed_everything(settings.seed)  # trained or loaded, what follows draws the same numbers
    return model


def explained(arch: str, settings: Profile | None = None) -> nn.Module:
    """The model that the explanation chapters look at, in eval mode on the profile's device.

    XTL_MODELS=cifar10 gives the course weights trained on 45,000 labelled CIFAR-10 images, and
    "finetuned" what `finetuned` gives. Unset, it is cifar10 in the demo profile on CIFAR-10,
    because maps of models that are often wrong explain little, and finetuned anywhere else.
    Their probabilities are calibrated: the temperature that evaluate.temperature fits on the
    validation images is divided into the head, kept as model.temperature and printed. A model of
    the reader's own (XTL_MODEL) is left as it is. Raises ValueError for another word, or where
    the weights cifar10 do not fit the data.
    """
    settings = settings or profile()
    parts = data.splits(settings)
    source = parts.train.source
    fits = arch in models.COURSE and source.startswith("CIFAR-10") and "cats" not in source
    choice = os.environ.get("XTL_MODELS") or (
        "cifar10"
        if fits and settings.name == "demo" and not os.environ.get("XTL_MODEL")
        else "finetuned"
    )
    if choice not in ("cifar10", "finetuned"):
        raise ValueError(f"XTL_MODELS is {choice!r}: set it to cifar10 or finetuned, or unset it.")
    if choice == "finetuned":
        model = finetuned(arch, settings)
        if model.history is None:
            return model
    elif not fits:
        raise ValueError(f"The weights cifar10 do not fit {arch} on {source}: unset XTL_MODELS.")
    else:
        model = models.build(arch, 10, "course:cifar10", keep_head=True).to(device())
        print(f"{arch}: {model.provenance}")
    model.temperature = evaluate.temperature(evaluate.predict(model, parts.val))
    for head in models.heads(model):
        head.weight.data /= model.temperature
        if head.bias is not None:
            head.bias.data /= model.temperature
    print(f"{arch}: temperature {model.temperature:.2f}, from {len(parts.val)} validation images")
    seed_everything(settings.seed)
    return model
