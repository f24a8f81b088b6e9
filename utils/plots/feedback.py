"""Pictures of the feedback loop: what was asked for, what came of it. Every function returns the Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from .maps import overlay
from .pictures import to_rgb
from .style import SMALL, check, draw, names_of, suptitle_of

Estimate = tuple[float, float, float]  # mean, low, high


def plot_contact_sheet(
    images: torch.Tensor,
    heatmaps: torch.Tensor,
    made: Sequence[torch.Tensor],
    titles: Sequence[str],
    random: Sequence[torch.Tensor] = (),
    suptitle: str = "",
    side: float = 1.0,
) -> Figure:
    """A row for each image that failed: itself, its map, what was generated for it, and a control.

    images uint8 (N, 3, H, W), heatmaps (N, H, W); made, random: for each image uint8 (k, 3, H, W),
    any k. Raises ValueError if their numbers or sizes differ.
    """
    check(images, heatmaps=heatmaps, titles=titles, made=made)
    if len(random):
        check(images, random=random)
    blocks = [("made for it", made)] + ([("random control", random)] if len(random) else [])
    widths, starts = [1.0, 1.0], []
    for _, rows in blocks:
        widths += [0.25]  # a gap
        starts += [len(widths)]
        widths += [1.0] * max(map(len, rows))
    figure, axes = plt.subplots(
        len(images),
        len(widths),
        squeeze=False,
        gridspec_kw={"width_ratios": widths},
        figsize=(1.08 * side * sum(widths), (side + 0.28) * len(images) + 0.5),
    )
    for ax in axes.flat:
        ax.axis("off")
    for row, (image, heatmap) in enumerate(zip(images, heatmaps, strict=True)):
        cells = [
            (0, to_rgb(image), titles[row]),
            (1, overlay(image, heatmap), "map" if row == 0 else ""),
        ]
        for (label, rows), begin in zip(blocks, starts, strict=True):
            cells += [
                (begin + k, to_rgb(new), label if row == k == 0 else "")
                for k, new in enumerate(rows[row])
            ]
        for column, picture, title in cells:
            axes[row, column].axis("on")
            draw(axes[row, column], picture, title)
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
        1, 3, sharey=True, figsize=(10.5, 0.38 * len(names) + 1.7), width_ratios=[1, 1.25, 1.1]
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
    axes[1].axvline(0, color="0.3", lw=1)
    axes[1].set(title="difference to the baseline, paired", xlabel="percentage points")
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
    axes[2].set(title="mistakes: new (left), fixed (right)", xlabel="test images; dots are seeds")
    axes[2].xaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    suptitle_of(figure, title)
    return figure


def plot_before_after(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], label: str, title: str
) -> Figure:
    """A measure of the same images before and after {panel: {group: (before (N,), after (N,))}}.

    Each image is a dot, above the diagonal if the measure rose; crosses are the groups' means.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 4.1), squeeze=False)
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
                label=f"{group} ({len(before)})",
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
        ax.legend(fontsize=SMALL, loc="best")
    suptitle_of(figure, title)
    return figure


def plot_changed(
    images: torch.Tensor,
    before: torch.Tensor,
    after: torch.Tensor,
    titles: Sequence[str],
    labels: tuple[str, str] = ("before", "after"),
    suptitle: str = "",
    side: float = 1.25,
) -> Figure:
    """A column for each image: itself, its map before, its map after; each map scaled by itself.

    images uint8 (N, 3, H, W), before and after (N, H, W). Raises ValueError if numbers or sizes differ.
    """
    check(images, before=before, after=after, titles=titles)
    figure, axes = plt.subplots(
        3, len(images), figsize=(side * len(images) + 0.4, 3 * side + 1.0), squeeze=False
    )
    for k, image in enumerate(images):
        draw(axes[0, k], to_rgb(image), titles[k])
        for row, maps, label in ((1, before, labels[0]), (2, after, labels[1])):
            draw(axes[row, k], overlay(image, maps[k]))
            if k == 0:
                axes[row, 0].set_ylabel(label, fontsize=SMALL)
    suptitle_of(figure, suptitle)
    return figure
