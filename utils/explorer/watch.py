"""Computing that can be stopped: a model's forward passes are counted, and refused when not wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn


class Stale(Exception):
    """A newer question has come: what was being computed is not wanted any more."""


def always() -> bool:
    """For computations that nobody interrupts."""
    return True


def silent(_: int) -> None:
    """For computations that nobody watches."""


@contextmanager
def watched(
    model: nn.Module, wanted: Callable[[], bool], progress: Callable[[int], None]
) -> Iterator[None]:
    """Counts the model's forward passes in this thread; stops before the next when not wanted.

    Other threads may use the model meanwhile: the hook leaves them alone.
    """
    passes, owner = 0, threading.get_ident()

    def before(*_: object) -> None:
        nonlocal passes
        if threading.get_ident() != owner:
            return
        if not wanted():
            raise Stale
        passes += 1
        progress(passes)

    hook = model.register_forward_pre_hook(before)
    try:
        yield
    finally:
        hook.remove()
