"""Charts of a transformer's heads and positions. Every function returns the Figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from .style import (
    SMALL,
    UNSIGNED,
    draw,
    suptitle_of,
)

CONTROLS: dict[str, dict[str, Any]] = {  # reference curves look the same in every figure
    "uniform attention": dict(color="k", ls="--", lw=1),
    "another image's attention": dict(color="0.45", ls=":", lw=1.6),
    "random weights": dict(color="0.45", ls="-.", lw=1),
}


def plot_heads(
    panels: Mapping[str, np.ndarray],
    title: str,
    references: Mapping[str, float | None] | None = None,
) -> Figure:
    """A dot for each head {what is measured: (blocks, heads)} by block, the blocks' mean as a line.

    references: {what is measured: value of attention that is equal for all tokens}, dashed.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(4.8 * len(panels), 4.2), squeeze=False)
    for ax, (name, values) in zip(axes.flat, panels.items(), strict=True):
        number = np.arange(1, len(values) + 1)
        ax.plot(number, values.mean(1), color="0.4", label="mean of the heads")
        every = np.repeat(number, values.shape[1])
        ax.plot(every, values.ravel(), "o", ms=5, color="C0", alpha=0.6, label="one head")
        level = (references or {}).get(name)
        if level is not None:
            ax.axhline(level, ls="--", color="k", lw=1, label="equal attention")
        ax.set(xlabel="block", ylabel=name, xticks=number)
    lines = {
        name: line
        for ax in axes.flat
        for line, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(lines.values(), lines, fontsize=SMALL, loc="outside lower center", ncols=3)
    suptitle_of(figure, title)
    return figure


def plot_head_matrix(
    panels: Mapping[str, torch.Tensor],
    label: str,
    title: str,
    apart: Mapping[str, str] | None = None,
) -> Figure:
    """One number for each head {name: (L, heads)}: blocks down, heads across.

    The panels share one colour scale; those in apart {name: colour bar label} have their own.
    """
    apart = apart or {}
    shared = torch.stack([values for name, values in panels.items() if name not in apart])
    depth, heads = shared.shape[1:]
    width = max(1.6, 0.22 * heads)
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(width * len(panels) + 1.6, 0.24 * depth + 1.5),
        squeeze=False,
        sharey=True,
    )
    for ax, (name, values) in zip(axes.flat, panels.items(), strict=True):
        limits = {} if name in apart else dict(vmin=float(shared.min()), vmax=float(shared.max()))
        picture = ax.imshow(
            values.numpy(), aspect="auto", cmap="cividis" if name in apart else UNSIGNED, **limits
        )
        shown = range(heads) if heads <= 6 else [0, heads - 1]
        ax.set(xticks=list(shown), xticklabels=[head + 1 for head in shown], xlabel="head")
        ax.set_yticks(range(depth), range(1, depth + 1))
        ax.set_title(name, fontsize=SMALL)
        ax.grid(False)
        if name in apart:
            figure.colorbar(picture, ax=ax, label=apart[name])
    axes[0, 0].set_ylabel("block")
    last = [ax for ax, name in zip(axes.flat, panels, strict=True) if name not in apart]
    figure.colorbar(last[-1].images[0], ax=last, label=label)
    suptitle_of(figure, title)
    return figure


def plot_iav(
    panels: Mapping[str, Mapping[str, torch.Tensor]], ylabel: str, title: str, columns: int = 2
) -> Figure:
    """Score curves over all heads of all blocks {panel: {name: (L, heads) or (3, L, heads)}}.

    Three values are the curve, and the lower and upper end of its band. Vertical lines part the
    blocks. Names in CONTROLS are drawn as references.
    """
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=((4.95 if columns < 3 else 3.8) * columns, 2.6 * rows + 1.1),
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for ax, (panel, curves) in zip(axes.flat, panels.items(), strict=False):
        for colour, (name, values) in enumerate(curves.items()):
            style = CONTROLS.get(name, dict(color=f"C{colour}", lw=1.6, marker="o", ms=2.5))
            middle, *band = values if values.ndim == 3 else (values,)
            x = np.arange(middle.numel())
            ax.plot(x, middle.flatten(), label=name, **style)
            if band:
                ax.fill_between(
                    x, *(edge.flatten() for edge in band), color=style["color"], alpha=0.2, lw=0
                )
        depth, heads = middle.shape
        for edge in range(1, depth):
            ax.axvline(edge * heads - 0.5, color="0.85", lw=0.7, zorder=0)
        ax.set_xticks((np.arange(depth) + 0.5) * heads - 0.5, range(1, depth + 1), fontsize=SMALL)
        ax.set_title(panel, fontsize=SMALL)
        ax.grid(False, axis="x")
    for ax in axes[-1]:
        ax.set_xlabel("block (its heads side by side)")
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    names = {
        n: line for ax in axes.flat for line, n in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(names.values(), names, fontsize=SMALL, loc="outside lower center", ncols=2)
    suptitle_of(figure, title)
    return figure


def plot_mosaic(panels: Mapping[str, torch.Tensor], label: str, title: str) -> Figure:
    """Small maps {name: (rows, columns, h, w)} in -1..1, each laid out where it belongs; one colour scale."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels) + 0.6, 4.4), squeeze=False
    )
    for ax, (name, maps) in zip(axes.flat, panels.items(), strict=True):
        rows, columns, h, w = maps.shape
        gaps = np.pad(maps.numpy(), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
        draw(
            ax,
            gaps.transpose(0, 2, 1, 3).reshape(rows * (h + 1), columns * (w + 1)),
            name,
            cmap=UNSIGNED,
            vmin=-1,
            vmax=1,
        )
        ax.grid(False)
    figure.colorbar(axes.flat[0].images[0], ax=axes, label=label, shrink=0.8)
    suptitle_of(figure, title)
    return figure
