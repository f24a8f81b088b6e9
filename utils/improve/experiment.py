"""The loop closed: one seed of it, and what all seeds together say.

Find mistakes on the validation set, read their maps, describe the weakness, generate images, retrain
in several ways, measure on the test set (after Vemula et al., "Explainability to improve ViTs").
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from .. import models
from ..data import ImageSet, Splits
from ..env import seed_everything
from ..evaluate import Predictions
from ..train import Recipe, save
from .arms import ARMS, CONTROLS, TITLES, fingerprint, retrain, training_set
from .findings import Analyst, Evidence, Finding, gather
from .generators import Generated, Generator, generate, random_findings

METRICS = ("accuracy", "precision", "recall", "f1")


@dataclass(frozen=True)
class Plan:
    """All that decides a loop but the data and the seed."""

    arch: str
    weights: str
    first: Recipe  # of the baseline
    again: Recipe  # of every other arm, which goes on from the baseline
    analyst: Analyst
    generator: Callable[[nn.Module, ImageSet, int], Generator]  # (baseline, training set, seed)
    count: int  # generated images
    lora_lr: float  # few weights take larger steps
    method: str = "lrp"
    arms: tuple[str, ...] = ARMS


@dataclass
class Outcome:
    """One seed of the loop."""

    seed: int
    evidence: Evidence
    findings: list[Finding]
    made: Generated
    random_made: Generated
    models: dict[str, nn.Module] = field(default_factory=dict)
    test: dict[str, Predictions] = field(default_factory=dict)


def run_seed(plan: Plan, parts: Splits, seed: int, folder: Path) -> Outcome:
    """Baseline, mistakes, findings, images, and every arm of the plan; finished arms are taken from `folder`.

    Validation images are where mistakes are looked for and what chooses each run's epoch. The
    test set is only predicted, after everything is trained.
    """
    seed_everything(seed)
    fresh = models.build(plan.arch, len(parts.train.classes), plan.weights)
    plain = replace(parts.train, masks=None)
    first = replace(plan.first, seed=seed)
    baseline = _timed(
        "baseline", seed, retrain, fresh, plain, parts.val, first, folder / f"baseline-{seed}"
    )
    evidence = gather(baseline, parts.val, plan.method)
    findings = plan.analyst.analyse(evidence)
    generator = plan.generator(baseline, parts.train, seed)
    made = generate(generator, evidence, findings, plan.count, seed)
    chance = random_findings(evidence, findings, seed)
    random_made = generate(generator, evidence, chance, len(made.labels), seed + 500)
    found = Outcome(seed, evidence, findings, made, random_made, {"baseline": baseline})
    for arm in plan.arms[1:]:
        recipe = replace(plan.again, seed=seed, lr=plan.lora_lr if arm == "lora" else plan.again.lr)
        images = training_set(arm, parts.train, made, random_made, seed)
        where = folder / f"{arm}-{seed}"
        found.models[arm] = _timed(arm, seed, retrain, baseline, images, parts.val, recipe, where)
    for arm, model in found.models.items():
        found.test[arm] = _predict(model, parts.test, folder / f"{arm}-{seed}" / "test.safetensors")
    return found


def _timed(arm: str, seed: int, run: Callable, start: nn.Module, *rest) -> nn.Module:
    """run(arm, start, *rest), the last of which is its folder, and a line that says whether it trained."""
    state = Path(rest[-1]) / "last.safetensors"  # written anew by every training step that is kept
    before = state.stat().st_mtime_ns if state.exists() else None
    began = time.perf_counter()
    model = run(arm, start, *rest)
    spent = time.perf_counter() - began
    words = (
        "was finished before" if state.stat().st_mtime_ns == before else f"trained in {spent:.0f} s"
    )
    print(
        f"seed {seed}, {TITLES[arm]}: {words}; {max(model.history.val_accuracy):.3f} of the validation images right"
    )
    return model


def _predict(model: nn.Module, test: ImageSet, file: Path) -> Predictions:
    """Predictions on the test set, kept in `file` for the same weights and images."""
    facts = {
        "weights": fingerprint(model.state_dict()),
        "images": fingerprint({"images": test.images[:: max(1, len(test) // 500)]}),
    }
    try:
        with safe_open(file, "pt") as handle:
            known = dict(handle.metadata() or {}).get("facts") == json.dumps(facts)
        logits = load_file(file)["logits"] if known else None
    except (OSError, SafetensorError):
        logits = None
    if logits is None or len(logits) != len(test):
        logits = models.logits_of(model, test.images)
        save(file, {"logits": logits}, facts)
    return Predictions(logits, test.labels, test.classes)


# ---------------------------------------------------------------- what all seeds say


def _scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """METRICS (macro) of confusion counts (..., C, C), rows true; a class never predicted has precision 0."""
    hit, true, said = counts.diagonal(axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)
    precision, recall = hit / np.maximum(said, 1e-12), hit / np.maximum(true, 1e-12)
    f1 = 2 * hit / np.maximum(said + true, 1e-12)
    return {
        "accuracy": hit.sum(-1) / counts.sum((-2, -1)),
        "precision": precision.mean(-1),
        "recall": recall.mean(-1),
        "f1": f1.mean(-1),
    }


class Comparison:
    """All arms over all seeds, with 95 % percentile bootstrap intervals that draw seeds and test images.

    The same draws serve every arm, so that differences are paired. With few seeds the intervals
    are too narrow rather than too wide.
    """

    def __init__(
        self, outcomes: Sequence[Mapping[str, Predictions]], draws: int = 2000, seed: int = 0
    ):
        arms = [arm for arm in ARMS if arm in outcomes[0]]
        labels = outcomes[0][arms[0]].labels
        n, c, s = len(labels), len(outcomes[0][arms[0]].classes), len(outcomes)
        rng = np.random.default_rng(seed)
        weight = rng.multinomial(n, np.full(n, 1 / n), draws).astype(
            np.float32
        )  # of each image in each draw
        drawn = rng.integers(0, s, (draws, s))
        self.mean: dict[str, dict[str, float]] = {}
        self.draws: dict[str, dict[str, np.ndarray]] = {}
        self.correct = {
            arm: np.stack([o[arm].correct.numpy() for o in outcomes]) for arm in arms
        }  # (S, N)
        for arm in arms:
            place = torch.stack([labels * c + o[arm].predicted for o in outcomes]).numpy()
            cells = (place[:, None] == np.arange(c * c)[:, None]).astype(
                np.float32
            )  # (S, C * C, N)
            whole = _scores(cells.sum(-1).reshape(s, c, c))
            counts = (weight @ cells.reshape(s * c * c, n).T).reshape(draws, s, c, c)
            self.mean[arm] = {k: float(v.mean()) for k, v in whole.items()}
            self.draws[arm] = {
                k: np.take_along_axis(v, drawn, 1).mean(1) for k, v in _scores(counts).items()
            }

    def interval(self, arm: str, metric: str = "accuracy") -> tuple[float, float, float]:
        """Mean over seeds, low, high."""
        low, high = np.percentile(self.draws[arm][metric], [2.5, 97.5])
        return self.mean[arm][metric], float(low), float(high)

    def difference(
        self, arm: str, to: str = "baseline", metric: str = "accuracy"
    ) -> tuple[float, float, float]:
        """arm minus `to` on the same images and seeds: mean, low, high."""
        low, high = np.percentile(self.draws[arm][metric] - self.draws[to][metric], [2.5, 97.5])
        return self.mean[arm][metric] - self.mean[to][metric], float(low), float(high)

    def changes(self, arm: str) -> tuple[np.ndarray, np.ndarray]:
        """The baseline's mistakes that `arm` fixed, and new ones that it made, for each seed: (S,), (S,)."""
        before, after = self.correct["baseline"], self.correct[arm]
        return (~before & after).sum(1), (before & ~after).sum(1)

    def best_control(self) -> str:
        """The control of the highest mean accuracy."""
        return max((a for a in CONTROLS if a in self.mean), key=lambda a: self.mean[a]["accuracy"])

    def numbers(self) -> dict[str, float]:
        """Everything as flat dotted names for report.save_results."""
        found = {}
        for arm in self.mean:
            for metric in METRICS:
                found |= _named(f"{arm}.{metric}", self.interval(arm, metric))
            if arm != "baseline":
                found |= _named(f"{arm}.minus_baseline", self.difference(arm))
                fixed, new = self.changes(arm)
                found |= {f"{arm}.fixed": float(fixed.mean()), f"{arm}.new": float(new.mean())}
        return found | _named(
            "both.minus_best_control", self.difference("both", self.best_control())
        )

    def verdict(self) -> str:
        """In words: did the loop help here, and by more than the controls?"""
        gain, control = self.difference("both"), self.best_control()
        over = self.difference("both", control)
        s = len(self.correct["both"])
        return " ".join(
            [
                f"Over {s} seeds, generated images with the training data {_did(gain)} (difference to the baseline {_points(gain)}).",
                f"The best control is “{TITLES[control].removeprefix('control: ')}” ({_points(self.difference(control))} to the baseline);",
                f"against it the loop {_did(over)} ({_points(over)}).",
                "So what helped here was the loop itself."
                if over[1] > 0
                else "So these runs do not show that describing the mistakes and generating for them did more than a control that knows nothing of them.",
            ]
        )


def _named(name: str, values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((f"{name}.mean", f"{name}.low", f"{name}.high"), values, strict=True))


def _did(difference: tuple[float, float, float]) -> str:
    _, low, high = difference
    return (
        "helped"
        if low > 0
        else "hurt"
        if high < 0
        else "made no difference that can be told from chance"
    )


def _points(difference: tuple[float, float, float]) -> str:
    mean, low, high = (100 * value for value in difference)
    return f"{mean:+.1f} points, interval {low:+.1f} to {high:+.1f}"


# ---------------------------------------------------------------- where the maps are


def middle(height: int, width: int, share: float = 0.5) -> torch.Tensor:
    """The disc in the middle that covers `share` of the picture, bool (height, width): a stand-in for the object
    where no mask is known, good as far as photographers centre their subject.
    """
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    return x**2 + y**2 <= 4 * share / torch.pi


def inside(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Share of each map's mass (N, h, w) in its mask, bool (N, h, w) or one for all (h, w): (N,) in 0..1."""
    mass = maps.abs()
    return (mass * masks).sum((1, 2)) / mass.sum((1, 2)).clamp(min=1e-12)
