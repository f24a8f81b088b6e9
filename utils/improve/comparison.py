"""All seeds together: intervals, paired differences, and verdicts on what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from .. import stats
from ..evaluate import Predictions
from ..stats import Interval
from .arms import ARMS, BLIND, CONTROL_ARMS, PAPER, TITLES

METRICS = ("accuracy", "precision", "recall", "f1")


def _scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """METRICS (macro) of confusion counts (..., C, C), rows true; no prediction: precision 0."""
    hit, true, called = counts.diagonal(axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)
    precision, recall = hit / np.maximum(called, 1e-12), hit / np.maximum(true, 1e-12)
    f1 = 2 * hit / np.maximum(called + true, 1e-12)
    return {
        "accuracy": hit.sum(-1) / counts.sum((-2, -1)),
        "precision": precision.mean(-1),
        "recall": recall.mean(-1),
        "f1": f1.mean(-1),
    }


class Comparison:
    """All arms over all seeds, with 95 % percentile bootstrap intervals over seeds and test images.

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
        # of each image in each draw
        weight = rng.multinomial(n, np.full(n, 1 / n), draws).astype(np.float32)
        drawn = rng.integers(0, s, (draws, s))
        self.mean: dict[str, dict[str, float]] = {}
        self.draws: dict[str, dict[str, np.ndarray]] = {}
        self.correct: dict[str, np.ndarray] = {}  # (S, N)
        for arm in arms:
            self.correct[arm] = np.stack([o[arm].correct.numpy() for o in outcomes])
            place = torch.stack([labels * c + o[arm].predicted for o in outcomes]).numpy()
            cells = place[:, None] == np.arange(c * c)[:, None]  # (S, C * C, N)
            cells = cells.astype(np.float32)
            whole = _scores(cells.sum(-1).reshape(s, c, c))
            counts = (weight @ cells.reshape(s * c * c, n).T).reshape(draws, s, c, c)
            self.mean[arm] = {k: float(v.mean()) for k, v in whole.items()}
            self.draws[arm] = {
                k: np.take_along_axis(v, drawn, 1).mean(1) for k, v in _scores(counts).items()
            }

    def _interval(self, mean: float, draws: np.ndarray) -> Interval:
        low, high = np.percentile(draws, [2.5, 97.5])
        return Interval(mean, float(low), float(high))

    def interval(self, arm: str, metric: str = "accuracy") -> Interval:
        """Mean over seeds with its 95 % interval."""
        return self._interval(self.mean[arm][metric], self.draws[arm][metric])

    def difference(self, arm: str, to: str = "baseline", metric: str = "accuracy") -> Interval:
        """arm minus `to` on the same images and seeds."""
        mean = self.mean[arm][metric] - self.mean[to][metric]
        return self._interval(mean, self.draws[arm][metric] - self.draws[to][metric])

    def changes(self, arm: str) -> tuple[np.ndarray, np.ndarray]:
        """The baseline's mistakes that `arm` fixed, and new ones that it made: (S,), (S,)."""
        before, after = self.correct["baseline"], self.correct[arm]
        return (~before & after).sum(1), (before & ~after).sum(1)

    def best_control(self) -> str:
        """The control of the highest mean accuracy."""
        return max(
            (a for a in CONTROL_ARMS if a in self.mean), key=lambda a: self.mean[a]["accuracy"]
        )

    def numbers(self) -> dict[str, float]:
        """Everything as flat dotted names for report.save_results."""
        flat: dict[str, float] = {}
        for arm in self.mean:
            for metric in METRICS:
                flat |= named(f"{arm}.{metric}", self.interval(arm, metric))
            if arm != "baseline":
                flat |= named(f"{arm}.minus_baseline", self.difference(arm))
                fixed, new = self.changes(arm)
                flat |= {f"{arm}.fixed": float(fixed.mean()), f"{arm}.new": float(new.mean())}
            if arm in CONTROL_ARMS:
                flat |= named(f"both.minus_{arm}", self.difference("both", arm))
        best = self.difference("both", self.best_control())
        return flat | named("both.minus_best_control", best)


# ---------------------------------------------------------------- verdicts


def published_gain(arm: str) -> float:
    """What Vemula et al. report for an arm, as a difference to their baseline."""
    return PAPER[arm] - PAPER["baseline"]


def published_verdict(comparison: Comparison, arm: str) -> str:
    """same, excluded or inconclusive: half of the published difference bears the claim out."""
    gain = published_gain(arm)
    return stats.verdict(comparison.difference(arm), gain, abs(gain) / 2)


def effect(difference: Interval, size: float) -> str:
    """What an interval says about an effect of `size` (above 0) and about none at all, in words."""
    zero = "zero is excluded" if not difference.low <= 0 <= difference.high else "zero is not"
    full = difference.above(size) or difference.below(size)
    at_size = f"{100 * size:+.1f} points are {'excluded' if full else 'possible'}"
    return f"{points(difference)}: {at_size}, {zero}"


def points(difference: Interval) -> str:
    """A difference of shares as percentage points."""
    mean, low, high = (round(100 * value, 1) + 0.0 for value in difference)  # no "-0.0"
    return f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}]"


def named(name: str, values: tuple[float, float, float]) -> dict[str, float]:
    """{name.mean, name.low, name.high}"""
    return dict(zip((f"{name}.mean", f"{name}.low", f"{name}.high"), values, strict=True))


def conclusion(comparison: Comparison) -> str:
    """Did the loop help here, by more than without looking, and by more than the best control?"""
    gain, size = comparison.difference("both"), published_gain("both")
    lines = [f"Generated + training against the baseline: {effect(gain, size)}."]
    for control in (*BLIND, comparison.best_control()):
        if control in comparison.mean and TITLES[control] not in " ".join(lines):
            over = comparison.difference("both", control)
            lines.append(f"Against “{TITLES[control]}”: {effect(over, size)}.")
    over = comparison.difference("both", comparison.best_control())
    if gain.above(0) and over.above(0):
        lines.append("So the loop itself helped here: it beats every control.")
    elif over.below(size):
        lines.append(
            "So an advantage of the published size over the controls is excluded here: whatever "
            "the loop gains, controls that know nothing of the maps or mistakes gain as well."
        )
    else:
        lines.append("So these runs cannot tell whether the loop is worth more than its controls.")
    return "\n\n".join(lines)
