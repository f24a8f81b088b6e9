"""Audit: which explanation can be believed for one model and one set of images?"""

from .answers import recommended, verdicts
from .battery import run
from .catalogue import QUESTIONS
from .page import build, plate
from .parts import METHODS, fitting, measure
from .questions import Maps, Measured, Question
from .subject import Subject, load, of

__all__ = [
    "METHODS",
    "QUESTIONS",
    "Maps",
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
