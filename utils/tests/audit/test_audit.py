"""The audit: maps that know nothing fail, a part that was measured stays, the page stands alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from utils import audit, explain, models
from utils.audit import battery, questions, subject


def network(outputs: int = 4) -> nn.Module:
    """A classifier of colours: its logits are the mean of each channel in the left half, and of all."""

    class Colours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, outputs, 3, padding=1), nn.ReLU())
            self.fc = nn.Linear(outputs, outputs, bias=False)
            nn.init.zeros_(self.features[0].bias)
            self.fc.weight.data.copy_(4 * torch.eye(outputs))
            for k in range(min(3, outputs)):
                self.features[0].weight.data[k].zero_()
                self.features[0].weight.data[k, k, 1, 1] = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.features(x).mean((2, 3)))

    torch.manual_seed(0)
    return models.wrap(Colours().eval(), size=16, mean=(0.0,) * 3, std=(1.0,) * 3, layer="features")


def coloured(n: int = 12, side: int = 16) -> torch.Tensor:
    """Grey images with a bright square in one channel, uint8 (n, 3, side, side)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(20, 60, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    for i in range(n):
        y, x = (int(v) for v in torch.randint(0, side - 6, (2,), generator=generator))
        images[i, i % 3, y : y + 6, x : x + 6] = 250
    return images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, image in enumerate(coloured()):
        place = tmp_path / "images"
        place.mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{i:02d}.png")
    return tmp_path / "images"


@pytest.fixture
def judged(folder: Path) -> audit.Subject:
    return subject.load(network(), f"folder:{folder}")


def test_loose_photographs_have_no_labels_and_it_is_said(judged: audit.Subject) -> None:
    assert judged.labels is None and len(judged.images) == 12
    assert "no labels" in judged.notes[0] and judged.quality() == {}


def test_a_map_of_the_truth_passes_and_one_without_a_model_does_not(judged: audit.Subject) -> None:
    rows = torch.arange(12)

    def truth(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.stack([im[t % 3].float() for im, t in zip(images, targets, strict=True)])

    def nothing(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.rand(images[:, 0].shape, generator=torch.Generator().manual_seed(3))

    good, bad = (questions.needed(judged, maps, rows, 0) for maps in (truth, nothing))
    assert good.values.mean() > bad.values.mean()
    # a map that does not look at the class, or at the model, scores 0 where it should
    assert np.allclose(questions.about_class(judged, nothing, rows, 0).values, 0, atol=1e-6)
    assert np.allclose(questions.learned(judged, nothing, rows, 0).values, 0, atol=1e-6)
    assert questions.about_class(judged, truth, rows, 0).values.mean() > 0.1


def test_a_flipped_sign_is_no_other_picture(judged: audit.Subject) -> None:
    def signed(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        first = judged.logits.topk(2, dim=1).indices[:, 0]
        sign = torch.where(targets == first, 1.0, -1.0)
        return sign[:, None, None] * images[:, 0].float()

    values = questions.about_class(judged, signed, torch.arange(12), 0).values
    assert np.allclose(values, 0, atol=1e-6)


def test_maps_that_do_not_look_at_the_class_have_a_quarter_in_mosaics() -> None:
    images = coloured(16)
    model = network()
    logits = models.logits_of(model, images)
    labels = torch.arange(16) % 4
    whole = audit.Subject(model, images, labels, "made", (), labels, logits)

    def blind(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return images[:, 1].float()

    found = questions.points(whole, blind, torch.arange(8), 0)
    assert np.allclose(found.values, 0.25, atol=1e-6)


def test_stopped_and_taken_up_equals_uninterrupted(
    judged: audit.Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods, asked = ("saliency", "gradcam"), ("needed", "class")
    monkeypatch.setattr(
        battery, "_plan", lambda *_: {f"{q}.{m}": 8 for q in asked for m in methods}
    )
    whole = audit.run(judged, tmp_path / "a", methods, questions=asked)
    real, calls = battery.measure, []

    def stops(*inputs, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*inputs, **options)

    monkeypatch.setattr(battery, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        audit.run(judged, tmp_path / "b", methods, questions=asked)
    assert len(json.loads((tmp_path / "b" / "parts.json").read_text())["parts"]) == 2
    again = audit.run(judged, tmp_path / "b", methods, questions=asked, chunk=1)
    assert len(calls) == 5  # two kept, one stopped, two measured now
    for part, answer in whole["parts"].items():
        for key in ("score", "effect", "p"):
            assert again["parts"][part][key] == pytest.approx(answer[key], abs=1e-5)


def test_few_images_and_few_classes_are_refused_with_the_reason(judged: audit.Subject) -> None:
    answer = audit.measure(judged, audit.QUESTIONS["points"], "saliency", 8)
    assert "labels" in answer["refused"]
    few = audit.Subject(
        judged.model, judged.images[:3], None, "made", (), judged.preds[:3], judged.logits[:3]
    )
    assert "6 images" in audit.measure(few, audit.QUESTIONS["needed"], "saliency", 3)["refused"]


def test_verdicts_need_size_and_correction() -> None:
    def part(effect: float, p: float, high: float) -> dict:
        return {"effect": effect, "size": 0.1, "low": effect - 0.05, "high": high, "p": p}

    parts = {"a.x": part(0.3, 0.001, 0.4), "a.y": part(0.3, 0.04, 0.4), "a.z": part(0.0, 0.9, 0.05)}
    audit.verdicts(parts)
    assert [p["verdict"] for p in parts.values()] == ["yes", "cannot be told", "no"]


def test_the_page_stands_alone_and_shows_names_as_text(
    judged: audit.Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("class",)
    monkeypatch.setattr(battery, "_plan", lambda *_: {"class.saliency": 8})
    report = audit.run(judged, tmp_path, ("saliency",), questions=asked)
    report["model"] = "<script>alert(1)</script>"
    page = audit.build(judged, report, tmp_path / "report.html").read_text("utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "http://" not in page and "https://" not in page
    assert explain.METHODS["saliency"].title in page


def test_an_empty_folder_and_an_unknown_method_are_one_sentence(
    judged: audit.Subject, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        subject.load(network(), f"folder:{tmp_path / 'empty'}")
    with pytest.raises(ValueError, match="There is no method"):
        battery.fitting(judged, ["saliencey"])
