"""Relevance: against the published code's numbers, zennit, and its own conservation law."""

import copy
import types

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import VGG, make_layers

from utils import models
from utils.explain import explain, lrp
from utils.models import Question
from utils.tests.explain.conftest import published_vit, stored


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return stored("lrp")


@pytest.fixture(scope="module")
def vit(reference) -> nn.Module:
    return published_vit(reference)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def small_vgg(batch_norm: bool = False) -> nn.Module:
    """torchvision's VGG with few channels and a narrow classifier."""
    with torch.device("meta"):  # its own classifier would take half a gigabyte
        model = VGG(nn.Identity(), num_classes=10, init_weights=False)
    model.features = make_layers([16, "M", 32, "M", 32, 32, "M", 512, "M"], batch_norm)
    model.classifier[0] = nn.Linear(512 * 49, 32)
    model.classifier[3], model.classifier[6] = nn.Linear(32, 32), nn.Linear(32, 10)
    return model


def make_cnn(name: str) -> nn.Module:
    torch.manual_seed(0)  # the same weights however often it is called
    if name.startswith("vgg"):
        return make_resnet(small_vgg(name.endswith("bn")))
    if name == "alexnet":
        return make_resnet(models.build("alexnet_slim", 10, "none"))
    return make_resnet(getattr(torchvision.models, name)(num_classes=10))


