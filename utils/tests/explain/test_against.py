"""Why this class rather than that one: what must hold for every method."""

import pytest
import torch

from utils import explain, models
from utils.models import Question
from utils.tests.conftest import QUICK, images, tiny

PAIRS = [
    (kind, name)
    for kind, group in (("resnet", "cnn"), ("vit", "vit"))
    for name, how in explain.METHODS.items()
    if group in how.works_on
]
LINEAR = ("integrated_gradients", "expected_gradients", "occlusion", "rise", "shapley", "attnlrp")


def maps(kind: str, method: str, targets, against=None) -> torch.Tensor:
    model, options = tiny(kind), QUICK.get(method, {})
    model.input_size = 64 if kind == "resnet" else 32  # a last stage of 2 x 2
    return explain.explain(model, images(2), targets, method, against, **options)


@pytest.mark.parametrize("kind, method", PAIRS)
def test_a_comparison_is_another_question(kind, method):
    alone, compared = maps(kind, method, 1), maps(kind, method, 1, 2)
    assert torch.allclose(alone, compared) != explain.METHODS[method].uses_target
    each = maps(kind, method, torch.tensor([1, 1]), torch.tensor([2, 2]))
    torch.testing.assert_close(each, compared)


SIGNED = [p for p in PAIRS if explain.METHODS[p[1]].signed and p != ("vit", "lrp")]  # that is >= 0


@pytest.mark.parametrize("kind, method", SIGNED)
def test_signed_maps_change_their_sign_when_the_classes_change_places(kind, method):
    one, other = maps(kind, method, 1, 2), maps(kind, method, 2, 1)
    torch.testing.assert_close(one, -other, rtol=1e-4, atol=1e-5 * one.abs().max().item())


@pytest.mark.parametrize("kind, method", [p for p in PAIRS if p[1] in LINEAR])
def test_the_map_of_a_difference_is_the_difference_of_the_maps(kind, method):
    compared = maps(kind, method, 1, 2)
    difference = maps(kind, method, 1) - maps(kind, method, 2)
    small = 1e-5 * difference.abs().max().item()
    torch.testing.assert_close(compared, difference, rtol=1e-3, atol=small)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_integrated_gradients_are_complete_for_the_difference(kind):
    model = tiny(kind)
    result = explain.integrated_gradients(model, images(3), 1, against=2)
    logits = models.logits_of(model, images(3))
    black = models.logits_of(model, torch.zeros_like(images(1)))
    wanted = (logits[:, 1] - logits[:, 2]) - (black[:, 1] - black[:, 2])
    torch.testing.assert_close(result.difference, wanted, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(result.maps.sum((1, 2)), wanted, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_expected_gradients(kind):
    """They sum to F(x) less its mean over baselines; one baseline gives Integrated Gradients."""
    model, pictures, baselines = tiny(kind), images(2), images(4, seed=7)
    method = "expected_gradients"
    heat = explain.explain(model, pictures, 1, method, against=0, baselines=baselines, steps=32)
    scores = [
        models.logits_of(model, p) @ torch.tensor([-1.0, 1, 0, 0]) for p in (pictures, baselines)
    ]
    torch.testing.assert_close(heat.sum((1, 2)), scores[0] - scores[1].mean(), rtol=0.1, atol=1e-3)
    black = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    one = explain.explain(model, pictures, 1, method, baselines=black, steps=16)
    ig = explain.explain(model, pictures, 1, "integrated_gradients", steps=16)
    torch.testing.assert_close(one, ig, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="at least 1 step and 1 baseline"):
        explain.explain(model, pictures, 1, method, baselines=black[:0])


def test_expected_gradients_of_a_linear_model():
    """w_i (x_i - mean x'_i), and captum's estimate in the mean."""
    from captum.attr import GradientShap
    from torch import nn

    torch.manual_seed(0)
    model = models.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)), size=8)
    x = models.prepare(model, images(2, 8))
    baselines = images(5, 8, seed=3)
    references = models.prepare(model, baselines)
    how = explain.METHODS["expected_gradients"]
    ours = how.run(model, x, Question(1), batch=8, baselines=baselines, steps=2, seed=0)
    weight = models.head(model).weight[1].view(3, 8, 8)
    wanted = (weight * (x - references.mean(0))).sum(1)
    torch.testing.assert_close(ours, wanted.detach(), rtol=1e-4, atol=1e-5)
    estimate = GradientShap(model).attribute(x, references, n_samples=2000, target=1).sum(1)
    assert (estimate - ours).abs().max() < 0.1 * ours.abs().max()


def test_a_class_is_not_explained_against_itself():
    with pytest.raises(ValueError, match="cannot be explained against itself"):
        maps("vit", "gradcam", 1, 1)
    with pytest.raises(ValueError, match="classes 0..3"):
        maps("vit", "saliency", 1, 4)
    with pytest.raises(ValueError, match="3 targets for 2 images"):
        maps("resnet", "gradcam", 1, torch.tensor([2, 2, 2]))
