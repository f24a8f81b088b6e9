"""Charts: numbers as dots, curves, bars and matrices. Every function returns the Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import SIGNED, SMALL, UNSIGNED, names_of, readable, short, suptitle_of, title_of

# not the pale C6 and C8, nor C7, the grey of references
MOST_ROWS = 20  # classes in one chart
COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C9", "k")


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
        figsize=(4 * len(counts), 0.26 * len(rows) + 2),
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


def plot_history(histories: Mapping[str, object], title: str) -> Figure:
    """Loss and accuracy of each batch (faint), their running mean, epoch marks and validation.

    histories: {name: train.History}; several runs share the axes.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4))
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
            ax.plot(
                epochs[window - 1 :], smooth, color=f"C{colour}", label=f"{name}, training batches"
            )
            ax.plot(
                np.arange(1, len(checks) + 1),
                checks,
                f"{'osD^'[colour % 4]}--",  # told apart in grey, too
                color=f"C{colour}",
                ms=5,
                mec="k",
                label=f"{name}, validation",
            )
    for ax, label in zip(axes, ("loss (cross-entropy)", "accuracy"), strict=True):
        ax.set(xlabel="epoch", ylabel=label)
        longest = max(len(h.val_loss) for h in histories.values())
        ax.set_xticks(np.unique(np.linspace(0, longest, min(longest, 10) + 1).round()))
    axes[1].set_ylim(0, 1.02)
    lines, names = axes[0].get_legend_handles_labels()
    figure.legend(lines, names, fontsize=SMALL, loc="outside lower center", ncols=len(histories))
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
    side = 0.42 * max(len(rows), 5) + 1.8
    figure, axes = plt.subplots(
        1, len(counts), figsize=((side + 0.6) * len(counts), side), squeeze=False
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
            cbar_kws={"label": "mistakes, share of the true class", "shrink": 0.7},
        )
        for (y, x), count in np.ndenumerate(matrix[part]):
            dark = x != y and shares[name][part][y, x] < 0.6 * worst
            ax.text(
                x + 0.5,
                y + 0.5,
                f"{count}",
                ha="center",
                va="center",
                fontsize=SMALL - 1,
                color="white" if dark else "black",
                weight="bold" if x == y else "normal",
            )
        ax.set(title=name, xlabel="predicted", ylabel="true")
        ax.grid(False)
        ax.tick_params(labelsize=SMALL)
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
    figure, ax = plt.subplots(figsize=(8, 0.3 * len(order) + 1.8))
    for k, (name, values) in enumerate(accuracy.items()):
        shift = 0.2 * ((len(accuracy) - 1) / 2 - k)  # equal values stay visible
        ax.plot(values[order], np.arange(len(order)) + shift, "osD^"[k % 4], ms=7, label=name)
    ax.set_yticks(range(len(order)), names_of(classes[i] for i in order))
    ax.set_xlabel("share of the class's test images classified correctly")
    figure.legend(loc="outside lower center", ncols=len(accuracy))
    title_of(ax, title)
    return figure


def plot_reliability(tables: Mapping[str, tuple], title: str) -> Figure:
    """Accuracy against confidence {model: evaluate.reliability(...)}; the diagonal is honest."""
    figure, ax = plt.subplots(figsize=(6, 5.4))
    ax.plot([0, 1], [0, 1], "--", color="0.5", label="perfectly calibrated")
    for k, (name, (confidence, accuracy, share, error)) in enumerate(tables.items()):
        marker = "osD^"[k % 4]  # told apart in grey, too
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
    ax.legend(fontsize=SMALL, loc="upper left")
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


def plot_lines(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    title: str,
    logy: bool = False,
    logx: bool = False,
) -> Figure:
    """Named curves {name: (x, y)} in one panel."""
    figure, ax = plt.subplots(figsize=(7.5, 4.2))
    for (name, (x, y)), marker in zip(lines.items(), "osD^vP*X" * 3, strict=False):
        ax.plot(x, y, marker=marker, ms=5, label=readable(name))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    title_of(ax, title)
    if logy:
        ax.set_yscale("log")
    if logx:
        ax.set_xscale("log")
    if len(lines) > 1:
        ax.legend(fontsize=SMALL)
    return figure


def plot_scatter(
    x: Sequence[float],
    y: Sequence[float],
    colour: Sequence[float],
    xlabel: str,
    ylabel: str,
    label: str,
    title: str,
    named: Mapping[str, int] | None = None,
) -> Figure:
    """A dot for each pair (x, y), coloured by a third number called `label`; `named` {name: index} get an arrow."""
    figure, ax = plt.subplots(figsize=(7.5, 4.6))
    dots = ax.scatter(x, y, c=colour, cmap=UNSIGNED, s=45, edgecolor="k", linewidth=0.4)
    for name, i in (named or {}).items():
        ax.annotate(
            readable(short(name)),
            (x[i], y[i]),
            (22, -22),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
            bbox=dict(fc="white", ec="none", pad=1),
            arrowprops=dict(arrowstyle="->", color="k"),
        )
    figure.colorbar(dots, ax=ax, label=label)
    ax.margins(0.12, 0.2)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    title_of(ax, title)
    return figure


