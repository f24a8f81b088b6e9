"""Audit: which explanation can be believed for one model and one set of images?"""

from .answers import recommended, verdicts
from .battery import run
from .catalogue import QUESTIONS
from .page import plate, write_page
from .parts import USUAL_METHODS, fitting, measure
from .questions import AuditQuestion, Maps, Measured
from .subject import Subject, of, open_subject

__all__ = [
    "QUESTIONS",
    "USUAL_METHODS",
    "AuditQuestion",
    "Maps",
    "Measured",
    "Subject",
    "fitting",
    "measure",
    "of",
    "open_subject",
    "plate",
    "recommended",
    "run",
    "verdicts",
    "write_page",
]
