"""Pictures. Every function returns the Figure; none of them computes a result.

Colours: viridis for maps without sign, RdBu_r centred at zero for maps with one; both can be read by
colour-blind readers and in grey.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

UNSIGNED, SIGNED = "viridis", "RdBu_r"
PALETTE = "colorblind"


def use_style() -> None:
    """The course's one style; called at the top of each notebook."""
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE, font_scale=0.85)
    plt.rcParams.update(
        {
            "figure.constrained_layout.use": True,
            "figure.dpi": 80,
            "savefig.dpi": 150,
            "axes.titlesize": "medium",
            "image.interpolation": "nearest",
        }
    )


def _check(images: torch.Tensor | Sequence[torch.Tensor], **each: Sequence) -> None:
    """ValueError unless images are uint8 (3, H, W) each, and all else has one entry for each of them."""
    odd = [i for i in images if i.ndim != 3 or i.shape[0] != 3 or i.dtype != torch.uint8]
    if odd or not len(images):
        found = f"one is {odd[0].dtype} {tuple(odd[0].shape)}" if odd else "there is none"
        raise ValueError(f"Pictures must be uint8 (3, H, W) each, and one at least: {found}.")
    for name, values in each.items():
        if len(values) != len(images):
            raise ValueError(f"{len(images)} images but {len(values)} {name}: give each image its own.")


def _same_size(image: torch.Tensor, heatmap: torch.Tensor) -> None:
    if image.shape[1:] != heatmap.shape:
        raise ValueError(
            f"The map has shape {tuple(heatmap.shape)} but the image {tuple(image.shape)}: resize it to (H, W)."
        )


def _wrapped(text: str, inches: float, size: str | float) -> str:
    """The text in lines that fit `inches` at a font size; its own line breaks stay."""
    letter = 0.55 * FontProperties(size=size).get_size_in_points() / 72  # mean width, a little generous
    width = max(6, int(inches / letter))
    return "\n".join(textwrap.fill(line, width, break_long_words=False) for line in text.split("\n"))


def _suptitle(figure: Figure, text: str) -> None:
    figure.suptitle(_wrapped(text, figure.get_figwidth(), plt.rcParams["figure.titlesize"]))


def _title(ax: Axes, text: str) -> None:
    """The title of a panel that fills its figure; the tick labels at its left push it aside."""
    ax.set_title(_wrapped(text, 0.75 * ax.figure.get_figwidth(), plt.rcParams["axes.titlesize"]))


def to_rgb(image: torch.Tensor) -> np.ndarray:
    """uint8 (3, H, W) -> float (H, W, 3) in 0..1."""
    return image.permute(1, 2, 0).numpy() / 255


def scaled(heatmap: torch.Tensor, signed: bool, limit: float | None = None) -> np.ndarray:
    """A map (H, W) in -1..1 (signed) or 0..1: divided by `limit`, else by its own largest magnitude.

    The largest magnitude is the 99.5th percentile, so that one hot pixel does not hide the rest.
    """
    values = heatmap.numpy().astype(float)
    if not signed:
        values = values.clip(min=0)
    limit = limit or float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max()) or 1.0
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
    _same_size(image, heatmap)
    values = scaled(heatmap, signed, limit)
    colour = colormaps[SIGNED if signed else UNSIGNED]((values + 1) / 2 if signed else values)[..., :3]
    grey = to_rgb(image).mean(-1, keepdims=True).repeat(3, -1)
    alpha = strength * np.abs(values)[..., None] ** 0.5
    return (1 - alpha) * grey + alpha * colour


def _picture(ax: Axes, picture: np.ndarray, title: str = "", **options: object) -> None:
    ax.imshow(picture, **options)
    ax.set(xticks=[], yticks=[])
    inches = 0.9 * ax.figure.get_figwidth() / ax.get_gridspec().ncols
    ax.set_title(_wrapped(title, inches, 8), fontsize=8, pad=3)
    for side in ax.spines.values():
        side.set_visible(False)


