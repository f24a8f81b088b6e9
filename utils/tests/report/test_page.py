"""The report's page: stands alone, and says what was meant."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from nbformat import v4
from PIL import Image

from utils import env, report
from utils.report import claims, notebooks

Write = Callable[..., Path]
Plot = Callable[[], Figure]


# ---------------------------------------------------------------- the page


class _Page(HTMLParser):
    """What a page loads, which elements it has, and what a reader reads."""

    def __init__(self, file: Path):
        super().__init__()
        self.html, self.loads, self.tags, self.ids, self.links, self.words = (
            file.read_text("utf-8"),
            [],
            [],
            [],
            [],
            "",
        )
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.tags.append(tag)
        self.ids += [told["id"]] if "id" in told else []
        if tag == "a":
            self.links.append(told.get("href") or "")
        else:
            self.loads += [
                told[k] for k in ("src", "href", "data", "srcset", "poster") if k in told
            ]

    def handle_data(self, data: str) -> None:
        self.words += data


def example_page(write: Write, folder: Path, plot: Plot) -> Path:
    """A page with everything that a report can hold; shared with the browser test."""
    figure = report.save_figure(plot(), "05_line", "A rising <line>.")
    wide = pd.DataFrame(
        {f"a long column name {i}": [0.5, float("nan")] for i in range(12)},
        index=["cat", "<script>alert(1)</script>"],
    )
    shown: list[dict] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "IPython.display.display",
            lambda data, raw=False, metadata=None: shown.append((data, metadata)),
        )
        report.show_figure(figure)
        report.show_table(wide, "Accuracy of <b>each</b> class")
    outputs = [
        v4.new_output(
            "display_data",
            data=data,
            metadata=told or {},
        )
        for data, told in shown
    ]
    widget = {notebooks.WIDGET: {"model_id": "1"}, "text/plain": "IntSlider(value=0)"}
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
    outputs += [
        v4.new_output("display_data", data=widget),
        v4.new_output("display_data", data={"image/svg+xml": svg}),
        v4.new_output("stream", name="stdout", text="5 < 6 & costs $7 or $8\n"),
        v4.new_output(
            "stream", name="stderr", text="50%|#####     | 5/10 [00:01<00:00, 9.9it/s]\n"
        ),
        v4.new_output(
            "display_data",
            data={"text/markdown": "| class | n |\n|---|---|\n| <script> | $x_1$ |\n"},
        ),
        v4.new_output(
            "display_data",
            data={
                "text/html": '<img src="https://example.org/x.png" alt="away"><b onclick="x()">bold</b>'
                "<table><tr><td><style>td {color: red}</style>a <tabby> & more</td></tr></table>"
            },
        ),
    ]
    badge = notebooks.badge("15_report", "https://github.com/someone/course")
    text = (
        f"# 15 · The $R$eport & more\n\n{badge}\n\n## Sums\n\nInline $a < b_1$, costs $5 and `$x$`.\n\n"
        "$$\\sum_{i=1}^{n} \\frac{R_i}{Z_i + 10^{-9}} = 1$$\n\n```python\nprice = '$y$'\n```\n\n## Sums\n\n"
        "### Deeper\n\n![A saved line](figures/smoke/05_line.png)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    cell = v4.new_code_cell(
        "print('<code>')  # a long line " + "x" * 200, execution_count=1, outputs=outputs
    )
    row = claims.Claim("maps <help>", "yes", "0.1 [0.0, 0.2]", "0.05", claims.OPEN, "measured")
    table = {"text/html": claims.table({"A study": [row]}, "Claims.")}
    claim = v4.new_code_cell("1", outputs=[v4.new_output("display_data", data=table)])
    exercise = v4.new_markdown_cell("An exercise", metadata={"tags": ["notebook"]})
    file = write("15_report", text, cell, claim, exercise)
    return _page(file, folder)


def _page(file: Path, folder: Path) -> Path:
    from utils.report.page import build_html

    return build_html(file, env.FIGURES / "smoke" / "report.html", folder)


def test_the_page_stands_alone(write_notebook: Write, tmp_path: Path, plot: Plot) -> None:
    page = _Page(example_page(write_notebook, tmp_path, plot))
    assert page.loads
    assert [x for x in page.loads if not x.startswith("data:")] == []
    assert not {"script", "iframe", "object", "embed", "video"} & set(page.tags)
    assert "onclick=" not in re.sub(r"&lt;.*?&gt;", "", page.html)
    assert "url(" not in page.html and "@import" not in page.html
    assert page.tags.count("math") == 4  # in the title, in a sentence, alone, in a table
    assert {"html", "nav", "main", "figure", "figcaption", "table"} <= set(page.tags)
    assert "<title>The Report &amp; more</title>" in page.html and '<html lang="en">' in page.html


def test_the_page_says_what_was_meant(write_notebook: Write, tmp_path: Path, plot: Plot) -> None:
    page = _Page(example_page(write_notebook, tmp_path, plot))
    words = " ".join(page.words.split())
    for phrase in (
        "<script>alert(1)</script>",  # a class of that name
        "5 < 6 & costs $7 or $8",
        "costs $5 and $x$",
        "price = '$y$'",
        "Figure 1. A rising <line>.",
        "Table 1. Accuracy of <b>each</b> class",
        "Table 2. Deeper",  # no caption of its own: the heading above it
        "a <tabby> & more",
        notebooks.NOTE,
    ):
        assert phrase in words
    assert "9.9it/s" not in words and "IntSlider" not in words and "color: red" not in page.html
    assert "print(" not in words  # no code of the notebook
    assert "An exercise" not in words and "15 · " not in words  # they belong to the notebook
    assert '<td data-head="claim">maps &lt;help&gt;</td>' in page.html
    assert len(page.ids) == len(set(page.ids))
    inside = [link[1:] for link in page.links if link.startswith("#")]
    assert inside == ["sums", "sums-", "deeper"] and set(inside) <= set(page.ids)


def test_a_picture_that_is_not_there_is_named(write_notebook: Write, tmp_path: Path) -> None:
    file = write_notebook("15_report", "# R\n\n![x](figures/smoke/07_gone.png)")
    with pytest.raises(FileNotFoundError, match=r"07_gone\.png, but that figure is not there"):
        _page(file, tmp_path)


def test_a_saved_figure_links_to_its_notebook_in_its_true_size(
    write_notebook: Write, tmp_path: Path, plot: Plot
) -> None:
    write_notebook("05_gradcam", "# 5 · Grad-CAM")
    page = example_page(write_notebook, tmp_path, plot).read_text("utf-8")
    saved = next((env.FIGURES / "smoke").glob("05_line.png"))
    with Image.open(saved) as picture:
        shown = round(picture.width * 96 / 150)
    assert re.search(rf'<img [^>]*width="{shown}"', page)
    assert re.search(
        r'<figcaption>.*?A rising &lt;line&gt;\. <a href="[^"]*05_gradcam\.ipynb">05_gradcam</a>',
        page,
    )
