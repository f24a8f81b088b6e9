"""One forward pass over the test images, and every metric from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)
from torch import nn

from .data import ImageSet
from .models import CHUNK, logits_of


@dataclass(frozen=True)
class Predictions:
    """What a model said about an image set; everything below is computed from it."""

    logits: torch.Tensor  # float32 (N, C)
    labels: torch.Tensor  # int64 (N,)
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.labels):
            raise ValueError("There is no image to evaluate: give a set that holds one at least.")
        if self.logits.shape != (len(self.labels), len(self.classes)):
            raise ValueError(
                f"The logits have shape {tuple(self.logits.shape)} but {len(self.labels)} images of "
                f"{len(self.classes)} classes need {(len(self.labels), len(self.classes))}: "
                "evaluate a model on the image set that its head is for."
            )

    @property
    def probabilities(self) -> torch.Tensor:
        """Softmax of the logits, (N, C), rows sum to 1."""
        return self.logits.softmax(1)

    @property
    def predicted(self) -> torch.Tensor:
        """The most probable class, int64 (N,)."""
        return self.logits.argmax(1)

    @property
    def confidence(self) -> torch.Tensor:
        """The probability of the predicted class, (N,) in 0..1."""
        return self.probabilities.amax(1)

    @property
    def correct(self) -> torch.Tensor:
        """Whether the predicted class is the label, bool (N,)."""
        return self.predicted == self.labels

    def title(self, i: int) -> str:
        """`predicted 87 %`, with the true class in brackets where that differs."""
        said = f"{self.classes[self.predicted[i]]} {self.confidence[i]:.0%}"
        return said if self.correct[i] else f"{said} (is {self.classes[self.labels[i]]})"


def predict(model: nn.Module, image_set: ImageSet, chunk: int = CHUNK) -> Predictions:
    """Logits for a whole set: one forward for each image, `chunk` images at a time."""
    return Predictions(
        logits_of(model, image_set.images, chunk), image_set.labels, image_set.classes
    )


def _roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean one-vs-rest area over the classes that occur (a bootstrap draw may miss one).

    NaN if all labels are the same: there is nothing to tell apart.
    """
    present = [c for c in range(probabilities.shape[1]) if 0 < (labels == c).sum() < len(labels)]
    if not present:
        return float("nan")
    return float(np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in present]))


def _metrics(
    labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray
) -> dict[str, float]:
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels,
        predicted,
        labels=np.arange(probabilities.shape[1]),
        average="macro",
        zero_division=0,
    )
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": _roc_auc(labels, probabilities),
    }


def metrics(predictions: Predictions) -> dict[str, float]:
    """Accuracy, macro precision, recall and F1, ROC-AUC (one vs rest, macro), calibration error.

    All in 0..1, all from scikit-learn but the calibration error (see `reliability`).
    """
    found = _metrics(*_arrays(predictions))
    return found | {"ece": reliability(predictions)[3]}


def _arrays(p: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return p.labels.numpy(), p.predicted.numpy(), p.probabilities.double().numpy()


def intervals(
    predictions: Predictions, n: int = 300, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals over the test images (Efron & Tibshirani 1993).

    {metric: (low, high)} for accuracy, precision, recall, f1 and roc_auc; n resamples. A metric
    without a value in some resamples (the ROC-AUC of a single class) takes the others.
    """
    labels, predicted, probabilities = _arrays(predictions)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(n):
        i = rng.integers(0, len(labels), len(labels))
        draws.append(list(_metrics(labels[i], predicted[i], probabilities[i]).values()))
    names = ("accuracy", "precision", "recall", "f1", "roc_auc")
    found = {}
    for name, values in zip(names, np.transpose(draws), strict=True):
        low, high = (
            np.percentile(values[np.isfinite(values)], [2.5, 97.5])
            if np.isfinite(values).any()
            else (np.nan,) * 2
        )
        found[name] = float(low), float(high)
    return found


def reliability(
    predictions: Predictions, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean confidence, accuracy and share of images per confidence bin (empty bins left out), and
    the expected calibration error: share-weighted mean of |accuracy - confidence| (Guo et al. 2017).
    """
    confidence, correct = predictions.confidence.double().numpy(), predictions.correct.numpy()
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    keep = count > 0
    mean_confidence = np.bincount(place, confidence, bins)[keep] / count[keep]
    accuracy = np.bincount(place, correct, bins)[keep] / count[keep]
    share = count[keep] / count.sum()
    return (
        mean_confidence,
        accuracy,
        share,
        float((share * np.abs(accuracy - mean_confidence)).sum()),
    )


def confusion(predictions: Predictions) -> np.ndarray:
    """Counts (C, C): rows true, columns predicted."""
    labels, predicted, _ = _arrays(predictions)
    return confusion_matrix(labels, predicted, labels=np.arange(len(predictions.classes)))


def class_accuracy(predictions: Predictions) -> np.ndarray:
    """Share of each class's images that are recognised (its recall), (C,); NaN if it has none."""
    counts = confusion(predictions)
    with np.errstate(invalid="ignore"):
        return counts.diagonal() / counts.sum(1)


def confused_pairs(predictions: Predictions) -> list[tuple[str, str, int]]:
    """(class, other class, mistakes in either direction), most often confused first."""
    counts = confusion(predictions)
    both = counts + counts.T
    names = predictions.classes
    pairs = [(names[i], names[j], int(both[i, j])) for i in range(len(names)) for j in range(i)]
    return sorted((p for p in pairs if p[2]), key=lambda p: -p[2])


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images: a minus b."""

    difference: float  # accuracy(a) - accuracy(b)
    low: float  # paired bootstrap, 95 %
    high: float
    only_a: int  # images that only a gets right
    only_b: int
    p_value: float  # exact McNemar test


def compare(a: Predictions, b: Predictions, n: int = 2000, seed: int = 0) -> Comparison:
    """Accuracy difference with a paired bootstrap interval, and McNemar's exact test (1947).

    Raises ValueError if the two are not about the same images in the same order.
    """
    if not torch.equal(a.labels, b.labels):
        raise ValueError(
            "The two predictions are about different images: predict both on the same image set."
        )
    paired = a.correct.numpy().astype(float) - b.correct.numpy()
    rng = np.random.default_rng(seed)
    means = paired[rng.integers(0, len(paired), (n, len(paired)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    only_a, only_b = int((paired > 0).sum()), int((paired < 0).sum())
    p_value = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return Comparison(float(paired.mean()), float(low), float(high), only_a, only_b, float(p_value))


def confident_mistakes(predictions: Predictions, n: int) -> list[int]:
    """Indices of the n wrong predictions with the highest confidence, most confident first."""
    wrong = torch.nonzero(~predictions.correct).flatten()
    return wrong[predictions.confidence[wrong].argsort(descending=True, stable=True)][:n].tolist()


def typical(predictions: Predictions, correct: bool = True) -> list[int]:
    """One index for each class, by rule: the image of median confidence among the class's right
    (or wrong) predictions. A class without any is left out.
    """
    chosen = []
    for label in range(len(predictions.classes)):
        found = torch.nonzero(
            (predictions.labels == label) & (predictions.correct == correct)
        ).flatten()
        if len(found):
            order = found[predictions.confidence[found].argsort(stable=True)]
            chosen.append(int(order[len(order) // 2]))
    return chosen


def majority(labels: torch.Tensor) -> float:
    """Accuracy of always answering the most frequent class: the floor."""
    return float(torch.bincount(labels).max() / len(labels))
