"""explain(): one contract for all methods, and each method against an independent computation."""

import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from utils import data, explain, models
from utils.explain import lrp, methods
from utils.models import Question
from utils.tests.conftest import QUICK, randomise, tiny
from utils.tests.conftest import images as pictures


def make(arch: str) -> nn.Module:
    torch.manual_seed(0)
    model = randomise(models.build(arch, 10, "none"))
    if arch == "resnet34_slim":
        model.input_size = 64  # quick; the last stage is 2 x 2
    return model


@pytest.fixture(scope="module")
def nets() -> dict[str, nn.Module]:
    return {arch: make(arch) for arch in ("resnet34_slim", "vit_mini", "alexnet_slim")}


PAIRS = [
    (arch, name)
    for arch, kind in (("resnet", "cnn"), ("vit", "vit"))
    for name, method in explain.METHODS.items()
    if kind in method.works_on
]


@pytest.mark.parametrize("arch, method", PAIRS)
def test_contract(arch, method, capfd):
    model, images, options = tiny(arch), pictures(3), QUICK.get(method, {})
    model.input_size = 64 if arch == "resnet" else 32  # a last stage of 2 x 2
    model.requires_grad_(False).train()  # frozen, in train mode, inside no_grad: the hard case
    (model.layer1 if arch == "resnet" else model.blocks[0]).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    with torch.no_grad():
        batch = explain.explain(model, images, None, method, chunk=2, **options)
    assert [m.training for m in model.modules()] == modes
    assert not capfd.readouterr().err  # no progress bars
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    model.eval().requires_grad_(True)
    assert batch.shape == (3, 32, 32)
    assert batch.dtype == torch.float32 and batch.device.type == "cpu"
    assert batch.flatten(1).std(1).min() > 0  # a constant map explains nothing
    assert (batch.min() < 0) <= explain.METHODS[method].signed
    singles = torch.cat(
        [explain.explain(model, images[i : i + 1], None, method, **options) for i in range(3)]
    )
    torch.testing.assert_close(batch, singles, rtol=2e-3, atol=2e-3 * batch.abs().max().item())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(
    "arch, layer",
    [
        ("resnet34_slim", "layer3.5"),
        ("resnet34_slim", None),
        ("vit_mini", None),
        ("vit_mini", "blocks.4.norm1"),
        ("alexnet_slim", None),
    ],
)
def test_gradcam_equals_pytorch_grad_cam(nets, arch, layer):
    model = nets[arch]
    images = pictures(2, model.input_size)
    ours = explain.explain(model, images, torch.tensor([1, 7]), "gradcam", layer=layer)
    on_grid = lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (8, 8))  # noqa: E731
    reshape = on_grid if arch == "vit_mini" else None
    target = model.get_submodule(layer or explain.layers(model)[-1])
    x = data.preprocess(images, model.input_size, model.mean, model.std)
    with GradCAM(model, [target], reshape_transform=reshape) as peer:
        theirs = torch.from_numpy(peer(x, [ClassifierOutputTarget(1), ClassifierOutputTarget(7)]))
    model.zero_grad(set_to_none=True)
    low, high = ours.amin((1, 2), True), ours.amax((1, 2), True)
    assert (high > low).any()
    torch.testing.assert_close((ours - low) / (high - low + 1e-7), theirs, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "arch", ["convnext_atto", "efficientnet_b0", "swin_tiny_patch4_window7_224"]
)
def test_other_timm_models_explain_their_stages(arch):
    torch.manual_seed(0)
    model = models.build(arch, 3, "none")
    for module in model.modules():
        if hasattr(module, "gamma") and isinstance(module.gamma, nn.Parameter):
            nn.init.ones_(module.gamma)  # fresh ConvNeXt blocks are almost the identity
    # fresh networks' maps are so faint that the peer's 1e-7 counts
    models.head(model).weight.data.mul_(1e7)
    names = explain.layers(model)
    channels_last = arch.startswith("swin")
    x = data.preprocess(pictures(2, 64), model.input_size, model.mean, model.std)
    for name in (names[1], names[-1]):
        question, targets = Question(torch.tensor([1, 2])), map(ClassifierOutputTarget, (1, 2))
        ours = explain.METHODS["gradcam"].run(model, x, question, batch=2, layer=name)
        reshape = (lambda t: t.movedim(-1, 1)) if channels_last else None
        with GradCAM(model, [model.get_submodule(name)], reshape_transform=reshape) as peer:
            theirs = torch.from_numpy(peer(x, list(targets)))
        assert 2 < ours.shape[1] == ours.shape[2] < model.input_size, (name, ours.shape)
        ours = F.interpolate(ours[:, None], theirs.shape[1:], mode="bilinear")[:, 0]
        low, high = ours.amin((1, 2), True), ours.amax((1, 2), True)
        torch.testing.assert_close((ours - low) / (high - low + 1e-7), theirs, rtol=0, atol=5e-3)


