"""The committed notebooks: executed once, in order, outputs kept, nothing of one machine in them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from utils import env
from utils.report import notebooks, results

NOTEBOOKS = sorted((env.ROOT / "notebooks").glob("*.ipynb"))
TOP = set(
    "notebooks utils figures environment.yml README.md Makefile LICENSE pyproject.toml .ci .gitignore "
    ".github .devcontainer .binder".split()
)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS, "notebooks/ is empty"
    assert [f.name for f in NOTEBOOKS if not results.STEM.fullmatch(f.stem)] == []


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebook_is_fit_to_be_committed(file: Path) -> None:
    assert notebooks.faults(file) == []


def test_top_level_entries() -> None:
    if not shutil.which("git") or not (env.ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=env.ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split("/")[0] for line in listed.splitlines()} - TOP == set()


# ---------------------------------------------------------------- the checkers can fail

ADDRESS = "https://github.com/someone/course"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the course had a public address."""
    monkeypatch.setattr(env, "address", lambda: ADDRESS)


def _good(stem: str = "42_example") -> nbformat.NotebookNode:
    cells = [v4.new_markdown_cell(f"# 42 · Example\n\n{notebooks.badge(stem, ADDRESS)}")]
    for number in range(1, 4):
        printed = v4.new_output("stream", name="stdout", text=f"{number}\n")
        source = f"# NBVAL_CHECK_OUTPUT\nprint({number})"
        cells.append(v4.new_code_cell(source, execution_count=number, outputs=[printed]))
    notebook = v4.new_notebook(cells=cells)
    notebooks.tidy(notebook, stem)
    return notebook


def _faults(notebook: nbformat.NotebookNode, folder: Path) -> list[str]:
    file = folder / "42_example.ipynb"
    nbformat.write(notebook, file)
    return notebooks.faults(file)


def _clear(notebook: nbformat.NotebookNode) -> None:
    for cell in notebook.cells[1:]:
        cell.outputs = []


def _print_path(path: str) -> Callable[[nbformat.NotebookNode], None]:
    return lambda notebook: notebook.cells[1].outputs[0].update(text=f"saved in {path}\n")


BAD: dict[str, tuple[Callable[[nbformat.NotebookNode], object], str]] = {
    "cleared": (_clear, "all outputs were cleared"),
    "cleared cell": (lambda n: n.cells[2].update(outputs=[]), "output of code cell 2 was cleared"),
    "check cell cleared": (
        lambda n: n.cells[3].update(outputs=[]),
        "check cell stores no output: print(3)",
    ),
    "check fails": (
        lambda n: n.cells[3].outputs[0].update(text="equal: False\n"),
        "does not hold: equal: False",
    ),
    "not executed": (lambda n: n.cells[1].update(execution_count=None), "top to bottom"),
    "out of order": (lambda n: n.cells[2].update(execution_count=7), "top to bottom"),
    "error": (
        lambda n: n.cells[1].outputs.append(
            v4.new_output("error", ename="KeyError", evalue="1", traceback=[])
        ),
        "code cell 1 failed with KeyError",
    ),
    "widget state": (lambda n: n.metadata.update(widgets={"state": {}}), "metadata.widgets"),
    "home": (_print_path("/home/someone/x"), "place on one machine: /home/someone/x"),
    "root": (_print_path("'/root/x'"), "place on one machine"),
    "work": (_print_path("(/work/x)"), "place on one machine"),
    "tmp": (_print_path("/tmp/x"), "place on one machine"),
    "file address": (_print_path("file:///x"), "place on one machine"),
    "windows": (_print_path("C:\\Users\\someone"), "place on one machine"),
    "path in source": (
        lambda n: n.cells[1].update(source="print('/tmp/x')"),
        "place on one machine",
    ),
    "few checks": (lambda n: n.cells[1].update(source="print(1)"), "2 check cells, fewer than 3"),
    "no badge": (lambda n: n.cells[0].update(source="# 42"), "no Colab badge"),
    "badge of another": (
        lambda n: n.cells[0].update(source=f"# 42\n{notebooks.badge('41_other', ADDRESS)}"),
        "no Colab badge",
    ),
    "large": (
        lambda n: n.cells[0].update(source=n.cells[0].source + "x" * notebooks.LIMIT),
        "not under 1 MB",
    ),
}