def plot_scores(
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]],
    references: Sequence[str],
    title: str,
) -> Figure:
    """Scores with intervals {metric: {model: {method: (mean, low, high)}}}, best method on top.

    Sorted by the mean over metrics and models; maps named in `references` know no model and are
    hollow on a shaded row.
    """
    names = {
        method for models in panels.values() for scores in models.values() for method in scores
    }

    def overall(method: str) -> float:
        means = [s[method][0] for models in panels.values() for s in models.values() if method in s]
        return float(np.mean(means))

    order = sorted(names, key=overall)
    height = 0.4 * len(order) + 1.8
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(3 * len(panels) + 1.5, height),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for ax, (metric, models) in zip(axes.flat, panels.items(), strict=True):
        for row, method in enumerate(order):
            if method in references:
                ax.axhspan(row - 0.5, row + 0.5, color="0.92", zorder=0)
        for k, (model, scores) in enumerate(models.items()):
            shift = 0.2 * ((len(models) - 1) / 2 - k)
            for row, method in enumerate(order):
                if method in scores:
                    mean, low, high = scores[method]
                    ax.errorbar(
                        mean,
                        row + shift,
                        xerr=[[max(mean - low, 0)], [max(high - mean, 0)]],
                        fmt="osD^"[k % 4],
                        color=f"C{k}",
                        mfc="white" if method in references else None,
                        ms=5,
                        capsize=2,
                        label=model if method not in references else None,
                    )
        ax.set(xlabel="score, 1 is perfect", title={"iou": "IoU", "auc": "AUC"}.get(metric, metric))
        ax.set(yticks=range(len(order)), yticklabels=[name.replace("_", " ") for name in order])
    lines = dict(zip(*reversed(axes.flat[0].get_legend_handles_labels()), strict=True))
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines))
    suptitle_of(figure, title)
    return figure


def plot_panels(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    xlabel: str,
    ylabel: str,
    title: str,
    columns: int = 2,
    dashed: Sequence[str] = (),
    ticks: Sequence[Sequence[str]] = (),
) -> Figure:
    """Named curves in several panels {panel: {name: (x, y)}}; a name keeps its colour everywhere.

    dashed: names drawn dashed and grey (what is compared against). ticks: names of the x positions
    0, 1, ... of each panel, where x is no number.
    """
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5.2 * columns, 3.4 * rows + 0.6), sharey=True, squeeze=False
    )
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    coloured = [name for name in names if name not in dashed]
    handles = {}
    for i, (ax, (panel, lines)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        for name, (x, y) in lines.items():
            style = (
                dict(color="0.45", ls=("--", ":", "-.")[list(dashed).index(name) % 3], lw=1.2)
                if name in dashed
                else dict(
                    color=COLOURS[coloured.index(name) % 8],
                    marker="osD^vP*X"[coloured.index(name) % 8],
                    ms=4,
                    lw=1.3,
                )
            )
            (handles[name],) = ax.plot(x, y, **style)
        ax.set(title=panel, xlabel=xlabel if i + columns >= len(panels) else "")
        if ticks:
            ax.set_xticks(
                range(len(ticks[i])), names_of(ticks[i]), rotation=35, ha="right", fontsize=SMALL
            )
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    figure.legend(
        handles.values(),
        [name.replace("_", " ") for name in handles],
        loc="outside lower center",
        ncols=min(5, len(handles)),
        fontsize=SMALL,
    )
    figure.supylabel(ylabel, fontsize=12)
    suptitle_of(figure, title)
    return figure


def plot_agreement(
    matrices: Mapping[str, tuple[Sequence[str], np.ndarray]], label: str, title: str
) -> Figure:
    """Square matrices in -1..1 {panel: (names, (M, M))}, written out, one colour scale centred at 0."""
    figure, axes = plt.subplots(1, len(matrices), figsize=(6.6 * len(matrices), 5.8), squeeze=False)
    for ax, (panel, (names, values)) in zip(axes.flat, matrices.items(), strict=True):
        sns.heatmap(
            values,
            annot=True,
            fmt=".1f",
            cmap=SIGNED,
            vmin=-1,
            vmax=1,
            square=True,
            ax=ax,
            xticklabels=names_of(names),
            yticklabels=names_of(names),
            annot_kws={"size": SMALL},
            cbar=ax is axes.flat[-1],
            cbar_kws={"label": label, "shrink": 0.7},
        )
        ax.set_title(panel)
        ax.tick_params(labelsize=SMALL)
    suptitle_of(figure, title)
    return figure