def test_gradcam_layers_are_all_usable(nets):
    assert explain.layers(nets["resnet34_slim"])[-1] == "layer4.2"
    assert len(explain.layers(nets["vit_mini"])) == 12
    assert explain.layers(nets["alexnet_slim"])[-1] == "features.11"
    maps = [
        explain.explain(nets["vit_mini"], pictures(1), 0, "gradcam", layer=n)
        for n in ("blocks.0.norm1", "blocks.11.norm1")
    ]
    assert not torch.allclose(*maps)


def test_targets_change_the_map_and_none_is_the_prediction(nets):
    model, images = nets["resnet34_slim"], pictures(2)
    x = data.preprocess(images, model.input_size, model.mean, model.std)
    predicted = model(x).argmax(1)
    by_default = explain.explain(model, images, None, "saliency")
    assert torch.equal(by_default, explain.explain(model, images, predicted, "saliency"))
    other = explain.explain(model, images, (predicted + 1) % 10, "saliency")
    assert not torch.allclose(by_default, other)


def test_saliency_and_smoothgrad_are_gradients(nets):
    model, images = nets["vit_mini"], pictures(2)
    x = data.preprocess(images, 32, model.mean, model.std).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, 4].sum(), x)
    saliency = explain.explain(model, images, 4, "saliency")
    torch.testing.assert_close(saliency, gradient.abs().amax(1))
    still = explain.explain(model, images, 4, "smoothgrad", samples=2, sigma=0.0)
    torch.testing.assert_close(still, gradient.abs().sum(1), rtol=1e-4, atol=1e-6)
    noisy, other = (
        explain.explain(model, images, 4, "smoothgrad", samples=2, seed=seed) for seed in (0, 1)
    )
    assert not torch.allclose(noisy, still) and not torch.allclose(noisy, other)


def test_lrp_is_the_module_of_that_name(nets):
    images = pictures(2, 64)
    model = nets["resnet34_slim"]
    x = data.preprocess(images, 64, model.mean, model.std)
    wanted = lrp.resnet_relevance(model, x, 2).sum(1)
    torch.testing.assert_close(explain.explain(model, images, 2, "lrp"), wanted)
    model, images = nets["vit_mini"], pictures(2, 8)  # 8 x 8 patches: maps come back as they are
    x = data.preprocess(images, 32, model.mean, model.std)
    wanted = lrp.transformer_attribution(model, x, 2, 3).view(2, 8, 8).detach()
    torch.testing.assert_close(explain.explain(model, images, 2, "lrp", start_layer=3), wanted)


@pytest.mark.parametrize("arch", ["resnet34_slim", "vit_mini"])
def test_integrated_gradients_are_complete_by_default(nets, arch):
    images = pictures(3, nets[arch].input_size)
    predicted = explain.integrated_gradients(nets[arch], images)
    assert (predicted.completeness_error < 0.01 * predicted.difference.abs()).all()
    torch.testing.assert_close(predicted.maps.sum((1, 2)), predicted.difference, rtol=0.01, atol=0)
    assert predicted.steps.min() >= 32


