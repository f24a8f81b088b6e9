"""One notebook in a kernel of its own: run, watched, stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from .. import env
from . import notebooks

# errors only: the kernel's advice at its start would tear the progress bar
KERNEL = dict(kernel_name="python3", extra_arguments=["--log-level=40"])


class Run:
    """A notebook that is being executed; `number` of its `cells` code cells have begun."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.notebook = nbformat.read(file, 4)
        code = [c for c in self.notebook.cells if c.cell_type == "code" and c.source.strip()]
        self.cells, self.number = len(code), 0
        self.stopped = False
        self._client: NotebookClient | None = None

    def __str__(self) -> str:
        return f"{self.file.stem} {self.number}/{self.cells}"

    def execute(self, target: Path, settings: dict[str, str]) -> None:
        """Run it in a fresh kernel of this Python, in its own folder; the copy goes to `target`.

        settings: environment variables of the kernel. Raises RuntimeError naming notebook, cell
        and error if a cell fails; the copy then holds what came before it.
        """

        def begin(cell: Any, cell_index: int) -> None:
            self.number += cell.cell_type == "code" and bool(cell.source.strip())

        # an MPLBACKEND from outside would keep the figures out of the notebook
        surroundings = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"} | settings
        self._client = NotebookClient(
            self.notebook,
            timeout=None,
            record_timing=False,
            coalesce_streams=True,
            store_widget_state=False,
            resources={"metadata": {"path": str(self.file.parent)}},
            on_cell_execute=begin,
            **KERNEL,
        )
        place = f"{self.file.name} stopped in code cell"
        try:
            self._client.execute(env=surroundings)
        except CellExecutionError as error:
            last = (f"{error.ename}: {error.evalue}".strip().splitlines() or [""])[-1]
            raise RuntimeError(f"{place} {self.number}: {last}") from None
        except DeadKernelError:
            raise RuntimeError(
                f"{place} {self.number}: its Python process died, probably for lack of memory; "
                "close other programs or choose a smaller profile, then run again."
            ) from None
        finally:
            notebooks.tidy(self.notebook, self.file.stem)
            if not self.stopped:
                env.write(target, nbformat.writes(self.notebook) + "\n")

    def stop(self) -> None:
        """End its kernel, and every process that the kernel started, at once."""
        self.stopped = True
        manager = self._client.km if self._client else None
        process = getattr(getattr(manager, "provisioner", None), "process", None)
        if process is None or process.poll() is not None:
            return
        try:
            kernel = psutil.Process(process.pid)
            family = [*kernel.children(recursive=True), kernel]
        except psutil.NoSuchProcess:
            return
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue


def refresh(file: Path, target: Path) -> None:
    """Give the executed copy `target` the prose of `file`, whose code is the same; outputs stay."""
    fresh, done = nbformat.read(file, 4), nbformat.read(target, 4)
    results = iter([c for c in done.cells if c.cell_type == "code"])
    for cell in fresh.cells:
        if cell.cell_type == "code":
            old = next(results)
            cell.outputs, cell.execution_count = old.outputs, old.execution_count
    notebooks.tidy(fresh, file.stem)
    content = nbformat.writes(fresh) + "\n"
    if content != target.read_text("utf-8"):
        env.write(target, content)
