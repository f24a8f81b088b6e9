"""Figures of IA-scores: heads, blocks, groups of images and initialisations beside their controls.

Every function returns the Figure. Names in CONTROLS are drawn as references.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .heads import CONTROLS
from .style import SMALL, suptitle_of

UNIFORM, OTHER = "uniform attention", "another image's attention"
MARKERS = "osD^vP*X"


def _shared_legend(figure: Figure, columns: int = 3) -> None:
    """One legend below all axes, without repeated names."""
    lines = {
        name: line
        for ax in figure.axes
        for line, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(lines.values(), lines, fontsize=SMALL, loc="outside lower center", ncols=columns)


def plot_published(
    published: Mapping[str, torch.Tensor],
    kinds: Mapping[str, str],
    ours: Mapping[str, torch.Tensor],
    floor: float,
    title: str,
) -> Figure:
    """Curves {name: (blocks, heads)} in one picture: published ones thin, ours thick.

    kinds: {name: type of pretraining}; curves of the second type are dashed.
    """
    figure, ax = plt.subplots(figsize=(9, 4.6))
    first = next(iter(kinds.values()))
    for name, curve in (dict(published) | dict(ours)).items():
        blocks, width = curve.shape
        x = 1 + 12 / blocks * (torch.arange(blocks)[:, None] + torch.arange(width) / width)
        kind = kinds.get(name)
        line = "-" if kind in (None, first) else "--"
        style = dict(lw=1.3) if kind else dict(lw=2.5, color="black")
        label = f"{name} ({kind})" if kind else name
        ax.plot(x.flatten(), curve.flatten(), line, label=label, **style)
    ax.axhline(floor, **CONTROLS[UNIFORM], label=f"{UNIFORM}, here")
    ax.set(xlabel="block (its heads sorted, side by side)", ylabel="IA-score")
    suptitle_of(figure, title)
    _shared_legend(figure)
    return figure


def plot_ranges(
    scores: np.ndarray, controls: Mapping[str, np.ndarray], floor: float, title: str
) -> Figure:
    """Scores (images, heads): the range of each head, sorted by its mean; controls (heads,)."""
    figure, ax = plt.subplots(figsize=(8, 4.2))
    order = scores.mean(0).argsort()
    q = np.percentile(scores[:, order], [5, 25, 50, 75, 95], axis=0)
    x = np.arange(len(order))
    ax.vlines(x, q[0], q[4], color="C0", alpha=0.35, label="5 to 95 % of the images")
    ax.vlines(x, q[1], q[3], color="C0", lw=3, label="middle half")
    ax.plot(x, q[2], "o", color="C1", ms=3, label="median")
    ax.axhline(floor, **CONTROLS[UNIFORM], label=UNIFORM)
    for name, values in controls.items():
        ax.plot(x, values[order], **CONTROLS[name], label=name)
    ax.set(xlabel="head, sorted by its mean", ylabel="IA-score", xticks=[])
    suptitle_of(figure, title)
    _shared_legend(figure)
    return figure


def _by_block(ax: Axes, curves: Mapping[str, torch.Tensor]) -> None:
    """Curves {name: (L,)} over the blocks; names that end in a control's name look like it."""
    colour = 0
    for name, values in curves.items():
        control = next((c for c in CONTROLS if name.endswith(c)), None)
        x = range(1, len(values) + 1)
        if control is None:
            ax.plot(x, values, f"{MARKERS[colour]}-", ms=5, color=f"C{colour}", label=name)
            colour += 1
        else:
            own = {} if name == control else {"color": f"C{colour - 1}"}
            ax.plot(x, values, **(CONTROLS[control] | own), label=name)
    ax.set(xlabel="block")


