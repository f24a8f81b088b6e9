"""The audit: maps that know nothing fail, a part that was measured stays, the page stands alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from utils import audit, explain, models
from utils.audit import __main__ as command
from utils.audit import answers, battery, parts, removal, scores, subject
from utils.data import ImageSet
from utils.tests.conftest import images, tiny
from utils.trust import faithfulness


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
def judged() -> audit.Subject:
    model, pictures = network(), coloured()
    logits = models.logits_of(model, pictures)
    return audit.Subject(model, pictures, None, "made", (), logits.argmax(1), logits)


def test_loose_photographs_have_no_labels_and_it_is_said(folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"no picture")
    loose = subject.open_subject(network(), f"folder:{folder}")
    assert loose.labels is None and loose.images.shape == (12, 3, subject.SIDE, subject.SIDE)
    assert "no labels" in loose.notes[0] and loose.quality() == {}
    assert "bad.png" in loose.notes[1]


def test_a_map_of_the_truth_passes_and_one_without_a_model_does_not(judged: audit.Subject) -> None:
    rows = torch.arange(12)

    def truth(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.stack([im[t % 3].float() for im, t in zip(images, targets, strict=True)])

    def nothing(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.rand(images[:, 0].shape, generator=torch.Generator().manual_seed(3))

    good, bad = (audit.Maps(judged, maps) for maps in (truth, nothing))
    for name in ("needed", "proportion", "shapley"):
        ask = audit.QUESTIONS[name].measure
        assert ask(good, rows, 0).values.mean() > ask(bad, rows, 0).values.mean() + 0.1, name
    # a map that does not look at the class, or at the model, scores 0 where it should
    assert np.allclose(scores.about_class(bad, rows, 0).values, 0, atol=1e-6)
    assert np.allclose(scores.learned(bad, rows, 0).values, 0, atol=1e-6)
    assert scores.about_class(good, rows, 0).values.mean() > 0.1


def test_a_flipped_sign_is_no_other_picture(judged: audit.Subject) -> None:
    def signed(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        first = judged.logits.topk(2, dim=1).indices[:, 0]
        sign = torch.where(targets == first, 1.0, -1.0)
        return sign[:, None, None] * images[:, 0].float()

    values = scores.about_class(audit.Maps(judged, signed), torch.arange(12), 0).values
    assert np.allclose(values, 0, atol=1e-6)


def right(n: int = 16, outputs: int = 4) -> audit.Subject:
    """Images whose labels are what the model predicts, made so by hand."""
    images, model = coloured(n), network(outputs)
    labels = torch.arange(n) % outputs
    return audit.Subject(model, images, labels, "made", (), labels, models.logits_of(model, images))


@pytest.mark.parametrize(("outputs", "chance"), [(4, 0.25), (2, 0.5)])
def test_maps_that_do_not_look_at_the_class_are_at_chance_in_mosaics(
    outputs: int, chance: float
) -> None:
    def blind(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return images[:, 1].float()

    measured = scores.pointing(audit.Maps(right(outputs=outputs), blind), torch.arange(8), 0)
    assert measured.bar == chance
    assert np.allclose(measured.values, chance, atol=1e-6)


def test_road_on_small_pictures_is_that_of_the_trust_tests(judged: audit.Subject) -> None:
    maps = judged.images[:, 0].float()
    ours = removal._road(judged, maps, torch.arange(12))
    theirs = faithfulness.road(judged.model, judged.images, maps, judged.preds, removal.SHARE)
    assert np.allclose(ours, theirs, atol=1e-6) and np.abs(ours).max() > 0.01


def test_a_score_that_random_order_beats_is_refused_for_all_methods() -> None:
    def part(values: list[float]) -> dict:
        random = {"random": [0.5, 0.4, 0.5, 0.6, 0.5, 0.4, 0.5, 0.6]}
        return {"values": values, "bar": 0.0, "references": random, "beside": {}}

    good, bad = [0.9] * 7 + [0.8], [0.1] * 7 + [0.2]
    both = answers.judged({"needed.saliency": part(good), "needed.gradcam": part(bad)})
    assert all("random order beats Grad-CAM" in answer["refused"] for answer in both.values())
    alone = answers.judged({"needed.saliency": part(good)})
    assert alone["needed.saliency"]["verdict"] == "yes"


def test_promises_are_kept_and_the_others_are_left_out(judged: audit.Subject) -> None:
    complete = audit.measure(judged, audit.QUESTIONS["sum"], "integrated_gradients", 6)
    assert complete["score"] > 0.99
    assert (
        "promises no sum" in audit.measure(judged, audit.QUESTIONS["sum"], "saliency", 6)["refused"]
    )
    cnn = tiny("resnet")
    whole = audit.of(cnn, ImageSet(images(6), torch.arange(6) % 4, tuple("abcd"), "made"))
    assert whole.title(0).split()[0] == "abcd"[whole.preds[0]]  # the data names the outputs
    assert audit.measure(whole, audit.QUESTIONS["sum"], "lrp", 6)["score"] > 0.99


def test_an_image_counts_the_same_alone_and_in_a_batch(judged: audit.Subject) -> None:
    def again() -> audit.Maps:
        made = parts.maps_of(judged, "saliency", chunk=1)
        judged.made.clear()
        return made

    for name in ("needed", "proportion", "class", "learned", "steady", "shapley"):
        question = audit.QUESTIONS[name]
        whole = question.measure(again(), torch.arange(6), 0)
        alone = [question.measure(again(), torch.tensor([row]), 0) for row in range(6)]
        assert np.allclose(whole.values, [float(m.values[0]) for m in alone], atol=1e-4), name
        for kind, values in whole.references.items():
            assert np.allclose(values, [float(m.references[kind][0]) for m in alone], atol=1e-4)


def test_stopped_and_taken_up_equals_uninterrupted(
    judged: audit.Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods, asked = ("saliency", "gradcam"), ("steady", "class")
    monkeypatch.setattr(battery, "BATCH", 2)
    monkeypatch.setattr(battery.Battery, "wanted", lambda *_: 8)
    whole = audit.run(judged, tmp_path / "a", methods, 60, questions=asked)
    real, calls = battery.extended, []

    def stops(*inputs, **options):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*inputs, **options)

    monkeypatch.setattr(battery, "extended", stops)
    with pytest.raises(KeyboardInterrupt):
        audit.run(judged, tmp_path / "b", methods, 60, questions=asked)
    kept = json.loads((tmp_path / "b" / "parts-0.json").read_text())["parts"]
    assert sum(len(part["values"]) for part in kept.values()) == 4 * 2 + 2 * 2
    again = audit.run(judged, tmp_path / "b", methods, 60, questions=asked, chunk=1)
    for part, answer in whole["parts"].items():
        for key in ("n", "score", "effect", "p"):
            assert again["parts"][part][key] == pytest.approx(answer[key], abs=1e-5)


def test_a_short_budget_says_how_many_images_and_minutes_are_missing(
    judged: audit.Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(battery.Battery, "cost", lambda *_: 30.0)
    monkeypatch.setattr(battery.Battery, "wanted", lambda *_: 10)
    short = audit.run(judged, tmp_path, ("saliency",), 1, questions=("class",))
    assert short["parts"]["class.saliency"]["refused"] == (
        "there was time for 3 of the 10 images that it needs (5.0 minutes for this question)"
    )
    more = audit.run(judged, tmp_path, ("saliency",), 10, questions=("class",))
    assert more["parts"]["class.saliency"]["n"] == 10 and more["minutes"]["full"] == 5


@pytest.mark.parametrize(("there", "more"), [(12, ", and there are 12."), (200, ".")])
def test_images_that_cannot_decide_say_how_many_would(there: int, more: str) -> None:
    unclear = {"verdict": "cannot be told", "n": 12, "needs": 90}
    parts = {"class.saliency": unclear, "class.gradcam": unclear | {"needs": 400}}
    (sentence,) = answers.recommended({"parts": parts, "images": there}).values()
    assert sentence.endswith(f"from 12 images; the clearest of them would need about 90{more}")


def test_too_few_images_and_too_little_time_are_both_said(
    judged: audit.Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(battery.Battery, "wanted", lambda self, name: 80)
    monkeypatch.setattr(battery.Battery, "cost", lambda self, name: 60.0)
    report = audit.run(judged, tmp_path, ["saliency"], 1.0, questions=["class"])
    reason = report["parts"]["class.saliency"]["refused"]
    assert f"for 2 of the {len(judged.images)} images that it needs" in reason
    assert reason.endswith(", and to be sure it would need 80 images")


def test_the_power_calculation_sees_the_margin() -> None:
    few, many = (answers.enough_images(answers.MARGIN, sd, 1) for sd in (0.05, 0.3))
    assert few < 10 < many
    assert answers.enough_images(answers.MARGIN, 0.3, 50) > many  # many comparisons ask for more


def test_few_images_and_few_classes_are_refused_with_the_reason(judged: audit.Subject) -> None:
    alike = replace(judged, preds=judged.preds * 0)
    answer = audit.measure(alike, audit.QUESTIONS["points"], "saliency", 8)
    assert answer["refused"] == "it needs sure answers of two classes, and 1 have some"
    few = audit.Subject(
        judged.model, judged.images[:3], None, "made", (), judged.preds[:3], judged.logits[:3]
    )
    assert "6 images" in audit.measure(few, audit.QUESTIONS["needed"], "saliency", 3)["refused"]
    single = audit.Subject(
        network(1), judged.images, None, "made", (), judged.preds * 0, judged.logits[:, :1]
    )
    for name in ("points", "needed", "class"):
        answer = audit.measure(single, audit.QUESTIONS[name], "saliency", 6)
        assert "2 outputs" in answer["refused"]
    assert "score" in audit.measure(single, audit.QUESTIONS["proportion"], "saliency", 6)


def test_verdicts_need_size_and_correction() -> None:
    def part(effect: float, p: float, high: float) -> dict:
        size = {"effect": effect, "size": 0.1, "sd": 0.2}
        return size | {"low": effect - 0.05, "high": high, "p": p}

    three = {"a.x": part(0.3, 0.001, 0.4), "a.y": part(0.3, 0.04, 0.4), "a.z": part(0.0, 0.9, 0.05)}
    audit.verdicts(three)
    assert [p["verdict"] for p in three.values()] == ["yes", "cannot be told", "no"]
    assert three["a.y"]["needs"] > 8  # about that many for a distance of one deviation


def test_the_page_stands_alone_and_shows_names_as_text(
    judged: audit.Subject, tmp_path: Path
) -> None:
    report = audit.run(judged, tmp_path, ("saliency",), questions=("class",))
    report["model"] = "<script>alert(1)</script>"
    page = audit.write_page(judged, report, tmp_path / "report.html").read_text("utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "http://" not in page and "https://" not in page
    assert explain.METHODS["saliency"].title in page


def test_an_empty_folder_and_an_unknown_method_are_one_sentence(
    judged: audit.Subject, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        subject.open_subject(network(), f"folder:{tmp_path / 'empty'}")
    with pytest.raises(ValueError, match="There is no method"):
        audit.fitting(judged, ["saliencey"])


# ---------------------------------------------------------------- the command on real folders


def save(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def small() -> nn.Module:
    """What the command imports by name."""
    return network(2)


class Closed(nn.Module):
    """A model whose forward pass keeps no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.module = network(2)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)


