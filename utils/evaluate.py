"""One forward pass over the test images, and every metric from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix
from torch import nn

from .data import ImageSet
from .models import CHUNK, logits_of
from .plots import short
from .scoring import SCORES, macro, roc_auc
from .stats import mean_interval


@dataclass(frozen=True)
class Predictions:
    """A model's answers about an image set; everything below is computed from them."""

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
        """`cat 87%`, with the true class in brackets where that differs."""
        answer, label = (short(self.classes[c[i]]) for c in (self.predicted, self.labels))
        answer = f"{answer} {self.confidence[i]:.0%}"
        return answer if self.correct[i] else f"{answer} (is {label})"

    def at_temperature(self, temperature: float) -> Predictions:
        """The same answers with softer (above 1) or firmer (below 1) probabilities."""
        return replace(self, logits=self.logits / temperature)


def predict(model: nn.Module, image_set: ImageSet, chunk: int = CHUNK) -> Predictions:
    """Logits for a whole set: one forward for each image, `chunk` images at a time."""
    return Predictions(
        logits_of(model, image_set.images, chunk), image_set.labels, image_set.classes
    )


def _weighted(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """SCORES (5, D) for D weightings (D, N) of the images: how often each is drawn."""
    labels, predicted, probabilities = _arrays(predictions)
    n_classes = len(predictions.classes)
    cells = labels * n_classes + predicted
    counts = np.stack([np.bincount(cells, row, n_classes**2) for row in weights])
    accuracy = (weights * (labels == predicted)).sum(1) / weights.sum(1)
    macros = macro(counts.reshape(-1, n_classes, n_classes))
    return np.stack([accuracy, *macros, roc_auc(labels, probabilities, weights)])


def metrics(predictions: Predictions) -> dict[str, float]:
    """Accuracy, macro precision, recall and F1, ROC-AUC (one vs rest, macro), calibration error.

    All in 0..1 and, but for the calibration error (see `reliability`), equal to scikit-learn's.
    Macro averages go over the classes that have a test image. The ROC-AUC is the probability that
    a random image of a class gets a higher probability for it than a random other image; it is
    NaN if all images are of one class.
    """
    values = _weighted(predictions, np.ones((1, len(predictions.labels))))[:, 0]
    return dict(zip(SCORES, values.tolist(), strict=True)) | {"ece": reliability(predictions)[3]}


def _arrays(p: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return p.labels.numpy(), p.predicted.numpy(), p.probabilities.double().numpy()


def intervals(
    predictions: Predictions, n: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals over the test images (Efron & Tibshirani 1993).

    {metric: (low, high)} for SCORES, n draws. Draws in which a metric has no value (the ROC-AUC
    of a single class) are left out. Each interval holds its own value, which the percentiles of a
    dozen images may miss; where all images are right or all are wrong, no draw differs, and
    accuracy has Wilson's interval (1927) instead.
    """
    rng, total = np.random.default_rng(seed), len(predictions.labels)
    batch = max(1, 2_000_000 // max(total, len(predictions.classes) ** 2))  # draws held at once
    draws = np.concatenate(
        [
            _weighted(predictions, rng.multinomial(total, [1 / total] * total, size))
            for size in [min(batch, n - done) for done in range(0, n, batch)]
        ],
        axis=1,
    )
    bounds: dict[str, tuple[float, float]] = {}
    for name, value, values in zip(SCORES, metrics(predictions).values(), draws, strict=False):
        values = values[np.isfinite(values)]
        if not len(values):
            bounds[name] = (math.nan, math.nan)
            continue
        low, high = np.percentile(values, [2.5, 97.5])
        if name == "accuracy" and low == high:
            low, high = binomtest(round(value * total), total).proportion_ci(method="wilson")
        bounds[name] = (float(min(low, value)), float(max(high, value)))
    return bounds


def temperature(validation: Predictions) -> float:
    """The number by which to divide logits so that probabilities fit best (Guo et al. 2017).

    Fitted on *validation* images, by maximum likelihood with a weak pull towards 1 that keeps a
    dozen right answers from claiming certainty. Order and accuracy do not change. 0.05 to 20.
    """

    def loss(log_temperature: float) -> float:
        scaled = validation.logits.double() / math.exp(log_temperature)
        return (
            float(F.cross_entropy(scaled, validation.labels, reduction="sum"))
            + log_temperature**2 / 2
        )

    bound = math.log(20)
    return math.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x)


def reliability(
    predictions: Predictions, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean confidence, accuracy and share of images per confidence bin (empty bins left out), and
    the expected calibration error: share-weighted mean of |accuracy - confidence| (Guo et al. 2017).
    """
    confidence, correct = predictions.confidence.double().numpy(), predictions.correct.numpy()
    own_bin = np.clip((confidence * bins).astype(int), 0, bins - 1)
    count = np.bincount(own_bin, minlength=bins)
    keep = count > 0
    mean_confidence = np.bincount(own_bin, confidence, bins)[keep] / count[keep]
    accuracy = np.bincount(own_bin, correct, bins)[keep] / count[keep]
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
class AccuracyDifference:
    """Two models on the same images: a minus b."""

    difference: float  # accuracy(a) - accuracy(b)
    low: float  # paired bootstrap, 95 %
    high: float
    only_a: int  # images that only a gets right
    only_b: int
    p_value: float  # exact McNemar test


def compare(a: Predictions, b: Predictions, n: int = 2000, seed: int = 0) -> AccuracyDifference:
    """Accuracy difference with a paired bootstrap interval, and McNemar's exact test (1947).

    Raises ValueError if the two are not about the same images in the same order.
    """
    if not torch.equal(a.labels, b.labels):
        raise ValueError(
            "The two predictions are about different images: predict both on the same image set."
        )
    paired = a.correct.numpy().astype(float) - b.correct.numpy()
    mean, low, high = mean_interval(paired, draws=n, seed=seed)
    if math.isnan(low):  # a single image tells nothing
        low, high = -1.0, 1.0
    only_a, only_b = int((paired > 0).sum()), int((paired < 0).sum())
    p_value = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return AccuracyDifference(mean, low, high, only_a, only_b, float(p_value))


def confident_mistakes(predictions: Predictions, n: int) -> list[int]:
    """Indices of the n wrong predictions with the highest confidence, most confident first."""
    wrong = torch.nonzero(~predictions.correct).flatten()
    return wrong[predictions.confidence[wrong].argsort(descending=True, stable=True)][:n].tolist()


def typical(predictions: Predictions, correct: bool = True) -> list[int]:
    """One index for each class, by rule: the image of median confidence among the class's right
    (or wrong) predictions. A class without any is left out.
    """
    rows = []
    for label in range(len(predictions.classes)):
        of_class = (predictions.labels == label) & (predictions.correct == correct)
        places = torch.nonzero(of_class).flatten()
        if len(places):
            order = places[predictions.confidence[places].argsort(stable=True)]
            rows.append(int(order[len(order) // 2]))
    return rows


def majority(labels: torch.Tensor) -> float:
    """Accuracy of always answering the most frequent class: the floor."""
    return float(torch.bincount(labels).max() / len(labels))
