"""Models: built by name, split into backbone and head, cut into blocks by size, stored as safetensors."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tasks.core.model import (
    ImageModel,
    SmallResNet,
    blocks,
    load_weights,
    multiply_adds,
    network,
    parameter_count,
    pretrained_head,
    save_weights,
    split_head,
)

ARCHITECTURES = ("resnet18", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t")


def meta_model(architecture: str) -> ImageModel:
    with torch.device("meta"):
        return split_head(network(architecture, 5), 7)


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", [*(f"torchvision.{a}" for a in ARCHITECTURES), "acclimate.small_resnet"])
def test_blocks_stand_in_the_order_in_which_an_image_passes_them(name: str) -> None:
    model = meta_model(name)
    parts, passed = blocks(model.backbone), []
    joined = {name: name.split("+") for name, _ in parts}  # a tiny last part is joined with the one below it
    names = [module_name for module_names in joined.values() for module_name in module_names]
    for module_name in names:
        module = model.backbone.get_submodule(module_name)
        module.register_forward_hook(lambda *_, module_name=module_name: passed.append(module_name))
    model.eval()(torch.zeros(2, 3, 224, 224, device="meta"))
    assert passed == names
    assert len(joined) == len(parts) >= 4
    for block_name, block in parts:
        modules = [model.backbone.get_submodule(name) for name in joined[block_name]]
        assert [id(p) for p in block.parameters()] == [id(p) for module in modules for p in module.parameters()]


@pytest.mark.parametrize("name", [*(f"torchvision.{a}" for a in ARCHITECTURES), "acclimate.small_resnet"])
def test_blocks_cover_nearly_all_parameters_once_and_the_last_can_learn(name: str) -> None:
    backbone = meta_model(name).backbone
    parts, total = [block for _, block in blocks(backbone)], n_parameters(backbone)
    inside = [id(p) for block in parts for p in block.parameters()]
    assert len(inside) == len(set(inside))
    assert sum(n_parameters(block) for block in parts) > 0.99 * total
    assert n_parameters(parts[-1]) > 0.01 * total


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vgg11"])
def test_a_trunk_beside_a_large_classifier_is_cut_too(name: str) -> None:
    assert len(blocks(meta_model(f"torchvision.{name}").backbone)) >= 4


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet18", "layer4.1"),
        ("convnext_tiny", "features.7.2+classifier"),  # the classifier keeps a norm only
        ("vit_b_16", "encoder.layers.encoder_layer_11+encoder.ln"),
        ("swin_t", "features.7.1+norm"),
    ],
)
def test_a_norm_at_the_end_is_joined_with_the_block_below(name: str, last: str) -> None:
    assert blocks(meta_model(f"torchvision.{name}").backbone)[-1][0] == last


@pytest.mark.parametrize("architecture", ["torchvision.resnet18", "torchvision.mobilenet_v2", "acclimate.small_resnet"])
def test_backbone_and_head_together_give_what_the_network_gave(architecture: str) -> None:
    torch.manual_seed(0)
    net = network(architecture, 5).eval()
    x_NCHW = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = net(x_NCHW)
        source_head = pretrained_head(net)
        model = split_head(net, 7).eval()
        assert torch.equal(source_head(model.features(x_NCHW)), expected)
        assert model(x_NCHW).shape == (2, 7)


def test_the_fresh_head_is_drawn_from_torchs_seed() -> None:
    def head(seed: int) -> torch.Tensor:
        net = SmallResNet(5)
        torch.manual_seed(seed)
        return split_head(net, 7).head.weight

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


@pytest.mark.parametrize(
    ("architecture", "n_classes", "expected"),
    # published for ImageNet: torchvision's model tables
    [("torchvision.resnet18", 1000, 11689512), ("torchvision.mobilenet_v2", 1000, 3504872),
     ("torchvision.regnet_y_400mf", 1000, 4344144)],
)  # fmt: skip
def test_parameter_counts_equal_the_published_ones(architecture: str, n_classes: int, expected: int) -> None:
    assert parameter_count(network(architecture, n_classes)) == expected


def test_the_small_network_is_small() -> None:
    assert 290_000 < parameter_count(network("acclimate.small_resnet", 10)) < 320_000


@pytest.mark.parametrize("name", ["resnet18", "torchvision.resnet_18", "torchvision.raft_small", "timm.", ""])
def test_an_unknown_architecture_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"unknown: allowed are acclimate.small_resnet, torchvision.<classifier> and timm.<name>"
    ):
        network(name, 3)


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="says what is told where timm is absent")
def test_timm_is_asked_for_where_it_is_not_installed() -> None:
    with pytest.raises(
        ValueError, match=r"'timm.resnet18' needs timm, which is not installed here; run `pip install timm`"
    ):
        network("timm.resnet18", 3)


@pytest.mark.filterwarnings("ignore:The default weight initialization of:FutureWarning")  # torchvision's own
@pytest.mark.parametrize("name", ["squeezenet1_0", "inception_v3", "googlenet"])
def test_a_classifier_that_cannot_be_split_is_refused(name: str) -> None:
    # squeezenet ends in a convolution; the other two give several outputs in training
    with pytest.raises(ValueError, match=rf"'torchvision.{name}' has .*; take another"), torch.device("meta"):
        split_head(network(f"torchvision.{name}", 5), 7)


def test_weights_come_back_byte_for_byte(tmp_path: Path) -> None:
    first, second = SmallResNet(3, width=4), SmallResNet(3, width=4)
    first.to(memory_format=torch.channels_last)
    save_weights(first, tmp_path / "a.safetensors")
    load_weights(second, tmp_path / "a.safetensors")
    save_weights(second, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_half_precision_weights_are_read_as_floats(tmp_path: Path) -> None:
    net = SmallResNet(3, width=4)
    half = {name: t.half() if t.is_floating_point() else t for name, t in net.state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    load_weights(net, tmp_path / "half.safetensors")
    assert {t.dtype for t in net.parameters()} == {torch.float32}
    assert torch.equal(net.fc.weight, half["fc.weight"].float())


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, change: str) -> None:
    save_weights(SmallResNet(3, width=4), tmp_path / "w.safetensors")
    tensors = load_file(tmp_path / "w.safetensors")
    if change == "missing":
        del tensors["fc.bias"]
    else:
        tensors["extra" if change == "extra" else "fc.bias"] = torch.zeros(9)
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w.safetensors: the weights do not fit the architecture \(.*(fc.bias|extra)"):
        load_weights(SmallResNet(3, width=4), tmp_path / "w.safetensors")


def test_a_file_that_is_no_safetensors_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"w\.safetensors"):
        load_weights(SmallResNet(3, width=4), tmp_path / "w.safetensors")


def test_many_misfits_are_told_by_their_number_and_first_names(tmp_path: Path) -> None:
    save_weights(nn.Linear(2, 2), tmp_path / "w.safetensors")
    with pytest.raises(
        ValueError, match=r"\d\d missing: stem.0.weight, stem.1.weight, stem.1.bias, …; 2 not known"
    ) as caught:
        load_weights(SmallResNet(3), tmp_path / "w.safetensors")
    assert len(str(caught.value)) < 400


def test_multiply_adds_are_those_counted_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),  # on 8 px: 4 x 4 places, 4 · 3 · 9 each
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4),  # 2 x 2 places, 4 · 9 each
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    assert multiply_adds(net, 8) == 16 * 4 * 3 * 9 + 4 * 4 * 9 + 16 * 5
    assert net.training


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_multiply_adds_agree_with_the_published_ones(name: str) -> None:
    published = {"mobilenet_v2": 0.301e9, "resnet18": 1.814e9}  # torchvision's model tables, with the head
    backbone = split_head(network(f"torchvision.{name}", 1000), 2).backbone
    assert multiply_adds(backbone, 224) == pytest.approx(published[name], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "published"), [("vit_b_32", 4.409e9), ("swin_t", 4.491e9), ("maxvit_t", 5.558e9)])
def test_attention_is_counted(name: str, published: float) -> None:
    backbone = split_head(network(f"torchvision.{name}", 1000), 2).backbone
    assert multiply_adds(backbone, 224) == pytest.approx(published, rel=0.002)


def test_a_size_that_the_network_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the network takes no images of 96 px \(.*224.*\); give it the size"):
        multiply_adds(split_head(network("torchvision.vit_b_32", 2), 2).backbone, 96)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The default weight initialization of:FutureWarning")  # torchvision's own
def test_every_classifier_of_torchvision_gives_its_features_or_says_why_not() -> None:
    from torchvision import models

    refused = []
    for name in models.list_models(module=models):
        real = name.startswith("regnet")  # its initialisation wants real tensors
        if name in ("regnet_y_128gf", "regnet_x_32gf", "regnet_y_32gf", "regnet_x_16gf", "regnet_y_16gf"):
            continue  # the same code as the smaller ones; gigabytes of memory
        device = "cpu" if real else "meta"
        try:
            with torch.device(device):
                model = split_head(network(f"torchvision.{name}", 5), 3).eval()
        except ValueError as error:
            refused.append(f"{name}: {str(error)[-12:]}")
            continue
        with torch.no_grad():
            x_ND = model.features(torch.zeros(2, 3, 224, 224, device=device))
        assert x_ND.shape == (2, model.head.in_features), name
    assert refused == [f"{n}: take another" for n in ("googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1")]
