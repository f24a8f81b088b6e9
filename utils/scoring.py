"""Precision, recall, F1 and the area under the ROC curve, for many weightings of images at once."""

from __future__ import annotations

import numpy as np

SCORES = ("accuracy", "precision", "recall", "f1", "roc_auc")


def macro(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Macro precision, recall and F1 of confusion matrices (..., C, C): rows true.

    Means over the classes that have an image; of those, one that is never predicted has a
    precision of 0. So a class without a test image neither helps nor harms.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(-1), counts.sum(-2)
    present = true > 0
    scores = (
        hits / np.maximum(predicted, 1),
        hits / np.maximum(true, 1),
        2 * hits / np.maximum(true + predicted, 1),
    )
    precision, recall, f1 = ((s * present).sum(-1) / present.sum(-1) for s in scores)
    return precision, recall, f1


def auc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve (D,) for each of D weightings (D, N) of the same N images.

    The probability that a positive scores above a negative, a tie counting half; NaN where a
    weighting holds no positive or no negative.
    """
    order = np.argsort(score, kind="stable")
    firsts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])  # where the score rises
    up = np.add.reduceat(weights[:, order] * positive[order], firsts, axis=1)
    down = np.add.reduceat(weights[:, order] * ~positive[order], firsts, axis=1)
    below = down.cumsum(1) - down / 2
    with np.errstate(invalid="ignore"):
        return (up * below).sum(1) / (up.sum(1) * down.sum(1))


def roc_auc(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean one-vs-rest area (D,) over the classes that occur; NaN if only one does."""
    areas = [auc(labels == c, probabilities[:, c], weights) for c in np.unique(labels)]
    known = np.isfinite(areas)
    total = np.where(known, areas, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)
