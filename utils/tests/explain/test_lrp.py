"""Relevance: against the published code's numbers, zennit, and its own conservation law."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from timm.models import VisionTransformer
from torch import nn

from utils import models
from utils.explain import lrp


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    stored = np.load(Path(__file__).with_name("lrp_reference.npz"))
    return {key: torch.from_numpy(np.asarray(stored[key])) for key in stored.files}


@pytest.fixture(scope="module")
def vit(reference) -> nn.Module:
    model = VisionTransformer(
        img_size=32, patch_size=4, embed_dim=64, depth=3, num_heads=4, num_classes=10
    )
    model.load_state_dict(
        {key[3:]: value for key, value in reference.items() if key.startswith("sd/")}
    )
    return model.double().eval()


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
    model.fc.bias.data = torch.randn(10, generator=generator) * biases
    return model.double().eval()


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def inputs(n: int, size: int = 32) -> torch.Tensor:
    return torch.randn(
        n, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


def test_transformer_attribution_is_the_published_one(vit, reference):
    x, target = reference["x"].double(), int(reference["index"])
    assert error(lrp.transformer_attribution(vit, x, target), reference["ta"]) < 1e-4
    assert (
        error(lrp.transformer_attribution(vit, x, target, start_layer=1), reference["ta_start1"])
        < 1e-4
    )
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
    bare = (
        torchvision.models.resnet34(num_classes=10)
        if arch == "torchvision"
        else models.build(arch, 10, "none")
    )
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


def test_resnet_relevance_equals_zennit():
    composites = pytest.importorskip(
        "zennit.composites", reason="zennit, the peer, is not installed"
    )
    from zennit.torchvision import ResNetCanonizer

    model, x = make_resnet(torchvision.models.resnet34(num_classes=10)), inputs(1, 64)
    ours = lrp.resnet_relevance(model, x, 3)
    x.requires_grad_()
    with composites.EpsilonPlusFlat(canonizers=[ResNetCanonizer()]).context(model) as modified:
        logits = modified(x)
        start = torch.zeros_like(logits)
        start[:, 3] = logits[:, 3].detach()
        (theirs,) = torch.autograd.grad(logits, x, start)
    assert error(ours, theirs) < 1e-3


@pytest.mark.parametrize(
    "arch, name",
    [("resnet26", "Bottleneck"), ("resnet18d", "AvgPool2d"), ("seresnet18", "Sigmoid|SE")],
)
def test_other_cnns_are_refused_by_name(arch, name):
    with pytest.raises(ValueError, match=name):
        lrp.resnet_relevance(timm.create_model(arch, num_classes=3), inputs(1, 64).float())


def test_alexnet_is_refused_by_name():
    with pytest.raises(ValueError, match="AlexNet"):
        lrp.resnet_relevance(models.build("alexnet_slim", 3, "none"), inputs(1, 64).float())
