"""What a phase trains, at which rate, in which mode; and how rates move over the steps, worked out by hand."""

import math
import re

import pytest
import torch
from torch import nn

from tasks.core.model import ImageModel, SmallResNet, blocks, network, split_head
from tasks.core.optimisation import parameter_groups, rate_share, schedule_of
from tasks.core.phases import FitSettings, NetPhase, set_training

ARCHITECTURES = ("resnet18", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t")
TIMM = ("resnet18", "convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mobilenetv3_small_050")


def phase_of(trains: str, **changed) -> NetPhase:
    usual = {"n_epochs": 1, "lr": 0.1, "block_decay": 0.5, "batch_norm": "train", "schedule": "one_cycle"}
    return NetPhase(**{"trains": trains, **usual, "warmup_share": 0.3, "patience": None, **changed})


def meta_model(architecture: str) -> ImageModel:
    with torch.device("meta"):
        return split_head(network(architecture, 5), 5)


def small_model() -> ImageModel:
    model = split_head(SmallResNet(2, width=4), 2)
    model.backbone.layers.append(nn.Dropout(0.5))
    return model


# what learns, at which rate


@pytest.mark.parametrize("trains", ["all", "backbone", "last_block", r"blocks:features\.[67]|layer4|encoder_layer_1\d"])
@pytest.mark.parametrize("architecture", ["resnet18", "convnext_tiny", "vit_b_16"])
def test_each_trained_parameter_stands_in_one_group(architecture: str, trains: str) -> None:
    model = meta_model(f"torchvision.{architecture}")
    groups = parameter_groups(model, phase_of(trains), 0.05)
    grouped = [id(p) for group in groups for p in group["params"]]
    parts = blocks(model.backbone)
    named = [block for name, block in parts if re.search(r"features\.[67]|layer4|encoder_layer_1\d", name)]
    assert 1 < len(named) < len(parts)
    expected = {
        "all": list(model.parameters()),
        "backbone": list(model.backbone.parameters()),
        "last_block": [*parts[-1][1].parameters(), *model.head.parameters()],
    }.get(trains, [*(p for block in named for p in block.parameters()), *model.head.parameters()])
    assert sorted(grouped) == sorted(id(p) for p in expected)
    assert {id(p) for p in model.parameters() if p.requires_grad} == set(grouped)


def check_rates_and_decay(model: ImageModel) -> None:
    groups = parameter_groups(model, phase_of("all"), 0.05)
    rate = {id(p): g["lr"] for g in groups for p in g["params"]}
    parts = blocks(model.backbone)
    assert len(parts) >= 4
    for height, (_, block) in enumerate(parts):
        assert {rate[id(p)] for p in block.parameters()} == {0.1 * 0.5 ** (len(parts) - 1 - height)}
    assert {rate[id(p)] for p in model.head.parameters()} == {0.1}
    assert max(rate[id(p)] for p in model.backbone.parameters()) == 0.1
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    attentions = [m for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    matrices = {id(m.weight) for m in layers} | {id(m.in_proj_weight) for m in attentions}
    decayed = {id(p) for g in groups if g["weight_decay"] == 0.05 for p in g["params"]}
    assert decayed == matrices  # not norms, biases, layer scales, class tokens, positions or bias tables
    assert {g["weight_decay"] for g in groups} == {0, 0.05}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rates_fall_with_depth_and_only_matrices_decay(architecture: str) -> None:
    check_rates_and_decay(meta_model(f"torchvision.{architecture}"))


@pytest.mark.parametrize("architecture", TIMM)
def test_rates_fall_with_depth_in_timms_networks_too(architecture: str) -> None:
    pytest.importorskip("timm", reason="an optional extra")
    check_rates_and_decay(meta_model(f"timm.{architecture}"))


def test_named_blocks_keep_the_rate_of_their_depth() -> None:
    model = small_model()  # stem and four blocks: layers.0 is the fourth from the top
    assert [name for name, _ in blocks(model.backbone)] == ["stem", "layers.0", "layers.1", "layers.2", "layers.3"]
    groups = parameter_groups(model, phase_of(r"blocks:layers\.[02]"), 0.0)
    rate = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert rate[id(model.backbone.layers[0].conv1.weight)] == 0.1 * 0.5**3
    assert rate[id(model.backbone.layers[2].conv1.weight)] == 0.1 * 0.5
    assert rate[id(model.head.weight)] == 0.1
    assert id(model.backbone.layers[3].conv1.weight) not in rate


def test_a_regex_without_a_block_is_refused_with_the_names() -> None:
    told = (
        r"trains is 'blocks:layer9', which matches no block; this network's blocks are stem, layers\.0, layers\.1, "
        r"layers\.2, layers\.3$"
    )
    with pytest.raises(ValueError, match=told):
        parameter_groups(small_model(), phase_of("blocks:layer9"), 0.0)


def test_a_methods_own_parameters_learn_at_the_heads_rate() -> None:
    extra = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1).requires_grad_(False))
    groups = parameter_groups(small_model(), phase_of("last_block"), 0.05, extra)
    own = {id(p): g for g in groups for p in g["params"]}
    found = [(own[id(p)]["lr"], own[id(p)]["weight_decay"]) for p in extra[:2].parameters()]
    assert found == [(0.1, 0.05), (0.1, 0.0), (0.1, 0.0), (0.1, 0.0)]
    assert not any(id(p) in own for p in extra[2].parameters())  # it was given frozen and stays so


