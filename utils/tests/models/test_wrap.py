"""models.wrap: classifiers of every origin give what they would give by hand, or one sentence."""

import pytest
import timm
import torch
import torchvision.models as tv
from torch import nn

from utils import data, explain, models
from utils.explain import attention
from utils.models.unwrap import logits_from
from utils.tests.conftest import images, randomise, tiny


class Small(nn.Module):
    """A classifier of one's own; `give` turns its logits into what forward returns."""

    def __init__(self, channels: int = 3, classes: int = 3, give=lambda logits: logits) -> None:
        super().__init__()
        torch.manual_seed(0)
        first = nn.Conv2d(channels, 8, 3, padding=1)
        self.body = nn.Sequential(first, nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.out = nn.Linear(8, classes)
        self.give = give

    def forward(self, x: torch.Tensor):
        return self.give(self.out(self.body(x).relu().mean((2, 3))))


class Object:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits, self.hidden = logits, logits[:, :1]


def by_hand(module: nn.Module, x: torch.Tensor, target: int) -> torch.Tensor:
    """Saliency."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(logits_from(module(x))[:, target].sum(), x)[0].abs().amax(1)


OUTPUTS = {
    "a tensor": lambda logits: logits,
    "an object": Object,
    "a dict": lambda logits: {"logits": logits, "features": logits[:, :1]},
    "a dict of one": lambda logits: {"scores": logits},
    "a tuple of one": lambda logits: (logits,),
    "logits and maps": lambda logits: (logits, logits[:, :, None, None]),
    "maps of one pixel": lambda logits: logits[:, :, None, None],
}


@pytest.mark.parametrize("give", OUTPUTS.values(), ids=OUTPUTS)
def test_logits_are_taken_out_of_what_a_model_returns(give):
    model = models.wrap(Small(give=give).train(), size=32)
    x = models.prepare(model, images(2))
    wanted = by_hand(model, x, 2)
    assert model.training  # as it was
    torch.testing.assert_close(explain.explain(model, images(2), 2, "saliency"), wanted)
    assert models.logits_of(model, images(2)).shape == (2, 3)
    assert explain.explain(model, images(2), 1, "gradcam", layer="body.2").shape == (2, 32, 32)


@pytest.mark.parametrize(
    "give, shape",
    [
        (lambda logits: (logits, logits[:, :2]), r"\(1, 3\) and \(1, 2\), and either may be"),
        (lambda logits: {"a": logits, "b": logits}, "NoneType, holds no logits"),
        (lambda logits: logits[:, :, None, None].expand(-1, -1, 4, 4), r"\(1, 3, 4, 4\), holds no"),
        (lambda logits: "cat", "str, holds no logits"),
    ],
)
def test_outputs_that_could_be_read_in_two_ways_are_refused(give, shape):
    with pytest.raises(ValueError, match=f"{shape}.*give models.wrap output="):
        models.wrap(Small(give=give), size=32)


def test_output_says_where_the_logits_are():
    module = Small(give=lambda logits: (logits[:, :2], logits))
    model = models.wrap(module, size=32, output=lambda given: given[1])
    x = models.prepare(model, images(1))
    torch.testing.assert_close(model(x), module(x)[1])
    assert models.outputs(model) == 3


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "Sequential": nn.Sequential,
    "OptimizedModule": lambda module: torch.compile(module, backend="eager"),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_are_taken_off_and_printed(name, capsys):
    vit = tiny("vit")
    outer = WRAPPERS[name](vit)
    model = models.wrap(outer)
    assert model is vit and f"taken out of {name}" in capsys.readouterr().out
    for method in ("gradcam", "attention"):
        wanted = explain.explain(vit, images(2), 1, method)
        torch.testing.assert_close(explain.explain(model, images(2), 1, method), wanted)
        torch.testing.assert_close(explain.explain(outer, images(2), 1, method), wanted)


@pytest.mark.parametrize("method", ["gradcam", "saliency", "attention_rollout", "lrp"])
def test_parts_that_are_compiled_or_recompute_give_the_same_maps(method):
    plain, other = tiny("vit", depth=3), tiny("vit", depth=3)
    other.set_grad_checkpointing()
    other.blocks[1].mlp.compile(backend="eager")
    wanted = explain.explain(plain, images(2), 1, method)
    torch.testing.assert_close(explain.explain(other, images(2), 1, method), wanted)
    assert other.grad_checkpointing  # as it was


@pytest.mark.parametrize(
    "module",
    [timm.create_model("resnet10t", num_classes=3), nn.Sequential(nn.Flatten(), nn.Linear(9, 2))],
)
def test_a_model_that_does_not_say_what_it_takes_names_the_remedy(module):
    with pytest.raises(ValueError, match="models.wrap"):
        explain.explain(module, images(1), 1, "saliency")


def test_torchvisions_weights_are_timms():
    """The same weights under the same names: the same maps."""
    torch.manual_seed(0)
    theirs = randomise(tv.resnet34(num_classes=5))
    ours = timm.create_model("resnet34", num_classes=5)
    ours.load_state_dict(theirs.state_dict())
    wrapped = [models.wrap(m, 64, *models.IMAGENET) for m in (theirs, ours)]
    for method, options in (("gradcam", {}), ("lrp", {}), ("integrated_gradients", dict(steps=4))):
        maps = [explain.explain(m, images(2), 1, method, **options) for m in wrapped]
        torch.testing.assert_close(*maps)


def test_weights_state_size_statistics_and_classes(capsys):
    weights = tv.EfficientNet_B1_Weights.IMAGENET1K_V1
    model = models.wrap(tv.resnet18(), weights=weights)
    assert model.input_size == weights.transforms().crop_size[0] == 240
    assert model.classes[:2] == ("tench", "goldfish") and len(model.classes) == 1000
    assert "240 x 240 pixels" in capsys.readouterr().out
    with pytest.raises(ValueError, match="weights=str states no size"):
        models.wrap(Small(), weights="IMAGENET1K_V1")


def test_timm_states_its_own(capsys):
    arch = "vit_tiny_patch16_224.augreg_in21k"
    model = models.wrap(timm.create_model(arch, num_classes=2, depth=1))
    assert (model.input_size, model.mean, model.std) == (224, (0.5,) * 3, (0.5,) * 3)
    assert "Grad-CAM at blocks.0.norm1" in capsys.readouterr().out


def test_pictures_that_are_not_square():
    model = models.wrap(randomise(timm.create_model("resnet10t", num_classes=3)), size=(48, 80))
    assert models.prepare(model, images(2)).shape == (2, 3, 48, 80)
    wide = torch.nn.functional.interpolate(images(2), (24, 40))
    x = data.preprocess(wide, (48, 80), model.mean, model.std)
    wanted = by_hand(model.eval(), x, 1)
    torch.testing.assert_close(models.prepare(model, wide), x)
    heat = explain.explain(model, wide, 1, "saliency")
    pooled = torch.nn.functional.avg_pool2d(wanted, 2)
    torch.testing.assert_close(heat, pooled, rtol=1e-4, atol=1e-6)
    vit = models.wrap(tiny("vit", img_size=(32, 64)), size=(32, 64))
    for method in ("gradcam", "attention", "lrp", "occlusion"):
        assert explain.explain(vit, wide, 1, method).shape == (2, 24, 40)


def test_grey_models_take_grey_pictures():
    model = models.wrap(Small(channels=1), size=32)
    assert len(model.mean) == len(model.std) == 1
    x = models.prepare(model, images(2))
    grey = (images(2).float() / 255 * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1)
    torch.testing.assert_close(x[:, 0], (grey - model.mean[0]) / model.std[0], rtol=0, atol=1e-5)
    for method in ("saliency", "integrated_gradients", "occlusion"):
        assert explain.explain(model, images(2), 1, method).shape == (2, 32, 32)
    with pytest.raises(ValueError, match="takes 5 channels .* images are RGB"):
        models.wrap(Small(channels=5))


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_half_precision_gives_nearly_the_same_maps(kind):
    single, half = tiny(kind), tiny(kind).bfloat16()
    for method in ("gradcam", "saliency"):
        a, b = (explain.explain(m, images(2), 1, method).flatten() for m in (single, half))
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.95 and b.dtype == torch.float32


class Normalising(Small):
    """It keeps its own mean and std, and uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.4))
        self.std, self.classes = 0.2, lambda: "a method"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward((x - self.mean) / self.std)


