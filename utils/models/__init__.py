"""Models: built or wrapped, what kind of Vision Transformer one is, and running them on images."""

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
from .zoo import COURSE, IMAGENET, build, card, head, heads, load_state, new_head

__all__ = [
    "CHUNK",
    "COURSE",
    "IMAGENET",
    "Question",
    "Targets",
    "as_targets",
    "build",
    "card",
    "evaluating",
    "head",
    "heads",
    "load_state",
    "logits_of",
    "memory_format",
    "new_head",
    "per_chunk",
    "prepare",
]