def make_resnet(model: nn.Module, biases: bool = True) -> nn.Module:
    """Random batch norm statistics, so that folding has something to get wrong; float64."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            n = module.num_features
            module.running_var = torch.rand(n, generator=generator) + 0.5
            module.weight.data = torch.rand(n, generator=generator) * 0.5 + 0.5
            module.running_mean = torch.randn(n, generator=generator) * 0.2 * biases
            module.bias.data = torch.randn(n, generator=generator) * 0.2 * biases
    if hasattr(model, "fc"):
        model.fc.bias.data = torch.randn(10, generator=generator) * biases
    return model.double().eval()


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def inputs(n: int, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, size, size, generator=generator, dtype=torch.float64)


def test_transformer_attribution_is_the_published_one(vit, reference):
    x, target = reference["x"].double(), int(reference["index"])
    for start, name in ((0, "ta"), (1, "ta_start1")):
        assert error(lrp.transformer_attribution(vit, x, target, start), reference[name]) < 1e-4
    assert error(lrp.relevance_rollout(vit, x, target), reference["rollout"]) < 1e-4


def test_trace_is_the_published_one(vit, reference):
    trace = lrp.relevance(vit, reference["x"].double(), int(reference["index"]))
    assert error(trace.attn_cam[0], reference["attn_cam"]) < 1e-4
    assert error(trace.attn_grad[0], reference["attn_gradients"]) < 1e-6


@pytest.mark.parametrize("arch", ["reference", "vit_mini"])
def test_relevance_is_conserved_at_every_block(vit, arch):
    model = vit if arch == "reference" else models.build(arch, 10, "none").double()
    trace = lrp.relevance(model, inputs(4))
    assert trace.block_sums.shape == (4, len(model.blocks))
    assert (trace.block_sums - 1).abs().max() < 1e-9
    assert (trace.tokens.sum((1, 2)) - 1).abs().max() < 1e-9


def test_vit_batch_equals_singles(vit):
    x, targets = inputs(8), torch.arange(8)
    batch = lrp.relevance(vit, x, targets)
    for i in range(8):
        single = lrp.relevance(vit, x[i : i + 1], int(targets[i]))
        assert error(batch.attn_cam[i], single.attn_cam[0]) < 1e-8
        assert error(batch.attn_grad[i], single.attn_grad[0]) < 1e-8


def test_relevance_works_frozen_and_leaves_the_model_alone():
    model = models.build("vit_mini", 10, "none").requires_grad_(False).train()
    model.blocks[0].eval()
    modes = [m.training for m in model.modules()]
    with torch.no_grad():
        trace = lrp.relevance(model, inputs(1).float())
    assert trace.attn_grad.abs().max() > 0 and not trace.attn_cam.requires_grad
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_mean_rule_conserves_and_follows_the_sign_of_the_mean():
    x = torch.tensor([[[3.0, 1.0], [1.0, -4.0], [-2.0, 0.0]]])
    r = lrp.mean_rule(x, torch.tensor([[0.8, 0.2]]))
    torch.testing.assert_close(r, torch.tensor([[[0.6, 0.0], [0.2, 0.2], [0.0, 0.0]]]))


def test_bad_targets_and_layers_are_refused(vit):
    with pytest.raises(ValueError, match=r"Target .*10.* classes 0\.\.9"):
        lrp.relevance(vit, inputs(1), 10)
    with pytest.raises(ValueError, match="3 targets for 2 images"):
        lrp.relevance(vit, inputs(2), torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"start_layer 3 .* 0\.\.2"):
        lrp.transformer_attribution(vit, inputs(1), start_layer=3)


@pytest.mark.parametrize("arch", ["resnet34_slim", "torchvision"])
def test_resnet_relevance_sums_to_the_logit_without_biases(arch):
    theirs = torchvision.models.resnet34(num_classes=10)
    bare = theirs if arch == "torchvision" else models.build(arch, 10, "none")
    model, x = make_resnet(bare, biases=False), inputs(2, 64)
    for targets in (None, 3):
        r = lrp.resnet_relevance(model, x, targets)
        logits = model(x).detach()
        wanted = logits.amax(1) if targets is None else logits[:, targets]
        assert r.shape == x.shape
        torch.testing.assert_close(r.sum((1, 2, 3)), wanted, rtol=1e-3, atol=0)


def test_resnet_biases_take_their_part():
    model, x = make_resnet(models.build("resnet34_slim", 10, "none")), inputs(1, 64)
    lost = (lrp.resnet_relevance(model, x).sum() / model(x).max() - 1).abs()
    assert lost > 1e-3  # so the test above needs its biases zeroed


def test_resnet_batch_equals_singles_and_nothing_is_left_behind():
    model, x = make_resnet(models.build("resnet34_slim", 10, "none")).train(), inputs(4, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = lrp.resnet_relevance(model, x)
    singles = torch.cat([lrp.resnet_relevance(model, x[i : i + 1]) for i in range(4)])
    assert error(batch, singles) < 1e-6
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and model.training
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "vgg", "vgg_bn", "alexnet"])
def test_cnn_relevance_equals_zennit(name):
    composites = pytest.importorskip("zennit.composites", reason="zennit is not installed")
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    model, x = make_cnn(name), inputs(1, 128 if name == "alexnet" else 64)
    canonizer = ResNetCanonizer() if name.startswith("resnet") else VGGCanonizer()
    for question in (Question(3), Question(3, 5)):
        ours = lrp.resnet_relevance(model, x, question)
        given = x.clone().requires_grad_()
        with composites.EpsilonPlusFlat(canonizers=[canonizer]).context(model) as modified:
            logits = modified(given)
            start = question.weights(logits.detach()) * logits.detach()
            (theirs,) = torch.autograd.grad(logits, given, start)
        assert error(ours, theirs) < 1e-3


def test_timm_gives_torchvisions_map():
    for name in ("resnet18", "resnet50"):
        theirs, x = make_cnn(name), inputs(1, 64)
        ours = timm.create_model(name, num_classes=10).double().eval()
        ours.load_state_dict(theirs.state_dict())
        assert error(lrp.resnet_relevance(ours, x, 3), lrp.resnet_relevance(theirs, x, 3)) < 1e-9
    theirs = make_cnn("vgg")
    ours = timm.models.VGG([16, "M", 32, "M", 32, 32, "M", 512, "M"], 10, mlp_ratio=1 / 128)
    state = theirs.state_dict()
    ours.pre_logits.fc1 = nn.Conv2d(512, 32, 7)
    ours.pre_logits.fc2, ours.head.fc = nn.Conv2d(32, 32, 1), nn.Linear(32, 10)
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2"}
    names["classifier.6"] = "head.fc"
    for old, new in names.items():
        layer = ours.get_submodule(new)
        state[f"{new}.weight"] = state.pop(f"{old}.weight").view_as(layer.weight)
        state[f"{new}.bias"] = state.pop(f"{old}.bias")
    ours.load_state_dict(state)
    ours = ours.double().eval()
    for size in (64, 112):
        x = inputs(1, size)
        assert error(lrp.resnet_relevance(ours, x, 3), lrp.resnet_relevance(theirs, x, 3)) < 1e-3


def test_against_is_the_difference_and_turns_its_sign():
    model, x = make_resnet(models.build("resnet34_slim", 10, "none"), biases=False), inputs(2, 64)
    ours, cat, dog, turned = (
        lrp.resnet_relevance(model, x, question)
        for question in (Question(3, 5), Question(3), Question(5), Question(5, 3))
    )
    assert error(ours, cat - dog) < 1e-9 and error(ours, -turned) < 1e-9
    with torch.no_grad():
        logits = model(x)
    torch.testing.assert_close(
        ours.sum((1, 2, 3)), logits[:, 3] - logits[:, 5], rtol=1e-3, atol=1e-4
    )


def test_vit_against_asks_the_gradient_of_the_difference(vit):
    x = inputs(2)
    ours, cat, dog, turned = (
        lrp.relevance(vit, x, question)
        for question in (Question(3, 5), Question(3), Question(5), Question(5, 3))
    )
    assert error(ours.attn_grad, cat.attn_grad - dog.attn_grad) < 1e-9
    assert torch.equal(ours.attn_cam, cat.attn_cam) and torch.equal(ours.targets, cat.targets)
    one, other = (lrp.transformer_attribution(vit, x, q) for q in (Question(3, 5), Question(5, 3)))
    assert one.min() >= 0 and one.max() > 0 and error(one, other) > 0.1
    assert error(ours.attn_grad, -turned.attn_grad) < 1e-9


@pytest.mark.parametrize(
    ("arch", "method"),
    [("vit_mini", "lrp"), ("vit_mini", "attnlrp"), ("resnet34_slim", "lrp")],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_16_bit_models_map_is_that_of_its_rounded_weights(arch, method, dtype):
    """What it differs from the 32-bit model's is the rounding of the weights, and nothing else."""
    model = models.build(arch, 10, "none")
    low = copy.deepcopy(model).to(dtype)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    ours = explain(low, images, 3, method)
    assert torch.equal(ours, explain(copy.deepcopy(low).float(), images, 3, method))
    assert not torch.equal(ours, explain(model, images, 3, method))
    assert ours.dtype == torch.float32 and {p.dtype for p in low.parameters()} == {dtype}


