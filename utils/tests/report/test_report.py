"""Figures, numbers, the resumable run and the HTML page, on notebooks of a few lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from nbformat import v4
from PIL import Image

from utils import env, report
from utils.report import course, notebooks

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(env, "RUNS", tmp_path / "runs")
    monkeypatch.setenv("XTL_PROFILE", "smoke")
    monkeypatch.setenv("XTL_DEVICE", "cpu")


def _plot() -> Figure:
    fig = Figure(figsize=(3, 2))
    fig.add_subplot().plot([0, 1], [0, 1])
    return fig


# ---------------------------------------------------------------- figures


def test_a_figure_carries_its_caption_and_repeats(tmp_path: Path) -> None:
    file = report.save_figure(_plot(), "05_line", "A line ≥ 0,\n  rising.")
    assert file == tmp_path / "figures" / "smoke" / "05_line.png"
    assert report.caption(file) == "A line ≥ 0, rising."
    first = file.read_bytes()
    assert report.save_figure(_plot(), "05_line", "A line ≥ 0, rising.").read_bytes() == first
    report.save_figure(_plot(), "02_line", "Another.")
    assert [f.name for f in report.figure_files()] == ["02_line.png", "05_line.png"]


def test_few_colours_only_where_nobody_can_tell() -> None:
    with Image.open(report.save_figure(_plot(), "05_line", "A line.")) as plain:
        assert plain.mode == "P"
    photo = Figure(figsize=(3, 3))
    noise = np.random.default_rng(0).random((64, 64, 3))
    photo.add_axes((0, 0, 1, 1)).imshow(noise, interpolation="nearest")
    with Image.open(report.save_figure(photo, "05_photo", "Noise.")) as picture:
        assert picture.mode == "RGB"


@pytest.mark.parametrize(
    ("name", "caption"), [("line", "x"), ("5_line", "x"), ("05_a/b", "x"), ("05_line", " ")]
)
def test_a_figure_without_number_or_caption_is_refused(
    name: str, caption: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="caption" if caption == " " else "05_layers"):
        report.save_figure(_plot(), name, caption)
    assert not (tmp_path / "figures").exists()


# ---------------------------------------------------------------- numbers


def test_results_are_merged_rounded_and_sorted(tmp_path: Path) -> None:
    report.save_results(
        "04_evaluation", {"vit.accuracy": 0.123456789, "n": 7}, "Shapes-10", {"vit_mini": "course"}
    )
    report.save_results(
        "04_evaluation",
        {"cnn.accuracy": torch.tensor(0.5), "n": np.int64(8)},
        weights={"cnn": "none"},
    )
    report.save_results("05_gradcam", {"share": np.float32(0.25)}, "scikit-learn digits")
    stored = report.load_results()
    assert stored["04_evaluation"] == {"cnn.accuracy": 0.5, "n": 8, "vit.accuracy": 0.123457}
    assert stored["meta"]["sources"] == {
        "04_evaluation": "Shapes-10",
        "05_gradcam": "scikit-learn digits",
    }
    assert stored["meta"]["weights"] == {"vit_mini": "course", "cnn": "none"}
    assert {"profile", "data", "weights", "seed", "device", "versions"} <= set(stored["meta"])
    file = tmp_path / "figures" / "smoke" / "results.json"
    assert json.dumps(
        stored, indent=1, sort_keys=True, ensure_ascii=False
    ) + "\n" == file.read_text("utf-8")
    assert [f.name for f in file.parent.iterdir()] == [
        "results.json"
    ]  # no half-written file beside it
    report.forget_results("04_evaluation")
    assert set(report.load_results()) == {"meta", "05_gradcam"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(float("nan"))])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    report.save_results("04_evaluation", {"kept": 1.0})
    with pytest.raises(ValueError, match=r"04_evaluation: vit\.accuracy is (nan|inf)"):
        report.save_results("04_evaluation", {"kept": 2.0, "vit.accuracy": value})
    assert report.load_results()["04_evaluation"] == {"kept": 1.0}


def test_no_results_yet() -> None:
    assert report.load_results() == {}


# ---------------------------------------------------------------- the run


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the notebooks that were executed; no kernel is started."""
    names: list[str] = []

    def stand_in(file: Path, target: Path, settings: dict[str, str]) -> None:
        names.append(file.stem)
        target.write_bytes(file.read_bytes())
        if "fail" in file.read_text():
            raise RuntimeError("stopped")

    monkeypatch.setattr(course, "execute", stand_in)
    return names


