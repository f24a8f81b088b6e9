"""What pretraining is worth: all course weights of an architecture, fine-tuned alike."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from .. import data, evaluate, models
from ..env import WEIGHTS, device_name, profile, seed_everything, write
from .chapter_models import run_dir
from .recipes import COMPARE, Recipe
from .supervised import fit

SEEDS = (0, 1, 2)


def accuracy_after(arch: str, weights: str, seed: int, recipe: Recipe = COMPARE) -> float:
    """Test accuracy (0..1) of `arch` fine-tuned from `weights` on the published subset of CIFAR-10.

    4,050 images to train, 450 to choose the epoch, 2,500 test images; the seed decides the new
    head, the random weights and the order, never the images. Goes on where an earlier
    call was stopped.
    """
    settings = replace(profile("paper"), source="cifar10")
    parts = data.splits(settings)
    seed_everything(seed)
    model = models.build(arch, len(parts.train.classes), weights)
    folder = run_dir(arch, settings, parts.train.source, weights, f"few{seed}")
    fit(model, parts.train, parts.val, replace(recipe, seed=seed), folder)
    return evaluate.predict(model, parts.test).correct.float().mean().item()


def compare(arch: str, recipe: Recipe = COMPARE) -> dict[str, list[float]]:
    """Fine-tune every initialisation of `arch` with each of SEEDS: {name: accuracies}.

    A name is "random" or the pretraining of a card, into which the accuracies are also written.
    Weights that were trained on labelled CIFAR-10 images are left out: they know these classes.
    Raises FileNotFoundError if `arch` has no other.
    """
    cards = [f for f in sorted(WEIGHTS.glob(f"{arch}.*.json")) if f.stem != f"{arch}.cifar10"]
    if not cards:
        raise FileNotFoundError(
            f"{arch} has no course weights that have not seen CIFAR-10's labels: "
            f"make some with `python -m utils.train distil {arch}`."
        )
    kinds = [card.stem.partition(".")[2] for card in cards]
    weights = {"random": "none"} | {kind: f"course:{kind}" for kind in kinds}
    accuracies = {
        name: [accuracy_after(arch, initial, seed, recipe) for seed in SEEDS]
        for name, initial in weights.items()
    }
    for kind, card in zip(kinds, cards, strict=True):
        facts = {
            "command": f"python -m utils.train compare {arch}",
            "recipe": asdict(recipe),
            "seeds": SEEDS,
            "images": profile("paper").n_train,
            "test_images": profile("paper").n_test,
            "accuracy": accuracies[kind],
            "accuracy_from_random_weights": accuracies["random"],
            "device": device_name(),
        }
        write(
            card, json.dumps(json.loads(card.read_text()) | {"fine_tuned": facts}, indent=1) + "\n"
        )
    return accuracies
