"""Class activation maps: equal to pytorch-grad-cam on every family of networks, and what they are."""

import pytest
import pytorch_grad_cam
import timm
import torch
import torch.nn.functional as F
import torchvision.models as tv
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from utils import explain, models
from utils.models import Question
from utils.tests.conftest import images, tiny


def swin() -> nn.Module:
    small = dict(
        patch_size=[4, 4], embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4]
    )
    return tv.SwinTransformer(**small, num_classes=4)


def convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig

    return tv.ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], 0, 1.0, num_classes=4)


# name: how to build it, its side in pixels, and the shape of its last layer if that is not (b, c, h, w)
NETWORKS = {
    "ResNet": (lambda: tv.resnet18(num_classes=4), 64, None),
    "ResNet with bottlenecks": (lambda: timm.create_model("resnet26", num_classes=4), 64, None),
    "DenseNet": (lambda: tv.DenseNet(8, (2, 2, 2, 2), 16, num_classes=4), 64, None),
    "VGG": (
        lambda: tv.VGG(tv.vgg.make_layers([8, "M", 16, "M", 16], False), 4, init_weights=False),
        32,
        None,
    ),
    "MobileNet": (lambda: tv.mobilenet_v2(num_classes=4, width_mult=0.25), 64, None),
    "MobileNet 3": (lambda: tv.mobilenet_v3_small(num_classes=4), 64, None),
    "EfficientNet": (lambda: timm.create_model("efficientnet_lite0", num_classes=4), 64, None),
    "SqueezeNet": (lambda: tv.squeezenet1_1(num_classes=4), 64, None),
    "ShuffleNet": (lambda: tv.shufflenet_v2_x0_5(num_classes=4), 64, None),
    "MNASNet": (lambda: tv.mnasnet0_5(num_classes=4), 64, None),
    "RegNet": (lambda: tv.regnet_y_400mf(num_classes=4), 64, None),
    "GoogLeNet": (lambda: tv.googlenet(num_classes=4, init_weights=False), 64, None),
    "ConvNeXt": (convnext, 32, None),
    "Swin": (swin, 32, "last"),
    "ViT": (lambda: tiny("vit"), 32, 1),
    "ViT with registers": (lambda: tiny("vit", reg_tokens=4), 32, 5),
}


def make(name: str) -> tuple[nn.Module, int, object]:
    torch.manual_seed(0)
    build, side, form = NETWORKS[name]
    model = build()
    if name == "VGG":
        model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Linear(16, 4))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics of the next batch, so that no layer falls silent
    model.train()(torch.rand(4, 3, side, side) * 4 - 2)
    for layer in models.heads(model):
        layer.weight.data.mul_(1e4)  # fresh networks' maps are so faint that the peer's 1e-7 counts
    return model.eval(), side, form


def reshape(form: object):
    """How the peer must be told to read the layer."""
    if form == "last":
        return lambda t: t.movedim(-1, 1)
    if form is None:
        return None
    return lambda t: t[:, form:].transpose(1, 2).unflatten(2, (4, 4))


