"""Image sets: where they come from, how they are split, and how they become model input."""

from .cifar import PAPER_POOL
from .folders import decoded
from .network import impatient, reachable
from .pixels import CORRUPTIONS, augment, blur, corrupt, preprocess, read_image
from .sets import ImageSet, Splits
from .sources import SOURCES, load, splits

__all__ = [
    "CORRUPTIONS",
    "PAPER_POOL",
    "SOURCES",
    "ImageSet",
    "Splits",
    "augment",
    "blur",
    "corrupt",
    "decoded",
    "impatient",
    "load",
    "preprocess",
    "reachable",
    "read_image",
    "splits",
]
