"""An image model: a backbone that gives features, and a linear head. Built by name, stored as safetensors.

Axes: N images, C classes, D features, H height, W width.
"""

import importlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import relu

from tasks.core.files import whole_file

TRUNK_SHARE = 0.8  # a child that holds more of its parent's parameters than this is looked into for blocks
LONG_CHAIN = 4  # a chain of more layers than this is no block of its own
LAST_BLOCK_SHARE = 0.01  # a last block smaller than this can learn nothing: the one below joins it


class SmallResNet(nn.Module):
    """Four residual blocks, 0.3 M parameters: a ResNet that trains in seconds on 32 px images."""

    def __init__(self, n_classes: int, width: int = 16) -> None:
        super().__init__()
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.layers = nn.Sequential(*(ResidualBlock(n_in, n_out) for n_in, n_out in pairwise(sizes)))
        self.fc = nn.Linear(sizes[-1], n_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        maps = self.layers(self.stem(x_NCHW))
        return self.fc(maps.mean((2, 3)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016); halves the map where the width changes."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        stride = 1 if n_in == n_out else 2
        shortcut = [nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)] if stride > 1 else []
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = nn.Sequential(*shortcut)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        maps = relu(self.bn1(self.conv1(x_NCHW)))
        return relu(self.bn2(self.conv2(maps)) + self.downsample(x_NCHW))


class ImageModel(nn.Module):
    """`features` (N, D) from the backbone, `forward` gives logits (N, C)."""

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def features(self, x_NCHW: Tensor) -> Tensor:
        return self.backbone(x_NCHW)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.head(self.features(x_NCHW))


def network(architecture: str, n_classes: int) -> nn.Module:
    """An untrained network: `acclimate.small_resnet`, `torchvision.<name>` for its classifiers, or `timm.<name>`."""
    if architecture == "acclimate.small_resnet":
        return SmallResNet(n_classes)
    package, _, name = architecture.partition(".")
    if package == "timm" and name:
        return _timm_network(name, n_classes)
    import torchvision  # 4 seconds to import: it loads torch's compiler

    if package == "torchvision" and name in torchvision.models.list_models(module=torchvision.models):
        net = torchvision.models.get_model(name, weights=None, num_classes=n_classes)
        if getattr(net, "aux_logits", False):
            raise ValueError(
                f"architecture {architecture!r} has auxiliary outputs, which are not supported; take another"
            )
        if not any(isinstance(m, nn.Linear) for m in net.modules()):
            raise ValueError(f"architecture {architecture!r} has no linear layer to replace by a head; take another")
        return net
    raise ValueError(
        f"architecture {architecture!r} is unknown: allowed are acclimate.small_resnet, torchvision.<classifier> and "
        "timm.<name>"
    )


def _timm_network(name: str, n_classes: int) -> nn.Module:
    timm = import_timm(f"timm.{name}")
    if not timm.is_model(name):
        raise ValueError(
            f"architecture 'timm.{name}' is unknown to the installed timm {timm.__version__}; take another"
        )
    net: Any = timm.create_model(name, pretrained=False, num_classes=n_classes)
    if not isinstance(net.get_classifier(), nn.Linear):
        raise ValueError(f"architecture 'timm.{name}' does not end in one linear layer; take another")
    made: nn.Module = net
    return made


def import_timm(wanted_for: str) -> Any:
    """The module timm. ValueError where it is not installed: it is an optional extra."""
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise ValueError(f"{wanted_for!r} needs timm, which is not installed here; run `pip install timm`") from None


def split_head(net: nn.Module, n_classes: int) -> ImageModel:
    """The network's last linear layer becomes identity, and a fresh head for `n_classes` stands behind it.

    Seed torch before the call: the head is drawn here.
    """
    last = pretrained_head(net)
    name = next(name for name, module in net.named_modules() if module is last)
    parent_name, _, child_name = name.rpartition(".")
    setattr(net.get_submodule(parent_name), child_name, nn.Identity())
    return ImageModel(net, nn.Linear(last.in_features, n_classes))


def pretrained_head(net: nn.Module) -> nn.Linear:
    """The network's own classifier: what timm names so, else the last linear layer."""
    of_timm: Any = getattr(net, "get_classifier", None)
    if of_timm is not None:
        classifier: nn.Linear = of_timm()
        return classifier
    return [m for m in net.modules() if isinstance(m, nn.Linear)][-1]


def multiply_adds(backbone: nn.Module, side_px: int) -> int:
    """Multiplications (each with its addition) of convolutions and matrix products for one square image.

    Attention is counted too, norms and activations are not: as in the figures that torchvision publishes.
    ValueError where the network does not take images of this size.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    was_training, fused = backbone.training, torch.backends.mha.get_fastpath_enabled()
    device = next(backbone.parameters()).device
    torch.backends.mha.set_fastpath_enabled(False)  # fused attention hides its products from the counter
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            backbone.eval()(torch.zeros(1, 3, side_px, side_px, device=device))
    except (RuntimeError, AssertionError) as error:
        told = " ".join(str(error).split())
        raise ValueError(
            f"the network takes no images of {side_px} px ({told}); give it the size it was made for"
        ) from None
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        backbone.train(was_training)
    return int(counter.get_total_flops()) // 2


def blocks(backbone: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts that hold parameters, from the image upwards: found by shape and size, not by the architecture's name."""
    parts = _parts(backbone)
    total = sum(parameter_count(part) for _, part in parts)
    while len(parts) > 1 and parameter_count(parts[-1][1]) < LAST_BLOCK_SHARE * total:
        (below_name, below), (name, last) = parts[-2:]
        parts[-2:] = [(f"{below_name}+{name}", nn.ModuleList([below, last]))]
    return parts


def _parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    parts: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        if _is_looked_into(child, parameter_count(module)):
            parts += [(f"{name}.{below}", part) for below, part in _parts(child)]
        elif parameter_count(child):
            parts.append((name, child))
    return parts


def _is_looked_into(child: nn.Module, size_of_parent: int) -> bool:
    """Plain containers of larger parts, long plain chains of layers, and whatever holds nearly everything."""
    below = [part for part in child.children() if parameter_count(part)]
    if len(below) < 2:
        return type(child) is nn.Sequential and any(list(part.children()) for part in below)
    is_container = type(child) in (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    holds_parts = any(list(part.children()) for part in below) or len(below) > LONG_CHAIN
    return (is_container and holds_parts) or parameter_count(child) > TRUNK_SHARE * size_of_parent


def parameter_count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def save_weights(module: nn.Module, path: Path) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    with whole_file(path) as part:
        save_file(tensors, part)


def load_weights(module: nn.Module, path: Path) -> None:
    """Strict. ValueError naming the file where its tensors don't fit the module."""
    fill(module, read_tensors(path), str(path))


def fill(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Strict: the module holds the tensors afterwards, as 32-bit floats. ValueError says what does not fit."""
    if problems := _misfits(module.state_dict(), tensors):
        raise ValueError(f"{where}: the weights do not fit the architecture ({'; '.join(problems)})")
    module.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file as they are stored. ValueError where it is none."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error})") from None


def _misfits(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """What is missing, too much or of another shape, each with its first names."""
    shapes = [
        f"{name} is {tuple(found[name].shape)}, wanted is {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    kinds = {
        "missing": [name for name in wanted if name not in found],
        "not known there": [name for name in found if name not in wanted],
        "of another shape": shapes,
    }
    return [
        f"{len(names)} {kind}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        for kind, names in kinds.items()
        if names
    ]