def scaled(heat: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """As the peer shows a map: enlarged, then 0..1."""
    heat = F.interpolate(heat[:, None], size, mode="bilinear")[:, 0]
    low, high = heat.amin((1, 2), True), heat.amax((1, 2), True)
    return (heat - low) / (high - low + 1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradcam_equals_pytorch_grad_cam(name, capsys):
    module, side, form = make(name)
    model = models.wrap(module, size=side)
    layer = explain.layers(model)[-1]
    assert layer in capsys.readouterr().out
    x, targets = models.prepare(model, images(4, side)), torch.arange(4)
    ours = explain.METHODS["gradcam"].run(model, x, Question(targets), batch=4, layer=None)
    where = models.inner(model).get_submodule(layer)
    with pytorch_grad_cam.GradCAM(module, [where], reshape_transform=reshape(form)) as peer:
        theirs = torch.from_numpy(peer(x, [ClassifierOutputTarget(int(t)) for t in targets]))
    assert ours.shape[1] > 1 and ours.amax((1, 2)).max() > 0
    torch.testing.assert_close(scaled(ours, theirs.shape[1:]), theirs, rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("name", ["HiResCAM", "LayerCAM", "EigenCAM", "ScoreCAM", "AblationCAM"])
def test_the_family_equals_pytorch_grad_cam(kind, name):
    how = explain.METHODS[name.lower()]
    if models.kind(tiny(kind)) not in how.works_on:
        with pytest.raises(ValueError, match="ablationcam does not work on a VisionTransformer"):
            explain.explain(tiny(kind), images(1), 1, "ablationcam")
        return
    model, peers = tiny(kind), tiny(kind)
    model.input_size = 64 if kind == "resnet" else 32
    for m in (model, peers):
        models.head(m).weight.data.mul_(100)
    x = models.prepare(model, images(2))
    before = {n: p.clone() for n, p in model.state_dict().items()}
    layer = explain.layers(model)[-1] if kind == "vit" else "layer2.0"
    ours = how.run(model, x, Question(torch.tensor([1, 2])), batch=16, layer=layer)
    options = {"resnet": {}, "vit": dict(reshape_transform=reshape(1))}[kind]
    peer = getattr(pytorch_grad_cam, name)(peers, [peers.get_submodule(layer)], **options)
    theirs = torch.from_numpy(peer(x, [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]))
    torch.testing.assert_close(scaled(ours, theirs.shape[1:]), theirs, rtol=0, atol=2e-3)
    assert ours.std() > 0 and ours.min() >= 0
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[n]) for n, p in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_finercam_of_one_class_is_gradcam_of_the_difference(kind):
    model = tiny(kind)
    pictures = images(3)
    finer = explain.explain(model, pictures, 1, "finercam", against=2, alpha=1.0)
    torch.testing.assert_close(finer, explain.explain(model, pictures, 1, "gradcam", against=2))
    weaker = explain.explain(model, pictures, 1, "finercam", against=2, alpha=0.0)
    torch.testing.assert_close(weaker, explain.explain(model, pictures, 1, "gradcam"))
    assert not torch.allclose(finer, weaker)


def test_finercam_compares_with_the_most_similar_classes():
    model, pictures = tiny("resnet"), images(2)
    x = models.prepare(model, pictures)
    logits = model(x).detach()
    near = (logits - logits[:, :1]).abs()
    near[:, 0] = torch.inf
    wanted = explain.explain(model, pictures, 0, "gradcam", against=near.argmin(1))
    one = explain.explain(model, pictures, 0, "finercam", comparisons=1)
    torch.testing.assert_close(one, wanted)


@pytest.mark.parametrize("pooled", ["resnet", "densenet"])
def test_cam_is_the_logit_and_gradcam_its_generalisation(pooled):
    """With global average pooling and one linear layer, CAM's cells sum to logit minus bias."""
    model = tiny("resnet") if pooled == "resnet" else make("DenseNet")[0]
    layer = "layer4" if pooled == "resnet" else "features"
    x, kept = torch.randn(2, 3, 64, 64), []
    hook = model.get_submodule(layer).register_forward_hook(
        lambda _, __, out: kept.append(out.relu())
    )
    logits = model(x)
    hook.remove()
    (maps,) = kept
    head = models.head(model)
    cam = torch.einsum("c,bchw->bhw", head.weight[1], maps)  # Zhou et al. 2016, eq. 2
    torch.testing.assert_close(cam.mean((1, 2)) + head.bias[1], logits[:, 1])
    if pooled == "resnet":  # DenseNet's ReLU after the layer is part of the tail
        gradcam = explain.METHODS["gradcam"].run(model, x, Question(1), batch=2, layer=layer)
        cells = maps.shape[2] * maps.shape[3]
        torch.testing.assert_close(gradcam, cam.relu() / cells)


def test_before_a_relu_in_place_gradcam_reads_what_the_layer_gave():
    """DenseNet's norm5: the ReLU after it overwrites the activations that pytorch-grad-cam keeps."""
    model, layer = make("DenseNet")[0], "features.norm5"
    with torch.no_grad():
        model.features.norm5.bias.normal_(0, 0.5)
    x, norm = torch.randn(2, 3, 64, 64), model.features.norm5
    ours = explain.METHODS["gradcam"].run(model, x, Question(1), batch=2, layer=layer)
    given, left, slopes = [], [], []

    def keep(_module, _inputs, output):
        given.append(output.detach().clone())
        left.append(output.detach())  # as a peer's hook keeps it: the same memory
        output.register_hook(slopes.append)

    norm.register_forward_hook(keep)
    model(x)[:, 1].sum().backward()
    weight = slopes[0].mean((2, 3), keepdim=True)
    torch.testing.assert_close(ours, (weight * given[0]).sum(1).relu())
    assert given[0].min() < 0 <= left[0].min()
    assert not torch.allclose(ours, (weight * left[0]).sum(1).relu())


# ---------------------------------------------------------------- which layer


SMALL = dict(depth=2, embed_dim=24, num_heads=3)


@pytest.mark.parametrize(
    "arch, layer, rows, smaller",
    [
        ("eva02_tiny_patch14_224", "blocks.1.norm1", 16, SMALL | dict(embed_dim=48)),
        ("xcit_nano_12_p16_224", "blocks.1.norm1", 14, SMALL | dict(embed_dim=48)),
        ("resmlp_12_224", "blocks.11.norm1", 14, {}),
        ("hrnet_w18_small", "final_layer", 7, {}),
        ("vit_small_patch16_18x2_224", "blocks.0", 14, SMALL),
        ("naflexvit_base_patch16_gap", "blocks.1.norm1", 24, SMALL),
    ],
)
def test_networks_of_tokens_and_lists_have_a_layer(arch, layer, rows, smaller):
    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=3, **smaller).eval()
    model.input_size, (model.mean, model.std) = model.default_cfg["input_size"][1], models.IMAGENET
    assert explain.layers(model)[-1] == layer
    models.head(model).weight.data.normal_(generator=torch.Generator().manual_seed(0))
    x, question = models.prepare(model, images(1)).repeat(2, 1, 1, 1), Question(torch.arange(2))
    heat = explain.METHODS["gradcam"].run(model, x, question, batch=2, layer=None)
    assert heat.shape == (2, rows, rows) and heat.isfinite().all() and heat.max() > 0


@pytest.mark.parametrize(
    "arch, message",
    [
        ("hiera_tiny_224", "Hiera keeps its patches in another order than the picture's.*saliency"),
        ("tnt_s_legacy_patch16_224", "'blocks.11' gives 2 tensors instead of one map: give layer="),
        ("pit_ti_224", "logits do not depend on the layer 'transformers.2': give layer="),
        ("coat_lite_tiny", "'serial_blocks4' takes no part in the forward pass: give layer="),
    ],
)
def test_networks_without_a_known_layer_say_so(arch, message):
    model = timm.create_model(arch, num_classes=3).eval()
    model.input_size, (model.mean, model.std) = 224, models.IMAGENET
    with pytest.raises(ValueError, match=message):
        explain.explain(model, images(1), 1)


class Thirteen(nn.Module):
    """Its stages happen to be called layer1 ... layer13."""

    def __init__(self) -> None:
        super().__init__()
        for i in range(1, 14):
            layer = nn.Sequential(nn.Conv2d(3 if i == 1 else 4, 4, 3, padding=1))
            setattr(self, f"layer{i}", layer)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(1, 14):
            x = getattr(self, f"layer{i}")(x).relu()
        return self.fc(x.mean((2, 3)))


def test_a_layer_is_a_default_only_where_it_is_known():
    model = models.wrap(Thirteen(), size=32)
    with pytest.raises(ValueError, match="for Thirteen: give layer=, such as 'layer13.0'"):
        explain.explain(model, images(1), 1)
    assert explain.explain(model, images(1), 1, layer="layer13").shape == (1, 32, 32)
    named = models.wrap(Thirteen(), size=32, layer="layer12")
    assert explain.layers(named) == ["layer12"]
    with pytest.raises(ValueError, match="no layer 'layer14': give one such as 'layer13.0'"):
        models.wrap(Thirteen(), size=32, layer="layer14")
    with pytest.raises(ValueError, match="no Grad-CAM layer 'layer14' in this model"):
        explain.explain(model, images(1), 1, layer="layer14")


def test_a_layer_whose_patches_the_head_does_not_read_is_refused():
    model = tiny("vit")
    with pytest.raises(ValueError, match="does not read the patches that leave 'blocks.1'"):
        explain.explain(model, images(1), 1, layer="blocks.1")
    with pytest.raises(ValueError, match="'head' gives .* neither feature maps nor a grid"):
        explain.explain(model, images(1), 1, layer="head")


def test_squeezenet_is_read_at_its_end():
    model = make("SqueezeNet")[0]
    assert explain.layers(model)[-1] == "features.12"
