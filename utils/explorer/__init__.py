"""The explorer: what is asked and answered (state), and the panel of widgets."""

from .panel import OWN, Panel
from .state import KEPT, Answer, Explorer, Stale, View

__all__ = ["KEPT", "OWN", "Answer", "Explorer", "Panel", "Stale", "View"]