def test_a_later_phase_frees_what_an_earlier_one_froze() -> None:
    model = small_model()
    parameter_groups(model, phase_of("last_block"), 0.0)
    assert not model.backbone.stem[0].weight.requires_grad
    parameter_groups(model, phase_of("all"), 0.0)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("trains", "resting"), [("last_block", 4), (r"blocks:stem|layers\.2", 3), ("all", 0)])
def test_parts_that_do_not_learn_stay_in_eval_mode(trains: str, resting: int) -> None:
    model = small_model()
    set_training(model, phase_of(trains))
    modes = [{module.training for module in block.modules()} for _, block in blocks(model.backbone)]
    assert modes.count({False}) == resting
    assert modes.count({True}) == 5 - resting
    assert model.head.training
    learning = {id(p) for group in parameter_groups(model, phase_of(trains), 0.0) for p in group["params"]}
    for (_, block), mode in zip(blocks(model.backbone), modes, strict=True):
        assert {id(p) in learning for p in block.parameters()} == mode


@pytest.mark.parametrize("architecture", ["convnext_tiny", "vit_b_16"])
def test_a_last_block_that_was_joined_with_a_norm_learns_as_a_whole(architecture: str) -> None:
    model = meta_model(f"torchvision.{architecture}")
    set_training(model, phase_of("last_block"))
    *below, (name, last) = blocks(model.backbone)
    assert "+" in name
    assert all(module.training for module in last.modules() if list(module.parameters()))
    assert not any(module.training for _, block in below for module in block.modules())


@pytest.mark.parametrize(("policy", "training"), [("train", True), ("frozen", False), ("adapted", False)])
def test_batch_norm_stands_as_its_policy_says(policy: str, training: bool) -> None:
    model = small_model()
    set_training(model, phase_of("all", batch_norm=policy))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [training] * 12
    assert model.backbone.layers[4].training  # its dropout is on


# how rates move


def rates_of(phase: NetPhase, n_steps: int) -> list[float]:
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": [weights[0]], "lr": 1.0}, {"params": [weights[1]], "lr": 0.5}])
    schedule, found = schedule_of(optimizer, phase, n_steps), []
    for _ in range(n_steps):
        high, low = (group["lr"] for group in optimizer.param_groups)
        assert low == pytest.approx(high / 2)
        found.append(high)
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("schedule", "warmup_share", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1]),
        ("constant", 0.5, [0.5, 1, 1, 1]),
        ("constant", 1.0, [0.25, 0.5, 0.75, 1]),
        ("cosine", 0.0, [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("cosine", 0.5, [0.5, 1, 1, 0.5]),
        ("cosine", 1.0, [0.25, 0.5, 0.75, 1]),
    ],
)
def test_rates_by_hand(schedule: str, warmup_share: float, expected: list[float]) -> None:
    assert rates_of(phase_of("all", schedule=schedule, warmup_share=warmup_share), 4) == pytest.approx(expected)


def test_a_cosine_ends_where_the_next_step_would_have_no_rate() -> None:
    assert rate_share(10, 3, 10, falls=True) == pytest.approx(0, abs=1e-12)


def test_one_cycle_rises_for_its_share_and_falls_to_nearly_nothing() -> None:
    rates = rates_of(phase_of("all", warmup_share=0.4), 20)
    assert rates[0] == pytest.approx(1 / 25)  # torch's start: a 25th of the peak
    assert rates.index(max(rates)) == pytest.approx(0.4 * 20, abs=1)
    assert max(rates) == pytest.approx(1, abs=0.02)
    assert rates[-1] < 0.02


# what a person may ask for


def test_a_wrong_phase_is_refused_with_all_that_is_wrong() -> None:
    told = (
        r"a phase: trains is 'heads'; allowed are last_block, all, backbone and blocks:<regex>; n_epochs is 0; at least 1 is "
        r"needed; batch_norm is 'off'; allowed are train, frozen, adapted; schedule is 'step'; allowed are one_cycle, cosine, "
        r"constant; warmup_share is 1\.5; a share from 0 to 1 is allowed; patience is 0; null \(off\) or 1 and more is allowed"
    )
    with pytest.raises(ValueError, match=told):
        NetPhase("heads", 0, 0.1, 1.0, "off", "step", 1.5, 0)


@pytest.mark.parametrize("trains", ["blocks:", "blocks:(", "head"])
def test_a_regex_that_is_none_is_refused(trains: str) -> None:
    with pytest.raises(ValueError, match="allowed are last_block, all, backbone and blocks:<regex>"):
        phase_of(trains)


def test_wrong_settings_are_refused_with_all_that_is_wrong() -> None:
    told = (
        r"the settings of training: batch_size is 1; at least 2 are needed; evaluate_every is 0; at least 1 is needed; "
        r"ema_decay is 1\.0; null \(off\) or above 0 and below 1 is allowed; l2_sp is -1; 0 \(off\) or more is allowed; "
        r"dropout is 1\.0; a share from 0 to below 1 is allowed; accumulate is 0; 1 \(off\) or more is allowed"
    )
    with pytest.raises(ValueError, match=told):
        FitSettings(1, 0.0, 0, 0, "cpu", 1.0, -1, 1.0, "float32", False, 0)
