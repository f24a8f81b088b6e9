"""The questions of an audit, in the order of its page."""

from __future__ import annotations

from .questions import Question
from .removal import in_proportion, like_shapley, needed
from .scores import about_class, learned, no_mosaics, no_promise, points, promised, steady

QUESTIONS: dict[str, Question] = {
    question.name: question
    for question in (
        Question(
            "points",
            "Does the map point at the class?",
            0.1,
            "share of positive mass in the tile of its class, beyond chance",
            points,
            costly=True,
            classes=2,
            refuses=no_mosaics,
        ),
        Question(
            "needed",
            "Does the prediction need what the map marks?",
            0.05,
            "ROAD: fall of probability, beyond the best map without a model",
            needed,
            classes=2,
            removes=True,
            costly=True,
        ),
        Question(
            "proportion",
            "Does a part with more relevance matter more?",
            0.1,
            "SaCo, beyond the best map without a model",
            in_proportion,
            removes=True,
            costly=True,
        ),
        Question(
            "class",
            "Is the map about this class?",
            0.1,
            "1 - |cosine| of two classes' maps",
            about_class,
            classes=2,
        ),
        Question(
            "learned",
            "Does the map depend on what was learned?",
            0.3,
            "1 - rank correlation with random weights",
            learned,
        ),
        Question(
            "steady",
            "Does the map survive noise, a shift and a mirror?",
            0.7,
            "rank correlation",
            steady,
        ),
        Question(
            "shapley",
            "Does it agree with exact Shapley values?",
            0.1,
            "rank correlation in 3 x 3 cells, beyond the best map without a model",
            like_shapley,
            costly=True,
        ),
        Question(
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
