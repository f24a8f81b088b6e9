"""Attribution methods behind one call, attention, relevance and the IAV."""

from ..models import kind, layers
from .gradients import BASELINES
from .methods import METHODS, IGResult, Method, blur_region, explain, integrated_gradients

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