def plot_groups(
    classes: Mapping[str, tuple[float, float, float]],
    marks: Mapping[str, Sequence[float]],
    curves: Mapping[str, torch.Tensor],
    title: str,
) -> Figure:
    """Left {class: (mean, low, high)} with each class's controls, right curves {name: (L,)}."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.9, 5))
    y, table = np.arange(len(classes)), np.array(list(classes.values()))
    reach = np.abs(table[:, 1:] - table[:, :1]).T
    left.errorbar(
        table[:, 0], y, xerr=reach, fmt="o", capsize=3, color="C4", label="class, 95 % interval"
    )
    for name, values in marks.items():
        style = dict(marker="|", color="k", mew=2) if name == UNIFORM else dict(marker="x")
        left.plot(values, y, ls="", ms=9, **({"color": "0.45"} | style), label=f"class, {name}")
    left.set_yticks(y, list(classes))
    left.set(xlabel="mean IA-score of the late blocks", title="by class (images)")
    _by_block(right, curves)
    right.set(ylabel="mean IA-score of its heads", title="by answer")
    suptitle_of(figure, title)
    _shared_legend(figure)
    return figure


def plot_object(
    with_gradient: torch.Tensor,
    with_object: torch.Tensor,
    curves: Mapping[str, torch.Tensor],
    floor: float,
    title: str,
) -> Figure:
    """Left a dot for each head, agreement (L, heads) with S and with the mask; right by block."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.9, 4.8))
    depth, heads = with_object.shape
    block = torch.arange(depth).repeat_interleave(heads) + 1
    dots = left.scatter(
        with_gradient.flatten(), with_object.flatten(), c=block, cmap="viridis", s=30
    )
    figure.colorbar(dots, ax=left, label="block")
    left.set(xlabel="IA-score with SmoothGrad", ylabel="agreement with the true mask")
    left.set_title("a dot is a head")
    _by_block(right, curves)
    right.set(title="by block", ylabel="agreement with the true mask")
    for ax in (left, right):
        ax.axhline(floor, **CONTROLS[UNIFORM], label=UNIFORM)
    suptitle_of(figure, title)
    _shared_legend(figure)
    return figure


def plot_stages(stages: Mapping[str, torch.Tensor], level: float, title: str) -> Figure:
    """{initialisation: (epochs + 1, 3)} late-block score, another image's, uniform; two a row."""
    rows = -(-len(stages) // 2)
    figure, axes = plt.subplots(
        rows, 2, figsize=(8, 2.4 * rows + 1), sharex=True, sharey=True, squeeze=False
    )
    for ax in axes.flat[len(stages) :]:
        ax.axis("off")
    for ax, (name, values) in zip(axes.flat, stages.items(), strict=False):
        ax.plot(values[:, 0], "o-", ms=5, label="late blocks")
        ax.plot(values[:, 2], **CONTROLS[UNIFORM], label=UNIFORM)
        ax.plot(values[:, 1], **CONTROLS[OTHER], label=OTHER)
        ax.axhline(level, **CONTROLS["random weights"], label="random weights")
        ax.set(title=name, xticks=range(len(values)))
    for ax in axes[-1]:
        ax.set_xlabel("epochs of fine-tuning")
    for ax in axes[:, 0]:
        ax.set_ylabel("mean IA-score")
    suptitle_of(figure, title)
    _shared_legend(figure, 4)
    return figure


def plot_components(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    shares: Mapping[str, Sequence[float]],
    title: str,
) -> Figure:
    """{panel: {group: points (n, 2)}}; shares: of the variance, for each panel's two axes.

    Control names are drawn small and grey.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(9.9, 4.6), squeeze=False)
    small = {UNIFORM: "+", "random weights": "x", OTHER: "."}
    for ax, (panel, groups) in zip(axes.flat, panels.items(), strict=True):
        colour = 0
        for name, points in groups.items():
            if name in small:
                ax.plot(*points.T, small[name], ms=7, color="0.4", label=name)
                continue
            ax.plot(*points.T, MARKERS[colour % 8], ms=8, color=f"C{colour}", label=name)
            colour += 1
        a, b = shares[panel]
        ax.set(xlabel=f"component 1 ({a:.0%})", ylabel=f"component 2 ({b:.0%})")
        ax.set_title(panel, fontsize=SMALL)
    suptitle_of(figure, title)
    _shared_legend(figure, 4)
    return figure


def plot_matched(
    panels: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], title: str
) -> Figure:
    """{level: {initialisation: {"late blocks" or a control: a value for each run}}}."""
    figure, axes = plt.subplots(1, len(panels), figsize=(9, 4.6), sharey=True, squeeze=False)
    styles = {UNIFORM: dict(marker="_", color="k"), OTHER: dict(marker="x", color="0.45")}
    for ax, (panel, starts) in zip(axes.flat, panels.items(), strict=True):
        for place, values in enumerate(starts.values()):
            for shift, (name, runs) in enumerate(values.items()):
                style = dict(marker="o", color="C0") | styles.get(name, {})
                x = np.full(len(runs), place + 0.2 * (shift - 1))
                ax.plot(x, runs, ls="", ms=8, label=name, **style)
        ax.set_xticks(range(len(starts)), list(starts))
        ax.set(title=panel, xlim=(-0.5, len(starts) - 0.5))
    axes[0, 0].set_ylabel("mean IA-score of the late blocks")
    suptitle_of(figure, title)
    _shared_legend(figure)
    return figure