def test_a_models_own_attributes_are_left_alone():
    module = Normalising()
    model = models.wrap(module, size=32, mean=(0, 0, 0), std=(1, 1, 1), classes=("a", "b", "c"))
    assert torch.is_tensor(module.mean) and module.std == 0.2 and module.classes() == "a method"
    assert model.classes == ("a", "b", "c")
    wanted = by_hand(module, images(2).float() / 255, 1)
    torch.testing.assert_close(explain.explain(model, images(2), 1, "saliency"), wanted)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(classes=("a", "b")), "2 class names for 3 logits"),
        (dict(mean=(0.5, 0.5)), "mean and std have 2 values"),
        (dict(layer="body.9"), "no layer 'body.9': give one such as 'body.2'"),
        (dict(size=2), "fails on a 3 x 2 x 2 image"),
    ],
)
def test_bad_requests_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        models.wrap(Small(), **{"size": 32, **arguments})
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- one output, no output, no gradient


def test_one_output_is_explained_and_against_gives_its_negative():
    model = models.wrap(Small(classes=1, give=lambda logits: logits[:, 0]), size=32)
    for method, options in (("integrated_gradients", dict(steps=4)), ("occlusion", dict(grid=4))):
        question = dict(method=method, **options)
        for_it, against = (
            explain.explain(model, images(2), against=b, **question) for b in (None, 0)
        )
        torch.testing.assert_close(against, -for_it)
        assert for_it.std() > 0
    vit = tiny("vit", classes=1)
    for method in ("gradcam", "lrp", "gradient_rollout", "attnlrp"):
        maps = [explain.explain(vit, images(2), 0, method, against=b) for b in (None, 0)]
        assert not torch.allclose(*maps)


