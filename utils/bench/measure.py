"""Two ways of doing the same, side by side: seconds, bytes, arithmetic, and the record of a comparison."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Entry = dict[str, Any]
Work = Callable[[], Any]


def seconds(work: Work, where: torch.device) -> float:
    """Processor time of one call on a CPU, wall time between synchronisations on a GPU."""
    if where.type == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if where.type == "cuda" else time.process_time
    begun = clock()
    work()
    if where.type == "cuda":
        torch.cuda.synchronize()
    return clock() - begun


def compare(ours: Work, peer: Work, where: torch.device, repeats: int) -> list[tuple[float, float]]:
    """(ours, peer) seconds, taken in turns after one call each to warm up."""
    ours(), peer()
    return [(seconds(ours, where), seconds(peer, where)) for _ in range(repeats)]


def entry(
    name: str,
    what: str,
    pairs: list[tuple[float, float]],
    target: float,
    faster: bool,
    unit: str = "seconds",
    **also: tuple[float, float],
) -> Entry:
    """One record. faster: ratio is peer / ours, at least `target`; else ours / peer, at most that.

    also: further conditions, each (value, limit), to be at most the limit.
    """
    ratios = [peer / ours if faster else ours / peer for ours, peer in pairs]
    ours, peer, ratio = (statistics.median(v) for v in (*zip(*pairs, strict=True), ratios))
    holds = (ratio >= target if faster else ratio <= target) and all(
        v <= top for v, top in also.values()
    )
    return {
        "name": name,
        "what": what,
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "spread": [min(ratios), max(ratios)],
        "target": target,
        "bound": "at least" if faster else "at most",
        "holds": bool(holds),
        "unit": unit,
        "also": {key: list(value) for key, value in also.items()},
    }


class _Flops(TorchDispatchMode):
    """Counts what matrix products, convolutions and attention cost inside."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=out) if count else 0
        return out


def flops(work: Work) -> int:
    """Floating-point operations of one call: matrix products, convolutions and attention."""
    with _Flops() as counted:
        work()
    return counted.total


def held(largest: bool, where: torch.device) -> int:
    """Bytes that this process holds now, or held at most. Raises RuntimeError where nobody says."""
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated() if largest else torch.cuda.memory_allocated()
    status = Path("/proc/self/status")
    if not status.exists():
        raise RuntimeError(
            "Memory is measured through /proc, which this system lacks: run the bench on Linux."
        )
    words = status.read_text().split()
    return 1024 * int(words[words.index("VmHWM:" if largest else "VmRSS:") + 1])
