"""An image model: a backbone that gives features, and a linear head. Built by name, stored as safetensors.

Axes: N images, C classes, D features, H height, W width.
"""

from itertools import pairwise
from pathlib import Path

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
    """An untrained network. `acclimate.small_resnet`, or `torchvision.<name>` for any torchvision classifier."""
    if architecture == "acclimate.small_resnet":
        return SmallResNet(n_classes)
    import torchvision  # 4 seconds to import: it loads torch's compiler

    package, _, name = architecture.partition(".")
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
        f"architecture {architecture!r} is unknown: allowed are acclimate.small_resnet and torchvision.<classifier>"
    )


def count_parameters(architecture: str, n_classes: int) -> int:
    return _size(network(architecture, n_classes))


def split_head(net: nn.Module, n_classes: int) -> ImageModel:
    """The network's last linear layer becomes identity, and a fresh head for `n_classes` stands behind it.

    Seed torch before the call: the head is drawn here.
    """
    name, last = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Linear)][-1]
    parent_name, _, child_name = name.rpartition(".")
    setattr(net.get_submodule(parent_name), child_name, nn.Identity())
    return ImageModel(net, nn.Linear(last.in_features, n_classes))


def pretrained_head(net: nn.Module) -> nn.Linear:
    return [m for m in net.modules() if isinstance(m, nn.Linear)][-1]


def blocks(backbone: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts that hold parameters, from the image upwards: found by shape and size, not by the architecture's name."""
    parts = _parts(backbone)
    total = sum(_size(part) for _, part in parts)
    while len(parts) > 1 and _size(parts[-1][1]) < LAST_BLOCK_SHARE * total:
        (below_name, below), (name, last) = parts[-2:]
        parts[-2:] = [(f"{below_name}+{name}", nn.ModuleList([below, last]))]
    return parts


def _parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    parts: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        if _is_looked_into(child, _size(module)):
            parts += [(f"{name}.{below}", part) for below, part in _parts(child)]
        elif _size(child):
            parts.append((name, child))
    return parts


def _is_looked_into(child: nn.Module, size_of_parent: int) -> bool:
    """Plain containers of larger parts, long plain chains of layers, and whatever holds nearly everything."""
    below = [part for part in child.children() if _size(part)]
    if len(below) < 2:
        return type(child) is nn.Sequential and any(list(part.children()) for part in below)
    is_container = type(child) in (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    holds_parts = any(list(part.children()) for part in below) or len(below) > LONG_CHAIN
    return (is_container and holds_parts) or _size(child) > TRUNK_SHARE * size_of_parent


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def save_weights(module: nn.Module, path: Path) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    with whole_file(path) as part:
        save_file(tensors, part)


def load_weights(module: nn.Module, path: Path) -> None:
    """Strict. ValueError naming the file where its tensors don't fit the module."""
    try:
        tensors = {name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error})") from None
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: the weights do not fit the architecture ({str(error).splitlines()[1].strip()})"
        ) from None