def test_integrated_gradients_report_honestly(nets):
    model, images = nets["resnet34_slim"], pictures(2, 64)
    rough = explain.integrated_gradients(model, images, 3, steps=1, baseline="mean")
    assert rough.steps.tolist() == [1, 1]
    wanted = (rough.maps.sum((1, 2)) - rough.difference).abs()
    torch.testing.assert_close(rough.completeness_error, wanted, rtol=1e-3, atol=1e-4)
    x = data.preprocess(images, 64, model.mean, model.std)
    with torch.no_grad():
        difference = model(x)[:, 3] - model(torch.zeros_like(x))[:, 3]
    torch.testing.assert_close(rough.difference, difference, rtol=1e-4, atol=1e-5)
    black = explain.integrated_gradients(model, torch.zeros_like(images), 3, steps=2)
    assert black.maps.abs().max() < 1e-6  # nothing to explain between black and black
    blurred = explain.integrated_gradients(model, images, 3, steps=1, baseline="blur")
    assert not torch.allclose(blurred.maps, rough.maps)


def test_maps_take_the_size_of_the_images(nets):
    images = pictures(1, 64)
    small = explain.explain(nets["resnet34_slim"], images, 1, "saliency")
    odd = F.interpolate(images, (40, 90))
    assert explain.explain(nets["resnet34_slim"], odd, 1, "gradcam").shape == (1, 40, 90)
    averaged = methods._resize(small, (32, 32))
    torch.testing.assert_close(averaged, F.avg_pool2d(small, 2))


def test_a_coarse_map_can_keep_its_cells(nets):
    images, net = pictures(2, 32), nets["resnet34_slim"]
    drawn = explain.explain(net, images, 1, "layercam", cells=True)
    side = 32 // len(drawn[0].unique_consecutive(dim=0))
    assert side > 1 and drawn.shape == (2, 32, 32)
    squares = F.max_pool2d(drawn[:, None], side)[:, 0]
    torch.testing.assert_close(drawn, squares.repeat_interleave(side, 1).repeat_interleave(side, 2))
    smooth = explain.explain(net, images, 1, "layercam")
    assert len(smooth[0].unique()) > len(drawn[0].unique())


@pytest.mark.parametrize(
    "arch, arguments, message",
    [
        ("vit_mini", dict(method="magic"), "no method 'magic': use one of saliency"),
        ("vit_mini", dict(method="saliency", layer="x"), "saliency has no option 'layer'"),
        ("vit_mini", dict(layer="blocks.99"), "no Grad-CAM layer 'blocks.99'.*blocks.0.norm1"),
        ("resnet34_slim", dict(method="attention_rollout"), "does not work on a ResNet.*gradcam"),
        ("resnet34_slim", dict(method="lrp", start_layer=2), "Vision Transformers only"),
        ("vit_mini", dict(method="integrated_gradients", baseline="pink"), "'pink': use one of"),
        ("vit_mini", dict(method="integrated_gradients", steps=0), "at least 1 step"),
        ("vit_mini", dict(method="smoothgrad", samples=0), "samples >= 1"),
        ("vit_mini", dict(targets=10), "classes 0..9"),
        ("vit_mini", dict(targets=torch.tensor([1, 2])), "2 targets for 1 images"),
        ("vit_mini", dict(chunk=0), "chunk must be at least 1"),
    ],
)
def test_bad_requests_are_refused(nets, arch, arguments, message):
    with pytest.raises(ValueError, match=message):
        explain.explain(nets[arch], pictures(1), **arguments)


def test_odd_inputs_are_refused(nets):
    with pytest.raises(ValueError, match=r"uint8 \(B, 3, h, w\)"):
        explain.explain(nets["vit_mini"], torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="neither"):
        explain.kind(nn.Linear(2, 2))


def test_blur_region_changes_only_the_box():
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    changed = explain.blur_region(images, (4, 8, 20, 24))
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[4:20, 8:24] = True
    assert torch.equal(changed[..., ~inside], images[..., ~inside])
    assert changed[..., inside].float().std() < images[..., inside].float().std() / 2
    with pytest.raises(ValueError, match="does not lie in an image"):
        explain.blur_region(images, (0, 0, 40, 10))
