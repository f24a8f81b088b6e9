"""How fast is it, beside the usual way? Both sides interleaved in one run, as ratios of time.

Command line:  python -m utils.bench [--device cuda] [--only NAME]     writes figures/bench.json

On a CPU, time is processor time of one thread, which other programs on the machine disturb little;
on a GPU, wall time between synchronisations. Memory is what a call holds at most beyond what was
held before it (resident; on a GPU allocated), in a fresh process for each case.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from .. import env
from . import costs, explanations, inputs
from .alone import here
from .measure import Entry

FILE = env.FIGURES / "bench.json"


CASES: dict[str, Callable[[torch.device, bool], list[Entry]]] = {
    "input": inputs.preparing,
    "evaluation": inputs.evaluation,
    "gradcam": explanations.gradcam,
    "ig_memory": explanations.ig_memory,
    "ig_adaptive": explanations.ig_adaptive,
    "lrp_b1": partial(explanations.lrp_, batch=1),
    "lrp_b8": partial(explanations.lrp_, batch=8),
    "attention": explanations.attention_,
    "data_share": inputs.data_share,
    **costs.CASES,
}


def run(
    device: str | None = None, only: str | None = None, tiny: bool = False, file: Path = FILE
) -> list[Entry]:
    """Measure the cases (those whose name starts with `only`) and write `file`; all its entries.

    What `only` leaves out stays in the file as it was; each case is kept as soon as it is
    measured. tiny: sizes for tests, whose ratios mean nothing. Raises ValueError for an unknown
    name.
    """
    cases = [
        case
        for name, case in CASES.items()
        if not only or name.startswith(only) or only.startswith(name)
    ]
    if not cases:
        raise ValueError(
            f"There is nothing called {only!r} to measure: use one of {', '.join(CASES)}."
        )
    place, threads = env.device(device or "cpu"), torch.get_num_threads()
    label = torch.cuda.get_device_name() if place.type == "cuda" else "CPU, 1 thread"
    former = json.loads(file.read_text("utf-8")) if file.exists() else []
    kept = {entry["name"]: entry for entry in former}
    torch.set_num_threads(1)
    try:
        for case in cases:
            for entry in case(place, tiny):
                print(
                    f"{entry['name']:17}{entry['ratio']:7.2f}  {entry['bound']} "
                    f"{entry['target']:<5}{'holds' if entry['holds'] else 'MISSED'}  "
                    f"{entry['also'] or ''}",
                    flush=True,
                )
                kept[entry["name"]] = entry | {"device": label}
            env.write(file, json.dumps(list(kept.values()), indent=1) + "\n")
    finally:
        torch.set_num_threads(threads)
    return list(kept.values())


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the module's first lines."""
    parser = argparse.ArgumentParser(prog="python -m utils.bench", description=__doc__)
    parser.add_argument("--device", help="cpu (the default) or cuda")
    parser.add_argument("--only", help="one case, such as gradcam")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.case:
            torch.set_num_threads(1)
            task, n, steps = options.case
            print(json.dumps(here(task, int(n), int(steps), env.device(options.device))))
        else:
            run(options.device, options.only)
    except (ValueError, RuntimeError) as error:
        sys.exit(str(error))
