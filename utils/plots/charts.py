"""Charts of any numbers: curves, dots, scores with intervals, matrices that agree or do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from .style import SIGNED, SMALL, UNSIGNED, names_of, readable, short, suptitle_of, title_of

# not the pale C6 and C8, nor C7, the grey of references
COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C9", "k")


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
        figure.legend(fontsize=SMALL, loc="outside lower center", ncols=2)
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
            (34, -30),
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
        figsize=(max(7.5, 3 * len(panels) + 1.5), height),
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
        ax.set(yticks=range(len(order)), yticklabels=names_of(order))
        ax.set_ylim(-0.6, len(order) - 0.4)
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
        rows, columns, figsize=(4.95 * columns, 3.4 * rows + 0.6), sharey=True, squeeze=False
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
        [readable(name) for name in handles],
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
    side = max(0.56 * len(names) for names, _ in matrices.values())
    figure, axes = plt.subplots(
        1,
        len(matrices),
        figsize=((side + 1) * len(matrices) + 1.2, side + 1.6),
        squeeze=False,
    )
    for ax, (panel, (names, values)) in zip(axes.flat, matrices.items(), strict=True):
        sns.heatmap(
            np.round(values, 1) + 0.0,  # no "-0.0"
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
            cbar=False,
        )
        ax.set_title(panel)
        ax.tick_params(labelsize=SMALL)
        ax.tick_params(axis="x", rotation=90)
        ax.tick_params(axis="y", rotation=0)
    figure.colorbar(axes.flat[-1].collections[0], ax=axes, label=label, shrink=0.7)
    suptitle_of(figure, title)
    return figure
