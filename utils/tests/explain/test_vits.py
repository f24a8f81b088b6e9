"""Other people's ViTs: every kind of token, pooling and norm, and two other libraries, from random weights."""

import pytest
import timm
import torch
import torchvision
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock, VisionTransformer
from torch import nn

from utils import explain, models
from utils.explain import attention, lrp
from utils.models import vit

DIFF = pytest.mark.skipif(
    not hasattr(timm.layers, "DiffAttention"), reason="this timm has no differential attention"
)
SMALL = dict(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=4)
KINDS = {
    "CLS": dict(),
    "two class tokens": dict(),
    "registers": dict(reg_tokens=3),
    "registers outside the positions": dict(reg_tokens=2, no_embed_class=True),
    "registers without CLS": dict(reg_tokens=2, class_token=False, global_pool="avg"),
    "average": dict(class_token=False, global_pool="avg"),
    "average beside CLS": dict(global_pool="avg"),
    "average with the prefix": dict(global_pool="avg", pool_include_prefix=True, fc_norm=False),
    "LayerScale": dict(init_values=0.1),
    "qk-norm": dict(qk_norm=True),
    "inner norms": dict(scale_attn_norm=True, scale_mlp_norm=True),
    "pre-norm": dict(pre_norm=True),
    "16x16": dict(patch_size=2, depth=2),
    "2x4": dict(img_size=(16, 32)),
    "one output": dict(num_classes=1),
}


def make(kind: str) -> nn.Module:
    """float64, every parameter random: a norm or a scale that is left out must show."""
    torch.manual_seed(0)
    build = VisionTransformerDistilled if kind == "two class tokens" else VisionTransformer
    model = build(**{**SMALL, **KINDS[kind]}).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def inputs(model: nn.Module, n: int = 4) -> torch.Tensor:
    size = model.patch_embed.img_size
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_relevance_on_every_kind(kind):
    model = make(kind)
    x = inputs(model)
    trace = lrp.relevance(model, x)
    assert trace.block_sums.shape == (4, len(model.blocks))
    assert (trace.block_sums - 1).abs().max() < 1e-9  # conserved
    _, gradients = attention.with_gradients(model, x)  # through timm's own forward
    torch.testing.assert_close(trace.attn_grad, gradients, rtol=1e-8, atol=1e-12)
    heat = lrp.transformer_attribution(model, x)
    rows, columns = model.patch_embed.grid_size
    assert heat.shape == (4, rows * columns) and heat.min() >= 0 and heat.amax(1).min() > 0
    singles = torch.cat([lrp.transformer_attribution(model, x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(heat, singles, rtol=1e-7, atol=1e-10)
    later = lrp.relevance(model, x, 0, start_layer=1)
    assert (later.block_sums - 1).abs().max() < 1e-9
    assert later.attn_cam.shape[1] == len(model.blocks) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_attention_on_every_kind(kind):
    model = make(kind)
    x = inputs(model)
    everything, _ = attention.with_gradients(model, x, 0)  # what timm itself multiplies with
    torch.testing.assert_close(attention.maps(model, x, "all"), everything)
    tokens = vit.tokens(model)
    wanted = everything[..., tokens.read, :].mean(-2)
    torch.testing.assert_close(attention.maps(model, x), wanted)
    n = model.patch_embed.num_patches
    for heat in (attention.rollout(everything, tokens), attention.gradient_rollout(model, x, 0)):
        assert heat.shape == (4, n) and heat.min() >= 0
    assert attention.rollout(everything, tokens).sum(1).max() < 1 + 1e-9
    far = attention.distance(everything, model.patch_embed.grid_size, tokens.prefix)
    assert far.shape == everything.shape[:3] and far.min() > 0


@pytest.mark.parametrize(
    "kind, row, read",
    [
        ("CLS", "CLS token", [0]),
        ("registers", "CLS token", [0]),
        ("two class tokens", "mean of CLS and distillation token", [0, 1]),
        ("average", "mean over the queries of all patches", list(range(16))),
        ("registers without CLS", "mean over the queries of all patches", list(range(2, 18))),
        ("average beside CLS", "mean over the queries of all patches", list(range(1, 17))),
        ("average with the prefix", "mean over the queries of all tokens", list(range(17))),
    ],
)
def test_the_row_is_that_of_the_tokens_that_decide(kind, row, read):
    """A change of a token after the last block moves the logits exactly if the layout lists it."""
    model = make(kind)
    x = inputs(model, 1)
    assert attention.row_name(model) == row
    moved, before = [], model(x)
    for token in range(model.num_prefix_tokens + model.patch_embed.num_patches):

        def push(_, __, out, token=token):
            out = out.clone()
            out[:, token] += torch.linspace(-1, 1, out.shape[-1])
            return out

        hook = model.blocks[-1].register_forward_hook(push)
        if (model(x) - before).abs().max() > 1e-9:
            moved.append(token)
        hook.remove()
    assert moved == read


@pytest.mark.parametrize("kind", ["two class tokens", "registers", "average"])
def test_explain_takes_them(kind):
    model = make(kind).float()
    model.input_size, (model.mean, model.std) = 32, models.IMAGENET
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    for method in ("lrp", "attention_rollout", "gradcam"):
        heat = explain.explain(model, images, method=method)
        assert heat.shape == (2, 32, 32) and heat.isfinite().all()


@pytest.mark.parametrize(
    "change, name",
    [
        (dict(global_pool="max"), "'max' pooling"),
        (dict(global_pool="map", class_token=False), "'map' pooling"),
        (dict(num_classes=0), "head that is not one linear layer"),
        (dict(block_fn=ParallelScalingBlock), "ParallelScalingBlock"),
        (dict(block_fn=ResPostBlock), "ResPostBlock"),
        (dict(mlp_layer=timm.layers.SwiGLU), "SwiGLU as mlp"),
        (dict(act_layer=nn.Tanh), "Tanh as mlp.act"),
        pytest.param(dict(attn_layer="diff"), "DiffAttention as attn", marks=DIFF),
    ],
)
def test_unknown_parts_are_refused_by_name(change, name):
    model = VisionTransformer(**{**SMALL, **change})
    with pytest.raises(ValueError, match=name):
        lrp.relevance(model, inputs(model, 1).float())


@pytest.mark.parametrize(
    "build, name",
    [
        (lambda: VisionTransformer(**SMALL, global_pool="max"), "'max' pooling"),
        (lambda: VisionTransformer(**SMALL, block_fn=ParallelScalingBlock), "ParallelScalingBlock"),
        pytest.param(
            lambda: VisionTransformer(**SMALL, attn_layer="diff"),
            r"DiffAttention as blocks\.0\.attn",
            marks=DIFF,
        ),
        (lambda: timm.create_model("beit_base_patch16_224", img_size=32, depth=1), "Beit"),
        (
            lambda: timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1)),
            "SwinTransformer",
        ),
    ],
)
def test_attention_refuses_by_name(build, name):
    with pytest.raises(ValueError, match=name):
        attention.maps(build(), torch.zeros(1, 3, 32, 32))


def test_max_pooling_still_shows_all_rows():
    model = VisionTransformer(**SMALL, global_pool="max")
    assert attention.maps(model, torch.zeros(1, 3, 32, 32), "all").shape == (1, 3, 3, 17, 17)


def torchvision_vit(**change) -> nn.Module:
    torch.manual_seed(0)
    small = dict(image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=80)
    model = torchvision.models.VisionTransformer(**small, num_classes=5, **change)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def check_converted(ours: nn.Module, theirs) -> None:
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    assert type(ours) is VisionTransformer and not ours.training
    assert (lrp.relevance(ours.double(), x.double()).block_sums - 1).abs().max() < 1e-9
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert explain.explain(ours, images, method="lrp").shape == (2, 32, 32)


def test_torchvision_becomes_timm():
    model = torchvision_vit().train()
    ours = vit.from_torchvision(model)
    assert model.training and model.encoder.training  # left as it was
    check_converted(ours, model.eval())


def test_torchvision_vit_b_16_has_a_place_for_every_weight():
    with torch.device("meta"):
        names = torchvision.models.vit_b_16().state_dict()
        wanted = timm.create_model("vit_base_patch16_224").state_dict()
    found = vit._renamed(names, vit.TORCHVISION, "vit_b_16")
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in wanted.items()}


