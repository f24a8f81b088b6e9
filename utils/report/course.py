"""Run the course: every notebook in order, going on where an interrupted run stopped."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from tqdm import tqdm

from .. import data, env
from . import notebooks, readme, results

NOTEBOOKS = env.ROOT / "notebooks"


def course(folder: Path = NOTEBOOKS) -> list[Path]:
    """The notebooks NN_name.ipynb in order. Raises FileNotFoundError if there are none."""
    files = sorted(f for f in folder.glob("*.ipynb") if notebooks.STEM.fullmatch(f.stem))
    if not files:
        raise FileNotFoundError(f"There is no notebook NN_name.ipynb in the folder {folder.name}/.")
    return files


def run_course(
    name: str | None = None, folder: Path = NOTEBOOKS, out: Path | None = None
) -> list[Path]:
    """Execute the notebooks of `folder` in order; the executed copies, in runs/<profile>/executed.

    One whose code, helpers, course weights, profile and data are unchanged since it finished is
    not run again; the last one always is, because it reads what the others wrote. Raises
    RuntimeError at the first cell that fails; what was finished before stays.
    """
    chosen = env.profile(name)
    settings = {"XTL_PROFILE": chosen.name, "XTL_DATA": _settled(chosen)}
    out = out or env.RUNS / chosen.name / "executed"
    out.mkdir(parents=True, exist_ok=True)
    files = course(folder)
    with tqdm(files, unit="notebook", desc=f"{chosen.name} profile") as bar:
        for file in bar:
            bar.set_postfix_str(file.stem)
            target, card = out / file.name, out / f"{file.stem}.json"
            key = _key(file, settings)
            if file is files[-1] or not _finished(target, card, key, chosen.figures):
                card.unlink(missing_ok=True)
                results.forget_results(file.stem, chosen.name)
                execute(file, target, settings)
                made = sorted(p.name for p in chosen.figures.glob(f"{file.stem[:3]}*.png"))
                card.write_text(json.dumps({"key": key, "figures": made}) + "\n")
    return [out / file.name for file in files]


def _settled(chosen: env.Profile) -> str:
    """The data source by name: "auto" looks for the network once here, not once a notebook."""
    if chosen.source != "auto":
        return chosen.source
    return "shapes10" if data.load("auto", "train").source == "Shapes-10" else "cifar10"


def _key(file: Path, settings: dict[str, str]) -> str:
    """A hash of everything that decides what a notebook computes."""
    cells = [(c.cell_type, c.source) for c in nbformat.read(file, 4).cells]
    told = json.dumps([cells, settings, str(env.device())])
    lines = "\n".join(source for kind, source in cells if kind == "code").splitlines()
    code = "\n".join(
        line for line in lines if not line.startswith(("%", "!"))
    )  # IPython's own words
    parts = [p.read_bytes() for p in sorted([*_helpers(code), *env.WEIGHTS.glob("*.json")])]
    return hashlib.sha256(b"\0".join([told.encode(), *parts])).hexdigest()


def _helpers(code: str, package: Path = env.ROOT / "utils") -> set[Path]:
    """The modules of utils that some code imports, and those that they import in turn."""
    files: set[Path] = set()
    waiting = [(code, package.parent)]  # source text, and the folder that its imports start from
    while waiting:
        source, folder = waiting.pop()
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.ImportFrom):
                continue
            base = folder.parents[node.level - 2] if node.level > 1 else folder
            base = base.joinpath(*(node.module or "").split(".")) if node.module else base
            if not node.level and (node.module or "").split(".")[0] != package.name:
                continue
            if not node.level:
                base = package.parent.joinpath(*(node.module or "").split("."))
            for place in [base, *(base / alias.name for alias in node.names)]:
                for file in (place.with_suffix(".py"), place / "__init__.py"):
                    if file.exists() and file not in files:
                        files.add(file)
                        waiting.append((file.read_text("utf-8"), file.parent))
    return files


def _finished(target: Path, card: Path, key: str, figures: Path) -> bool:
    """Whether this very notebook ran to its end and its figures are still there."""
    if not (target.exists() and card.exists()):
        return False
    done = json.loads(card.read_text())
    return done["key"] == key and all((figures / name).exists() for name in done["figures"])


def execute(file: Path, target: Path, settings: dict[str, str]) -> None:
    """Run one notebook in a fresh kernel of this Python, in its own folder; the copy goes to `target`.

    Raises RuntimeError naming notebook, cell and error if a cell fails; the copy then holds
    what came before it.
    """
    notebook = nbformat.read(file, 4)
    number = 0
    cells = sum(c.cell_type == "code" and bool(c.source.strip()) for c in notebook.cells)
    # a MPLBACKEND from outside would keep the figures out of the notebook
    surroundings = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"} | settings
    with tqdm(total=cells, desc=f"  {file.stem}", unit="cell", leave=False) as bar:

        def begin(cell: Any, cell_index: int) -> None:
            nonlocal number
            number += cell.cell_type == "code"

        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            store_widget_state=False,
            extra_arguments=[
                "--log-level=40"
            ],  # errors: its start-up advice would tear the progress bar
            resources={"metadata": {"path": str(file.parent)}},
            on_cell_execute=begin,
            on_cell_executed=lambda cell, cell_index, execute_reply: bar.update(),
        )
        try:
            client.execute(env=surroundings)
        except CellExecutionError as error:
            last = (f"{error.ename}: {error.evalue}".strip().splitlines() or [""])[-1]
            raise RuntimeError(f"{file.name} stopped in code cell {number}: {last}") from None
        except DeadKernelError:
            raise RuntimeError(
                f"{file.name} stopped in code cell {number}: its Python process died, mostly for want of memory; "
                "close other programs or choose a smaller profile, then run again."
            ) from None
        finally:
            notebooks.tidy(notebook, file.stem)
            nbformat.write(notebook, target)


def publish(name: str = "demo", folder: Path = NOTEBOOKS, out: Path | None = None) -> None:
    """Stamp addresses and badges, run the course, and put the executed notebooks in place.

    Raises RuntimeError listing what keeps a notebook from being committed; none is replaced then.
    """
    for file in course(folder):
        notebook = nbformat.read(file, 4)
        notebooks.stamp(notebook, file.stem)
        nbformat.write(notebook, file)
    copies = run_course(name, folder, out)
    wrong = [f"{copy.name}: {fault}" for copy in copies for fault in notebooks.faults(copy)]
    if wrong:
        raise RuntimeError("The notebooks cannot be committed like this:\n" + "\n".join(wrong))
    for copy in copies:
        (folder / copy.name).write_bytes(copy.read_bytes())
    if folder == NOTEBOOKS:
        readme.write(results.load_results(name))
