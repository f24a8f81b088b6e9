"""AttnLRP: against lxt's numbers (make_attnlrp_reference.py), conservation, and other ViTs."""

import copy
import types

import pytest
import timm
import torch
from torch import nn
from torchvision.models import VisionTransformer

from utils import models
from utils.explain import attnlrp
from utils.models import Question, vit
from utils.tests.explain.conftest import VITS, randomised, small, stored, weights


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return stored("attnlrp")


@pytest.fixture(scope="module")
def model(reference) -> nn.Module:
    theirs = VisionTransformer(32, 8, 3, 4, 32, 64, num_classes=10)
    theirs.load_state_dict(weights(reference))
    return vit.from_torchvision(theirs.double())


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def inputs(n: int, size: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("variant", ["attnlrp", "cp"])
def test_equals_lxt(model, reference, variant):
    ours = attnlrp.relevance(model, reference["x"], int(reference["target"]), variant == "cp")
    assert error(ours, reference[variant]) < 1e-4
    other = "cp" if variant == "attnlrp" else "attnlrp"
    assert error(ours, reference[other]) > 0.1


@pytest.mark.parametrize("name", VITS)
@pytest.mark.parametrize("cp", [False, True])
def test_conserved_without_biases(name, cp, monkeypatch):
    x = inputs(2)
    kept = []  # (B,) what each softmax takes in less what it hands on; nothing in the CP variant

    def softmax(dots: torch.Tensor) -> torch.Tensor:
        weights = dots.softmax(-1)
        weights.register_hook(lambda g: kept.append((weights * g).sum((1, 2, 3)).detach()))
        dots.register_hook(lambda g: kept.append(-(dots * g).sum((1, 2, 3)).detach()))
        return weights

    monkeypatch.setattr(attnlrp, "_softmax", softmax)
    model = randomised(small(name), biases=False)
    with torch.no_grad():
        logits = model(x)
    ours = attnlrp.relevance(model, x, Question(3, 1), cp)
    assert len(kept) == (0 if cp else 4)
    score = logits[:, 3] - logits[:, 1] - sum(kept)
    torch.testing.assert_close(ours.sum((1, 2, 3)), score, rtol=1e-4, atol=1e-6)
    model = randomised(small(name), biases=True)  # so the test above needs them zeroed
    with torch.no_grad():
        logits = model(x)
    lost = attnlrp.relevance(model, x, 3, cp).sum((1, 2, 3)) - logits[:, 3]
    assert lost.abs().min() > 1e-3 * logits.abs().max()


def test_distilled_deit_is_understood():
    model = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, num_classes=5)
    x = inputs(1)
    for biases in (True, False):
        randomised(model, biases)
        ours = attnlrp.relevance(model, x, 2, cp=True)
    with torch.no_grad():
        torch.testing.assert_close(ours.sum(), model(x)[0, 2], rtol=1e-4, atol=1e-6)


def test_signed_and_against_turns_the_sign(model):
    x = inputs(2)
    ours, one, other, turned = (
        attnlrp.attnlrp(model, x, question, batch=2)
        for question in (Question(3, 5), Question(3), Question(5), Question(5, 3))
    )
    assert ours.shape == (2, 32, 32) and ours.min() < 0 < ours.max()
    assert error(ours, one - other) < 1e-9 and error(ours, -turned) < 1e-9


def test_batch_equals_singles_and_nothing_is_left_behind(model):
    model, x = copy.deepcopy(model).requires_grad_(False).train(), inputs(3)
    with torch.no_grad():
        together = attnlrp.relevance(model, x)
    for i in range(3):
        assert error(attnlrp.relevance(model, x[i : i + 1]), together[i : i + 1]) < 1e-8
    assert model.training and not together.requires_grad
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_gives_the_map_of_the_rounded_weights(model, dtype):
    low, x = copy.deepcopy(model).to(dtype), inputs(2).to(dtype)
    wanted = attnlrp.relevance(copy.deepcopy(low).float(), x.float(), 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attnlrp.relevance(low, x, 3), wanted)
    assert {p.dtype for p in low.parameters()} == {dtype}


def test_models_that_are_not_known_are_refused(model):
    with pytest.raises(ValueError, match="ResNet is not known"):
        attnlrp.relevance(models.build("resnet34_slim", 3, "none"), inputs(1).float())
    changed = copy.deepcopy(model)
    mlp = changed.blocks[1].mlp
    mlp.forward = types.MethodType(lambda self, x: self.fc2(self.fc1(x)), mlp)
    with pytest.raises(ValueError, match="not the standard one"):
        attnlrp.relevance(changed, inputs(1))
    with pytest.raises(ValueError, match=r"classes 0\.\.9"):
        attnlrp.relevance(model, inputs(1), 10)