def _heat(ax: Axes, heatmap: torch.Tensor, signed: bool, title: str = "", limit: float | None = None) -> None:
    _picture(
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
    """The k most probable classes as bars; the explained one in the accent colour."""
    top = probabilities.argsort(descending=True)[:k].tolist()
    colours = ["C1" if c == target else "0.7" for c in top]
    ax.barh(range(len(top)), probabilities[top].tolist(), color=colours)
    for row, c in enumerate(top):
        ax.text(0.02, row, f"{classes[c]} {probabilities[c]:.0%}", va="center", fontsize=7)
    ax.set(xlim=(0, 1), xticks=[], yticks=[])
    ax.invert_yaxis()
    ax.grid(False)
    sns.despine(ax=ax, left=True, bottom=True)


# ---------------------------------------------------------------- data


def plot_images(
    images: torch.Tensor, titles: Sequence[str], columns: int = 10, suptitle: str = "", side: float = 1.1
) -> Figure:
    """A contact sheet of uint8 images (N, 3, H, W), or a list of them.

    Titles for the first row alone name its columns. Raises ValueError if there is no image.
    """
    _check(images)
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(side * columns, (side + 0.2) * rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for i, (ax, image) in enumerate(zip(axes.flat, images, strict=False)):  # the last row may be short
        ax.axis("on")
        _picture(ax, to_rgb(image), titles[i] if i < len(titles) else "")
    _suptitle(figure, suptitle)
    return figure


def plot_counts(counts: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """Class counts {split: {class: images}}, one panel for each split."""
    figure, axes = plt.subplots(1, len(counts), figsize=(3.6 * len(counts), 3), sharey=True, squeeze=False)
    for ax, (split, numbers) in zip(axes.flat, counts.items(), strict=True):
        ax.barh(list(numbers), list(numbers.values()), color="C0")
        ax.bar_label(ax.containers[0], fontsize=7, padding=2)
        ax.set(
            title=f"{split}: {sum(numbers.values()):,} images",
            xlabel="images",
            xlim=(0, 1.15 * max(numbers.values())),
        )
    axes.flat[0].invert_yaxis()
    _suptitle(figure, title)
    return figure


# ---------------------------------------------------------------- training and evaluation


def plot_history(histories: Mapping[str, object], title: str) -> Figure:
    """Loss and accuracy of each batch (faint), their running mean, epoch marks and validation.

    histories: {name: train.History}; several runs share the axes.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
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
            ax.plot(epochs[window - 1 :], smooth, color=f"C{colour}", label=f"{name}, training batches")
            ax.plot(
                np.arange(1, len(checks) + 1),
                checks,
                "o--",
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
    figure.legend(lines, names, fontsize=7, loc="outside lower center", ncols=len(histories))
    _suptitle(figure, title)
    return figure


def plot_confusion(counts: Mapping[str, np.ndarray], classes: Sequence[str], title: str) -> Figure:
    """Confusion matrices {model: (C, C) counts}; colour is the share of the true class (row)."""
    figure, axes = plt.subplots(1, len(counts), figsize=(5.2 * len(counts), 4.6), squeeze=False)
    for ax, (name, matrix) in zip(axes.flat, counts.items(), strict=True):
        share = matrix / matrix.sum(1, keepdims=True).clip(min=1)
        sns.heatmap(share, annot=matrix, fmt="d", cmap="viridis", vmin=0, vmax=1, ax=ax, square=True,
                    xticklabels=classes, yticklabels=classes, annot_kws={"size": 7}, cbar_kws={"label": "share of the true class", "shrink": 0.7})  # fmt: skip
        ax.set(title=name, xlabel="predicted", ylabel="true")
    _suptitle(figure, title)
    return figure


def plot_class_accuracy(accuracy: Mapping[str, np.ndarray], classes: Sequence[str], title: str) -> Figure:
    """Accuracy by class {model: (C,)}, sorted by the models' mean, as paired dots."""
    figure, ax = plt.subplots(figsize=(7, 3.6))
    order = np.argsort(np.mean(list(accuracy.values()), 0))
    for (name, values), marker in zip(accuracy.items(), "osD^", strict=False):
        ax.plot(values[order], range(len(order)), marker, ms=7, label=name)
    ax.set(
        yticks=range(len(order)),
        yticklabels=[classes[i] for i in order],
        xlabel="share of the class's test images recognised",
    )
    ax.legend(loc="lower right")
    _title(ax, title)
    return figure


def plot_reliability(tables: Mapping[str, tuple], title: str) -> Figure:
    """Accuracy against confidence {model: evaluate.reliability(...)}; the diagonal is honest."""
    figure, ax = plt.subplots(figsize=(4.4, 4))
    ax.plot([0, 1], [0, 1], "--", color="0.5", label="perfectly calibrated")
    for name, (confidence, accuracy, share, error) in tables.items():
        (line,) = ax.plot(confidence, accuracy, "-", label=f"{name} (error {error:.3f})")
        ax.scatter(confidence, accuracy, s=20 + 400 * share, color=line.get_color(), alpha=0.6)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    _title(ax, title)
    ax.legend(fontsize=7, loc="upper left")
    return figure


def plot_metrics(
    table: Mapping[str, Mapping[str, float]],
    limits: Mapping[str, Mapping[str, tuple[float, float]]],
    title: str,
) -> Figure:
    """Metrics {model: {metric: value}} as dots with their 95 % intervals."""
    figure, ax = plt.subplots(figsize=(7.5, 3.2))
    names = list(next(iter(limits.values())))
    for k, (model, values) in enumerate(table.items()):
        x = np.arange(len(names)) + 0.18 * (k - (len(table) - 1) / 2)
        y = np.array([values[n] for n in names])
        low, high = np.array([limits[model][n] for n in names]).T
        ax.errorbar(
            x, y, [np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt="osD^"[k % 4], capsize=3, label=model
        )
    ax.set(xticks=range(len(names)), xticklabels=names)
    _title(ax, title)
    ax.legend(fontsize=8, loc="best")
    return figure


# ---------------------------------------------------------------- explanations


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
    shared: bool = False,
    side: float = 1.25,
) -> Figure:
    """Original | map | overlay | most probable classes for each image, `blocks` images a row.

    images uint8 (N, 3, H, W), heatmaps (N, H, W), probabilities (N, C). The explained class
    (targets, else the most probable one) is the coloured bar. Each map is scaled by itself, or
    (shared) all by the largest. strength: of the overlay, 0..1; side: of a picture, in inches.
    Raises ValueError if their numbers or sizes differ.
    """
    _check(images, heatmaps=heatmaps, titles=titles, probabilities=probabilities)
    for image, heatmap in zip(images, heatmaps, strict=True):
        _same_size(image, heatmap)
    signs = [signed] * len(images) if isinstance(signed, bool) else list(signed)
    limit = max(float(np.percentile(m.abs(), 99.5)) for m in heatmaps) if shared else None
    rows = -(-len(images) // blocks)
    figure, axes = plt.subplots(
        rows, 4 * blocks, figsize=(3.92 * side * blocks, side * rows + 0.4), squeeze=False
    )
    for ax in axes.flat[4 * len(images) :]:
        ax.axis("off")
    for i, image in enumerate(images):
        original, heat, both, bars = axes.flat[4 * i : 4 * i + 4]
        _picture(original, to_rgb(image), titles[i])
        _heat(heat, heatmaps[i], signs[i], "map", limit)
        _picture(both, overlay(image, heatmaps[i], signs[i], strength, limit), "overlay")
        target = int(probabilities[i].argmax()) if targets is None else int(targets[i])
        _bars(bars, probabilities[i], classes, target)
    _suptitle(figure, suptitle)
    return figure


def plot_map_grid(
    images: torch.Tensor,
    columns: Mapping[str, torch.Tensor],
    titles: Sequence[str],
    signed: Sequence[str] = (),
    overlays: bool = True,
    shared: bool = False,
    suptitle: str = "",
    side: float = 1.3,
) -> Figure:
    """A row for each image, a column for each kind of map {name: (N, H, W)}, the image first.

    signed: names of the columns with a sign. overlays paints the maps on the image; otherwise the
    bare map is shown. shared gives the maps of one row the same limits.
    Raises ValueError if numbers or sizes (for overlays) differ.
    """
    _check(images, titles=titles, **{f"maps {name!r}": maps for name, maps in columns.items()})
    for maps in columns.values() if overlays else ():
        for image, heatmap in zip(images, maps, strict=True):
            _same_size(image, heatmap)
    figure, axes = plt.subplots(
        len(images),
        len(columns) + 1,
        figsize=(side * (len(columns) + 1), (side + 0.15) * len(images) + 0.3),
        squeeze=False,
    )
    for row, image in enumerate(images):
        _picture(axes[row, 0], to_rgb(image), titles[row])
        limit = (
            max(float(np.percentile(maps[row].abs(), 99.5)) for maps in columns.values()) if shared else None
        )
        for ax, (name, maps) in zip(axes[row, 1:], columns.items(), strict=True):
            title = name if row == 0 else ""
            if overlays:
                _picture(ax, overlay(image, maps[row], name in signed, limit=limit), title)
            else:
                _heat(ax, maps[row], name in signed, title, limit)
    _suptitle(figure, suptitle)
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
    figure, axes = plt.subplots(2, 4, figsize=(7, 3.6))
    limit = max(float(np.percentile(m.abs(), 99.5)) for _, m, _ in (before, after))
    for row, label, (image, heatmap, probabilities) in zip(axes, labels, (before, after), strict=True):
        _picture(row[0], to_rgb(image), label)
        _heat(row[1], heatmap, signed, f"map for {classes[target]}", limit)
        _picture(row[2], overlay(image, heatmap, signed, limit=limit), "overlay")
        _bars(row[3], probabilities, classes, target)
    _suptitle(figure, suptitle)
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
    figure, ax = plt.subplots(figsize=(6.4, 3.4))
    for (name, (x, y)), marker in zip(lines.items(), "osD^vP*X" * 3, strict=False):
        ax.plot(x, y, marker=marker, ms=4, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    _title(ax, title)
    if logy:
        ax.set_yscale("log")
    if logx:
        ax.set_xscale("log")
    if len(lines) > 1:
        ax.legend(fontsize=7)
    return figure


def plot_mosaic(panels: Mapping[str, torch.Tensor], label: str, title: str, limit: float = 1.0) -> Figure:
    """Small signed maps {name: (rows, columns, h, w)}, each laid out where it belongs; one colour scale."""
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels) + 0.6, 4.4), squeeze=False)
    for ax, (name, maps) in zip(axes.flat, panels.items(), strict=True):
        rows, columns, h, w = maps.shape
        gaps = np.pad(maps.numpy(), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
        _picture(
            ax,
            gaps.transpose(0, 2, 1, 3).reshape(rows * (h + 1), columns * (w + 1)),
            name,
            cmap=SIGNED,
            vmin=-limit,
            vmax=limit,
        )
        ax.grid(False)
    figure.colorbar(axes.flat[0].images[0], ax=axes, label=label, shrink=0.8, extend="max")
    _suptitle(figure, title)
    return figure


def plot_heads(
    panels: Mapping[str, np.ndarray], title: str, references: Mapping[str, float | None] | None = None
) -> Figure:
    """A dot for each head {what is measured: (blocks, heads)} by block, the blocks' mean as a line.

    references: {what is measured: value of attention that looks at all tokens alike}, dashed.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(4.8 * len(panels), 3.4), squeeze=False)
    for ax, (name, values) in zip(axes.flat, panels.items(), strict=True):
        number = np.arange(1, len(values) + 1)
        ax.plot(number, values.mean(1), color="0.4", label="mean of the heads")
        for head in range(values.shape[1]):
            ax.plot(number, values[:, head], "o", ms=5, color=f"C{head % 10}", alpha=0.8)
        if (references or {}).get(name) is not None:
            ax.axhline(references[name], ls="--", color="k", lw=1, label="all tokens alike")
        ax.set(xlabel="block", ylabel=name, xticks=number)
        ax.legend(fontsize=7)
    figure.suptitle(title)
    return figure


def plot_scatter(
    x: Sequence[float], y: Sequence[float], colour: Sequence[float], xlabel: str, ylabel: str, label: str,
    title: str, named: Mapping[str, int] | None = None,
) -> Figure:  # fmt: skip
    """A dot for each pair (x, y), coloured by a third number called `label`; `named` {name: index} get an arrow."""
    figure, ax = plt.subplots(figsize=(6.4, 3.8))
    dots = ax.scatter(x, y, c=colour, cmap=UNSIGNED, s=45, edgecolor="k", linewidth=0.4)
    for name, i in (named or {}).items():
        ax.annotate(name, (x[i], y[i]), (22, -22), textcoords="offset points", ha="center", fontsize=8,
                    arrowprops=dict(arrowstyle="->", color="k"))  # fmt: skip
    figure.colorbar(dots, ax=ax, label=label)
    ax.margins(0.12, 0.2)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return figure


def plot_maps(
    image: torch.Tensor, maps: Mapping[str, torch.Tensor], title: str, columns: int = 7, suptitle: str = "",
    side: float = 1.45,
) -> Figure:  # fmt: skip
    """One image, then its bare unsigned maps {name: (h, w)}, `columns` panels a row; each scaled by itself."""
    rows = -(-(len(maps) + 1) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(side * columns, (side + 0.15) * rows), squeeze=False)
    for ax in axes.flat[len(maps) + 1 :]:
        ax.axis("off")
    _picture(axes.flat[0], to_rgb(image), title)
    for ax, (name, heatmap) in zip(axes.flat[1:], maps.items(), strict=False):
        _heat(ax, heatmap, False, name)
    figure.suptitle(suptitle)
    return figure


# ---------------------------------------------------------------- heads of a transformer

CONTROLS = {  # reference curves look the same in every figure
    "uniform attention": dict(color="k", ls="--", lw=1),
    "another image's attention": dict(color="0.45", ls=":", lw=1.6),
    "random weights": dict(color="0.45", ls="-.", lw=1),
}


def plot_head_matrix(
    panels: Mapping[str, torch.Tensor], label: str, title: str, apart: Mapping[str, str] | None = None
) -> Figure:
    """One number for each head {name: (L, heads)}: blocks down, heads across.

    The panels share one colour scale; those in apart {name: colour bar label} have their own.
    """
    apart = apart or {}
    shared = torch.stack([values for name, values in panels.items() if name not in apart])
    depth, heads = shared.shape[1:]
    width = max(1.6, 0.22 * heads)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(width * len(panels) + 1.6, 0.24 * depth + 1.5), squeeze=False, sharey=True
    )
    for ax, (name, values) in zip(axes.flat, panels.items(), strict=True):
        limits = {} if name in apart else dict(vmin=float(shared.min()), vmax=float(shared.max()))
        picture = ax.imshow(
            values.numpy(), aspect="auto", cmap="cividis" if name in apart else UNSIGNED, **limits
        )
        ax.set(xticks=[0, heads - 1], xticklabels=[1, heads], xlabel="head")
        ax.set_yticks(range(depth), range(1, depth + 1))
        ax.set_title(name, fontsize=9)
        ax.grid(False)
        if name in apart:
            figure.colorbar(picture, ax=ax, label=apart[name])
    axes[0, 0].set_ylabel("block")
    last = [ax for ax, name in zip(axes.flat, panels, strict=True) if name not in apart]
    figure.colorbar(last[-1].images[0], ax=last, label=label)
    figure.suptitle(title)
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
        rows, columns, figsize=(5.2 * columns, 2.6 * rows + 0.7), squeeze=False, sharex=True, sharey=True
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
                ax.fill_between(x, *(edge.flatten() for edge in band), color=style["color"], alpha=0.2, lw=0)
        depth, heads = middle.shape
        for edge in range(1, depth):
            ax.axvline(edge * heads - 0.5, color="0.85", lw=0.7, zorder=0)
        ax.set_xticks((np.arange(depth) + 0.5) * heads - 0.5, range(1, depth + 1), fontsize=7)
        ax.set_title(panel, fontsize=9)
        ax.grid(False, axis="x")
    for ax in axes[-1]:
        ax.set_xlabel("block (its heads side by side)")
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    names = {n: line for ax in axes.flat for line, n in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(names.values(), names, fontsize=7, loc="outside lower center", ncols=5)
    figure.suptitle(title)
    return figure


# ---------------------------------------------------------------- trust


def plot_scores(
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]],
    references: Sequence[str],
    title: str,
) -> Figure:
    """Scores with intervals {metric: {model: {method: (mean, low, high)}}}, best method on top.

    Sorted by the mean over metrics and models; maps named in `references` know no model and are
    hollow on a shaded row.
    """
    names = {method for models in panels.values() for scores in models.values() for method in scores}

    def overall(method: str) -> float:
        found = [s[method][0] for models in panels.values() for s in models.values() if method in s]
        return float(np.mean(found))

    order = sorted(names, key=overall)
    height = 0.34 * len(order) + 1.4
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.7 * len(panels) + 1, height), sharey=True, squeeze=False
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
                        mean, row + shift, xerr=[[max(mean - low, 0)], [max(high - mean, 0)]], fmt="osD^"[k % 4],
                        color=f"C{k}", mfc="white" if method in references else None, ms=5, capsize=2,
                        label=model if method not in references else None,
                    )  # fmt: skip
        ax.set(title=metric, yticks=range(len(order)), yticklabels=[name.replace("_", " ") for name in order])
    found = dict(zip(*reversed(axes.flat[0].get_legend_handles_labels()), strict=True))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=len(found), fontsize=8)
    figure.suptitle(title)
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
        rows, columns, figsize=(4.6 * columns, 2.9 * rows + 0.5), sharey=True, squeeze=False
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
                    color=f"C{coloured.index(name) % 10}",
                    marker="osD^vP*X"[coloured.index(name) % 8],
                    ms=4,
                    lw=1.3,
                )
            )
            (handles[name],) = ax.plot(x, y, **style)
        ax.set(title=panel, xlabel=xlabel if i + columns >= len(panels) else "")
        if ticks:
            ax.set_xticks(range(len(ticks[i])), ticks[i], rotation=35, ha="right", fontsize=7)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    figure.legend(
        handles.values(), [name.replace("_", " ") for name in handles], loc="outside lower center",
        ncols=min(5, len(handles)), fontsize=8,
    )  # fmt: skip
    figure.supylabel(ylabel, fontsize=10)
    figure.suptitle(title)
    return figure


def plot_agreement(
    matrices: Mapping[str, tuple[Sequence[str], np.ndarray]], label: str, title: str
) -> Figure:
    """Square matrices in -1..1 {panel: (names, (M, M))}, written out, one colour scale centred at 0."""
    figure, axes = plt.subplots(1, len(matrices), figsize=(5.6 * len(matrices), 4.9), squeeze=False)
    for ax, (panel, (names, values)) in zip(axes.flat, matrices.items(), strict=True):
        sns.heatmap(
            values, annot=True, fmt=".1f", cmap=SIGNED, vmin=-1, vmax=1, square=True, ax=ax, xticklabels=names,
            yticklabels=names, annot_kws={"size": 7}, cbar_kws={"label": label, "shrink": 0.7},
        )  # fmt: skip
        ax.set_title(panel)
        ax.tick_params(labelsize=7)
    figure.suptitle(title)
    return figure
