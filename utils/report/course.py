"""Run the course, going on where it stopped, and put executed notebooks in place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .. import data, env
from . import address, notebooks, readme, results
from .graph import Graph

NOTEBOOKS = env.ROOT / "notebooks"


def course(folder: Path = NOTEBOOKS) -> list[Path]:
    """The notebooks NN_name.ipynb in order. Raises FileNotFoundError if there are none."""
    files = sorted(f for f in folder.glob("*.ipynb") if results.STEM.fullmatch(f.stem))
    if not files:
        raise FileNotFoundError(f"There is no notebook NN_name.ipynb in the folder {folder.name}/.")
    return files


def executed(profile: env.Profile) -> Path:
    """Where the executed copies lie: runs/<profile>[-<data>]/executed."""
    return env.RUNS / profile.figures.name / "executed"


def run_course(
    name: str | None = None,
    folder: Path = NOTEBOOKS,
    out: Path | None = None,
    only: Sequence[str] = (),
) -> list[Path]:
    """Execute the notebooks of `folder`; the executed copies, in runs/<profile>/executed.

    A notebook begins when those that it needs are done, with one thread each on a CPU, `jobs()`
    at a time: the results are those of one after the other. One that finished with the same code,
    helpers, weights, versions, settings and data is not run again; the last always is, because it
    reads what the others wrote. only: run these stems and no other. Raises RuntimeError naming
    every notebook that failed; what finished stays.
    """
    with settled(name) as (profile, settings):
        files = course(folder)
        graph = Graph(files, _wanted(files, only), out or executed(profile), settings)
        graph.run(profile, bool(only))
    return [graph.out / file.name for file in graph.wanted]


@contextmanager
def settled(name: str | None = None) -> Iterator[tuple[env.Profile, dict[str, str]]]:
    """The profile, and the settings of its kernels; inside, this process uses the same figures.

    "auto" looks for the network once, here, and not once a notebook.
    """
    profile = env.profile(name)
    source, place = profile.source, profile.figures.name
    if source in ("auto", "cifar10"):
        label = data.load(source, "train").source
        source = "shapes10" if label == "Shapes-10" else "cifar10"
        place = profile.folder(label)
    settings = {"XTL_PROFILE": profile.name, "XTL_DATA": source, "XTL_FIGURES": place}
    if env.device().type == "cpu":
        settings["OMP_NUM_THREADS"] = "1"
    before = os.environ.get("XTL_FIGURES")
    os.environ["XTL_FIGURES"] = place
    try:
        yield profile, settings
    finally:
        os.environ.pop("XTL_FIGURES")
        if before is not None:
            os.environ["XTL_FIGURES"] = before


def _wanted(files: list[Path], only: Sequence[str]) -> list[Path]:
    unknown = set(only) - {f.stem for f in files} - {f.stem[:2] for f in files}
    if unknown:
        raise ValueError(f"There is no notebook {', '.join(sorted(unknown))} in this course.")
    return [f for f in files if not only or f.stem in only or f.stem[:2] in only]


def publish(
    name: str = "demo",
    folder: Path = NOTEBOOKS,
    out: Path | None = None,
    only: Sequence[str] = (),
) -> None:
    """Stamp addresses and set-up cells, run the course, and put the executed notebooks in place.

    Raises RuntimeError listing what keeps a notebook from being committed, and ValueError for
    images of one's own, which nobody else has; none is replaced then.
    """
    if folder == NOTEBOOKS and (source := env.profile(name).source).startswith("folder:"):
        raise ValueError(
            f"The notebooks of the course are not kept with the results of {source}: "
            "run `make report` instead, or unset XTL_DATA."
        )
    for file in course(folder):
        address.stamp(file, env.address())
    copies = run_course(name, folder, out, only)
    wrong = [f"{copy.name}: {fault}" for copy in copies for fault in notebooks.faults(copy)]
    if wrong:
        raise RuntimeError("The notebooks cannot be committed like this:\n" + "\n".join(wrong))
    for copy in copies:
        env.write(folder / copy.name, copy.read_bytes())
    if folder == NOTEBOOKS:
        readme.write(results.load_results(name))
