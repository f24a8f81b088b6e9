"""The audit as one self-contained HTML page, and the plate of pictures on it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from .. import env, explain, plots
from .answers import recommended
from .catalogue import QUESTIONS
from .parts import maps_of
from .subject import Subject

SHOWN = 3  # images on the plate
TEMPLATES = Path(__file__).parent


def plate(subject: Subject, methods: list[str], shown: int = SHOWN) -> Figure:
    """The same images under all methods, for the predicted class; each map scaled by itself.

    A row for each image; a single image fills rows of four.
    """
    rows = torch.linspace(0, len(subject.images) - 1, min(shown, len(subject.images))).long()
    maps = {explain.METHODS[m].title: maps_of(subject, m).own(rows) for m in methods}
    titles = [subject.title(i) for i in rows.tolist()]
    signed = [title for title, heat in maps.items() if (heat < 0).any()]
    if shown == 1:
        one = {title: heat[0] for title, heat in maps.items()}
        image = subject.images[rows[0]]
        return plots.plot_maps(image, one, titles[0], columns=4, side=2.1, signed=signed)
    return plots.plot_map_grid(
        subject.images[rows], maps, titles, signed=signed, overlays=False, side=1.8
    )


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