def closed() -> nn.Module:
    return models.wrap(Closed(), size=16)


def asked(folder: Path, model: str = "small", *more: str) -> None:
    name = model if model.startswith(("no", "hf")) else f"{__name__}:{model}"
    images = ["--images", f"folder:{folder}", "--methods", "saliency"]
    command.main(["--model", name, *images, "--minutes", "0.02", "--name", "try", *more])


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(command.env, "FIGURES", tmp_path / "figures")
    return tmp_path / "figures" / "audit" / "try"


@pytest.mark.parametrize("kind", ["colour", "grey", "16 bits", "unreadable among them"])
def test_a_folder_of_classes_becomes_a_page(kind: str, tmp_path: Path, figures: Path) -> None:
    for i, image in enumerate(coloured()):
        pixels = image.permute(1, 2, 0).numpy()
        if kind == "grey":
            pixels = pixels[..., 0]
        if kind == "16 bits":
            pixels = pixels[..., 0].astype(np.uint16) * 257
        save(tmp_path / "images" / "ab"[i % 2] / f"{i}.png", pixels)
    if kind == "unreadable among them":
        (tmp_path / "images" / "a" / "bad.png").write_bytes(b"no picture")
    asked(tmp_path / "images")
    report = json.loads((figures / "audit.json").read_text())
    assert report["images"] == 12  # all of them: none are kept apart for tests
    assert set(report["quality"]) == {"accuracy", "ece"}
    assert (figures / "report.html").exists()