@pytest.mark.parametrize("arch", ["vit_mini", "resnet34_slim"])
def test_autocast_gives_the_map_without_it(arch):
    model = models.build(arch, 10, "none")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    wanted = explain(model, images, 3, "lrp")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(explain(model, images, 3, "lrp"), wanted)
        assert torch.is_autocast_enabled("cpu")


class Mirrored(torchvision.models.ResNet):
    """A class of its own: it looks at the mirrored picture as well."""

    def forward(self, x):
        return super().forward(x) + super().forward(x.flip(-1))


def test_a_model_that_is_not_its_class_is_refused():
    own = Mirrored(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1]).eval()
    block = models.build("vit_mini", 10, "none")
    block.blocks[3].forward = types.MethodType(lambda self, x: x + self.mlp(x), block.blocks[3])
    hooked = models.build("vit_mini", 10, "none")
    hooked.register_forward_hook(lambda _, __, logits: 2 * logits)
    changed = models.build("resnet34_slim", 10, "none")
    layer = changed.layer2[0]
    layer.forward = types.MethodType(lambda self, x: 1.1 * self.downsample(x), layer)
    for model in (own, block, hooked, changed):
        vit_like = hasattr(model, "blocks")
        run = lrp.transformer_attribution if vit_like else lrp.resnet_relevance
        with pytest.raises(ValueError, match=r"not the standard one.*use gradcam"):
            run(model, inputs(1).float(), 0)


@pytest.mark.parametrize(
    "arch, name",
    [
        ("resnet18d", "AvgPool2d|pooled"),
        ("seresnet18", "Sigmoid|SE"),
        ("mobilenetv3_small_050", "."),
    ],
)
def test_other_cnns_are_refused_by_name_with_methods_that_work(arch, name):
    with pytest.raises(ValueError, match=name) as refusal:
        lrp.resnet_relevance(timm.create_model(arch, num_classes=3), inputs(1, 64).float())
    assert "use gradcam, integrated_gradients, occlusion or shapley" in str(refusal.value)
