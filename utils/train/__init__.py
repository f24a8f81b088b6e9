"""Training: recipes, one resumable loop, fine-tuning and the making of course weights."""

from . import processes
from .arithmetic import quick_arithmetic
from .chapter_models import explained, finetuned, run_dir
from .checkpoint import save
from .matched import load_matched, measure_network
from .recipes import NAMED, PRETRAIN, RECIPES, SELFSUP, Recipe, learning_rate
from .supervised import History, fit
from .transfer import finding, load_study, summary

__all__ = [
    "NAMED",
    "PRETRAIN",
    "RECIPES",
    "SELFSUP",
    "History",
    "Recipe",
    "explained",
    "finding",
    "finetuned",
    "fit",
    "learning_rate",
    "load_matched",
    "load_study",
    "measure_network",
    "processes",
    "quick_arithmetic",
    "run_dir",
    "save",
    "summary",
]
