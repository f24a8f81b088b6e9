"""Attribution methods behind one call, attention, relevance and the IAV."""

from ..models import kind, layers
from . import attention, attnlrp, cams, gradients, iav, inside, lrp, perturbation
from .gradients import BASELINES
from .methods import IGResult, blur_region, explain, integrated_gradients
from .registry import METHODS, Method

__all__ = [
    "BASELINES",
    "METHODS",
    "IGResult",
    "Method",
    "attention",
    "attnlrp",
    "blur_region",
    "cams",
    "explain",
    "gradients",
    "iav",
    "inside",
    "integrated_gradients",
    "kind",
    "layers",
    "lrp",
    "perturbation",
]