def test_torchvision_variants_are_refused_by_name():
    with pytest.raises(ValueError, match=r"heads\.pre_logits"):
        vit.from_torchvision(torchvision_vit(representation_size=16))
    with pytest.raises(ValueError, match="VisionTransformer is not torchvision's"):
        vit.from_torchvision(VisionTransformer(**SMALL))
    changed = torchvision_vit()
    changed.encoder.layers[0].mlp[1] = nn.ReLU()
    with pytest.raises(ValueError, match="changes its logits"):
        vit.from_torchvision(changed)


@pytest.fixture
def hugging_vit():
    """A small random ViTForImageClassification; skipped where Hugging Face's library is absent."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")

    def build(**change):
        torch.manual_seed(0)
        small = dict(image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2)
        small |= dict(num_attention_heads=4, intermediate_size=80, num_labels=5)
        config = transformers.ViTConfig(**small, **change)
        model = transformers.ViTForImageClassification(config)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        return model

    return build


def test_hugging_face_becomes_timm(hugging_vit):
    model = hugging_vit()
    ours = vit.from_huggingface(model)
    assert ours.mean == (0.5,) * 3
    check_converted(ours, lambda x: model.eval()(x).logits)
    plain = vit.from_huggingface(hugging_vit(qkv_bias=False))
    assert plain.blocks[0].attn.qkv.bias is None
    with pytest.raises(ValueError, match="changes its logits"):
        vit.from_huggingface(hugging_vit(hidden_act="relu"))


def test_hugging_face_names_of_both_generations():
    """Version 4 of the library wrote other names into the same files than version 5."""
    old, new = "vit.encoder.layer.1.", "vit.layers.1."
    pairs = [
        ("attention.attention.query.bias", "attention.q_proj.bias"),
        ("attention.attention.key.bias", "attention.k_proj.bias"),
        ("attention.attention.value.bias", "attention.v_proj.bias"),
        ("attention.output.dense.weight", "attention.o_proj.weight"),
        ("intermediate.dense.weight", "mlp.fc1.weight"),
        ("output.dense.weight", "mlp.fc2.weight"),
        ("layernorm_after.weight", "layernorm_after.weight"),
    ]
    both = []
    for start, names in zip((old, new), zip(*pairs, strict=True), strict=True):
        state = {start + name: torch.full((2,), i) for i, name in enumerate(names)}
        both.append(vit._renamed(state, vit.HUGGINGFACE, "ViT"))
    assert both[0].keys() == both[1].keys()
    assert both[0].keys() >= {"blocks.1.attn.qkv.bias", "blocks.1.attn.proj.weight"}
    assert all(torch.equal(both[0][key], both[1][key]) for key in both[0])
    assert both[0]["blocks.1.attn.qkv.bias"].tolist() == [0, 0, 1, 1, 2, 2]


def test_other_models_are_not_hugging_face():
    with pytest.raises(ValueError, match="Linear is not Hugging Face's"):
        vit.from_huggingface(nn.Linear(2, 2))
