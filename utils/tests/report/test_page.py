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
from utils.report import notebooks

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
            data=data if isinstance(data, dict) else {"text/html": data.data},
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
            },
        ),
    ]
    text = (
        f"# The $R$eport & more\n\n{notebooks.badge('15_report')}\n\n## Sums\n\nInline $a < b_1$, costs $5 and `$x$`.\n\n"
        "$$\\sum_{i=1}^{n} \\frac{R_i}{Z_i + 10^{-9}} = 1$$\n\n```python\nprice = '$y$'\n```\n\n## Sums\n\n"
        "### Deeper\n\n![A saved line](figures/smoke/05_line.png)\n\nTable: Published numbers\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    cell = v4.new_code_cell(
        "print('<code>')  # a long line " + "x" * 200, execution_count=1, outputs=outputs
    )
    file = write("15_report", text, cell)
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
    assert {"html", "nav", "main", "details", "figure", "figcaption", "caption"} <= set(page.tags)
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
        "Table 1. Published numbers",
        "Table 2. Accuracy of <b>each</b> class",
        "Table 3. Deeper",  # no caption of its own: the heading above it
        notebooks.NOTE,
    ):
        assert phrase in words
    assert "9.9it/s" not in words and "IntSlider" not in words
    assert len(page.ids) == len(set(page.ids))
    inside = [link[1:] for link in page.links if link.startswith("#")]
    assert inside == ["Sums", "Sums-", "Deeper"] and set(inside) <= set(page.ids)


def test_a_picture_that_is_not_there_is_named(write_notebook: Write, tmp_path: Path) -> None:
    file = write_notebook("15_report", "# R\n\n![x](figures/smoke/07_gone.png)")
    with pytest.raises(FileNotFoundError, match=r"07_gone\.png, but that figure is not there"):
        _page(file, tmp_path)


def test_captions_written_as_text_become_captions(
    write_notebook: Write, tmp_path: Path, plot: Plot
) -> None:
    report.save_figure(plot(), "05_line", "A rising line.")
    shown = [
        {
            "text/markdown": "![x](figures/smoke/05_line.png)\n\n*Figure 7. In italics, from [there](05_a.ipynb).*"
        },
        {"text/markdown": "*Table 9. Above it*"},
        {"text/html": pd.DataFrame({"a": [1]})._repr_html_()},
    ]
    outputs = [v4.new_output("display_data", data=data) for data in shown]
    file = write_notebook("15_report", "# R", v4.new_code_cell("1", outputs=outputs))
    page = _Page(_page(file, tmp_path))
    words = " ".join(page.words.split())
    assert "Figure 1. In italics, from there." in words and "Table 1. Above it" in words
    assert "Figure 7" not in words and "Table 9" not in words
    assert "../../05_a.ipynb" in page.links


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


def test_neighbouring_code_that_shows_nothing_is_one_fold() -> None:
    from utils.report.page import _joined

    loud = v4.new_code_cell("b", outputs=[v4.new_output("stream", name="stdout", text="b")])
    cells = [
        v4.new_code_cell("a"),
        loud,
        v4.new_code_cell("c"),
        v4.new_markdown_cell("d"),
        v4.new_code_cell("e"),
    ]
    assert [cell.source for cell in _joined(cells)] == ["a\n\n\nb", "c", "d", "e"]
    assert cells[0].source == "a" and _joined(cells)[0].outputs == loud.outputs
