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
    from .photos import imagenet_exhibit
    from .state import KEPT, Explorer
    from .views import RUNNER_UP, Answer, Exhibit, View
    from .watch import Stale

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
    "imagenet_exhibit",
]
_PLACES = {
    "KEPT": "state",
    "OWN": "controls",
    "Explorer": "state",
    "Panel": "panel",
    "Stale": "watch",
    "imagenet_exhibit": "photos",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES.get(name, 'views')}", __name__), name)
