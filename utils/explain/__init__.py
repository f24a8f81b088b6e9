"""Attribution methods behind one call, attention, relevance and the IAV."""

from ..models import kind, layers
from .gradients import BASELINES
from .methods import IGResult, blur_region, explain, integrated_gradients
from .registry import METHODS, Method

__all__ = [
    "BASELINES",
    "METHODS",
    "IGResult",
    "Method",
    "blur_region",
    "explain",
    "integrated_gradients",
    "kind",
    "layers",
]
