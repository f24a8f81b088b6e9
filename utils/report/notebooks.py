"""What a notebook looks like when it is committed: made so by tidy and stamp, proved by faults."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from PIL import Image

from .. import env
from .results import compact

LIMIT = 1_000_000  # bytes in a committed notebook
CHECKS = 3  # check cells in a notebook, at least
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
PLACE = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users)/\S*|file:///\S*|[A-Z]:\\+Users\S*")
PROGRESS = re.compile(r"\d+%\||\d(?:it|step|img|cell|notebook)s?/s")
WIDGET = "application/vnd.jupyter.widget-view+json"
SETUP = """\
# Finds the course's helpers; in Colab it fetches the course first and keeps Colab's torch.
import os
import sys
from pathlib import Path

root = Path("course" if Path("course/utils").exists() else "..").resolve()
if not (root / "utils" / "colab.py").exists():
    repo = os.environ.get("XTL_REPO", "{address}")  # where the course can be cloned from
    if not repo or os.system(f"git clone -q --depth=1 {{repo}} course"):
        sys.exit("Upload the whole folder as course/, or set XTL_REPO to its git address.")
    root = Path("course").resolve()
sys.path.insert(0, str(root))
import utils.colab

utils.colab.ready(root)"""
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
    if "image/png" in output.get("data", {}):
        output.data["image/png"] = _smaller(output.data["image/png"])
    if WIDGET in output.get("data", {}):
        if PROGRESS.search(output.data.get("text/plain", "")):
            return None
        output.data = nbformat.from_dict({"text/plain": NOTE, "text/markdown": f"*{NOTE}*"})
    return output


def _smaller(png: str) -> str:
    """A picture in base64 as compact() leaves it; the given one where that is no smaller."""
    buffer = io.BytesIO()
    compact(Image.open(io.BytesIO(base64.b64decode(png)))).save(buffer, "PNG", optimize=True)
    smaller = base64.b64encode(buffer.getvalue()).decode()
    return smaller if len(smaller) < len(png) else png


def _homeless(text: str) -> str:
    """Paths relative to the repository; IPython's temporary names for cells left out."""
    text = re.sub(r"\S*/ipykernel_\d+/\d+\.py", "cell", text)
    return text.replace(f"{env.ROOT}{os.sep}", "").replace(str(env.ROOT), ".")


def stamp(notebook: nbformat.NotebookNode, stem: str, address: str | None = None) -> None:
    """Write the public address into the set-up cell, and the Colab badge under the title.

    address: where the course can be cloned from (default: env.address()). Without one there is
    no badge, and the set-up cell asks for the folder or for XTL_REPO.
    """
    address = env.address() if address is None else address
    for cell in notebook.cells:
        if (cell.cell_type == "code" and "google.colab" in cell.source) or is_setup(cell):
            cell.source = SETUP.format(address=address)
    first = notebook.cells[0]
    title, _, rest = first.source.partition("\n")
    rest = re.sub(rf"\[!\[[^\]]*\]\({re.escape(BADGE)}\)\]\([^)]*\)", "", rest).strip("\n")
    mark = badge(stem, address)
    first.source = "\n\n".join(part for part in (title, mark, rest) if part)


def is_setup(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell is the one that finds the course's helpers."""
    return cell.cell_type == "code" and "utils.colab.ready(" in cell.source


def badge(stem: str, address: str) -> str:
    """The Markdown of a notebook's Colab badge; empty where Colab has no address for it."""
    link = colab(stem, address)
    return f"[![Open in Colab]({BADGE})]({link})" if link else ""


def colab(stem: str, address: str) -> str:
    """Where Colab opens a notebook; empty unless the course lies on GitHub."""
    project = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", address)
    if not project:
        return ""
    return f"https://colab.research.google.com/github/{project[1]}/blob/main/notebooks/{stem}.ipynb"


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
        printed = "".join(output.get("text", "") for output in cell.outputs)
        if not cell.outputs:
            yield f"a check cell stores no output: {cell.source.splitlines()[-1]}"
        yield from (
            f"a check does not hold: {line}"
            for line in printed.splitlines()
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
            match = PLACE.search(re.sub(r"base64,[A-Za-z0-9+/=\s]+", "", text))
            if match:
                yield f"it names a place on one machine: {match[0][:60]}"


def _metadata(notebook: nbformat.NotebookNode, stem: str) -> Iterator[str]:
    if "widgets" in notebook.metadata:
        yield "it stores widget state (metadata.widgets)"
    mark = badge(stem, env.address())
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    if mark and not (notebook.cells and mark in notebook.cells[0].source):
        yield f"its first cell has no Colab badge to {env.address()} and notebooks/{stem}.ipynb"
    if not mark and BADGE in text:
        yield "it has a Colab badge, but the course has no public address: run make address"
    setups = [c.source for c in notebook.cells if is_setup(c)]
    if any(source != SETUP.format(address=env.address()) for source in setups):
        yield "its set-up cell is not the course's: run make address"
