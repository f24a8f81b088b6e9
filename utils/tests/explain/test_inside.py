"""Inside a ViT: the parts sum to the score, the lens ends at the output, norms are the tokens'."""

import copy

import pytest
import timm
import torch
from torch import nn

from utils import models
from utils.explain import attention, inside
from utils.models import Question
from utils.tests.explain.conftest import VITS, randomised, small


def make(name: str = "plain") -> nn.Module:
    if name == "distilled":
        model = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, num_classes=5)
        return randomised(model)
    return randomised(small(name, depth=3))


def inputs(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("name", [*VITS, "distilled"])
@pytest.mark.parametrize("question", [Question(), Question(3), Question(3, 1)])
def test_parts_sum_to_the_score(name, question):
    model, x = make(name), inputs(2)
    parts = inside.contributions(model, x, question)
    with torch.no_grad():
        wanted = question.score(model(x))
    total = parts.embedding + parts.heads.sum((1, 2)) + parts.mlps.sum(1) + parts.biases
    torch.testing.assert_close(total, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.score, wanted)
    assert parts.heads.shape[1:] == (len(model.blocks), model.blocks[0].attn.num_heads)
    for part in (parts.embedding, parts.mlps, parts.biases):
        assert part.abs().min() > 1e-6


def test_a_head_of_the_last_block_adds_what_its_absence_takes_with_the_norm_frozen():
    """The last block's MLP is silenced, so nothing comes after the head but the frozen norm."""
    model, x = make(), inputs(2)
    model.blocks[2].mlp.fc2.weight.data.zero_()
    parts = inside.contributions(model, x, Question(1))
    tokens = []
    hook = model.norm.register_forward_pre_hook(lambda _, given: tokens.append(given[0]))
    with torch.no_grad():
        model(x)
        with attention.ablated(model, 2, 3):
            model(x)
    hook.remove()
    before, after = (t[:, 0] for t in tokens)
    gone = before - after
    gone = (gone - gone.mean(1, keepdim=True)) / before.var(1, correction=0, keepdim=True).sqrt()
    wanted = (gone * model.norm.weight) @ model.head.weight[1]
    torch.testing.assert_close(parts.heads[:, 2, 3], wanted.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [*VITS, "distilled"])
def test_lens_ends_at_the_output(name):
    model, x = make(name), inputs(2)
    lens = inside.logit_lens(model, x)
    with torch.no_grad():
        torch.testing.assert_close(lens[:, -1], model(x), rtol=1e-5, atol=1e-5)
    assert lens.shape == (2, len(model.blocks), 5)
    model.blocks = model.blocks[:-1]  # the last but one: a model that is one block shorter
    with torch.no_grad():
        torch.testing.assert_close(lens[:, -2], model(x), rtol=1e-5, atol=1e-5)


def test_norms_are_those_of_the_patch_tokens():
    model, x = make("registers"), inputs(2)
    tokens = []
    model.blocks[1].register_forward_hook(lambda _, __, out: tokens.append(out))
    norms = inside.patch_norms(model, x)
    with torch.no_grad():
        model(x)
    assert norms.shape == (2, 3, 16)
    torch.testing.assert_close(norms[:, 1], tokens[-1][:, 5:].norm(dim=-1).detach())
    long = inside.outliers(torch.tensor([[1.0, 1.1, 0.9, 5.0]]))
    assert long.tolist() == [[False, False, False, True]]


def test_low_precision_and_refusals():
    model, x = make().float(), inputs(2).float()
    half = copy.deepcopy(model).half()
    ours = inside.contributions(half, x.half(), 1)
    wanted = inside.contributions(copy.deepcopy(half).float(), x.half().float(), 1)
    assert torch.equal(ours.heads, wanted.heads) and next(half.parameters()).dtype == torch.float16
    changed = copy.deepcopy(model)
    changed.blocks[1].register_forward_hook(lambda _, __, out: 2 * out)
    for run in (inside.contributions, inside.logit_lens):
        with pytest.raises(ValueError, match="not the standard one"):
            run(changed, x)
        with pytest.raises(ValueError, match="ResNet is not known"):
            run(models.build("resnet34_slim", 3, "none"), x)
