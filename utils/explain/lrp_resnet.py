"""Layer-wise relevance propagation for CNNs: from one logit, or a difference of two, to the pixels.

The usual composite (Montavon et al., "Layer-Wise Relevance Propagation: An Overview", 2019,
section 10.3): epsilon in the head, z+ in the body, flat at the input. The forward pass is replayed
from the model's own layers, so nothing is hooked and nothing is left on the model. Known are the
ResNets of timm and torchvision, VGG and AlexNet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from timm.models import resnet as timm_resnet
from timm.models import vgg as timm_vgg
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models import AlexNet
from torchvision.models import resnet as torchvision_resnet
from torchvision.models import vgg as torchvision_vgg

from ..models import Question, Targets
from .replay import ANY, as_question, checked, in_float32

Map = Callable[[torch.Tensor], torch.Tensor]
EPS = 1e-6  # keeps quotients finite; taken with the sign of the denominator
REMEDY = f"use {ANY}, or a ResNet, VGG or AlexNet of timm or torchvision"
RESNETS = (timm_resnet.ResNet, torchvision_resnet.ResNet)
CHAINS = (torchvision_vgg.VGG, timm_vgg.VGG, AlexNet)
BLOCKS = tuple(
    block
    for family in (timm_resnet, torchvision_resnet)
    for block in (family.BasicBlock, family.Bottleneck)
)
LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Linear)
LEAVES = (*LAYERS, nn.Flatten, nn.Identity, nn.Dropout)


def _stable(z: torch.Tensor) -> torch.Tensor:
    return z + torch.where(z < 0, -EPS, EPS)


def _pull(operation: Map, x: torch.Tensor, r: torch.Tensor, quotient: bool = True) -> torch.Tensor:
    """s^T d operation / dx with s = r / operation(x), or s = r: relevance without its factor x."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        z = operation(x)
    return torch.autograd.grad(z, x, r / _stable(z.detach()) if quotient else r)[0]


# ---------------------------------------------------------------- layers and their rules


class Layer:
    """One operation and its rule. forward() keeps the input, back() lets it go."""

    def __init__(self, operation: Map) -> None:
        self.operation = operation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.x = x
        return self.operation(x)

    def back(self, r: torch.Tensor) -> torch.Tensor:
        """Epsilon: in proportion to all contributions, also negative ones."""
        x = self.__dict__.pop("x")
        return x * _pull(self.operation, x, r)


class Pass(Layer):
    """ReLU: relevance goes through unchanged."""

    def back(self, r: torch.Tensor) -> torch.Tensor:
        del self.x
        return r


class Winner(Layer):
    """Max pooling and reshaping: relevance goes where the value came from."""

    def back(self, r: torch.Tensor) -> torch.Tensor:
        return _pull(self.operation, self.__dict__.pop("x"), r, quotient=False)


class Conv(Layer):
    """A convolution with its batch norm folded in; z+: in proportion to positive contributions."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> None:
        self.conv = conv
        weight, bias = conv.weight.detach(), conv.bias
        if norm is not None:
            statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()
        super().__init__(self._like(self.weight, self.bias))

    def _like(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Map:
        """The same convolution with other parameters; padding as the module does it."""
        return lambda x: self.conv._conv_forward(x, weight, bias)

    @property
    def positive(self) -> Map:
        """What positive weights and a positive bias push up."""
        bias = None if self.bias is None else self.bias.clamp(min=0)
        return self._like(self.weight.clamp(min=0), bias)

    def back(self, r: torch.Tensor) -> torch.Tensor:
        x = self.__dict__.pop("x")
        return x * _pull(self.positive, x, r)


class Flat(Conv):
    """The first convolution: evenly over the pixels that a position sees."""

    def back(self, r: torch.Tensor) -> torch.Tensor:
        ones = torch.ones_like(self.__dict__.pop("x"))
        return _pull(self._like(torch.ones_like(self.weight), None), ones, r)


class Chain(Layer):
    """Layers one after the other."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = list(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def back(self, r: torch.Tensor) -> torch.Tensor:
        for layer in reversed(self.layers):
            r = layer.back(r)
        return r


class Residual(Layer):
    """A residual block: its sum is split in proportion to the branch and the shortcut."""

    def __init__(self, branch: list[Layer], shortcut: Conv | None) -> None:
        self.branch, self.shortcut = Chain(branch), shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.out = self.branch.forward(x), x if self.shortcut is None else self.shortcut.forward(x)
        return self.out[0] + self.out[1]

    def back(self, r: torch.Tensor) -> torch.Tensor:
        branch, shortcut = self.__dict__.pop("out")
        # a part that nothing pushed up has nobody to hand relevance to: the other part takes it
        branch, shortcut = (
            torch.where(last.positive(last.x) > 0, out, 0) if isinstance(last, Conv) else out
            for out, last in ((branch, self.branch.layers[-1]), (shortcut, self.shortcut))
        )
        s = r / _stable(branch + shortcut)
        past = shortcut * s
        through = self.branch.back(branch * s)
        return through + (past if self.shortcut is None else self.shortcut.back(past))


