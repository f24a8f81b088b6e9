"""The loop closed for one seed: mistakes, findings, images, and every way to retrain.

After Vemula et al., *Does Explainability Help in Improving ViTs?*: find mistakes on the validation
set, read their maps, describe the weakness, generate images, retrain, measure on the test set.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from .. import models
from ..data import ImageSet, Splits
from ..env import seed_everything
from ..evaluate import Predictions
from ..train import Recipe, save
from .arms import ARMS, SOURCE_OF, hash_of, retrain, training_set
from .findings import Analyst, Evidence, Finding, gather
from .generators import Generated, Generator, generate, random_findings
from .late import Early, LateRecipe


@dataclass(frozen=True)
class Plan:
    """All that decides a loop but the data and the seed."""

    arch: str
    weights: str
    first: Recipe | LateRecipe  # of the baseline
    again: Recipe | LateRecipe  # of every other arm, which goes on from the baseline
    analyst: Analyst
    generator: Callable[[nn.Module, ImageSet, int], Generator]  # (baseline, training set, seed)
    count: int  # generated images
    lora_lr: float  # few weights take larger steps
    method: str = "lrp"
    arms: tuple[str, ...] = ARMS
    frozen: int = 0  # early blocks that stay as pretrained; 0: all are trained, by Recipe


@dataclass
class Outcome:
    """One seed of the loop. findings and made: by source, as SOURCE_OF names them."""

    seed: int
    evidence: Evidence
    findings: dict[str, list[Finding]]
    made: dict[str, Generated]
    models: dict[str, nn.Module] = field(default_factory=dict)
    test: dict[str, Predictions] = field(default_factory=dict)


class Loop:
    """The loop over one data set; its steps are methods, and each can be looked at by itself.

    folder: finished trainings are kept there and taken from there. Validation images are where
    mistakes are looked for and what chooses each training's epoch. The test set is only
    predicted, after everything is trained.
    """

    def __init__(self, plan: Plan, parts: Splits, folder: Path) -> None:
        self.plan, self.parts, self.folder = plan, parts, folder
        self.early: Early | None = None

    def run(self, seed: int) -> Outcome:
        """All steps for one seed, and a line that says what was trained."""
        began = time.perf_counter()
        outcome = self.prepare(seed)
        self.retrain(outcome)
        self.predict(outcome)
        best = max(outcome.models["baseline"].history.val_accuracy)
        print(
            f"seed {seed}: {len(outcome.models)} arms after {time.perf_counter() - began:.0f} s; "
            f"the baseline classifies {best:.1%} of the validation images correctly"
        )
        return outcome

    def prepare(self, seed: int) -> Outcome:
        """The baseline, its mistakes, what the analyst finds, and the images generated for it."""
        plan, parts = self.plan, self.parts
        baseline = self.baseline(seed)
        evidence = gather(baseline, parts.val, plan.method)
        outcome = Outcome(seed, evidence, {}, {}, {"baseline": baseline})
        generator = plan.generator(baseline, parts.train, seed)
        wanted = {SOURCE_OF[arm] for arm in plan.arms if arm in SOURCE_OF} | {"both"}
        for source, seen in seen_by(evidence, seed).items():
            if source in wanted:
                findings = plan.analyst.analyse(seen)
                outcome.findings[source] = findings
                outcome.made[source] = generate(generator, seen, findings, plan.count, seed)
        if "random_generated" in wanted:
            chance = random_findings(evidence, outcome.findings["both"], seed)
            count = len(outcome.made["both"].labels)
            outcome.findings["random_generated"] = chance
            outcome.made["random_generated"] = generate(
                generator, evidence, chance, count, seed + 500
            )
        return outcome

    def baseline(self, seed: int) -> nn.Module:
        """The model that the loop starts from, trained on the training images alone."""
        seed_everything(seed)
        classes = len(self.parts.train.classes)
        fresh = models.build(self.plan.arch, classes, self.plan.weights)
        if self.plan.frozen and self.early is None:
            self.early = Early(fresh, self.plan.frozen)
            for mirrored in (False, True):
                self.early.features(self.parts.train.images, mirrored)
        plain = replace(self.parts.train, masks=None)
        recipe = replace(self.plan.first, seed=seed)
        return self._train("baseline", fresh, plain, recipe)

    def retrain(self, outcome: Outcome, arms: Sequence[str] = ()) -> None:
        """Some arms, or all of the plan, from the baseline on."""
        plan = self.plan
        for arm in arms or plan.arms[1:]:
            lr = plan.lora_lr if arm == "lora" else plan.again.lr
            recipe = replace(plan.again, seed=outcome.seed, lr=lr)
            images = training_set(arm, self.parts.train, outcome.made, outcome.seed)
            start = outcome.models["baseline"]
            outcome.models[arm] = self._train(arm, start, images, recipe)

    def _train(
        self, arm: str, start: nn.Module, images: ImageSet, recipe: Recipe | LateRecipe
    ) -> nn.Module:
        folder = self.folder / f"{arm}-{recipe.seed}"
        return retrain(arm, start, images, self.parts.val, recipe, folder, self.early)

    def predict(self, outcome: Outcome) -> None:
        """The test set, by every arm; kept on disk for the same weights and images."""
        for arm, model in outcome.models.items():
            file = self.folder / f"{arm}-{outcome.seed}" / "test.safetensors"
            outcome.test[arm] = _predict(model, self.parts.test, file, self.early)


def seen_by(evidence: Evidence, seed: int) -> Mapping[str, Evidence]:
    """The same mistakes with the model's maps, with another image's maps, and with uniform ones."""
    n = len(evidence.maps)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    others = torch.empty_like(evidence.maps)
    others[order] = evidence.maps[order.roll(1)]  # no image keeps its own
    return {
        "both": evidence,
        "other_maps": replace(evidence, maps=others),
        "uniform_maps": replace(evidence, maps=torch.ones_like(evidence.maps)),
    }


def _predict(model: nn.Module, test: ImageSet, file: Path, early: Early | None) -> Predictions:
    """Predictions on the test set, kept in `file` for the same weights and images."""
    facts = {
        "weights": hash_of(model.state_dict()),
        "images": hash_of({"images": test.images[:: max(1, len(test) // 500)]}),
    }
    try:
        with safe_open(file, "pt") as handle:
            known = dict(handle.metadata() or {}).get("facts") == json.dumps(facts)
        logits = load_file(file)["logits"] if known else None
    except (OSError, SafetensorError):
        logits = None
    if logits is None or len(logits) != len(test):
        if early is None:
            logits = models.logits_of(model, test.images)
        else:
            logits = early.logits(model, early.features(test.images))
        save(file, {"logits": logits}, facts)
    return Predictions(logits, test.labels, test.classes)