def test_folders_that_do_not_fit_the_head_are_audited_without_labels(
    tmp_path: Path, figures: Path
) -> None:
    for i, image in enumerate(coloured(9)):
        save(tmp_path / "images" / "abc"[i % 3] / f"{i}.png", image.permute(1, 2, 0).numpy())
    asked(tmp_path / "images")
    report = json.loads((figures / "audit.json").read_text())
    assert "without labels" in report["notes"][0] and report["quality"] == {}
    points = report["parts"]["points.saliency"]  # of the images that the model is sure of
    assert "labels" not in points.get("refused", "")


@pytest.mark.parametrize(
    ("model", "content", "sentence"),
    [
        ("small", {}, "holds no image"),
        ("small", {"bad.jpg": b"x"}, "1 cannot be read: bad.jpg"),
        ("closed", None, "gives no gradient"),
        ("nothing_of_this_name", None, "There is no model"),
        ("hf:nowhere", None, "save_pretrained"),
    ],
)
def test_what_cannot_be_audited_is_one_sentence(
    model: str, content: dict | None, sentence: str, folder: Path, tmp_path: Path, figures: Path
) -> None:
    place = folder
    if content is not None:
        (place := tmp_path / "other").mkdir()
        for name, data in content.items():
            (place / name).write_bytes(data)
    with pytest.raises(SystemExit, match=sentence) as stop:
        asked(place, model)
    assert "\n" not in str(stop.value)
    assert not figures.exists()


def test_ctrl_c_keeps_what_was_measured(
    folder: Path, figures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = battery.extended, []

    def stops(*inputs, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*inputs, **options)

    monkeypatch.setattr(battery, "extended", stops)
    with pytest.raises(SystemExit, match="goes on where it was"):
        asked(folder)
    assert len(json.loads((figures / "parts-0.json").read_text())["parts"]) == 1
