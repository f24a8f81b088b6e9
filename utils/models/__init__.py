"""Models: built or wrapped, what kind of Vision Transformer one is, and running them on images."""

from . import vit
from .imagenet import PACKAGE, imagenet, imagenet_classes
from .inference import (
    CHUNK,
    Question,
    Targets,
    as_targets,
    evaluating,
    logits_of,
    memory_format,
    per_chunk,
    prepare,
)
from .own import own, resolve
from .parts import UNORDERED, candidates, head, heads, kind, layers, new_head, outputs
from .unwrap import inner, unwrapped
from .wrap import wrap
from .zoo import COURSE, IMAGENET, build, card, load_state

__all__ = [
    "CHUNK",
    "COURSE",
    "IMAGENET",
    "PACKAGE",
    "UNORDERED",
    "Question",
    "Targets",
    "as_targets",
    "build",
    "candidates",
    "card",
    "evaluating",
    "head",
    "heads",
    "imagenet",
    "imagenet_classes",
    "inner",
    "kind",
    "layers",
    "load_state",
    "logits_of",
    "memory_format",
    "new_head",
    "outputs",
    "own",
    "per_chunk",
    "prepare",
    "resolve",
    "unwrapped",
    "vit",
    "wrap",
]
