"""Two ways of doing the same, side by side: seconds, bytes, operations, and their record."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

Entry = dict[str, Any]
Work = Callable[[], Any]


def seconds(work: Work, device: torch.device) -> float:
    """Processor time of one call on a CPU, wall time between synchronisations on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    begun = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - begun


def interleaved(
    ours: Work, peer: Work, device: torch.device, repeats: int
) -> list[tuple[float, float]]:
    """(ours, peer) seconds, taken in turns after one call each to warm up."""
    ours(), peer()
    return [(seconds(ours, device), seconds(peer, device)) for _ in range(repeats)]


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


def flops(work: Work) -> int:
    """Floating-point operations of one call: matrix products, convolutions and attention."""
    counter = FlopCounterMode(display=False)
    # its hooks on every module, for a table by module, refuse gradients with regard to the input
    counter.mod_tracker = _OnlyTotal()
    with counter:
        work()
    return counter.get_total_flops()


class _OnlyTotal(nullcontext):
    """Stands for torch's ModuleTracker where nothing but the total is wanted."""

    parents = frozenset({"Global"})


def _resident() -> int:
    """Bytes of this process that lie in memory."""
    return psutil.Process().memory_info().rss


def _release() -> None:
    """Give freed memory back to the system: reused, it would hide what the next call takes."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if trim is not None:
            trim(0)


def memory(work: Work, device: torch.device) -> tuple[int, float]:
    """Bytes that one call holds at most beyond what was held before it, and its seconds.

    On a CPU that is resident memory, read every two milliseconds; on a GPU what torch allocates.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        took = seconds(work, device)
        return torch.cuda.max_memory_allocated() - before, took
    _release()
    before = largest = _resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal largest
        while not done.wait(0.002):
            largest = max(largest, _resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        took = seconds(work, device)
    finally:
        done.set()
        watcher.join()
    return max(largest, _resident()) - before, took
