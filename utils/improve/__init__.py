"""The feedback loop: mistakes, findings, generated images, retraining."""

from .arms import ARMS, BLIND, CONTROL_ARMS, PAPER, PUBLISHED, TITLES, training_set
from .checks import check_findings, nonsense
from .claude import ClaudeAnalyst, Transport
from .comparison import (
    METRICS,
    Comparison,
    conclusion,
    effect,
    named,
    points,
    published_gain,
    published_verdict,
)
from .diffusion import DiffusionGenerator
from .experiment import Loop, Outcome, Plan
from .findings import WORDS, Evidence, Finding, RuleAnalyst, appearance, gather, traits
from .late import LateRecipe
from .moves import BROKEN, FIXED, RIGHT, inside, judge, middle
from .recompose import RecomposeGenerator
from .redraw import ShapesGenerator

__all__ = [
    "ARMS",
    "BLIND",
    "BROKEN",
    "CONTROL_ARMS",
    "FIXED",
    "METRICS",
    "PAPER",
    "PUBLISHED",
    "RIGHT",
    "TITLES",
    "WORDS",
    "ClaudeAnalyst",
    "Comparison",
    "DiffusionGenerator",
    "Evidence",
    "Finding",
    "LateRecipe",
    "Loop",
    "Outcome",
    "Plan",
    "RecomposeGenerator",
    "RuleAnalyst",
    "ShapesGenerator",
    "Transport",
    "appearance",
    "check_findings",
    "conclusion",
    "effect",
    "gather",
    "inside",
    "judge",
    "middle",
    "named",
    "nonsense",
    "points",
    "published_gain",
    "published_verdict",
    "training_set",
    "traits",
]