@pytest.mark.parametrize("method", ["attention", "attention_rollout", "eigencam"])
def test_a_backbone_without_a_head_shows_its_attention(method):
    backbone = models.build("vit_mini", 0, "none")
    assert explain.explain(backbone, images(2), method=method).shape == (2, 32, 32)
    assert attention.collect(backbone, images(2)).shape == (2, 12, 3, 65)


@pytest.mark.parametrize("method", ["saliency", "lrp", "occlusion"])
def test_a_backbone_has_no_class_to_explain(method):
    message = f"no class that {method} could explain: use one of eigencam, attention"
    with pytest.raises(ValueError, match=message):
        explain.explain(models.build("vit_mini", 0, "none"), images(2), method=method)


def test_quantised_layers_are_one_sentence():
    model = models.wrap(Small(), size=32)
    if "fbgemm" in torch.backends.quantized.supported_engines:
        torch.backends.quantized.engine = "fbgemm"
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    with pytest.raises(ValueError, match="Quantised layers of this Small have no derivative"):
        explain.explain(quantised, images(1), 1, "saliency")
    assert explain.explain(quantised, images(1), 1, "occlusion", grid=4).std() > 0


# ---------------------------------------------------------------- Hugging Face


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed")


def test_hugging_faces_classifiers(transformers, capsys):
    torch.manual_seed(0)
    small = dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    config = transformers.ResNetConfig(**small)
    config.id2label = {0: "ant", 1: "bee", 2: "cat"}
    module = randomise(transformers.ResNetForImageClassification(config))
    model = models.wrap(module, size=32)
    assert model.classes == ("ant", "bee", "cat")
    x = models.prepare(model, images(2))
    assert explain.layers(model)[-1] == "resnet.encoder.stages.1"
    wanted = by_hand(module.eval(), x, 1)
    torch.testing.assert_close(explain.explain(model, images(2), 1, "saliency"), wanted)
    maps = [explain.explain(model, images(2), c, "gradcam") for c in range(3)]
    assert torch.stack(maps).max() > 0


