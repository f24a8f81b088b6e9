"""A planted shortcut in the reader's own model: whose maps give it away?

The auditor's test of trust.shortcut. Pairs of models are trained from the model's own weights, with
and without a mark on one class's images; each pair has a seed of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from .. import explain, models
from ..train import processes
from ..trust import parts as store
from ..trust import shortcut
from .marking import Planting, cannot_plant, coarse, prepared
from .questions import LEAST, Maps
from .record import Record
from .subject import Subject

QUESTION = "Does the map give a planted shortcut away?"
PAIRS, BATCH = 5, 16  # pairs of models; images of a training step
STEPS, EPOCHS = 80, 8  # at least so many steps of training, and so many epochs
MARKED = 24  # images that the auditor sees, at most
USED = 0.25  # rise of the marked class's share of answers, from which a model uses the mark


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def sizes(subject: Subject, maps: Mapping[str, Maps], minutes: float) -> dict[str, int]:
    """How many epochs and marked images the minutes allow: {"epochs", "marked", "tenths"}.

    From two steps of training and a map by each method; "tenths" of minutes are what the smallest
    test that says anything would take.
    """
    setting = prepared(subject, MARKED)
    few = setting.train_set.subset(range(min(BATCH, len(setting.train_set))))
    step = _seconds(lambda: shortcut.retrained(subject.model, few, 0, epochs=2, batch=BATCH)) / 2
    target = torch.tensor([setting.target])
    each = sum(
        _seconds(partial(run, subject.model, setting.marked[:1], target)) for run in maps.values()
    )
    steps = math.ceil(len(setting.train_set) / BATCH)
    trained = 2 * math.ceil(PAIRS / processes.size())
    afford = 60 * minutes / trained
    epochs = max(EPOCHS, math.ceil(STEPS / steps))
    marked = int((afford - epochs * steps * step) / each)
    if marked < LEAST:  # half of the training may do
        epochs = math.ceil(epochs / 2)
        marked = int((afford - epochs * steps * step) / each)
    least = trained * (epochs * steps * step + LEAST * each)
    marked = max(0, min(marked, MARKED, len(setting.clean)))
    return {"epochs": epochs, "marked": marked, "tenths": math.ceil(least / 6)}


def _pair(
    subject: Subject, maps: Mapping[str, Maps], setting: Planting, epochs: int, seed: int
) -> dict[str, np.ndarray]:
    """Two models, with and without the mark: their maps of marked images, and what they answer."""
    planted, _ = shortcut.plant(setting.train_set, setting.target, setting.mark, seed=seed)
    targets = torch.full((len(setting.marked),), setting.target)
    result: dict[str, np.ndarray] = {}
    for kind, train_set in (("with", planted), ("without", setting.train_set)):
        model = shortcut.retrained(subject.model, train_set, seed, epochs, batch=BATCH)
        for state, pictures in (("clean", setting.clean), ("marked", setting.marked)):
            preds = models.logits_of(model, pictures).argmax(1)
            result[f"{kind} {state}"] = np.array(float((preds == setting.target).float().mean()))
        for name, run in maps.items():
            heat = run(model, setting.marked, targets)
            result[f"{kind} {name}"] = coarse(heat).numpy().astype(np.float32)
    return result


def ask(
    subject: Subject, maps: Mapping[str, Maps], record: Record, minutes: float
) -> dict[str, Any]:
    """The auditor's test for every method: {"class", "rates", "methods": {name: numbers}, ...}.

    {"refused": reason} where it cannot be run, or where the mark did not become a shortcut. Goes on
    after the pairs that are there; several processes share them.
    """
    reason = cannot_plant(subject)
    if reason:
        return {"refused": reason}
    try:
        plan = _planned(subject, maps, record, minutes)
        if plan["marked"] < LEAST:
            need = plan["tenths"] / 10
            return {"refused": f"training {2 * PAIRS} models would need {need:.1f} minutes"}
        setting = prepared(subject, plan["marked"])
        facts = {
            "subject": record.key,
            "model": store.fingerprint(subject.model),
            "methods": list(maps),
            **plan,
        }
        pairs: dict[int, dict[str, np.ndarray]] = {}
        for mine in (True, False):  # the others' pairs are read when all are there
            for seed in range(PAIRS):
                if (seed % processes.size() == processes.rank()) == mine:
                    pairs[seed] = store.kept(
                        "audit-shortcut",
                        facts | {"seed": seed},
                        partial(_pair, subject, maps, setting, plan["epochs"], seed),
                    )
            processes.wait()
    except (RuntimeError, ValueError) as error:
        sentence = (str(error).splitlines() or [type(error).__name__])[0]
        return {"refused": f"the model cannot be trained here ({sentence})"}
    return _judged(list(maps), setting, [pairs[s] for s in range(PAIRS)], plan["epochs"])


def _planned(
    subject: Subject, maps: Mapping[str, Maps], record: Record, minutes: float
) -> dict[str, int]:
    """The sizes, decided once by the first process and kept, so that all processes agree."""
    keys = {
        k: f"shortcut {k}: {minutes:g} {' '.join(maps)}" for k in ("epochs", "marked", "tenths")
    }
    if processes.rank() == 0 and not set(keys.values()) <= set(record.images):
        made = sizes(subject, maps, minutes)
        record.images |= {keys[k]: made[k] for k in keys}
        record.write()
    record.read()
    return {k: record.images[key] for k, key in keys.items()}


def _judged(
    methods: list[str],
    setting: Planting,
    pairs: list[dict[str, np.ndarray]],
    epochs: int,
) -> dict[str, Any]:
    kinds = [f"{kind} {state}" for kind in ("with", "without") for state in ("clean", "marked")]
    rates = {kind: float(np.mean([pair[kind] for pair in pairs])) for kind in kinds}
    names = setting.train_set.classes
    report: dict[str, Any] = {
        "class": str(names[setting.target]),
        "pairs": len(pairs),
        "train": len(setting.train_set),
        "epochs": epochs,
        "marked": len(setting.marked),
        "rates": rates,
    }
    if rates["with marked"] - rates["without marked"] < USED:
        sentence = (
            f"the mark did not become a shortcut: models trained with it call "
            f"{rates['with marked']:.0%} of the marked images {report['class']}, models trained "
            f"without it {rates['without marked']:.0%}"
        )
        return report | {"refused": sentence}
    report["methods"] = {m: _numbers(m, setting, pairs) for m in methods}
    return report


def _numbers(method: str, setting: Planting, pairs: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """One method's row; "yes" if it reveals the mark, "no" if its AUC or its gain is too small."""
    with_mark, without = (
        [torch.from_numpy(pair[f"{kind} {method}"]) for pair in pairs]
        for kind in ("with", "without")
    )
    seen = shortcut.audit(with_mark, without, setting.at_mark)
    unseen = seen.share.high < seen.area or seen.gain < shortcut.GAIN
    below = seen.auc.high < shortcut.BAR or unseen
    return {
        "auc": seen.auc.mean,
        "low": seen.auc.low,
        "high": seen.auc.high,
        "seeds": seen.seeds,
        "share": seen.share.mean,
        "area": seen.area,
        "hits": seen.hits,
        "false_alarms": seen.false_alarms,
        "verdict": "yes" if seen.reveals else "no" if below else "cannot be told",
    }


def sentence(result: Mapping[str, Any]) -> str:
    """The method to use, with its AUC, or why there is none."""
    if "refused" in result:
        return f"Not tested: {result['refused']}."
    rows = result["methods"]
    passing = {m: row for m, row in rows.items() if row["verdict"] == "yes"}
    if not passing:
        return f"None: no method of {len(rows)} gives it away."
    best = max(passing, key=lambda m: (passing[m]["auc"], passing[m]["share"]))
    row = passing[best]
    return (
        f"{explain.METHODS[best].title}: AUC {row['auc']:.2f} [{row['low']:.2f}, "
        f"{row['high']:.2f}], its maps peak on the mark in {row['hits']:.0%} of the images, and in "
        f"{row['false_alarms']:.0%} without the shortcut; {len(passing)} of {len(rows)} methods pass."
    )
