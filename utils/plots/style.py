"""The course's one look: colours, titles that fit, pictures without axes.

Colours: viridis for maps without sign, RdBu_r centred at zero for maps with one; both can be read by
colour-blind readers. In grey viridis keeps its order; RdBu_r keeps the strength and loses the sign.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font

UNSIGNED, SIGNED = "viridis", "RdBu_r"
PALETTE = "colorblind"
SMALL = 12  # points: titles of small pictures, legends, numbers in cells
LONGEST = 24  # letters of a name in a figure
MOST_LINES = 4  # of a small picture's title

# fonts with characters that DejaVu Sans lacks, on Linux, Windows and macOS
_FALLBACKS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans JP",
    "Noto Sans SC",
    "Noto Sans KR",
    "Source Han Sans",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "IPAGothic",
    "NanumGothic",
    "Microsoft YaHei",
    "SimHei",
    "Yu Gothic",
    "MS Gothic",
    "Malgun Gothic",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Arabic",
    "Noto Sans Thai",
    "Noto Emoji",
    "Unifont",
)
_noted: set[str] = set()


@cache
def _families() -> tuple[str, ...]:
    """DejaVu Sans, then the installed fonts that add characters to it."""
    installed = {font.name for font in fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _FALLBACKS if name in installed))


@cache
def _drawable(character: str) -> bool:
    fonts = (get_font(fontManager.findfont(name)) for name in _families())
    return any(font.get_char_index(ord(character)) for font in fonts)


def readable(text: str) -> str:
    """The text as a figure shows it: `$` is no formula, and no character is an empty box.

    Characters that no installed font has become their codes, such as [U+732B], and a sentence
    says once what to install.
    """
    missing = sorted({c for c in text if ord(c) > 126 and not c.isspace() and not _drawable(c)})
    if missing:
        runs = re.compile("[" + re.escape("".join(missing)) + "]+")
        text = runs.sub(lambda run: "[" + " ".join(f"U+{ord(c):04X}" for c in run[0]) + "]", text)
        if not _noted & {"glyphs"}:
            _noted.add("glyphs")
            print(
                f"No installed font has {''.join(missing[:5])}: figures show character codes. "
                "Install a font such as Noto Sans CJK (Debian: fonts-noto-cjk) and restart."
            )
    return text.replace("$", r"\$")


def short(name: str, longest: int = LONGEST) -> str:
    """A name of at most `longest` letters: the middle of a longer one becomes an ellipsis."""
    if len(name) <= longest:
        return name
    head = (longest - 1) * 2 // 3
    return f"{name[:head].rstrip()}…{name[len(name) - (longest - 1 - head) :].lstrip()}"


def names_of(names: Iterable[object]) -> list[str]:
    """Names as tick labels and legends show them: short and readable."""
    return [readable(short(str(name))) for name in names]


def use_style() -> None:
    """The course's one style; called at the top of each notebook."""
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE)
    plt.rcParams.update(
        {
            "font.family": list(_families()),
            "legend.fontsize": SMALL,
            "xtick.labelsize": SMALL,
            "ytick.labelsize": SMALL,
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
        fault = f"one is {odd[0].dtype} {tuple(odd[0].shape)}" if odd else "there is none"
        raise ValueError(f"Pictures must be uint8 (3, H, W) each, and one at least: {fault}.")
    for name, values in each.items():
        if len(values) != len(images):
            raise ValueError(
                f"{len(images)} images but {len(values)} {name}: give each image its own."
            )


def same_size(image: torch.Tensor, heatmap: torch.Tensor) -> None:
    if image.shape[1:] != heatmap.shape:
        raise ValueError(
            f"The map has shape {tuple(heatmap.shape)} but the image {tuple(image.shape)}: "
            "resize it to (H, W)."
        )


def wrapped(text: str, inches: float, size: str | float) -> str:
    """The text in lines of about equal length that fit `inches` at a font size; its own breaks stay."""
    points = FontProperties(size=size).get_size_in_points()
    text = readable(text)
    width = max(6, int(inches / (points / 72 * _letter(text))))
    return "\n".join(_balanced(line, width) for line in text.split("\n"))


def _balanced(line: str, width: int) -> str:
    """As many lines as `width` letters need, none left with a single word where it can be helped."""
    most, least = len(textwrap.wrap(line, width)), max(map(len, line.split()), default=1)
    while width > least and len(textwrap.wrap(line, width - 1)) == most:
        width -= 1
    return textwrap.fill(line, width)


def _letter(text: str) -> float:
    """The mean width of the text's letters in font sizes, a little generous: digits are wide."""
    font = get_font(fontManager.findfont("DejaVu Sans"))
    font.set_size(100, 72)
    font.set_text(text.replace("\n", " "))
    return max(0.55, 1.08 * font.get_width_height()[0] / 6400 / max(1, len(text)))


def _inches(ax: Axes) -> float:
    """The width of the panel's figure."""
    return cast(Figure, ax.figure).get_figwidth()


def suptitle_of(figure: Figure, text: str) -> None:
    """A title over the whole figure, in lines that fit it."""
    figure.suptitle(wrapped(text, figure.get_figwidth(), plt.rcParams["figure.titlesize"]))


def title_of(ax: Axes, text: str) -> None:
    """The title of a panel that fills its figure; the tick labels at its left push it aside."""
    ax.set_title(wrapped(text, 0.75 * _inches(ax), plt.rcParams["axes.titlesize"]))


def draw(ax: Axes, picture: np.ndarray, title: str = "", **options: Any) -> None:
    """A picture without axes; a title of more than MOST_LINES lines ends in an ellipsis."""
    ax.imshow(picture, **options)
    ax.set(xticks=[], yticks=[])
    gridspec = ax.get_gridspec()
    inches = 0.9 * _inches(ax) / (gridspec.ncols if gridspec else 1)
    lines = wrapped(title, inches, SMALL).split("\n")
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1][:-1] + "…"]
    ax.set_title("\n".join(lines), fontsize=SMALL, pad=3)
    for side in ax.spines.values():
        side.set_visible(False)