def test_hugging_faces_vit_becomes_timms(transformers, capsys):
    torch.manual_seed(0)
    small = dict(image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2)
    small |= dict(num_attention_heads=4, intermediate_size=80, num_labels=5)
    module = transformers.ViTForImageClassification(transformers.ViTConfig(**small))
    processor = transformers.ViTImageProcessor(
        size=dict(height=32, width=32), image_mean=[0.4] * 3, image_std=[0.3] * 3
    )
    model = models.wrap(module, weights=processor)
    assert "as timm's VisionTransformer, with equal logits" in capsys.readouterr().out
    assert (model.input_size, model.mean, model.std) == (32, (0.4,) * 3, (0.3,) * 3)
    for method in ("attention", "lrp", "gradcam"):
        assert explain.explain(model, images(2), 1, method).shape == (2, 32, 32)
    theirs = models.wrap(module, weights=processor, layer="vit.layers.1.layernorm_before")
    maps = [explain.explain(m, images(2), 1, "gradcam") for m in (theirs, model)]
    torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-6)


# ---------------------------------------------------------------- by name


def make() -> nn.Module:
    """What XTL_MODEL=utils.tests.models.test_wrap:make names."""
    return tiny("vit", classes=6)


def test_a_model_by_name(tmp_path, monkeypatch, transformers):
    from safetensors.torch import save_file

    original = models.build("vit_mini", 7, "none")
    save_file(original.state_dict(), tmp_path / "own.safetensors")
    loaded = models.resolve(f"vit_mini@{tmp_path / 'own.safetensors'}")
    assert models.outputs(loaded) == 7
    assert torch.equal(loaded.head.weight, original.head.weight)
    assert len(models.resolve("vit_mini").classes) == 10
    again = models.resolve("vit_mini", weights=tmp_path / "own.safetensors")
    assert torch.equal(again.head.weight, original.head.weight)
    save_file(tiny("vit", classes=6, seed=9).state_dict(), tmp_path / "six.safetensors")
    name = "utils.tests.models.test_wrap:make"
    loaded = models.resolve(name, weights=tmp_path / "six.safetensors")
    assert torch.equal(loaded.head.weight, tiny("vit", classes=6, seed=9).head.weight)
    assert models.outputs(models.resolve("utils.tests.models.test_wrap:make")) == 6

    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=3)
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "saved")
    assert models.outputs(models.resolve(f"hf:{tmp_path / 'saved'}")) == 3

    assert models.own("vit", 6) is None
    monkeypatch.setenv("XTL_MODEL", "utils.tests.models.test_wrap:make")
    assert models.outputs(models.own("vit", 6)) == 6 and models.own("cnn", 6) is None
    with pytest.raises(ValueError, match="tells 6 classes apart and the images have 10"):
        models.own("vit", 10)


@pytest.mark.parametrize(
    "name, kind, message",
    [
        ("resnet-fifty", ValueError, "no model 'resnet-fifty': use a timm or torchvision name"),
        ("no.such:thing", ValueError, "names no function that can be imported"),
        ("hf:/no/such/folder", FileNotFoundError, "no config.json with a .safetensors file"),
        ("vit_mini@weights.pth", ValueError, "weights.pth is not a .safetensors file"),
        ("vit_mini@gone.safetensors", FileNotFoundError, "no checkpoint gone.safetensors"),
    ],
)
def test_names_that_name_nothing(name, kind, message):
    with pytest.raises(kind, match=message):
        models.resolve(name)
