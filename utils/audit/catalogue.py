"""The questions of an audit, in the order of its page."""

from __future__ import annotations

from .questions import AuditQuestion
from .removal import in_proportion, like_shapley, needed
from .scores import about_class, learned, no_mosaics, no_promise, pointing, promised, steady

QUESTIONS: dict[str, AuditQuestion] = {
    question.name: question
    for question in (
        AuditQuestion(
            "points",
            "Does the map point at the class?",
            0.1,
            "share of positive mass in the tile of its class, beyond chance",
            pointing,
            costly=True,
            classes=2,
            refuses=no_mosaics,
        ),
        AuditQuestion(
            "needed",
            "Does the prediction need what the map marks?",
            0.05,
            "ROAD: fall of probability, beyond the best map without a model",
            needed,
            classes=2,
            removes=True,
            costly=True,
        ),
        AuditQuestion(
            "proportion",
            "Does a part with more relevance matter more?",
            0.1,
            "SaCo, beyond the best map without a model",
            in_proportion,
            removes=True,
            costly=True,
        ),
        AuditQuestion(
            "class",
            "Is the map about this class?",
            0.1,
            "1 - |cosine| of two classes' maps",
            about_class,
            classes=2,
        ),
        AuditQuestion(
            "learned",
            "Does the map depend on what was learned?",
            0.3,
            "1 - rank correlation with random weights",
            learned,
        ),
        AuditQuestion(
            "steady",
            "Does the map survive noise, a shift and a mirror?",
            0.7,
            "rank correlation",
            steady,
        ),
        AuditQuestion(
            "shapley",
            "Does it agree with exact Shapley values?",
            0.1,
            "rank correlation in 3 x 3 cells, beyond the best map without a model",
            like_shapley,
            costly=True,
        ),
        AuditQuestion(
            "sum",
            "Does the map add up to what the method promises?",
            0.95,
            "1 - relative error of the sum",
            promised,
            costly=True,
            refuses=no_promise,
        ),
    )
}
