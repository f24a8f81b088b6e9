"""Layer-wise relevance propagation for ResNets: from one logit back to the pixels.

The usual composite for CNNs (Montavon et al., "Layer-Wise Relevance Propagation: An Overview",
2019, section 10.3): epsilon in the head, z+ in the body, flat at the input. The forward pass is
replayed from the model's own layers, so nothing is hooked and nothing is left on the model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.models import resnet as timm_resnet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models import resnet as torchvision_resnet

from ..models import Targets, as_targets

Map = Callable[[torch.Tensor], torch.Tensor]
EPS = 1e-6  # keeps quotients finite; taken with the sign of the denominator
REMEDY = "use a standard timm Vision Transformer with a CLS token, or resnet34"
BLOCKS = (timm_resnet.BasicBlock, torchvision_resnet.BasicBlock)
LEAVES = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten)
LEAVES += (nn.Identity, nn.Dropout, nn.Linear)


def _stable(z: torch.Tensor) -> torch.Tensor:
    return z + torch.where(z < 0, -EPS, EPS)


def _pull(operation: Map, x: torch.Tensor, r: torch.Tensor, quotient: bool = True) -> torch.Tensor:
    """s^T d operation / dx with s = r / operation(x), or s = r: relevance without its factor x."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        z = operation(x)
    return torch.autograd.grad(z, x, r / _stable(z.detach()) if quotient else r)[0]


def _like(conv: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor | None) -> Map:
    """The same convolution with other parameters."""
    return lambda x: F.conv2d(
        x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups
    )


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Map, Map]:
    """The convolution with its batch norm folded in, and the same with positive weights only."""
    statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    weight, bias = (p.detach() for p in fuse_conv_bn_weights(conv.weight, conv.bias, *statistics))
    return _like(conv, weight, bias), _like(conv, weight.clamp(min=0), bias.clamp(min=0))


def _check_resnet(model: nn.Module) -> list[nn.Module]:
    """The residual blocks in order; ValueError, naming the part, for anything not understood."""
    name = type(model).__name__
    if not isinstance(model, timm_resnet.ResNet | torchvision_resnet.ResNet):
        raise ValueError(f"Relevance for {name} is not known: {REMEDY}.")
    blocks = [block for i in range(1, 5) for block in getattr(model, f"layer{i}")]
    odd = [type(b).__name__ for b in blocks if not isinstance(b, BLOCKS)]
    odd += [
        type(m).__name__
        for m in model.modules()
        if not any(m.children()) and not isinstance(m, LEAVES)
    ]
    odd += ["a stem of several layers"] * (not isinstance(model.conv1, nn.Conv2d))
    odd += ["a pooled shortcut"] * any(
        b.downsample is not None and len(b.downsample) != 2 for b in blocks
    )
    pooling = getattr(getattr(model, "global_pool", None), "pool_type", "avg")
    odd += [f"{pooling!r} pooling"] * (pooling != "avg")
    if odd:
        raise ValueError(f"This {name} has {odd[0]}, for which relevance has no rule: {REMEDY}.")
    return blocks


def resnet_relevance(model: nn.Module, x: torch.Tensor, targets: Targets = None) -> torch.Tensor:
    """Relevance of each input value for the target's logit: (B, 3, H, W) -> (B, 3, H, W).

    Batch norm is folded into its convolution. Rules: epsilon (head), in proportion (mean
    pooling, residual sums), the winner takes all (max pooling), z+ (convolutions), flat (first
    convolution). Starts with the logit itself; what biases contributed is not passed on, so
    without biases the map sums to the logit. Holds one batch's activations and no hooks.
    Raises ValueError for models other than timm's or torchvision's ResNets of BasicBlocks.
    """
    blocks = _check_resnet(model)
    stem, _ = _folded(model.conv1, model.bn1)
    with torch.inference_mode(False), torch.no_grad():
        first = stem(x).relu()
        h = model.maxpool(first)
        tape = []
        for block in blocks:
            one, two = _folded(block.conv1, block.bn1), _folded(block.conv2, block.bn2)
            short = None if block.downsample is None else _folded(*block.downsample)
            hidden = one[0](h).relu()
            branch, shortcut = two[0](hidden), h if short is None else short[0](h)
            tape.append((h, hidden, branch, shortcut, one[1], two[1], short and short[1]))
            h = (branch + shortcut).relu()
        features = h.mean((2, 3))
        logits = model.fc(features)
        chosen = as_targets(targets, logits)
        logit = logits.gather(1, chosen[:, None])

        r = features * model.fc.weight[chosen] * (logit / _stable(logit))
        r = h * _pull(lambda t: t.mean((2, 3)), h, r)
        while tape:
            h, hidden, branch, shortcut, one, two, short = tape.pop()
            # a part that nothing pushed up has nobody to hand relevance to: the other part takes it
            branch = torch.where(two(hidden) > 0, branch, 0)
            shortcut = shortcut if short is None else torch.where(short(h) > 0, shortcut, 0)
            s = r / _stable(branch + shortcut)
            r = hidden * _pull(two, hidden, branch * s)
            r = h * _pull(one, h, r)
            r = r + (shortcut * s if short is None else h * _pull(short, h, shortcut * s))
        r = _pull(model.maxpool, first, r, quotient=False)
        return _pull(
            _like(model.conv1, torch.ones_like(model.conv1.weight), None), torch.ones_like(x), r
        )
