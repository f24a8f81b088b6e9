"""What the notebooks leave behind: figures, numbers, executed copies, one HTML page.

Command line:  python -m utils.report run [--profile demo]        run the course, build report.html
               python -m utils.report html [--profile demo]       only build report.html again
               python -m utils.report notebooks [--profile demo]  run, then keep the outputs in notebooks/
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..env import device_name, profile, versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

STEM = re.compile(
    r"\d\d_[a-z0-9_]+"
)  # 05_gradcam, 05_layers: a notebook's number, lower-case words
DPI = 150
PREVIEW = (
    230  # pixels: width of a figure inside 15_report.ipynb, which shows all and stays under 1 MB
)


# ---------------------------------------------------------------- figures


def save_figure(fig: Figure, name: str, caption: str) -> Path:
    """Write figures/<profile>/<name>.png (150 dpi) with its caption inside the file.

    name: the notebook's number and lower-case words, such as "05_layers". The file holds 256
    colours instead of all where no pixel then differs by more than 8 of 255 levels (plots and
    text do that, photographs mostly not), which makes it a third as large. The same figure
    gives the same bytes. Raises ValueError for another kind of name or an empty caption.
    """
    if not STEM.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a figure name: use the notebook's number and lower-case words, such as 05_layers."
        )
    if not caption.strip():
        raise ValueError(f"The figure {name} has no caption: say in a sentence what it shows.")
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", facecolor="white")
    picture = Image.open(buffer).convert("RGB")
    few = picture.quantize(256, dither=Image.Dither.NONE)
    change = np.abs(np.asarray(few.convert("RGB"), np.int16) - np.asarray(picture, np.int16))
    text = PngInfo()
    text.add_itxt("Description", " ".join(caption.split()))
    file = profile().figures / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    (few if change.max() <= 8 else picture).save(part, format="PNG", optimize=True, pnginfo=text)
    part.replace(file)
    return file


def figure_files(name: str | None = None) -> list[Path]:
    """The figures of the profile `name` (default: the one that is on), in notebook order."""
    return sorted(f for f in profile(name).figures.glob("*.png") if STEM.fullmatch(f.stem))


def caption(file: str | Path) -> str:
    """The caption that save_figure wrote into a PNG; empty if there is none."""
    with Image.open(file) as picture:
        return getattr(picture, "text", {}).get("Description", "")


def show_figure(file: str | Path, width: int = PREVIEW) -> None:
    """Show a saved figure with its caption in a notebook, as a small preview `width` pixels wide.

    build_html puts the full-size file and a numbered caption in the preview's place.
    """
    from IPython.display import display

    file = Path(file)
    with Image.open(file) as picture:
        small = picture.convert("RGB")
    small.thumbnail((width, 2 * width), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=50, optimize=True)
    words = caption(file)
    shown = {"image/jpeg": base64.b64encode(buffer.getvalue()).decode(), "text/plain": words}
    display(shown, raw=True, metadata={"figure": file.name})
    display(
        {"text/markdown": f"*{words}*", "text/plain": words},
        raw=True,
        metadata={"caption_of": file.name},
    )


def show_table(frame: DataFrame, caption: str, digits: int = 3) -> None:
    """Show a pandas table with a caption; names in it are escaped, missing values are a dash."""
    from IPython.display import HTML, display

    body = frame.to_html(border=0, na_rep="–", float_format=lambda value: f"{value:.{digits}f}")
    display(HTML(body.replace(">", f"><caption>{escape(caption)}</caption>", 1)))


# ---------------------------------------------------------------- numbers


def save_results(
    stem: str,
    numbers: Mapping[str, float],
    data: str | None = None,
    weights: Mapping[str, str] | None = None,
) -> None:
    """Merge a notebook's numbers into figures/<profile>/results.json (atomic, sorted, repeatable).

    stem: the notebook, such as "04_evaluation"; numbers: flat dotted names, rounded to 6
    significant digits. data: the ImageSet's source; weights: architecture -> provenance. Both are
    kept under "meta" ("sources" has the data of each notebook). Raises ValueError for a number
    that is not finite; nothing is written then.
    """
    if not STEM.fullmatch(stem):
        raise ValueError(
            f"{stem!r} is not a notebook's name: use its file name without .ipynb, such as 04_evaluation."
        )
    clean = {name: _rounded(stem, name, value) for name, value in numbers.items()}
    chosen = profile()
    file = chosen.figures / "results.json"
    stored = load_results()
    meta = stored.setdefault("meta", {})
    meta |= {
        "profile": chosen.name,
        "seed": chosen.seed,
        "device": device_name(),
        "versions": versions(),
    }
    if data is not None:
        meta["sources"] = meta.get("sources", {}) | {stem: data}
        meta["data"] = meta["sources"][
            min(meta["sources"])
        ]  # the course's own; later notebooks may add others
    if weights is not None:
        meta["weights"] = meta.get("weights", {}) | dict(weights)
    stored[stem] = stored.get(stem, {}) | clean
    _write(file, stored)


def _rounded(stem: str, name: str, value: float) -> float | int:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(
            f"{stem}: {name} is {number}, which is no result: find out why, or leave it out."
        )
    return int(number) if isinstance(value, (int, np.integer)) else float(f"{number:.6g}")


def _write(file: Path, stored: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(
        json.dumps(stored, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8"
    )
    part.replace(file)


def load_results(name: str | None = None) -> dict[str, Any]:
    """results.json of the profile `name` (default: the one that is on); empty if nothing was stored yet.

    "meta" says what was run (profile, data, weights, seed, device, versions); every other entry
    is a notebook with its numbers.
    """
    file = profile(name).figures / "results.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def forget_results(stem: str, name: str | None = None) -> None:
    """Drop a notebook's numbers, so that names it no longer writes do not stay behind."""
    stored = load_results(name)
    if stored.pop(stem, None):
        _write(profile(name).figures / "results.json", stored)
