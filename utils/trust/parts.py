"""Results of long measurements, kept one by one, so that an interrupted notebook goes on where it was."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import env
from ..env import fingerprint

__all__ = ["fingerprint", "kept"]

VERSION = 1  # raise it when a measure changes its meaning: old results are then left alone


def kept(
    name: str, facts: Mapping[str, Any], compute: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """compute() the first time, and what it gave then every later time: {name: array}.

    name: the measurement; facts: everything that decides its result (fingerprints, numbers of
    images, options), as plain values. Kept in runs/<profile>/trust/, a file for each name and
    facts; delete the folder to measure again.
    """
    words = json.dumps([VERSION, facts], sort_keys=True, default=str)
    key = hashlib.sha256(words.encode()).hexdigest()[:16]
    file = env.RUNS / env.profile().name / "trust" / f"{name}-{key}.npz"
    if file.exists():
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    result = {key: np.asarray(values) for key, values in compute().items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **result)
    env.write(file, buffer.getvalue())
    return result