@pytest.mark.usefixtures("published")
def test_a_good_notebook_has_no_faults(tmp_path: Path) -> None:
    notebook = _good()
    notebook.cells[0].source += "\n\nSee https://example.org/home/page and ../tmp/x."
    assert _faults(notebook, tmp_path) == []


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_notebook_is_caught(kind: str, tmp_path: Path) -> None:
    spoil, sentence = BAD[kind]
    notebook = _good()
    spoil(notebook)
    assert sentence in "\n".join(_faults(notebook, tmp_path))


@pytest.mark.usefixtures("published")
def test_base64_is_not_mistaken_for_a_path(tmp_path: Path) -> None:
    notebook = _good()
    data = {"text/html": '<img src="data:image/png;base64,AA+/tmp/AA==">', "image/png": "/tmp/"}
    notebook.cells[1].outputs.append(v4.new_output("display_data", data=data))
    assert _faults(notebook, tmp_path) == []


# ---------------------------------------------------------------- tidying


def test_tidy_leaves_only_what_every_machine_shares() -> None:
    notebook = _good()
    bar = "training: 10%|# | 1/10\rtraining: 100%|##########| 10/10 [00:01<00:00, 9.9it/s]\nkept\n"
    widget = {notebooks.WIDGET: {"model_id": "1"}, "text/plain": "IntSlider(value=0)"}
    progress = {
        notebooks.WIDGET: {"model_id": "2"},
        "text/plain": "reading:   0%|          | 0/5 [00:00<?, ?img/s]",
    }
    warning = f"{env.ROOT}/utils/x.py:1: UserWarning\n/tmp/ipykernel_12/34.py:2: UserWarning\n"
    notebook.cells[1].outputs = [
        v4.new_output("stream", name="stderr", text=bar),
        v4.new_output("display_data", data=widget),
        v4.new_output("display_data", data=progress),
        v4.new_output("stream", name="stderr", text=warning),
        v4.new_output(
            "execute_result", data={"text/plain": f"'{env.ROOT}/runs/x'"}, execution_count=1
        ),
        v4.new_output("stream", name="stderr", text="50%|#####     | 5/10"),
    ]
    notebook.metadata.widgets = {"state": {}}
    notebook.cells[1].metadata = nbformat.from_dict(
        {"execution": {"iopub": "now"}, "tags": ["keep"]}
    )
    notebooks.tidy(notebook, "42_example")
    kept = notebook.cells[1].outputs
    assert [o.get("text") for o in kept] == [
        "kept\n",
        None,
        "utils/x.py:1: UserWarning\ncell:2: UserWarning\n",
        None,
    ]
    assert kept[1].data == {"text/plain": notebooks.NOTE, "text/markdown": f"*{notebooks.NOTE}*"}
    assert kept[3].data["text/plain"] == "'runs/x'"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.cells[1].metadata == {"tags": ["keep"]}
    assert [c.id for c in notebook.cells] == [f"cell-42-{i:03d}" for i in range(4)]
    again = nbformat.from_dict(notebook)
    notebooks.tidy(again, "42_example")
    assert again == notebook


def test_stamp_writes_the_public_address_once() -> None:
    notebook = _good()
    old = 'import sys\nif "google.colab" in sys.modules:\n    clone("https://github.com/OLD/NAME")'
    notebook.cells[1].source = old
    notebook.cells[0].source = notebook.cells[0].source.replace("42_example", "41_copied")
    for _ in range(2):
        notebooks.stamp(notebook, "42_example", ADDRESS)
    first = notebook.cells[0].source
    assert first.startswith("# 42 · Example\n\n" + notebooks.badge("42_example", ADDRESS))
    assert re.findall(r"github/([\w/-]+)/blob/main/notebooks/(\w+)", first) == [
        ("someone/course", "42_example")
    ]
    setup = notebook.cells[1].source
    assert f'"XTL_REPO", "{ADDRESS}"' in setup and len(setup.splitlines()) <= 16
    notebooks.stamp(notebook, "42_example", "")
    assert notebook.cells[0].source == "# 42 · Example"
    assert '"XTL_REPO", "")' in notebook.cells[1].source


def test_without_an_address_a_badge_is_a_fault(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(env, "address", lambda: "")
    notebook = _good()
    assert (
        "has a Colab badge, but the course has no public address" in _faults(notebook, tmp_path)[0]
    )
    notebooks.stamp(notebook, "42_example", "")
    assert _faults(notebook, tmp_path) == []
    notebook.cells[2].source = notebooks.SETUP.format(address=ADDRESS)
    assert any("its set-up cell is not the course's" in x for x in _faults(notebook, tmp_path))
