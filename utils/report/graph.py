"""The notebooks as a graph: each runs as soon as those that it needs are done, several at a time."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tqdm import tqdm

from .. import env
from . import keys, results
from .execute import Run, refresh

MODELS = ("02_finetune_resnet34", "03_finetune_vit")
# what each notebook waits for: models that another trains and keeps, or numbers that it saves.
# Explanation chapters are free to begin: a model that two want is trained once, behind a lock
NEEDS: dict[str, tuple[str, ...]] = {
    "03_finetune_vit": ("02_finetune_resnet34",),
    "04_evaluation": MODELS,
    "14_explorer": (*MODELS, "11_trust"),
}
# minutes in demo on one core: which to begin with, and the time that is left until it is known
MINUTES = {
    "02_finetune_resnet34": 4.0,
    "03_finetune_vit": 3.0,
    "10_iav": 6.0,
    "11_trust": 9.0,
    "12_explain_to_improve": 6.0,
}
MEMORY = 2e9  # bytes that a notebook may need while it runs


def jobs() -> int:
    """How many notebooks run side by side: XTL_JOBS, else one a core as far as memory goes.

    On a GPU it is one: two would share its memory.
    """
    if number := os.environ.get("XTL_JOBS", ""):
        if not number.isdecimal() or int(number) < 1:
            raise ValueError(f"XTL_JOBS is {number!r}: give the number of notebooks, such as 2.")
        return int(number)
    if env.device().type == "cuda":
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().available / MEMORY)))


@dataclass
class Graph:
    """The notebooks of one run: which are done, which run, which wait."""

    files: list[Path]  # the whole course
    wanted: list[Path]  # those of this run
    out: Path
    settings: dict[str, str]
    running: dict[Future, Run] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def card(self, stem: str) -> Path:
        """The note that a notebook is done: its key, figures and minutes."""
        return self.out / f"{stem}.json"

    def needs(self, stem: str) -> set[str]:
        """The notebooks of this run that must be done before `stem` begins."""
        stems = {f.stem for f in self.wanted} - {stem}
        # the report reads what all others wrote
        return stems if stem == self.files[-1].stem else set(NEEDS.get(stem, ())) & stems

    def chain(self, stem: str) -> float:
        """Minutes from the beginning of `stem` to the end of the longest row that waits for it."""
        after = [f.stem for f in self.files[:-1] if stem in self.needs(f.stem)]
        return self.sizes[stem] + max((self.chain(s) for s in after), default=0.0)

    def run(self, profile: env.Profile, again: bool) -> None:
        """Run what is not finished; again: run everything that is wanted.

        Raises RuntimeError naming every notebook that failed, KeyboardInterrupt saying where the
        run stopped.
        """
        images = keys.source_hash(self.settings["XTL_DATA"])
        self.figures = profile.figures
        self.keys = {f.stem: keys.key(f, self.settings, images) for f in self.wanted}
        self.sizes = {f.stem: _minutes(self.card(f.stem)) for f in self.files}
        for file in [] if again else self.wanted[:-1]:
            if self._finished(file):
                refresh(file, self.out / file.name)
                self.done.add(file.stem)
        waiting = [f for f in self.wanted if f.stem not in self.done]
        if again:
            results.forget_results([f.stem for f in waiting], profile.name)
        else:
            results.keep_results(self.done, profile.name)
        waiting.sort(key=lambda f: (-self.chain(f.stem), f.stem))
        slots = jobs()
        self.bar = tqdm(
            total=sum(self.sizes[f.stem] for f in waiting),
            desc=f"{profile.figures.name}: {len(waiting)} notebooks, {slots} at a time",
            bar_format="{desc} {percentage:3.0f}% |{bar:20}| {elapsed}, {remaining} left{postfix}",
        )
        # threads: nbclient's own handling of Ctrl-C needs the main thread and knows one kernel
        with self.bar, ThreadPoolExecutor(slots) as pool:
            try:
                self._loop(pool, waiting, slots)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(self._stop()) from None
        if self.failed:
            raise RuntimeError("\n".join(self.failed[s] for s in sorted(self.failed)))

    def _loop(self, pool: ThreadPoolExecutor, waiting: list[Path], slots: int) -> None:
        """Start what can start, as one core after another gets free."""
        begun: set[str] = set()
        while waiting or self.running:
            ready = [f for f in waiting if self.needs(f.stem) <= self.done]
            for file in ready[: slots - len(self.running)]:
                waiting.remove(file)
                begun.add(file.stem)
                run = Run(file)
                self.running[pool.submit(self._one, run)] = run
            if not self.running:
                return  # what is left needs something that failed
            finished, _ = wait(self.running, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in finished:
                stem = self.running.pop(future).file.stem
                error = future.exception()
                if error is None:
                    self.done.add(stem)
                elif isinstance(error, RuntimeError | OSError):
                    self.failed[stem] = str(error)
                    tqdm.write(str(error), file=sys.stderr)
                else:
                    raise error
            self._show(begun, bool(finished))

    def _one(self, run: Run) -> None:
        """Execute one notebook, and note that it is done."""
        stem, begun = run.file.stem, time.time_ns()
        self.card(stem).unlink(missing_ok=True)
        execute(run, self.out / run.file.name, self.settings)
        figures = sorted(self.figures.glob(f"{stem[:3]}*.png"))
        for old in [f for f in figures if f.stat().st_mtime_ns < begun]:
            old.unlink()  # drawn by a former version of the notebook
            figures.remove(old)
        minutes = round((time.time_ns() - begun) / 60e9, 2)
        note = {"key": self.keys[stem], "figures": [f.name for f in figures], "minutes": minutes}
        env.write(self.card(stem), json.dumps(note) + "\n")

    def _show(self, begun: set[str], news: bool) -> None:
        """Every running notebook with its cells, and the share of the work that is done.

        A terminal shows it every second; a file gets a line when a notebook ends.
        """
        runs = list(self.running.values())
        whole = sum(self.sizes[s] for s in begun & self.done)
        part = sum(self.sizes[r.file.stem] * max(0, r.number - 1) / (r.cells or 1) for r in runs)
        self.bar.n = max(self.bar.n, min(whole + part, self.bar.total))
        self.bar.set_postfix_str(" · ".join(map(str, runs)), news or sys.stderr.isatty())

    def _finished(self, file: Path) -> bool:
        """Whether this very notebook ran to its end and its figures are still there."""
        target, card = self.out / file.name, self.card(file.stem)
        if not (target.exists() and card.exists()):
            return False
        note = json.loads(card.read_text())
        there = all((self.figures / name).exists() for name in note["figures"])
        return there and note["key"] == self.keys[file.stem]

    def _stop(self) -> str:
        """End all kernels; one sentence that says where the run stopped."""
        runs = list(self.running.values())
        for run in runs:
            run.stop()
        cells = " and ".join(f"{r.file.stem} (cell {r.number} of {r.cells})" for r in runs)
        n = len(self.done)
        return (
            f"Stopped in {cells or 'between two notebooks'}; {n} of {len(self.wanted)} notebooks "
            f"{'is' if n == 1 else 'are'} done. The same command goes on from there."
        )


def _minutes(card: Path) -> float:
    """How long a notebook took last time; without such a note, about how long it takes."""
    known = json.loads(card.read_text()).get("minutes") if card.exists() else None
    return known or MINUTES.get(card.stem, 1.0)


def execute(run: Run, target: Path, settings: dict[str, str]) -> None:
    """Run one notebook in a kernel of its own."""
    run.execute(target, settings)
