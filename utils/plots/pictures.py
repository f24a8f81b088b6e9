"""Images without maps: contact sheets and plates of many small pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from .style import SMALL, check, draw, names_of, suptitle_of


def to_rgb(image: torch.Tensor) -> np.ndarray:
    """uint8 (3, H, W) -> float (H, W, 3) in 0..1."""
    return image.permute(1, 2, 0).numpy() / 255


def plot_images(
    images: torch.Tensor,
    titles: Sequence[str],
    columns: int = 10,
    suptitle: str = "",
    side: float = 1.4,
) -> Figure:
    """A contact sheet of uint8 images (N, 3, H, W), or a list of them.

    Titles for the first row alone name its columns. Raises ValueError if there is no image.
    """
    check(images)
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(side * columns, (side + 0.3) * rows), squeeze=False
    )
    for ax in axes.flat:
        ax.axis("off")
    for i, (ax, image) in enumerate(
        zip(axes.flat, images, strict=False)
    ):  # the last row may be short
        ax.axis("on")
        draw(ax, to_rgb(image), titles[i] if i < len(titles) else "")
    suptitle_of(figure, suptitle)
    return figure


def plot_sheet(
    rows: Sequence[torch.Tensor],
    columns: Sequence[str],
    title: str,
    names: Sequence[str] = (),
    side: float = 1.0,
) -> Figure:
    """Many small images as one picture: a row for each batch uint8 (C, 3, H, W) of one size.

    columns: a name for each of the C columns; names: for the rows. Raises ValueError if the
    batches differ in size or number.
    """
    for batch in rows:
        check(batch, columns=columns)
        if batch.shape != rows[0].shape:
            raise ValueError("The rows of a sheet must hold equally many images: of one size each.")
    count, _, height, width = rows[0].shape
    gap = max(1, width // 24)
    tiles = torch.full((3, len(rows) * (height + gap) - gap, count * (width + gap) - gap), 255)
    tiles = tiles.to(torch.uint8)
    for y, batch in enumerate(rows):
        for x, image in enumerate(batch):
            top, left = y * (height + gap), x * (width + gap)
            tiles[:, top : top + height, left : left + width] = image
    longest = max(len(shown) for shown in names_of(columns))
    long = longest > 9 * side
    height_in = side * len(rows) * height / width + (0.9 + 0.06 * longest if long else 1.2)
    width_in = max(4.0, side * count) + (1.6 if names else 0)
    figure, ax = plt.subplots(figsize=(width_in, height_in))
    draw(ax, to_rgb(tiles))
    places = [k * (width + gap) + width / 2 - 0.5 for k in range(count)]
    ax.xaxis.tick_top()
    slanted: dict[str, Any] = dict(rotation=35, ha="left") if long else {}
    ax.set_xticks(places, names_of(columns), **slanted)
    if names:
        middles = [k * (height + gap) + height / 2 - 0.5 for k in range(len(rows))]
        ax.set_yticks(middles, names_of(names))
    ax.tick_params(length=0, labelsize=SMALL)
    ax.grid(False)
    suptitle_of(figure, title)
    return figure
