"""As many images at once as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

Found = TypeVar("Found")


def in_chunks(run: Callable[[slice, int], Found], n: int, chunk: int) -> Iterator[Found]:
    """run(rows, chunk) for consecutive slices of n rows, at most `chunk` rows in each.

    When the GPU's memory does not suffice, the chunk is halved, which is said, and the same rows
    are tried again; nothing found before is lost. Raises ValueError if chunk is below 1, RuntimeError if
    even one row does not fit.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}.")
    start = 0
    while start < n:
        rows = slice(start, min(n, start + chunk))
        full = False
        try:
            found = run(rows, chunk)
        except torch.cuda.OutOfMemoryError:
            full = True  # handled below, where the failed call's tensors are no longer referred to
        if not full:
            yield found
            start = rows.stop
            continue
        if chunk == 1:
            raise RuntimeError(
                "Not even one image fits into the GPU's memory: close other programs that use it, choose a smaller "
                "model or profile, or set XTL_DEVICE=cpu."
            )
        torch.cuda.empty_cache()
        chunk //= 2
        print(f"The GPU's memory does not suffice: going on with {chunk} images at once.")