def test_an_interrupted_run_goes_on(write_notebook: Write, tmp_path: Path, ran: list[str]) -> None:
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    write_notebook("01_a", "1", folder=folder)
    write_notebook("02_b", "fail", folder=folder)
    write_notebook("03_c", "3", folder=folder)
    with pytest.raises(RuntimeError, match="stopped"):
        course.run_course("smoke", folder, out)
    assert (out / "02_b.ipynb").exists()  # the partial copy

    write_notebook("02_b", "2", folder=folder)
    copies = course.run_course("smoke", folder, out)
    assert [c.name for c in copies] == ["01_a.ipynb", "02_b.ipynb", "03_c.ipynb"]
    assert ran == ["01_a", "02_b", "02_b", "03_c"]  # the finished one not again
    write_notebook("01_a", "11", folder=folder)
    course.run_course("smoke", folder, out)
    assert ran[4:] == [
        "01_a",
        "03_c",
    ]  # what changed, and the last, which reads the others' results


def test_another_profile_or_source_runs_again(
    write_notebook: Write, tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    for name in ("01_a", "02_b"):
        write_notebook(name, "1", folder=folder)
    course.run_course("smoke", folder, out)
    monkeypatch.setenv("XTL_DATA", "digits")
    course.run_course("smoke", folder, out)
    assert ran == ["01_a", "02_b", "01_a", "02_b"]


def test_a_lost_figure_is_drawn_again(
    write_notebook: Write, tmp_path: Path, ran: list[str]
) -> None:
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    for name in ("01_a", "02_b"):
        write_notebook(name, "1", folder=folder)
    drawn = report.save_figure(_plot(), "01_x", "A line.")
    course.run_course("smoke", folder, out)
    course.run_course("smoke", folder, out)
    drawn.unlink()
    course.run_course("smoke", folder, out)
    assert ran == ["01_a", "02_b", "02_b", "01_a", "02_b"]


def test_stale_numbers_are_dropped_before_a_run(
    write_notebook: Write, tmp_path: Path, ran: list[str]
) -> None:
    report.save_results("01_a", {"old": 1.0})
    report.save_results("02_b", {"kept": 1.0})
    write_notebook("01_a", "1", folder=tmp_path / "n")
    course.run_course("smoke", tmp_path / "n", tmp_path / "out")
    assert "01_a" not in report.load_results()
    assert report.load_results()["02_b"] == {"kept": 1.0}


def test_auto_is_settled_once(
    monkeypatch: pytest.MonkeyPatch, write_notebook: Write, tmp_path: Path
) -> None:
    asked: list[str] = []

    def load(source: str, split: str) -> object:
        asked.append(source)
        return type("Set", (), {"source": "Shapes-10"})

    told: list[dict[str, str]] = []
    monkeypatch.setattr(course.data, "load", load)
    monkeypatch.setattr(course, "execute", lambda file, target, settings: told.append(settings))
    for name in ("01_a", "02_b"):
        write_notebook(name, "1", folder=tmp_path / "n")
    course.run_course("demo", tmp_path / "n", tmp_path / "out")
    assert asked == ["auto"]
    assert told == [{"XTL_PROFILE": "demo", "XTL_DATA": "shapes10"}] * 2


def test_a_failing_cell_ends_in_one_sentence(write_notebook: Write, tmp_path: Path) -> None:
    tell = "import os; print(os.environ['XTL_DATA'], os.environ.get('MPLBACKEND', '').split(':')[-1][:6])"
    write_notebook(
        "01_a",
        "# A",
        tell,
        "",
        "raise KeyError('first\\nlast words')",
        "never",
        folder=tmp_path / "n",
    )
    with pytest.raises(
        RuntimeError, match=r"^01_a\.ipynb stopped in code cell 2: .*last words"
    ) as caught:
        course.run_course("smoke", tmp_path / "n", tmp_path / "out")
    assert "\n" not in str(caught.value)
    partial = nbformat.read(tmp_path / "out" / "01_a.ipynb", 4)
    assert partial.cells[1].outputs[0].text.startswith("shapes10")
    assert [c.get("execution_count") for c in partial.cells] == [None, 1, None, 2, None]


def test_a_dead_kernel_is_named(write_notebook: Write, tmp_path: Path) -> None:
    write_notebook("01_a", "1", "import os; os._exit(1)", folder=tmp_path / "n")
    with pytest.raises(
        RuntimeError, match=r"01_a\.ipynb stopped in code cell 2: its Python process died"
    ):
        course.run_course("smoke", tmp_path / "n", tmp_path / "out")


def test_publish_refuses_a_notebook_that_names_this_machine(
    write_notebook: Write, tmp_path: Path
) -> None:
    check = "# NBVAL_CHECK_OUTPUT\nprint(1)"
    file = write_notebook(
        "01_a", "# A", check, check, check, "print('/' + 'tmp/x')", folder=tmp_path / "n"
    )
    with pytest.raises(RuntimeError, match=r"01_a\.ipynb: it names a place on one machine: /tmp/x"):
        course.publish("smoke", tmp_path / "n", tmp_path / "out")
    assert nbformat.read(file, 4).cells[1].outputs == []

    write_notebook("01_a", "# A", check, check, check, folder=tmp_path / "n")
    course.publish("smoke", tmp_path / "n", tmp_path / "out")
    assert notebooks.faults(file) == []


def test_the_command_line_ends_with_a_sentence() -> None:
    with pytest.raises(SystemExit, match="There is no executed 15_report for the profile smoke"):
        report.main(["html"])
    with pytest.raises(SystemExit, match="There is no profile 'none'"):
        report.main(["html", "--profile", "none"])


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


def example_page(write: Write, folder: Path) -> Path:
    """A page with everything that a report can hold; shared with the browser test."""
    figure = report.save_figure(_plot(), "05_line", "A rising <line>.")
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


def test_the_page_stands_alone(write_notebook: Write, tmp_path: Path) -> None:
    page = _Page(example_page(write_notebook, tmp_path))
    assert page.loads
    assert [x for x in page.loads if not x.startswith("data:")] == []
    assert not {"script", "iframe", "object", "embed", "video"} & set(page.tags)
    assert "onclick=" not in re.sub(r"&lt;.*?&gt;", "", page.html)
    assert "url(" not in page.html and "@import" not in page.html
    assert page.tags.count("math") == 4  # in the title, in a sentence, alone, in a table
    assert {"html", "nav", "main", "details", "figure", "figcaption", "caption"} <= set(page.tags)
    assert "<title>The Report &amp; more</title>" in page.html and '<html lang="en">' in page.html


def test_the_page_says_what_was_meant(write_notebook: Write, tmp_path: Path) -> None:
    page = _Page(example_page(write_notebook, tmp_path))
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


def test_captions_written_as_text_become_captions(write_notebook: Write, tmp_path: Path) -> None:
    report.save_figure(_plot(), "05_line", "A rising line.")
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


def test_a_notebook_depends_on_what_it_imports() -> None:
    """Work on one helper does not run notebooks again that never see it."""
    from utils.report import course

    data_only = {p.stem for p in course._helpers("from utils import data")}
    assert {"data", "pixels", "env"} <= data_only and not {"lrp", "plots", "page"} & data_only
    assert {"lrp", "attention"} <= {
        p.stem for p in course._helpers("from utils.explorer import View")
    }
    assert course._helpers("import torch") == set()


def test_the_readme_gets_the_results_between_its_marks(tmp_path: Path) -> None:
    from utils.report import readme

    file = tmp_path / "README.md"
    file.write_text("before\n<!-- results -->\nstale words\n<!-- end of results -->\nafter\n")
    results = {
        "meta": {"profile": "demo", "data": "Shapes-10"},
        "04_evaluation": {
            "resnet.accuracy": 0.5,
            "resnet.accuracy_low": 0.4,
            "resnet.accuracy_high": 0.6,
        },
    }
    for _ in range(2):  # writing again changes nothing
        readme.write(results, file)
        text = file.read_text("utf-8")
        assert (
            "| ResNet34, accuracy | 0.843 | 0.500 [0.400, 0.600] |" in text
            and "stale words" not in text
        )
        assert text.startswith("before\n") and text.endswith("after\n") and "– / –" in text
    file.write_text("no marks")
    with pytest.raises(ValueError, match=r"README\.md has no place for the results"):
        readme.write(results, file)


def test_a_saved_figure_links_to_its_notebook_in_its_true_size(
    write_notebook: Write, tmp_path: Path
) -> None:
    write_notebook("05_gradcam", "# 5 · Grad-CAM")
    page = example_page(write_notebook, tmp_path).read_text("utf-8")
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
