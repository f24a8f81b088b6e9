"""The explorer: questions and answers (state), and the panel of widgets; `python -m utils.explorer`.

What the door offers is imported when it is first used: the page that says what is being prepared
is there before torch is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .controls import OWN
    from .panel import Panel
    from .photos import photographs
    from .state import KEPT, RUNNER_UP, Answer, Exhibit, Explorer, Stale, View

__all__ = [
    "KEPT",
    "OWN",
    "RUNNER_UP",
    "Answer",
    "Exhibit",
    "Explorer",
    "Panel",
    "Stale",
    "View",
    "photographs",
]
_PLACES = {"OWN": "controls", "Panel": "panel", "photographs": "photos"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES.get(name, 'state')}", __name__), name)
