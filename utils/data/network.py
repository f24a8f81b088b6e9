"""Whether the network answers, and downloads that give up in time."""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 8.0  # seconds before a silent network counts as none
_silent: dict[str, float] = {}  # address: when it last kept silent


def reachable(url: str) -> bool:
    """Whether `url` answers, be it with an error, within PATIENCE seconds.

    A name look-up alone can hang longer than any socket timeout, hence the thread. An address
    that kept silent is not asked again for a minute: one wait is enough for both splits.
    """
    if time.monotonic() - _silent.get(url, -60.0) < 60:
        return False
    answer: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(
                urllib.request.Request(url, method="HEAD"), timeout=PATIENCE
            ).close()
            answer.append(True)
        except urllib.error.HTTPError:
            answer.append(True)
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not answer:
        _silent[url] = time.monotonic()
    return bool(answer)


@contextmanager
def impatient() -> Iterator[None]:
    """Inside, sockets give up after PATIENCE seconds of silence: downloaders often set no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
