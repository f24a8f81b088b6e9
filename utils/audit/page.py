"""The audit as one self-contained HTML page, and the plate of pictures on it."""

from __future__ import annotations

import base64
import io
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from .. import env, explain, plots
from .answers import recommended
from .catalogue import QUESTIONS
from .parts import OPTIONS
from .subject import Subject

SHOWN = 3  # images on the plate
TEMPLATES = Path(__file__).parent


def plate(subject: Subject, methods: list[str], shown: int = SHOWN) -> Figure:
    """The same images under all methods, for the predicted class; each map scaled by itself.

    A row for each image; a single image fills rows of four.
    """
    rows = torch.linspace(0, len(subject.images) - 1, min(shown, len(subject.images))).long()
    images, targets = subject.images[rows], subject.preds[rows]
    maps = {
        explain.METHODS[m].title: explain.explain(
            subject.model, images, targets, m, cells=True, **OPTIONS.get(m, {})
        )
        for m in methods
    }
    titles = [subject.title(i) for i in rows.tolist()]
    signed = [title for title, heat in maps.items() if (heat < 0).any()]
    head = _least_alike(maps)
    if shown == 1:
        one = {title: heat[0] for title, heat in maps.items()}
        return plots.plot_maps(images[0], one, titles[0], 4, side=2.1, signed=signed, suptitle=head)
    return plots.plot_map_grid(
        images, maps, titles, signed=signed, overlays=False, side=1.8, suptitle=head
    )


def _least_alike(maps: dict[str, torch.Tensor]) -> str:
    """The title of a plate: which two methods' maps (N, h, w) differ most; "" for one method."""
    alike = {}
    for a, b in combinations(maps, 2):
        pairs = zip(maps[a], maps[b], strict=True)
        alike[a, b] = float(np.mean([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in pairs]))
    known = {pair: value for pair, value in alike.items() if np.isfinite(value)}
    if not known:
        return ""
    a, b = min(known, key=lambda pair: known[pair])
    return f"{a} and {b} agree least: correlation {known[a, b]:z.2f}"


def _embedded(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_page(subject: Subject, report: dict[str, Any], file: Path) -> Path:
    """Write the page of an audit; the file. It makes no request to anywhere."""
    methods = list(dict.fromkeys(part.split(".")[1] for part in report["parts"]))
    rows = [
        (explain.METHODS[m].title, [report["parts"].get(f"{q}.{m}", {}) for q in QUESTIONS])
        for m in methods
    ]
    loader = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=select_autoescape(["html"]))
    page = loader.get_template("page.html").render(
        report=report,
        sentences=recommended(report),
        questions=list(QUESTIONS.values()),
        rows=rows,
        planted=[
            (explain.METHODS[m].title, row)
            for m, row in report.get("shortcut", {}).get("methods", {}).items()
        ],
        plate=_embedded(plate(subject, methods)),
    )
    return env.write(file, page)
