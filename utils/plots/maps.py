"""Maps: as they are, painted over their image, in rows and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .pictures import to_rgb
from .style import (
    SIGNED,
    SMALL,
    UNSIGNED,
    check,
    draw,
    readable,
    same_size,
    short,
    suptitle_of,
)


def scaled(heatmap: torch.Tensor, signed: bool, limit: float | None = None) -> np.ndarray:
    """A map (H, W) in -1..1 (signed) or 0..1: divided by `limit`, else by its own largest magnitude.

    The largest magnitude is the 99.5th percentile, so that one hot pixel does not hide the rest.
    """
    values = heatmap.numpy().astype(float)
    if not signed:
        values = values.clip(min=0)
    limit = (
        limit or float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max()) or 1.0
    )
    return (values / limit).clip(-1, 1)


def overlay(
    image: torch.Tensor,
    heatmap: torch.Tensor,
    signed: bool = False,
    strength: float = 0.75,
    limit: float | None = None,
) -> np.ndarray:
    """The map (H, W) painted over a grey image (H, W, 3); opacity follows the map's magnitude.

    Raises ValueError if the image (3, H, W) and the map differ in size.
    """
    same_size(image, heatmap)
    values = scaled(heatmap, signed, limit)
    colour = colormaps[SIGNED if signed else UNSIGNED]((values + 1) / 2 if signed else values)[
        ..., :3
    ]
    grey = to_rgb(image).mean(-1, keepdims=True).repeat(3, -1)
    alpha = strength * np.abs(values)[..., None] ** 0.5
    return (1 - alpha) * grey + alpha * colour


def draw_heat(
    ax: Axes, heatmap: torch.Tensor, signed: bool, title: str = "", limit: float | None = None
) -> None:
    draw(
        ax,
        scaled(heatmap, signed, limit),
        title,
        cmap=SIGNED if signed else UNSIGNED,
        vmin=-1 if signed else 0,
        vmax=1,
    )


def _bars(
    ax: Axes, probabilities: torch.Tensor, classes: Sequence[str], target: int | None, k: int = 4
) -> None:
    """The k most probable classes, each name above its bar; the explained one in the accent colour."""
    top = probabilities.argsort(descending=True)[:k].tolist()
    colours = ["C1" if c == target else "0.7" for c in top]
    ax.barh(range(len(top)), probabilities[top].tolist(), height=0.26, color=colours)
    for row, c in enumerate(top):
        name = readable(short(classes[c], 12))
        ax.text(0, row - 0.18, f"{name} {probabilities[c]:.0%}", va="bottom", fontsize=SMALL)
    ax.set(xlim=(0, 1), ylim=(-0.75, len(top) - 0.75), xticks=[], yticks=[])
    ax.invert_yaxis()
    ax.grid(False)
    sns.despine(ax=ax, left=True, bottom=True)


def plot_explanations(
    images: torch.Tensor,
    heatmaps: torch.Tensor,
    titles: Sequence[str],
    probabilities: torch.Tensor,
    classes: Sequence[str],
    signed: bool | Sequence[bool] = False,
    targets: Sequence[int] | None = None,
    blocks: int = 2,
    suptitle: str = "",
    strength: float = 0.75,
    shared: bool | Sequence[object] = False,
    side: float = 1.5,
) -> Figure:
    """Original | map | overlay | most probable classes for each image, `blocks` images a row.

    images uint8 (N, 3, H, W), heatmaps (N, H, W), probabilities (N, C). The explained class
    (targets, else the most probable one) is the coloured bar. Each map is scaled by itself, or
    (shared) all by the largest; a sequence names each map's group, which then has a scale of its own.
    strength: of the overlay, 0..1; side: of a picture, in inches.
    Raises ValueError if their numbers or sizes differ.
    """
    check(images, heatmaps=heatmaps, titles=titles, probabilities=probabilities)
    for image, heatmap in zip(images, heatmaps, strict=True):
        same_size(image, heatmap)
    signs = [signed] * len(images) if isinstance(signed, bool) else list(signed)
    groups = [0] * len(images) if shared is True else list(shared or range(len(images)))
    reach = [float(np.percentile(m.abs(), 99.5)) for m in heatmaps]
    limits = [
        max(r for r, g in zip(reach, groups, strict=True) if g == own) if shared else None
        for own in groups
    ]
    rows = -(-len(images) // blocks)
    figure, axes = plt.subplots(
        rows, 4 * blocks, figsize=(3.92 * side * blocks, side * rows + 0.4), squeeze=False
    )
    for ax in axes.flat[4 * len(images) :]:
        ax.axis("off")
    for i, image in enumerate(images):
        original, heat, both, bars = axes.flat[4 * i : 4 * i + 4]
        draw(original, to_rgb(image), titles[i])
        draw_heat(heat, heatmaps[i], signs[i], "map", limits[i])
        draw(both, overlay(image, heatmaps[i], signs[i], strength, limits[i]), "overlay")
        target = int(probabilities[i].argmax()) if targets is None else int(targets[i])
        _bars(bars, probabilities[i], classes, target)
    suptitle_of(figure, suptitle)
    return figure


def plot_map_grid(
    images: torch.Tensor,
    columns: Mapping[str, torch.Tensor],
    titles: Sequence[str],
    signed: Sequence[str] = (),
    overlays: bool = True,
    shared: bool = False,
    suptitle: str = "",
    side: float = 1.5,
) -> Figure:
    """A row for each image, a column for each kind of map {name: (N, H, W)}, the image first.

    signed: names of the columns with a sign. overlays paints the maps on the image; otherwise the
    bare map is shown. shared gives the maps of one row the same limits.
    Raises ValueError if numbers or sizes (for overlays) differ.
    """
    check(images, titles=titles, **{f"maps {name!r}": maps for name, maps in columns.items()})
    for maps in columns.values() if overlays else ():
        for image, heatmap in zip(images, maps, strict=True):
            same_size(image, heatmap)
    figure, axes = plt.subplots(
        len(images),
        len(columns) + 1,
        figsize=(side * (len(columns) + 1), (side + 0.15) * len(images) + 0.3),
        squeeze=False,
    )
    for row, image in enumerate(images):
        draw(axes[row, 0], to_rgb(image), titles[row])
        limit = (
            max(float(np.percentile(maps[row].abs(), 99.5)) for maps in columns.values())
            if shared
            else None
        )
        for ax, (name, maps) in zip(axes[row, 1:], columns.items(), strict=True):
            title = name if row == 0 else ""
            if overlays:
                draw(ax, overlay(image, maps[row], name in signed, limit=limit), title)
            else:
                draw_heat(ax, maps[row], name in signed, title, limit)
    suptitle_of(figure, suptitle)
    return figure


def plot_effect(
    before: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    after: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    classes: Sequence[str],
    target: int,
    signed: bool = False,
    labels: tuple[str, str] = ("before", "after"),
    suptitle: str = "",
) -> Figure:
    """Image, map and probabilities before and after a change to the image.

    before, after: (image uint8 (3, H, W), heatmap (H, W), probabilities (C,)). Both maps explain
    `target` and share one scale, so that a map that fades is seen to fade.
    """
    figure, axes = plt.subplots(2, 4, figsize=(9, 4.6))
    limit = max(float(np.percentile(m.abs(), 99.5)) for _, m, _ in (before, after))
    for row, label, (image, heatmap, probabilities) in zip(
        axes, labels, (before, after), strict=True
    ):
        draw(row[0], to_rgb(image), label)
        draw_heat(row[1], heatmap, signed, f"map for {short(classes[target])}", limit)
        draw(row[2], overlay(image, heatmap, signed, limit=limit), "overlay")
        _bars(row[3], probabilities, classes, target)
    suptitle_of(figure, suptitle)
    return figure


def plot_maps(
    image: torch.Tensor,
    maps: Mapping[str, torch.Tensor],
    title: str,
    columns: int = 7,
    suptitle: str = "",
    side: float = 1.6,
    signed: Sequence[str] = (),
    overlays: bool = False,
) -> Figure:
    """One image, then its maps {name: (h, w)}, `columns` panels a row; each scaled by itself.

    signed: names of the maps with a sign. overlays paints the maps on the image; they then need
    its size, else ValueError.
    """
    rows = -(-(len(maps) + 1) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(side * columns, (side + 0.15) * rows), squeeze=False
    )
    for ax in axes.flat[len(maps) + 1 :]:
        ax.axis("off")
    draw(axes.flat[0], to_rgb(image), title)
    for ax, (name, heatmap) in zip(axes.flat[1:], maps.items(), strict=False):
        if overlays:
            draw(ax, overlay(image, heatmap, name in signed), name)
        else:
            draw_heat(ax, heatmap, name in signed, name)
    suptitle_of(figure, suptitle)
    return figure
