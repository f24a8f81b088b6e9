"""Heads and kinds of networks that others built, and one image's gradient against the batch's."""

import pytest
import timm
import torch
import torchvision.models as tv
from torch import nn

from utils import explain, models
from utils.tests.conftest import images, randomise, tiny


def with_sequential() -> nn.Module:
    model = timm.create_model("resnet10t", num_classes=3)
    model.fc = nn.Sequential(nn.Dropout(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 3))
    return model


HEADS = {
    "convolution": (lambda: timm.create_model("resnetv2_50x1_bit", num_classes=3), 1),
    "convolution of DLA": (lambda: timm.create_model("dla34", num_classes=3), 1),
    "convolution of torchvision": (lambda: tv.squeezenet1_1(num_classes=3), 1),
    "Sequential": (with_sequential, 1),
    "torchvision's ResNet": (lambda: tv.resnet18(num_classes=3), 1),
    "torchvision's DenseNet": (lambda: tv.DenseNet(8, (1, 1), 8, num_classes=3), 1),
    "torchvision's MobileNet": (lambda: tv.mobilenet_v3_small(num_classes=3), 1),
    "torchvision's Inception": (lambda: tv.inception_v3(num_classes=3, init_weights=False), 1),
    "torchvision's ViT": (lambda: tv.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=3), 1),
    "LeViT": (lambda: timm.create_model("levit_128s", num_classes=3), 2),
    "distilled EfficientFormer": (
        lambda: timm.create_model("efficientformer_l1", num_classes=3),
        2,
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_every_usual_head_is_the_layer_of_the_logits(name):
    build, count = HEADS[name]
    torch.manual_seed(0)
    model = build()
    found = models.heads(model)
    assert len(found) == count and all(isinstance(h, nn.Linear | nn.Conv2d) for h in found)
    assert models.outputs(model) == 3 and all(h.weight.shape[0] == 3 for h in found)
    models.new_head(model)
    for layer in found:
        fan_in, fan_out = layer.weight[0].numel(), 3
        assert layer.weight.abs().max() <= (6 / (fan_in + fan_out)) ** 0.5 + 1e-6
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("arch", ["resnetv2_50x1_bit", "levit_128s", "dla34"])
def test_such_networks_are_built(arch):
    model = models.build(arch, 2, "none")
    assert models.outputs(model) == 2 and model.provenance == "random weights"


class TwoHeaded(nn.Module):
    """A task for each head: neither is the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.animal, self.colour = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(x).mean((2, 3))
        return self.animal(features), self.colour(features)


@pytest.mark.parametrize(
    "build, name",
    [
        (TwoHeaded, "TwoHeaded"),
        (lambda: tiny("vit", classes=0), "VisionTransformer"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "Sequential"),
    ],
)
def test_no_head_is_one_sentence(build, name):
    with pytest.raises(ValueError, match=f"{name} has no head that could be recognised"):
        models.heads(build())


def test_of_two_heads_one_is_chosen_by_output():
    with pytest.raises(ValueError, match=r"\(1, 3\) and \(1, 2\), and either may be its logits"):
        models.wrap(TwoHeaded(), size=16)
    model = models.wrap(TwoHeaded(), size=16, output=lambda given: given[1])
    assert models.outputs(model) == 2
    assert explain.explain(model, images(1), 1, "saliency").shape == (1, 32, 32)


def test_googlenets_outputs_while_it_trains_are_its_logits():
    torch.manual_seed(0)
    module = tv.googlenet(num_classes=3, init_weights=False, aux_logits=True)
    model = models.wrap(module, size=64)
    assert model.train()(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    assert explain.layers(model)[-1] == "inception5b"


@pytest.mark.parametrize("arch", ["xcit_nano_12_p16_224", "levit_128s", "efficientvit_m0"])
@pytest.mark.parametrize("method", ["saliency", "gradcam"])
def test_one_image_is_explained_as_in_a_batch(arch, method):
    """torch's batch norm gives another gradient for one image where tokens became maps."""
    torch.manual_seed(0)
    model = randomise(models.build(arch, 3, "none"))
    if arch.startswith("efficientvit"):
        model.input_size = 224
    batch = explain.explain(model, images(3), 1, method)
    single = explain.explain(model, images(3)[:1], 1, method)
    torch.testing.assert_close(single, batch[:1], rtol=1e-3, atol=1e-4 * batch.abs().max().item())
