"""The audit as one self-contained HTML page, and the plate of pictures on it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from .. import env, explain, plots
from .battery import recommended
from .questions import QUESTIONS
from .subject import Subject

SHOWN = 3  # images on the plate
TEMPLATES = Path(__file__).parent


def plate(subject: Subject, methods: list[str], shown: int = SHOWN) -> Figure:
    """The same images under all methods, for the predicted class; each map scaled by itself."""
    images, targets = subject.images[:shown], subject.preds[:shown]
    columns = {
        explain.METHODS[m].title.replace(" ", "\n", 1): explain.explain(
            subject.model, images, targets, method=m
        )
        for m in methods
    }
    signed = [title for title, maps in columns.items() if (maps < 0).any()]
    titles = [subject.title(i) for i in range(len(images))]
    return plots.plot_map_grid(images, columns, titles, signed=signed, overlays=False, side=1.5)


def _embedded(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def build(subject: Subject, report: dict[str, Any], file: Path) -> Path:
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
        plate=_embedded(plate(subject, methods)),
    )
    return env.write(file, page)
