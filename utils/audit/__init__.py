"""Audit: which explanation can be believed for one model and one set of images?"""

from .battery import METHODS, fitting, measure, recommended, run, verdicts
from .page import build, plate
from .questions import QUESTIONS, Measured, Question
from .subject import Subject, load, of

__all__ = [
    "METHODS",
    "QUESTIONS",
    "Measured",
    "Question",
    "Subject",
    "build",
    "fitting",
    "load",
    "measure",
    "of",
    "plate",
    "recommended",
    "run",
    "verdicts",
]
