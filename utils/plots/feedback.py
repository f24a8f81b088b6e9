"""Pictures of the feedback loop: what was asked for, what came of it. Every function returns the Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .maps import overlay
from .pictures import to_rgb
from .style import SMALL, draw, names_of, suptitle_of

Estimate = tuple[float, float, float]  # mean, low, high


def plot_contact_sheet(
    image: torch.Tensor,
    heatmap: torch.Tensor,
    rows: Mapping[str, torch.Tensor],
    title: str,
    suptitle: str = "",
    side: float = 1.9,
) -> Figure:
    """Two rows: an image that failed, then its map, each beside generated images.

    image uint8 (3, H, W), heatmap (H, W); rows: {what these are: uint8 (k, 3, H, W)}, any k, two
    entries. Raises ValueError if the sizes of image and map differ.
    """
    most = max(map(len, rows.values()))
    figure, axes = plt.subplots(
        2, most + 1, squeeze=False, figsize=(side * (most + 1), 2 * (side + 0.35) + 0.4)
    )
    for ax in axes.flat:
        ax.axis("off")
    first = [(to_rgb(image), title), (overlay(image, heatmap), "map")]
    for line, (picture, name), (label, made) in zip(axes, first, rows.items(), strict=True):
        cells = [
            (picture, name),
            *((to_rgb(new), "" if k else label) for k, new in enumerate(made)),
        ]
        for ax, (cell, words) in zip(line, cells, strict=False):
            ax.axis("on")
            draw(ax, cell, words)
    suptitle_of(figure, suptitle)
    return figure


def plot_arms(
    levels: Mapping[str, Estimate],
    differences: Mapping[str, Estimate],
    changes: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    controls: Sequence[str],
    published: Mapping[str, float],
    title: str,
) -> Figure:
    """Ways to retrain, from left to right: accuracy, paired difference to the baseline, mistakes fixed and made.

    levels, differences: {arm: (mean, low, high)} in 0..1; changes: {arm: (fixed (S,), new (S,))} mistakes of
    each seed. Rows of `controls` are shaded. published: {arm: accuracy} as hollow diamonds, shown as
    differences to the published baseline, which is the first arm of `levels`.
    """
    names = list(levels)
    place = {name: len(names) - 1 - k for k, name in enumerate(names)}
    figure, axes = plt.subplots(
        1, 3, sharey=True, figsize=(9.9, 0.38 * len(names) + 1.7), width_ratios=[1, 1.25, 1.1]
    )
    for ax in axes:
        for name in controls:
            ax.axhspan(place[name] - 0.5, place[name] + 0.5, color="0.92", zorder=0)
        ax.set(
            yticks=list(place.values()), yticklabels=names_of(place), ylim=(-0.5, len(names) - 0.5)
        )
    for ax, values, factor in ((axes[0], levels, 1), (axes[1], differences, 100)):
        for name, (mean, low, high) in values.items():
            reach = [[factor * max(mean - low, 0)], [factor * max(high - mean, 0)]]
            colour = "C0" if low <= 0 <= high or ax is axes[0] else "C2" if low > 0 else "C3"
            ax.errorbar(
                factor * mean, place[name], xerr=reach, fmt="o", color=colour, ms=5, capsize=3
            )
    axes[0].set(title="accuracy", xlabel="share of the test images")
    axes[0].xaxis.set_major_locator(MaxNLocator(3))
    axes[1].axvline(0, color="0.3", lw=1)
    axes[1].set(title="difference to baseline", xlabel="percentage points")
    first = names[0]
    shown = [name for name in names[1:] if name in published and first in published]
    if shown:
        gains = [100 * (published[name] - published[first]) for name in shown]
        rows = [place[name] for name in shown]
        axes[1].plot(gains, rows, "D", mfc="none", color="0.3", ms=6, label="published", zorder=4)
        axes[1].legend(fontsize=SMALL, loc="best")
    for name, (fixed, new) in changes.items():
        axes[2].barh(place[name], np.mean(fixed), color="C2", alpha=0.75, height=0.6)
        axes[2].barh(place[name], -np.mean(new), color="C3", alpha=0.75, height=0.6)
        for counts, sign in ((fixed, 1), (new, -1)):
            axes[2].plot(
                sign * np.asarray(counts), [place[name]] * len(counts), ".", color="0.2", ms=4
            )
    axes[2].axvline(0, color="0.3", lw=1)
    axes[2].set(title="new mistakes | fixed", xlabel="test images; dots are seeds")
    axes[2].xaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    suptitle_of(figure, title)
    return figure


def plot_before_after(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], label: str, title: str
) -> Figure:
    """A measure of the same images before and after {panel: {group: (before (N,), after (N,))}}.

    Each image is a dot, above the diagonal if the measure rose; crosses are the groups' means.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(max(7.5, 4.2 * len(panels)), 5.0), squeeze=False
    )
    for ax, (panel, groups) in zip(axes.flat, panels.items(), strict=True):
        every = np.concatenate([np.concatenate(pair) for pair in groups.values()])
        low, high = every.min(), every.max()
        margin = 0.06 * (high - low) + 1e-3
        limits = (low - margin, high + margin)
        ax.plot(limits, limits, "--", color="0.5", lw=1)
        for k, (group, (before, after)) in enumerate(groups.items()):
            ax.plot(
                before,
                after,
                "os^D"[k % 4],
                color=f"C{k}",
                ms=4,
                alpha=0.45,
                mew=0,
                label=group,
            )
            ax.plot(
                before.mean(),
                after.mean(),
                "X",
                color=f"C{k}",
                ms=14 - 3 * k,
                mec="k",
                zorder=5 + k,
            )  # all seen
        ax.set(
            xlim=limits,
            ylim=limits,
            xlabel=f"{label}, before",
            ylabel="after",
            title=panel,
            aspect="equal",
        )
        ax.plot([], [], "X", color="0.6", mec="k", ls="", label="mean")
    lines = {
        name: line
        for ax in axes.flat
        for line, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(lines.values(), lines, fontsize=SMALL, loc="outside lower center", ncols=4)
    suptitle_of(figure, title)
    return figure