# ---------------------------------------------------------------- models as such layers


def _refuse(model: nn.Module, part: str) -> None:
    raise ValueError(
        f"This {type(model).__name__} has {part}, for which relevance has no rule: {REMEDY}."
    )


def _check(model: nn.Module) -> None:
    """ValueError, naming the part, for anything that the layers above do not cover."""
    if not isinstance(model, RESNETS + CHAINS):
        raise ValueError(f"Relevance for {type(model).__name__} is not known: {REMEDY}.")
    for m in model.modules():
        if not any(m.children()) and not isinstance(m, LEAVES):
            _refuse(model, type(m).__name__)
    pool = getattr(model, "global_pool", getattr(getattr(model, "head", None), "global_pool", None))
    kind = getattr(pool, "pool_type", "avg")
    if kind != "avg":
        _refuse(model, f"{kind!r} pooling")


def _resnet(model: nn.Module) -> Iterable[Layer]:
    """A ResNet of BasicBlocks or Bottlenecks."""
    if not isinstance(model.conv1, nn.Conv2d):
        _refuse(model, "a stem of several layers")
    if not isinstance(model.maxpool, nn.MaxPool2d | nn.Identity):
        _refuse(model, f"{type(model.maxpool).__name__} as maxpool")
    yield from (Flat(model.conv1, model.bn1), Pass(torch.relu), Winner(model.maxpool))
    for block in (block for i in range(1, 5) for block in getattr(model, f"layer{i}")):
        if not isinstance(block, BLOCKS):
            _refuse(model, type(block).__name__)
        short = block.downsample
        if short is not None and len(short) != 2:
            _refuse(model, "a pooled shortcut")
        branch: list[Layer] = []
        for i in (1, 2, 3) if hasattr(block, "conv3") else (1, 2):
            branch += [Pass(torch.relu)] if branch else []
            branch += [Conv(getattr(block, f"conv{i}"), getattr(block, f"bn{i}"))]
        yield Residual(branch, None if short is None else Conv(*short))
        yield Pass(torch.relu)
    yield from (Layer(lambda x: x.mean((2, 3))), Layer(model.fc))


def _sequence(modules: Iterable[nn.Module]) -> Iterable[Layer]:
    """Modules in a row as layers; a batch norm goes into the convolution before it."""
    row = [m for m in modules if not isinstance(m, nn.Dropout | nn.Identity)]
    for module, following in zip(row, [*row[1:], None], strict=True):
        if isinstance(module, nn.Conv2d):
            norm = following if isinstance(following, nn.BatchNorm2d) else None
            yield (Flat if module is row[0] else Conv)(module, norm)
        elif isinstance(module, nn.ReLU):
            yield Pass(torch.relu)
        elif isinstance(module, nn.MaxPool2d):
            yield Winner(module)
        elif not isinstance(module, nn.BatchNorm2d):
            yield Layer(module)


def _chain(model: nn.Module) -> Iterable[Layer]:
    """VGG or AlexNet: convolutions, then linear layers (which timm writes as convolutions)."""
    yield from _sequence(model.features)
    if isinstance(model, timm_vgg.VGG):
        mlp, at_least = model.pre_logits, model.pre_logits.input_kernel_size
        yield Layer(partial(_at_least, side=at_least))
        yield from (Layer(mlp.fc1), Pass(torch.relu), Layer(mlp.fc2), Pass(torch.relu))
        yield from (Layer(lambda x: x.mean((2, 3))), Layer(model.head.fc))
    else:
        yield from (Layer(model.avgpool), Winner(partial(torch.flatten, start_dim=1)))
        yield from _sequence(model.classifier)


def _at_least(x: torch.Tensor, side: int) -> torch.Tensor:
    height, width = x.shape[-2:]
    small = height < side or width < side
    return F.adaptive_avg_pool2d(x, (max(side, height), max(side, width))) if small else x


def resnet_relevance(
    model: nn.Module, x: torch.Tensor, question: Question | Targets = None
) -> torch.Tensor:
    """Relevance of each input value for the logit in question: (B, 3, H, W) -> (B, 3, H, W).

    Starts with the logit itself and, against another class, with minus that class's: relevance
    is then that of the difference, red where it speaks for the one and blue for the other. Batch
    norm is folded into its convolution. Rules: epsilon (linear layers), in proportion (average
    pooling, residual sums), the winner takes all (max pooling), z+ (convolutions), flat (first
    convolution). What biases contributed is not passed on, so without biases the map sums to
    the logit, or to the difference. Computed in 32 bits at least. Raises ValueError for models
    other than ResNets, VGG and AlexNet, and for one whose forward pass is not its class's.
    """
    _check(model)
    with in_float32(model, x) as (model, x), torch.no_grad():
        layers = Chain((_resnet if isinstance(model, RESNETS) else _chain)(model))
        logits = layers.forward(x)
        checked(model, x, logits)
        weights = as_question(question).weights(logits)
        return layers.back(torch.where(weights == 0, 0, weights * logits))
