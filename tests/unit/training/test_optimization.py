import copy
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from helpers.params import make_params
from imageclf.network.architectures import cut_off_head
from imageclf.params import Train
from imageclf.training.optimization import (
    backbone_factors,
    build_optimizer,
    learning_rate,
    weight_average,
)


def train(**changes: Any) -> Train:
    settings = {f"train__{name}": value for name, value in changes.items()}
    return make_params(model__weights="a/path", **settings).train


def rates(steps: int, **changes: Any) -> list[float]:
    section = train(learning_rate=0.5, **changes)
    return [learning_rate(section, step, steps) for step in range(steps)]


def of_torch(scheduler: type, steps: int, **settings: Any) -> list[float]:
    """The rates that a scheduler of torch gives, one per step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = scheduler(optimizer, **settings)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def test_constant() -> None:
    assert rates(5, schedule="constant") == [0.5] * 5


def test_step_is_that_of_torch() -> None:
    expected = of_torch(torch.optim.lr_scheduler.StepLR, 9, step_size=3, gamma=0.1)
    assert rates(9, schedule="step") == pytest.approx(expected)


def test_cosine_is_that_of_torch() -> None:
    expected = of_torch(torch.optim.lr_scheduler.CosineAnnealingLR, 40, T_max=40)
    assert rates(40, schedule="cosine") == pytest.approx(expected)


def test_one_cycle_peaks_after_three_tenths_as_in_torch() -> None:
    values = rates(1000, schedule="one_cycle")
    expected = of_torch(
        torch.optim.lr_scheduler.OneCycleLR,
        1000,
        max_lr=0.5,
        total_steps=1001,
        cycle_momentum=False,
    )
    assert values == pytest.approx(expected, abs=0.002)
    assert values[0] == pytest.approx(0.5 / 25)
    assert max(range(1000), key=values.__getitem__) == pytest.approx(300, abs=1)


def test_warm_up_rises_in_a_straight_line_to_where_the_schedule_starts() -> None:
    values = rates(100, schedule="cosine", warmup=0.1)
    assert values[:10] == pytest.approx([0.5 * (step + 1) / 11 for step in range(10)])
    assert values[10] == 0.5
    assert values[10:] == pytest.approx(rates(90, schedule="cosine"))


@pytest.mark.parametrize(
    ("name", "kind", "extra"),
    [
        ("sgd", torch.optim.SGD, {}),
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ("adam", torch.optim.Adam, {}),
        ("adamw", torch.optim.AdamW, {}),
        ("rmsprop", torch.optim.RMSprop, {}),
        ("rmsprop", torch.optim.RMSprop, {"momentum": 0.5}),
    ],
)
def test_the_optimizer_takes_the_steps_of_torch(
    name: str, kind: type, extra: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    same = copy.deepcopy(network)
    ours = build_optimizer(
        train(optimizer=name, learning_rate=0.05, weight_decay=0.1, **extra), network
    )
    fused = {} if name == "rmsprop" else {"fused": True}
    weights = [value for value in same.parameters() if value.ndim > 1]
    biases = [value for value in same.parameters() if value.ndim == 1]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0}]
    plain = kind(groups, lr=0.05, **fused, **extra)
    inputs = torch.randn(4, 5)
    for _ in range(5):
        for part in (network, same):
            part(inputs).square().sum().backward()
        ours.step(0.05)
        plain.step()
        plain.zero_grad()
        for mine, theirs in zip(network.parameters(), same.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0 if fused else 1e-6, atol=0)


def test_a_weight_without_a_gradient_stays_as_it_is() -> None:
    network = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    idle = copy.deepcopy(network[1])
    network[0](torch.ones(1, 2)).sum().backward()
    build_optimizer(train(optimizer="adam", weight_decay=0.1), network).step(0.1)
    assert network[0].weight.grad is None
    torch.testing.assert_close(network[1].weight, idle.weight, rtol=0, atol=0)


def test_weight_decay_leaves_biases_and_norms_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in network.named_parameters()}
    for value in network.parameters():
        value.grad = torch.zeros_like(value)
    build_optimizer(train(optimizer="sgd", weight_decay=0.1), network).step(0.5)
    changed = {
        name for name, value in network.named_parameters() if not torch.equal(value, before[name])
    }
    assert changed == {"0.weight", "3.weight"}


@pytest.mark.parametrize("network", ["torchvision", "timm"])
def test_layer_decay_lowers_the_rate_layer_by_layer(network: str) -> None:
    if network == "timm":
        backbone = timm.create_model("resnet18", num_classes=0)
    else:
        backbone, _ = cut_off_head(torchvision.models.resnet18(weights=None))
    factors = backbone_factors(train(backbone_rate=0.5, layer_decay=0.8), backbone)
    stem = ("conv1", "bn1")
    blocks = [(f"layer{stage}.{block}",) for stage in (1, 2, 3, 4) for block in (0, 1)]
    layers = [stem, *blocks]
    for name, weight in backbone.named_parameters():
        (number,) = (n for n, layer in enumerate(layers) if name.startswith(layer))
        assert factors[weight] == pytest.approx(0.5 * 0.8 ** (9 - number)), name
    assert len(factors) == len(list(backbone.parameters()))


def test_layer_decay_reaches_the_steps() -> None:
    backbone = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    network = nn.Sequential(backbone, nn.Linear(2, 2))
    before = {name: value.clone() for name, value in network.named_parameters()}
    for value in network.parameters():
        value.grad = torch.ones_like(value)
    section = train(optimizer="sgd", backbone_rate=1.0, layer_decay=0.5)
    build_optimizer(section, network, backbone).step(1.0)
    moved = {
        name: (before[name] - value).mean().item() for name, value in network.named_parameters()
    }
    for name, rate in [("0.0", 0.25), ("0.1", 0.25), ("0.2", 0.5), ("1", 1.0)]:
        assert moved[f"{name}.weight"] == pytest.approx(rate)
        assert moved[f"{name}.bias"] == pytest.approx(rate)


def test_the_average_follows_its_formula() -> None:
    network = nn.Linear(1, 1, bias=False)
    assert weight_average(network, 0.0) is None
    average = weight_average(network, 0.2)
    assert average is not None
    expected = network.weight.item()
    average.update_parameters(network)  # the first update copies
    for value, decay in ((1.0, 2 / 11), (2.0, 0.2), (3.0, 0.2)):
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
        expected = decay * expected + (1 - decay) * value
    assert average.module.weight.item() == pytest.approx(expected, abs=1e-6)
