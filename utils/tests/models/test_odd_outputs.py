"""Models whose forward does what nobody expects: the right map, a note, or one sentence."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils import explain, models
from utils.tests.conftest import images
from utils.tests.models.test_wrap import Small


class Given(Small):
    """Small with something of its own done to the input first."""

    def __init__(self, before, give=lambda logits: logits) -> None:
        super().__init__(give=give)
        self.before = before

    def forward(self, x: torch.Tensor):
        return super().forward(self.before(x))


@pytest.mark.parametrize(
    "change", [lambda x: x.sub_(0.5), lambda x: x.mul_(2), lambda x: x.clamp_(-1, 1)]
)
@pytest.mark.parametrize("method", ["saliency", "occlusion", "integrated_gradients"])
def test_a_model_that_changes_its_input_is_explained_all_the_same(change, method):
    changing = models.wrap(Given(change), size=16)
    plain = models.wrap(Given(lambda x: change(x.clone())), size=16)
    wanted = explain.explain(plain, images(2), 1, method)
    assert wanted.abs().sum() > 0
    torch.testing.assert_close(explain.explain(changing, images(2), 1, method), wanted)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_squeezed_output_is_a_row_for_each_image(classes):
    squeezed = models.wrap(Small(classes=classes, give=lambda z: z.squeeze()), size=16)
    plain = models.wrap(Small(classes=classes), size=16)
    for n in (1, 2, 5):
        logits = models.logits_of(squeezed, images(n))
        torch.testing.assert_close(logits, models.logits_of(plain, images(n)))
        maps = [explain.explain(m, images(n), 0, "saliency") for m in (squeezed, plain)]
        torch.testing.assert_close(*maps)


@pytest.mark.parametrize(
    "give", [lambda z: z.view(1, 3), lambda z: z.mean(0, keepdim=True), lambda z: z.reshape(-1)]
)
def test_images_that_are_not_kept_apart_are_one_sentence(give):
    with pytest.raises(ValueError, match=r"any number of images|keep the images apart") as stop:
        models.wrap(Small(give=give), size=16)
    assert "\n" not in str(stop.value)


def test_dropout_that_stays_on_and_probabilities_are_said(capsys):
    models.wrap(Small(give=lambda z: F.dropout(z, 0.5)), size=16)
    assert "different outputs" in capsys.readouterr().out
    models.wrap(Small(give=lambda z: z.softmax(1)), size=16)
    assert "look like probabilities" in capsys.readouterr().out
    models.wrap(Small(), size=16)
    models.wrap(Small(give=lambda z: z.softmax(1)), size=16, output=torch.log)
    assert "output" not in capsys.readouterr().out.replace("3 outputs", "")


BREAKS = {
    "detach": lambda x: x.detach(),
    "rounding to bytes": lambda x: x.byte().float(),
    "a copy of the values": lambda x: torch.tensor(x.tolist()),
}


@pytest.mark.parametrize("before", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "smoothgrad"])
def test_a_model_without_a_gradient_is_one_sentence(before, method):
    model = models.wrap(Given(before), size=16)
    with pytest.raises(ValueError, match="gives no gradient with respect to its input"):
        explain.explain(model, images(2), 1, method)
    assert explain.explain(model, images(2), 1, "occlusion").isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "occlusion"])
def test_maps_that_are_no_numbers_are_refused(value, method):
    module = Small()
    with torch.no_grad():
        module.out.weight[1, 0] = value
    with pytest.raises(ValueError, match="not finite"):
        explain.explain(models.wrap(module, size=16), images(2), 1, method)


def test_wrapping_leaves_the_model_as_it_was():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    models.wrap(module, size=16)
    assert module.training and all(
        torch.equal(v, before[k]) for k, v in module.state_dict().items()
    )
