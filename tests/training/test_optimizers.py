"""Every optimizer: its oracle, exact resumes through real checkpoints, bad numbers, and learning rates."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import hide_packages, tiny_config
from torch import nn

from dreamspace.config import RunConfig
from dreamspace.models.parameters import ParameterGroup
from dreamspace.training.checkpoints import load_optimizer, save_optimizer
from dreamspace.training.optimizers import (
    averages_weights,
    check_optimizer,
    learning_rate_schedule,
    new_optimizer,
    put_in_place,
    skip_if_not_finite,
    usable_weights,
)
from dreamspace.training.stochastic_adamw import StochasticAdamW, round_stochastically
from dreamspace.worker import SLOW_PACKAGES

NAMES = ["adamw", "adamw_bf16", "bnb-adamw8bit", "lion", "adafactor", "prodigy", "adamw_schedulefree"]
FLAGGED = ("adamw", "adamw_bf16")
FINITE, NOT_FINITE = torch.tensor(True), torch.tensor(False)


def config_of(name: str, **settings: Any) -> RunConfig:
    rate = 1.0 if name == "prodigy" else 0.01
    given = {"lr_scheduler": "constant", "lr_warmup_steps": 0, "optimizer": name, "learning_rate": rate}
    return tiny_config(Path("mini"), **given | settings)


def new_weights() -> list[nn.Parameter]:
    """One of them long enough for 8-bit states."""
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(64, 96), (5, 3), (7,)]]


def groups_of(weights: list[nn.Parameter]) -> list[ParameterGroup]:
    return [ParameterGroup("all", weights)]


def take_step(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)
    skip_if_not_finite(optimizer, FINITE)
    torch.manual_seed(step)
    optimizer.step()


@pytest.mark.parametrize("name", NAMES)
def test_resumed_optimizer_goes_on_to_the_last_bit(name: str, tmp_path: Path) -> None:
    config, weights = config_of(name), new_weights()
    optimizer = new_optimizer(config, groups_of(weights))
    for step in range(4):
        take_step(optimizer, weights, step)
    save_optimizer(optimizer, tmp_path)
    others = [nn.Parameter(torch.zeros_like(weight)) for weight in weights]
    resumed = new_optimizer(config, groups_of(others))
    put_in_place(others, [weight.detach() for weight in weights])
    load_optimizer(resumed, tmp_path)
    assert repr(resumed.state_dict()) == repr(optimizer.state_dict())
    before = weights[0].detach().clone()
    for step in range(4, 8):
        take_step(optimizer, weights, step)
        take_step(resumed, others, step)
    assert all(map(torch.equal, others, weights))
    assert not torch.equal(weights[0], before)


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_learns(name: str) -> None:
    weights = new_weights()
    optimizer = new_optimizer(config_of(name, adam_weight_decay=0.0), groups_of(weights))
    started = sum(weight.float().square().sum() for weight in weights).item()
    for step in range(150):
        for weight in weights:
            weight.grad = 2 * weight.detach()
        skip_if_not_finite(optimizer, FINITE)
        torch.manual_seed(step)
        optimizer.step()
    with usable_weights(optimizer, weights):
        ended = sum(weight.float().square().sum() for weight in weights).item()
    assert ended < 0.5 * started


@pytest.mark.parametrize("name", NAMES)
def test_gradients_that_are_not_finite_leave_weights_finite_and_flagged_ones_untouched(name: str) -> None:
    weights = new_weights()
    optimizer = new_optimizer(config_of(name), groups_of(weights))
    take_step(optimizer, weights, 0)
    before, state = [weight.detach().clone() for weight in weights], repr(optimizer.state_dict()["state"])
    for weight in weights:
        weight.grad = torch.full_like(weight, float("nan"))  # which clipping makes of them
    skip_if_not_finite(optimizer, NOT_FINITE)
    torch.manual_seed(1)
    optimizer.step()
    assert all(weight.isfinite().all() for weight in weights)
    if name in FLAGGED:
        assert all(map(torch.equal, weights, before))
        assert repr(optimizer.state_dict()["state"]) == state
    take_step(optimizer, weights, 2)
    assert all(weight.isfinite().all() for weight in weights)
    assert not torch.equal(weights[0], before[0])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "prodigy"])
def test_groups_have_learning_rates_of_their_own(name: str) -> None:
    weights = new_weights()
    groups = [ParameterGroup("denoiser", weights[:1]), ParameterGroup("words", weights[1:], 0.0)]
    optimizer = new_optimizer(config_of(name, adam_weight_decay=0.0), groups)
    assert [group["learning_rate_factor"] for group in optimizer.param_groups] == [1.0, 0.0]
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * group["learning_rate_factor"]
    before = [weight.detach().clone() for weight in weights]
    for step in range(2):
        take_step(optimizer, weights, step)
    assert not torch.equal(weights[0], before[0])
    assert all(map(torch.equal, weights[1:], before[1:]))


def test_prodigy_has_one_learning_rate() -> None:
    weights = new_weights()
    groups = [ParameterGroup("denoiser", weights[:1]), ParameterGroup("words", weights[1:], 0.1)]
    with pytest.raises(ValueError, match="Prodigy knows one learning rate"):
        new_optimizer(config_of("prodigy"), groups)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"name": "prodigy", "learning_rate": 1e-4}, r"got 0\.0001\. Set learning_rate to 1\."),
        ({"name": "adamw_schedulefree", "lr_scheduler": "cosine"}, "Set it to 'constant' or"),
        ({"name": "adamw_schedulefree", "use_ema": True}, "Set use_ema to false"),
    ],
)
def test_settings_that_an_optimizer_cannot_use_are_refused(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_optimizer(config_of(**settings), "cpu")


@pytest.mark.parametrize("name", NAMES)
def test_all_optimizers_are_accepted_as_they_are_meant(name: str) -> None:
    check_optimizer(config_of(name), "cpu")


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import sys

    for package in ("bitsandbytes.optim", "prodigyopt", "schedulefree"):
        monkeypatch.setitem(sys.modules, package, None)
    return


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize("name", ["bnb-adamw8bit", "lion", "prodigy", "adamw_schedulefree"])
def test_missing_package_is_named_with_the_command_that_installs_it(name: str) -> None:
    with pytest.raises(ValueError, match=rf"optimizer '{name}' needs the package .* pip install "):
        new_optimizer(config_of(name), groups_of(new_weights()))


@pytest.mark.parametrize("name", NAMES)
def test_configuration_names_the_slow_packages_that_an_optimizer_imports(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(SLOW_PACKAGES - config_of(name).packages, monkeypatch)
    new_optimizer(config_of(name), groups_of(new_weights()))


def test_rounding_is_unbiased_and_keeps_what_bf16_can_hold() -> None:
    torch.manual_seed(0)
    for value in (1.0 + 1 / 512, -3.1415926, 1e-3, 65504.0):
        rounded = round_stochastically(torch.full((200_000,), value)).float()
        assert len(rounded.unique()) == 2
        assert rounded.mean().item() == pytest.approx(value, rel=1e-5, abs=1e-7 * abs(value) + 1e-9)
    exact = torch.tensor([0.0, 1.0, -0.15625, 3e38]).to(torch.bfloat16)
    assert torch.equal(round_stochastically(exact.float()), exact)


def test_bf16_adamw_follows_adamw_in_fp32_within_its_rounding() -> None:
    weights, exact = new_weights(), new_weights()
    ours = StochasticAdamW([weights[0]], lr=1e-3, weight_decay=0.1)
    theirs = torch.optim.AdamW([exact[0]], lr=1e-3, weight_decay=0.1)
    exact[0].data = weights[0].data.float()
    started = exact[0].detach().clone()
    for step in range(100):
        gradient = torch.randn(exact[0].shape, generator=torch.Generator().manual_seed(step)) + 0.3
        weights[0].grad, exact[0].grad = gradient.to(torch.bfloat16), gradient.clone()
        torch.manual_seed(step)
        ours.step()
        theirs.step()
    moved, expected = weights[0].detach().float() - started, exact[0].detach() - started
    assert expected.abs().mean() > 0.02
    assert (moved - expected).mean().abs() < 5e-4, "each update is far below bf16's step at 1"
    assert (moved - expected).abs().mean() < 0.02
    assert {state.dtype for name, state in ours.state[weights[0]].items() if name != "step"} == {
        torch.bfloat16
    }


def test_bf16_draws_follow_from_the_seed() -> None:
    ended = []
    for seed in (0, 0, 1):
        weights = new_weights()
        optimizer = StochasticAdamW(weights, lr=1e-3)
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        torch.manual_seed(seed)
        optimizer.step()
        ended.append(weights[0].detach().clone())
    assert torch.equal(ended[0], ended[1])
    assert not torch.equal(ended[0], ended[2])


def test_schedule_free_weights_to_be_used_are_the_average_and_the_trained_ones_come_back() -> None:
    weights = new_weights()
    optimizer = new_optimizer(config_of("adamw_schedulefree"), groups_of(weights))
    assert averages_weights(optimizer)
    for step in range(5):
        take_step(optimizer, weights, step)
    trained = [weight.detach().clone() for weight in weights]
    with usable_weights(optimizer, weights):
        used = [weight.detach().clone() for weight in weights]
    assert all(map(torch.equal, weights, trained))
    assert not torch.equal(used[0], trained[0])
    # The paper's y = (1 - beta1) z + beta1 x, at which gradients are taken (arXiv:2405.15682, equation 3).
    for x, y, weight in zip(used, trained, weights, strict=True):
        torch.testing.assert_close(y, 0.1 * optimizer.state[weight]["z"] + 0.9 * x)
    take_step(optimizer, weights, 5)
    plain = new_optimizer(config_of("adamw"), groups_of(new_weights()))
    assert not averages_weights(plain)


def rates(name: str, **settings: Any) -> list[float]:
    given = {"max_train_steps": 10, "lr_warmup_steps": 4, "learning_rate": 0.5, "lr_scheduler": name}
    return learning_rate_schedule(tiny_config(Path("mini"), **given | settings))


def test_learning_rate_is_a_function_of_the_step() -> None:
    expected = [0.0, 0.125, 0.25, 0.375, 0.5, 0.5 * 5 / 6, 0.5 * 4 / 6, 0.25, 0.5 * 2 / 6, 0.5 / 6]
    assert rates("linear") == pytest.approx(expected)
    assert rates("constant") == [0.5] * 10
    assert rates("constant_with_warmup") == pytest.approx([0.0, 0.125, 0.25, 0.375] + [0.5] * 6)


def test_rules_of_a_piecewise_schedule_are_obeyed() -> None:
    by_rules = rates("piecewise_constant", lr_step_rules="1:3,0.1:6,0.01", lr_warmup_steps=0)
    assert by_rules == pytest.approx([0.5] * 3 + [0.05] * 3 + [0.005] * 4)


def test_restarts_and_power_are_obeyed() -> None:
    again = rates("cosine_with_restarts", lr_num_cycles=2, lr_warmup_steps=0)
    assert again[5] == pytest.approx(0.5)
    assert again[4] < 0.1
    square = rates("polynomial", lr_power=2.0, lr_warmup_steps=0)
    assert square == pytest.approx([0.5 * (1 - step / 10) ** 2 for step in range(10)], abs=1e-6)


def test_count_of_steps_that_torch_loads_onto_the_cpu_follows_its_weight() -> None:
    before = StochasticAdamW([nn.Parameter(torch.ones(3))], lr=1e-3)
    before.param_groups[0]["params"][0].grad = torch.ones(3, dtype=torch.bfloat16)
    before.step()
    elsewhere = nn.Parameter(torch.ones(3, device="meta"))
    resumed = StochasticAdamW([elsewhere], lr=1e-3)
    resumed.load_state_dict(before.state_dict())
    assert resumed.state[elsewhere]["step"].device.type == "cpu"
    # A whole step cannot be taken on the meta device, which has no values.
    assert all(value.device.type == "meta" for value in resumed._state_of(elsewhere).values())
    assert resumed.state[elsewhere]["step"].device.type == "meta"
