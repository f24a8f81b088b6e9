"""The course's one look: colours, titles that fit, pictures without axes.

Colours: viridis for maps without sign, RdBu_r centred at zero for maps with one; both can be read by
colour-blind readers. In grey viridis keeps its order; RdBu_r keeps the strength and loses the sign.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
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


def check(images: torch.Tensor | Sequence[torch.Tensor], **each: Sequence) -> None:
    """ValueError unless images are uint8 (3, H, W) each, and all else has one entry for each of them."""
    odd = [i for i in images if i.ndim != 3 or i.shape[0] != 3 or i.dtype != torch.uint8]
    if odd or not len(images):
        found = f"one is {odd[0].dtype} {tuple(odd[0].shape)}" if odd else "there is none"
        raise ValueError(f"Pictures must be uint8 (3, H, W) each, and one at least: {found}.")
    for name, values in each.items():
        if len(values) != len(images):
            raise ValueError(
                f"{len(images)} images but {len(values)} {name}: give each image its own."
            )


def same_size(image: torch.Tensor, heatmap: torch.Tensor) -> None:
    if image.shape[1:] != heatmap.shape:
        raise ValueError(
            f"The map has shape {tuple(heatmap.shape)} but the image {tuple(image.shape)}: resize it to (H, W)."
        )


def wrapped(text: str, inches: float, size: str | float) -> str:
    """The text in lines that fit `inches` at a font size; its own line breaks stay."""
    letter = (
        0.55 * FontProperties(size=size).get_size_in_points() / 72
    )  # mean width, a little generous
    width = max(6, int(inches / letter))
    return "\n".join(
        textwrap.fill(line, width, break_long_words=False) for line in text.split("\n")
    )


def suptitle_of(figure: Figure, text: str) -> None:
    figure.suptitle(wrapped(text, figure.get_figwidth(), plt.rcParams["figure.titlesize"]))


def title_of(ax: Axes, text: str) -> None:
    """The title of a panel that fills its figure; the tick labels at its left push it aside."""
    ax.set_title(wrapped(text, 0.75 * ax.figure.get_figwidth(), plt.rcParams["axes.titlesize"]))


def draw(ax: Axes, picture: np.ndarray, title: str = "", **options: object) -> None:
    ax.imshow(picture, **options)
    ax.set(xticks=[], yticks=[])
    inches = 0.9 * ax.figure.get_figwidth() / ax.get_gridspec().ncols
    ax.set_title(wrapped(title, inches, 8), fontsize=8, pad=3)
    for side in ax.spines.values():
        side.set_visible(False)
