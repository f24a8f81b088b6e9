"""What the notebooks leave behind: figures with their captions, and numbers."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .. import env
from ..env import profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

STEM = re.compile(r"\d\d_[a-z0-9_]+")  # 05_gradcam, 05_layers: a notebook's number, words
DPI = 150
PREVIEW = 230  # pixels: width of a figure inside 15_report.ipynb, which stays under 1 MB


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
    text = PngInfo()
    text.add_itxt("Description", " ".join(caption.split()))
    picture, buffer = compact(Image.open(buffer)), io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True, pnginfo=text)
    return env.write(profile().figures / f"{name}.png", buffer.getvalue())


def compact(picture: Image.Image) -> Image.Image:
    """The picture with 256 colours, where no pixel then differs by more than 8 of 255 levels."""
    full = picture.convert("RGB")
    indexed = full.quantize(256, dither=Image.Dither.NONE)
    change = np.abs(np.asarray(indexed.convert("RGB"), np.int16) - np.asarray(full, np.int16))
    return indexed if change.max() <= 8 else full


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
    small.save(buffer, "JPEG", quality=44, optimize=True)
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
    from IPython.display import display

    words = {"text/markdown": f"*{caption}*", "text/plain": caption}
    display(words, raw=True, metadata={"caption_of": "table"})
    body = frame.to_html(border=0, na_rep="–", float_format=lambda value: f"{value:.{digits}f}")
    shown = {"text/html": body, "text/plain": frame.to_string()}
    display(shown, raw=True, metadata={"table": caption})


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
    kept under "meta" for each notebook ("sources" and "weights"): fine-tuning and explaining use
    different weights. Raises ValueError for a number that is not finite; nothing is written then.
    """
    if not STEM.fullmatch(stem):
        raise ValueError(
            f"{stem!r} is not a notebook's name: use its file name without .ipynb, such as 04_evaluation."
        )
    clean = {name: _rounded(stem, name, value) for name, value in numbers.items()}
    active = profile()
    with _stored() as stored:
        meta = stored.setdefault("meta", {})
        meta |= {
            "profile": active.name,
            "seed": active.seed,
            "device": env.device_name(),
            "versions": env.versions(),
        }
        if data is not None:
            meta["sources"] = meta.get("sources", {}) | {stem: data}
            # the course's own; later notebooks may add others
            meta["data"] = meta["sources"][min(meta["sources"])]
        if weights is not None:
            kept = meta.setdefault("weights", {})
            kept[stem] = kept.get(stem, {}) | dict(weights)
        stored[stem] = stored.get(stem, {}) | clean


def _rounded(stem: str, name: str, value: float) -> float | int:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(
            f"{stem}: {name} is {number}, which is not a result: find out why, or leave it out."
        )
    return int(number) if isinstance(value, (int, np.integer)) else float(f"{number:.6g}")


@contextmanager
def _stored(name: str | None = None) -> Iterator[dict[str, Any]]:
    """results.json to change; no other process changes it meanwhile, and it is written if changed."""
    file = profile(name).figures / "results.json"
    with env.alone(file):
        stored = load_results(name)
        before = json.dumps(stored, sort_keys=True)
        yield stored
        if json.dumps(stored, sort_keys=True) != before:
            text = json.dumps(stored, indent=1, sort_keys=True, ensure_ascii=False)
            env.write(file, text + "\n")


def load_results(name: str | None = None) -> dict[str, Any]:
    """results.json of the profile `name` (default: the one that is on); empty if nothing was stored yet.

    "meta" says what was run (profile, data, weights, seed, device, versions); every other entry
    is a notebook with its numbers.
    """
    file = profile(name).figures / "results.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def weights_used(results: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
    """{(architecture, provenance): the notebooks that used these weights}, from results.json."""
    used: dict[tuple[str, str], list[str]] = {}
    for stem, weights in sorted(results.get("meta", {}).get("weights", {}).items()):
        # earlier versions kept one provenance for each architecture, whatever notebook it was
        for key in weights.items() if isinstance(weights, dict) else ():
            used.setdefault(key, []).append(stem)
    return dict(sorted(used.items()))


def forget_results(stems: Iterable[str], name: str | None = None) -> None:
    """Drop notebooks' numbers, so that names they no longer write do not stay behind."""
    with _stored(name) as stored:
        for stem in stems:
            stored.pop(stem, None)
            for kind in ("sources", "weights"):
                stored.get("meta", {}).get(kind, {}).pop(stem, None)
        if set(stored) == {"meta"}:
            del stored["meta"]


def keep_results(stems: Iterable[str], name: str | None = None) -> None:
    """Drop every number but those of `stems`: results.json never mixes two runs."""
    forget_results(set(load_results(name)) - {"meta", *stems}, name)
