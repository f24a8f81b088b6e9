"""The models that the chapters explain: calibrated, and a reader's own left alone."""

from dataclasses import replace

import pytest
import torch

from utils import data, env, evaluate
from utils.tests.train.conftest import images, tiny
from utils.train import chapter_models


@pytest.fixture
def explained(monkeypatch):
    """explained() for a small network whose logits are far too large; the data, the network."""
    parts = data.Splits(images(16, 1), images(40, 2), images(24, 3), {})
    monkeypatch.setattr(data, "splits", lambda settings: parts)

    def run(history: object) -> tuple[torch.nn.Module, torch.Tensor]:
        model = tiny("vit").eval()
        model.head.weight.data *= 40
        model.head.bias.data += torch.linspace(-1, 1, 10)
        model.history = history
        before = evaluate.predict(model, parts.val).logits
        parts.val.labels[:30] = before.argmax(1)[:30]
        monkeypatch.setattr(chapter_models, "finetuned", lambda arch, settings: model)
        settings = replace(env.profile("smoke"), vit="vit_mini")
        return chapter_models.explained("vit_mini", settings), before

    return parts, run


def test_probabilities_of_explained_models_are_calibrated(explained, capsys):
    parts, run = explained
    model, before = run(object())
    after = evaluate.predict(model, parts.val)
    assert model.temperature > 1.5
    assert torch.allclose(after.logits, before / model.temperature, atol=1e-4)
    assert evaluate.temperature(after) == pytest.approx(1, abs=0.05)
    assert f"temperature {model.temperature:.2f}, from 40 validation" in capsys.readouterr().out


def test_a_readers_own_model_keeps_its_logits(explained):
    parts, run = explained
    model, before = run(None)
    assert torch.equal(evaluate.predict(model, parts.val).logits, before)
