"""Image sets: where they come from, how they are split, and how they become model input."""

from . import shapes
from .builtin import at_hand, photographs
from .cache import Broken, decoded
from .cifar import PAPER_POOL
from .copies import NearCopies, near_copies
from .network import impatient, reachable
from .pixels import CORRUPTIONS, augment, blur, corrupt, preprocess, read_image
from .sets import ImageSet, Splits, draw_rows
from .sources import SOURCES, files_hash, load, splits

__all__ = [
    "CORRUPTIONS",
    "PAPER_POOL",
    "SOURCES",
    "Broken",
    "ImageSet",
    "NearCopies",
    "Splits",
    "at_hand",
    "augment",
    "blur",
    "corrupt",
    "decoded",
    "draw_rows",
    "files_hash",
    "impatient",
    "load",
    "near_copies",
    "photographs",
    "preprocess",
    "reachable",
    "read_image",
    "shapes",
    "splits",
]
