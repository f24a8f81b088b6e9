"""What training and evaluation give: counts, learning curves, confusion, accuracy, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .style import SMALL, names_of, readable, suptitle_of, title_of

MOST_ROWS = 20  # classes in one chart
FEW = 0.005  # of all images: a bin with fewer says next to nothing


def _ends(values: Sequence[float], most: int = MOST_ROWS) -> np.ndarray:
    """Places of all values in their order, or of many only the smallest and the largest ones."""
    order = np.argsort(values, kind="stable")
    return order if len(order) <= most else np.r_[order[: most // 2], order[-(most // 2) :]]


def plot_counts(counts: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """Class counts {split: {class: images}}, one panel for each split.

    Of more than MOST_ROWS classes the most and the least frequent are shown.
    """
    classes = list(next(iter(counts.values())))
    totals = [-sum(numbers.get(name, 0) for numbers in counts.values()) for name in classes]
    rows = sorted(_ends(totals)) if len(classes) <= MOST_ROWS else _ends(totals)
    names = [classes[i] for i in rows]
    figure, axes = plt.subplots(
        1,
        len(counts),
        figsize=(2.4 * len(counts) + 1.4, 0.3 * len(rows) + 2),
        sharey=True,
        squeeze=False,
    )
    for ax, (split, numbers) in zip(axes.flat, counts.items(), strict=True):
        ax.barh(range(len(names)), [numbers.get(name, 0) for name in names], color="C0")
        ax.bar_label(ax.containers[0], fontsize=SMALL, padding=2)
        ax.grid(False, axis="y")  # it would run through the numbers
        ax.set(
            title=f"{split}: {sum(numbers.values()):,} images",
            xlabel="images",
            xlim=(0, 1.25 * max(1, *numbers.values())),
        )
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.set_yticks(range(len(names)), names_of(names))
    axes.flat[0].invert_yaxis()
    if len(rows) < len(classes):
        title = f"{title} ({len(rows)} of {len(classes)} classes: the largest and the smallest)"
    suptitle_of(figure, title)
    return figure


def plot_history(histories: Mapping[str, Any], title: str) -> Figure:
    """Loss and accuracy of each batch (faint), their running mean, epoch marks and validation.

    histories: {name: train.History}; several runs share the axes. The loss axis is logarithmic
    where one run's losses would flatten the others'.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 4.6))
    for colour, (name, history) in enumerate(histories.items()):
        per_epoch = history.steps_per_epoch
        for ax, values, checks in (
            (axes[0], history.loss, history.val_loss),
            (axes[1], history.accuracy, history.val_accuracy),
        ):
            window = max(1, min(25, len(values) // 4))
            smooth = np.convolve(values, np.ones(window) / window, "valid")
            epochs = np.arange(1, len(values) + 1) / per_epoch
            ax.plot(epochs, values, color=f"C{colour}", alpha=0.18, lw=0.7)
            ax.plot(epochs[window - 1 :], smooth, color=f"C{colour}", label=name)
            ax.plot(
                np.arange(1, len(checks) + 1),
                checks,
                f"{'osD^'[colour % 4]}--",  # told apart in grey, too
                color=f"C{colour}",
                ms=5,
                mec="k",
            )
    for ax, label in zip(axes, ("loss (cross-entropy)", "accuracy"), strict=True):
        ax.set(xlabel="epoch", ylabel=label)
        longest = max(len(h.val_loss) for h in histories.values())
        ax.set_xticks(np.unique(np.linspace(0, longest, min(longest, 10) + 1).round()))
    axes[1].set_ylim(0, 1.02)
    losses = np.concatenate([h.loss for h in histories.values()])
    if losses.max() > 50 * max(float(np.median(losses)), 1e-6):
        axes[0].set_yscale("log")
    lines, names = axes[0].get_legend_handles_labels()
    kinds = [Line2D([], [], color="0.4"), Line2D([], [], color="0.4", ls="--", marker="o", mec="k")]
    names = [*map(readable, names), "training batches, running mean", "validation"]
    figure.legend([*lines, *kinds], names, fontsize=SMALL, loc="outside lower center", ncols=2)
    suptitle_of(figure, title)
    return figure


def _most_confused(counts: Mapping[str, np.ndarray], most: int = 15) -> np.ndarray:
    """Places of the classes with the most mistakes, in the classes' order; all if there are few."""
    wrong = sum(m.sum(0) + m.sum(1) - 2 * m.diagonal() for m in counts.values())
    return np.sort(np.argsort(-wrong, kind="stable")[:most])


def plot_confusion(counts: Mapping[str, np.ndarray], classes: Sequence[str], title: str) -> Figure:
    """Confusion matrices {model: (C, C) counts}; mistakes are coloured by their share of the row.

    The diagonal is printed and not coloured, so that the scale belongs to the mistakes. Of more
    than 15 classes those with the most mistakes are shown.
    """
    rows = _most_confused(counts)
    if len(rows) < len(classes):
        title = f"{title} ({len(rows)} of {len(classes)} classes, those with the most mistakes)"
    names = names_of(classes[i] for i in rows)
    shares = {
        name: matrix / matrix.sum(1, keepdims=True).clip(min=1) * (1 - np.eye(len(matrix)))
        for name, matrix in counts.items()
    }
    worst = max(float(share.max()) for share in shares.values()) or 1.0
    side = 0.4 * max(len(rows), 5)
    figure, axes = plt.subplots(
        1,
        len(counts),
        figsize=((side + 0.2) * len(counts) + 2.4, side + 2.2),
        sharey=True,
        squeeze=False,
    )
    for ax, (name, matrix) in zip(axes.flat, counts.items(), strict=True):
        part = np.ix_(rows, rows)
        sns.heatmap(
            shares[name][part],
            annot=False,
            cmap="viridis",
            vmin=0,
            vmax=worst,
            mask=np.eye(len(rows), dtype=bool),
            ax=ax,
            square=True,
            xticklabels=names,
            yticklabels=names,
            cbar=False,
        )
        for (y, x), count in np.ndenumerate(matrix[part]):
            dark = x != y and shares[name][part][y, x] < 0.6 * worst
            ax.text(
                x + 0.5,
                y + 0.5,
                f"{count}",
                ha="center",
                va="center",
                fontsize=SMALL,
                color="white" if dark else "black",
                weight="bold" if x == y else "normal",
            )
        ax.set(title=name, xlabel="predicted")
        ax.grid(False)
        ax.tick_params(labelsize=SMALL)
    axes[0, 0].set_ylabel("true")
    figure.colorbar(
        axes[0, -1].collections[0], ax=axes, label="mistakes, share of the true class", shrink=0.7
    )
    suptitle_of(figure, title)
    return figure


def plot_class_accuracy(
    accuracy: Mapping[str, np.ndarray], classes: Sequence[str], title: str
) -> Figure:
    """Accuracy by class {model: (C,)}, sorted by the models' mean, as paired dots.

    Classes without a test image (NaN) are left out; of more than MOST_ROWS the worst and the best
    are shown.
    """
    values = np.array(list(accuracy.values()))
    known = np.flatnonzero(np.isfinite(values).all(0))
    order = known[_ends(values[:, known].mean(0))]
    if len(order) < len(known):
        title = f"{title} ({len(order)} of {len(classes)} classes: the worst and the best)"
    figure, ax = plt.subplots(figsize=(8, 0.32 * len(order) + 1.9))
    for k, (name, values) in enumerate(accuracy.items()):
        shift = 0.2 * ((len(accuracy) - 1) / 2 - k)  # equal values stay visible
        ax.plot(values[order], np.arange(len(order)) + shift, "osD^"[k % 4], ms=7, label=name)
    ax.set_yticks(range(len(order)), names_of(classes[i] for i in order))
    ax.set_xlabel("share of the class's test images classified correctly")
    figure.legend(loc="outside lower center", ncols=len(accuracy))
    title_of(ax, title)
    return figure


def plot_reliability(tables: Mapping[str, tuple], title: str) -> Figure:
    """Accuracy against confidence {model: evaluate.reliability(...)}; the diagonal is honest.

    Bins with less than FEW of the images are left out of the picture, not of the error.
    """
    figure, ax = plt.subplots(figsize=(6, 5.4))
    ax.plot([0, 1], [0, 1], "--", color="0.5", label="perfectly calibrated")
    for k, (name, (confidence, accuracy, share, error)) in enumerate(tables.items()):
        marker = "osD^"[k % 4]  # told apart in grey, too
        full = np.asarray(share) >= FEW
        confidence, accuracy, share = (
            np.asarray(values)[full] for values in (confidence, accuracy, share)
        )
        (line,) = ax.plot(
            confidence, accuracy, "-", marker=marker, ms=3, label=f"{name} (error {error:.3f})"
        )
        ax.scatter(
            confidence,
            accuracy,
            s=20 + 400 * share,
            color=line.get_color(),
            marker=marker,
            alpha=0.6,
        )
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    title_of(ax, title)
    ax.legend(fontsize=SMALL, loc="lower right")
    return figure


def plot_metrics(
    table: Mapping[str, Mapping[str, float]],
    limits: Mapping[str, Mapping[str, tuple[float, float]]],
    title: str,
) -> Figure:
    """Metrics {model: {metric: value}} as dots with their 95 % intervals."""
    figure, ax = plt.subplots(figsize=(8.5, 4.2))
    names = list(next(iter(limits.values())))
    for k, (model, values) in enumerate(table.items()):
        x = np.arange(len(names)) + 0.18 * (k - (len(table) - 1) / 2)
        y = np.array([values[n] for n in names])
        low, high = np.array([limits[model][n] for n in names]).T
        ax.errorbar(
            x,
            y,
            [np.maximum(y - low, 0), np.maximum(high - y, 0)],
            fmt="osD^"[k % 4],
            capsize=3,
            label=model,
        )
    shown = {"f1": "F1", "roc_auc": "ROC-AUC"}
    ax.set(
        xticks=range(len(names)),
        xticklabels=[shown.get(n, n) for n in names],
        ylabel="value, 1 at best",
    )
    title_of(ax, title)
    ax.legend(fontsize=SMALL, loc="best")
    return figure
