"""A shortcut planted in a model of one's own, and why it cannot be planted in some."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from utils import audit, models
from utils.audit import answers, parts, planted
from utils.audit.record import Record
from utils.data import ImageSet
from utils.tests.conftest import images, tiny

SHORT = ("saliency", "occlusion")


def grey(n: int = 60) -> ImageSet:
    """Smooth pictures without colour, whose labels nobody could guess: only the mark tells."""
    pictures = images(n, 32).float().mean(1, keepdim=True).to(torch.uint8).expand(-1, 3, -1, -1)
    return ImageSet(pictures.contiguous(), torch.arange(n) % 3, ("ant", "bee", "cat"), "made")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.env.RUNS", tmp_path / "runs")


def ask_of(subject: audit.Subject, out: Path, minutes: float = 50) -> dict:
    maps = {m: parts.maps_of(subject, m) for m in SHORT}
    return planted.ask(subject, maps, Record(subject, out), minutes)


def test_maps_give_a_planted_shortcut_away_and_the_pairs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planted, "PAIRS", 3)
    subject = audit.of(tiny("resnet", classes=3), grey())
    result = ask_of(subject, tmp_path)
    assert result["pairs"] == 3 and result["train"] == 40 and result["marked"] >= 6
    assert result["rates"]["with marked"] - result["rates"]["without marked"] >= planted.USED
    row = result["methods"]["occlusion"]
    assert row["auc"] > 0.75 and row["share"] > row["area"]
    assert row["area"] == pytest.approx(1 / 16) and 0.5 <= row["seeds"] <= 1
    assert planted.QUESTION in answers.recommended({"parts": {}, "shortcut": result})

    def again(*inputs: object) -> None:
        raise AssertionError("nothing is trained a second time")

    monkeypatch.setattr(planted, "_pair", again)
    assert ask_of(subject, tmp_path) == result


def test_any_network_with_a_head_can_be_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    subject = audit.of(models.wrap(net, size=32, layer="1"), grey(36))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    sizes = planted.sizes(subject, {"saliency": parts.maps_of(subject, "saliency")}, 50)
    assert sizes["marked"] >= 6 and sizes["epochs"] >= planted.EPOCHS
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_what_has_no_shortcut_is_one_sentence(tmp_path: Path) -> None:
    whole = audit.of(tiny("vit", classes=3), grey())
    alone = replace(whole, logits=whole.logits[:, :1])
    few = audit.of(tiny("vit", classes=3), grey(12))
    closed = audit.of(
        models.wrap(nn.Sequential(nn.Conv2d(3, 3, 32), nn.Flatten()), size=32), grey()
    )
    closed.model.requires_grad_(False)
    for subject, reason in (
        (replace(whole, labels=None), "labels that fit"),
        (alone, "2 outputs"),
        (few, "12 images in all"),
    ):
        assert reason in planted.cannot_plant(subject)
        assert reason in planted.sentence(ask_of(subject, tmp_path))
    assert planted.cannot_plant(closed) == "" or "last layer" in planted.cannot_plant(closed)
    assert "would need" in planted.sentence(ask_of(whole, tmp_path, minutes=1e-4))


def test_a_model_that_cannot_be_trained_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*inputs: object, **options: object) -> nn.Module:
        raise RuntimeError("one of the variables is gone\nand more lines")

    monkeypatch.setattr("utils.trust.shortcut.retrained", fails)
    result = ask_of(audit.of(tiny("vit", classes=3), grey()), tmp_path)
    assert result == {"refused": "the model cannot be trained here (one of the variables is gone)"}


def test_a_mark_that_nobody_uses_is_no_shortcut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.trust.shortcut.retrained", lambda model, *rest, **options: model)
    result = ask_of(audit.of(tiny("vit", classes=3), grey()), tmp_path)
    assert "did not become a shortcut" in result["refused"] and "methods" not in result
