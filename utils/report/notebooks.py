"""What a notebook looks like when it is committed: made so by tidy and stamp, proved by faults."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

from .. import env

STEM = re.compile(r"\d\d_[a-z0-9_]+")  # 05_gradcam: a notebook's number, lower-case words
LIMIT = 1_000_000  # bytes in a committed notebook
CHECKS = 3  # check cells in a notebook, at least
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
PLACE = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users)/\S*|file:///\S*|[A-Z]:\\+Users\S*")
PROGRESS = re.compile(r"\d+%\||\d(?:it|step|img|cell|notebook)s?/s")
WIDGET = "application/vnd.jupyter.widget-view+json"
NOTE = "An interactive control stands here: run the cell to use it."


def tidy(notebook: nbformat.NotebookNode, stem: str) -> None:
    """Take out, in place, what differs from machine to machine or cannot be read without a kernel."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{stem[:2]}-{index:03d}"
        kept = {
            k: v for k, v in cell.metadata.items() if k in ("tags", "jupyter")
        }  # solutions stay folded
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            cell.outputs = [
                tidied for output in cell.outputs if (tidied := _tidy_output(output)) is not None
            ]


def _tidy_output(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The output without progress bars, widget references and this machine's folder; None if nothing is left."""
    if output.output_type == "stream":
        lines = [line.split("\r")[-1] for line in _homeless(output.text).splitlines(keepends=True)]
        output.text = "".join(line for line in lines if not PROGRESS.search(line))
        return output if output.text.strip() else None
    for kind, value in output.get("data", {}).items():
        if isinstance(value, str) and kind.startswith("text/"):
            output.data[kind] = _homeless(value)
    if WIDGET in output.get("data", {}):
        if PROGRESS.search(output.data.get("text/plain", "")):
            return None
        output.data = nbformat.from_dict({"text/plain": NOTE, "text/markdown": f"*{NOTE}*"})
    return output


def _homeless(text: str) -> str:
    """Paths relative to the repository; IPython's temporary names for cells left out."""
    text = re.sub(r"\S*/ipykernel_\d+/\d+\.py", "cell", text)
    return text.replace(f"{env.ROOT}{os.sep}", "").replace(str(env.ROOT), ".")


def stamp(notebook: nbformat.NotebookNode, stem: str) -> None:
    """Write env.REPO into every Colab link and `git clone` line, and this notebook's badge under its title."""
    for cell in notebook.cells:
        cell.source = addressed(cell.source)
    first = notebook.cells[0]
    if f"{BADGE})]({colab(stem)})" not in first.source:
        title, _, rest = first.source.partition("\n")
        rest = re.sub(rf"\[!\[[^\]]*\]\({re.escape(BADGE)}\)\]\([^)]*\)", "", rest).strip("\n")
        first.source = f"{title}\n\n{badge(stem)}\n\n{rest}".rstrip("\n")


def addressed(text: str) -> str:
    """Text with env.REPO as owner and repository in its Colab links and `git clone` lines."""
    text = re.sub(
        r"(colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+(?=/blob/)",
        rf"\g<1>{env.REPO}",
        text,
    )
    text = re.sub(r"(\burl\s*=\s*\{https://github\.com/)[\w.-]+/[\w.-]+", rf"\g<1>{env.REPO}", text)
    return re.sub(r"(\bclone\b[^\n]*?github\.com/)[\w.-]+/[\w-]+", rf"\g<1>{env.REPO}", text)


def badge(stem: str) -> str:
    """The Markdown of a notebook's Colab badge."""
    return f"[![Open in Colab]({BADGE})]({colab(stem)})"


def colab(stem: str) -> str:
    """Where Colab opens a notebook."""
    return f"https://colab.research.google.com/github/{env.REPO}/blob/main/notebooks/{stem}.ipynb"


def faults(file: Path) -> list[str]:
    """Why a notebook should not be committed, one sentence each; empty if nothing is wrong."""
    notebook = nbformat.read(file, 4)
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    return [
        *_size(file),
        *_order(code),
        *_outputs(code),
        *_checks(code),
        *_places(notebook),
        *_metadata(notebook, file.stem),
    ]


def _size(file: Path) -> Iterator[str]:
    if file.stat().st_size >= LIMIT:
        yield f"it has {file.stat().st_size / 1e6:.2f} MB, which is not under 1 MB"


def _order(code: list) -> Iterator[str]:
    counts = [c.execution_count for c in code]
    if counts != list(range(1, len(code) + 1)):
        yield f"it was not executed once from top to bottom (counts {counts})"


def _outputs(code: list) -> Iterator[str]:
    for number, cell in enumerate(code, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"code cell {number} failed with {output.ename}"
        speaks = re.search(r"^(print|display|plt\.show)\(", cell.source, re.MULTILINE)
        if speaks and not cell.outputs:
            yield f"the output of code cell {number} was cleared"
    if not any(c.outputs for c in code):
        yield "all outputs were cleared"


def _checks(code: list) -> Iterator[str]:
    checks = [c for c in code if "NBVAL_CHECK_OUTPUT" in c.source]
    if len(checks) < CHECKS:
        yield f"it has {len(checks)} check cells, fewer than {CHECKS}"
    for cell in checks:
        said = "".join(output.get("text", "") for output in cell.outputs)
        if not cell.outputs:
            yield f"a check cell stores no output: {cell.source.splitlines()[-1]}"
        yield from (
            f"a check does not hold: {line}"
            for line in said.splitlines()
            if line.endswith(": False")
        )


def _places(notebook: nbformat.NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts += [output.get("text", ""), "\n".join(output.get("traceback", []))]
            texts += [
                str(v) for k, v in output.get("data", {}).items() if not k.startswith("image/")
            ]
        for text in texts:
            found = PLACE.search(re.sub(r"base64,[A-Za-z0-9+/=\s]+", "", text))
            if found:
                yield f"it names a place on one machine: {found[0][:60]}"


def _metadata(notebook: nbformat.NotebookNode, stem: str) -> Iterator[str]:
    if "widgets" in notebook.metadata:
        yield "it stores widget state (metadata.widgets)"
    if not notebook.cells or f"{BADGE})]({colab(stem)})" not in notebook.cells[0].source:
        yield f"its first cell has no Colab badge to {env.REPO} and notebooks/{stem}.ipynb"
