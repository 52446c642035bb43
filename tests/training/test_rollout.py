"""A rollout against diffusers' own solvers, row by row; which rows have one, how long, and at what cost."""

from collections import Counter

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from dreamspace.config.rollout import rollout_probability
from dreamspace.config.sections import RolloutSettings
from dreamspace.training.rollout import RollOut, Rollout, rollout_length
from dreamspace.training.schedule import NoiseSchedule, noise_schedule

# Of a thousand timesteps, and of 40, whose steps are so long that the solvers come out far apart.
BETAS = {1000: (0.00085, 0.012), 40: (0.02, 0.3)}
STEPS = [12, 9, 9, 4, 1]
SOLVERS = [("euler", 1), ("dpm", 1), ("dpm", 2), ("dpm", 3), ("unipc", 1), ("unipc", 2), ("unipc", 3)]


def starts(num_timesteps: int) -> list[int]:
    return [num_timesteps - 1, num_timesteps // 2, num_timesteps * 2 // 3, 6, num_timesteps // 4]


def settings_of(prediction_type: str, num_timesteps: int) -> dict:
    start, end = BETAS[num_timesteps]
    return {
        "num_train_timesteps": num_timesteps,
        "beta_start": start,
        "beta_end": end,
        "beta_schedule": "scaled_linear",
        "prediction_type": prediction_type,
    }


def toy_model(latents: Tensor, timesteps: Tensor, num_timesteps: int) -> Tensor:
    """Smooth and far from linear in both, so that a wrong factor or timestep shows."""
    time = timesteps.view(-1, 1, 1, 1).float() / num_timesteps
    return torch.tanh(1.3 * latents + torch.sin(7 * time)) + 0.3 * latents.roll(1, -1) * torch.cos(3 * time)


def schedule_of(prediction_type: str, num_timesteps: int) -> NoiseSchedule:
    if prediction_type == "flow_matching":
        return noise_schedule(FlowMatchEulerDiscreteScheduler(num_train_timesteps=num_timesteps))
    return noise_schedule(DDPMScheduler(**settings_of(prediction_type, num_timesteps)))


def roll_out(
    prediction_type: str, num_timesteps: int, solver: str, order: int, latents: Tensor, calls: list[int]
) -> Tensor:
    schedule = schedule_of(prediction_type, num_timesteps)

    def predict(noisy: Tensor, timesteps: Tensor, count: int) -> Tensor:
        assert len(noisy) == len(timesteps) == count
        calls.append(count)
        return toy_model(noisy, timesteps, num_timesteps)

    rollouts = [Rollout(*entry) for entry in zip(range(5), starts(num_timesteps), STEPS, strict=True)]
    return RollOut(schedule, solver, order)(predict, latents, rollouts)


def reference(prediction_type: str, num_timesteps: int, solver: str, order: int):
    """diffusers' scheduler with a step for each training timestep."""
    is_flow = prediction_type == "flow_matching"
    settings = settings_of("flow_prediction" if is_flow else prediction_type, num_timesteps)
    if solver == "euler" and is_flow:
        scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=num_timesteps)
    elif solver == "euler":
        scheduler = EulerDiscreteScheduler(**settings, timestep_spacing="trailing")
    else:
        kind = {"unipc": UniPCMultistepScheduler, "dpm": DPMSolverMultistepScheduler}[solver]
        scheduler = kind(**settings, timestep_spacing="trailing", solver_order=order, use_flow_sigmas=is_flow)
    scheduler.set_timesteps(num_timesteps)
    if is_flow and solver != "euler":  # whose own grid ends elsewhere
        sigmas = schedule_of(prediction_type, num_timesteps).sigmas.flip(0)
        scheduler.sigmas = torch.cat([sigmas.clamp(max=1 - 1e-6), torch.zeros(1)])
        scheduler.timesteps = torch.arange(num_timesteps - 1, -1, -1)
    return scheduler


def rolled_out_by_diffusers(
    scheduler, latents: Tensor, start: int, num_steps: int, num_timesteps: int
) -> Tensor:
    first = num_timesteps - 1 - start
    scheduler.set_begin_index(first)
    is_euler = isinstance(scheduler, EulerDiscreteScheduler)
    if is_euler:  # which works on latents / alpha
        latents = latents * (scheduler.sigmas[first] ** 2 + 1) ** 0.5
    for number in range(num_steps):
        listed = scheduler.timesteps[first + number]
        inputs = scheduler.scale_model_input(latents, listed) if is_euler else latents
        output = toy_model(inputs, torch.tensor([start - number]), num_timesteps)
        latents = scheduler.step(output, listed, latents, return_dict=False)[0]
    if is_euler:
        latents = latents / (scheduler.sigmas[first + num_steps] ** 2 + 1) ** 0.5
    return latents


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("num_timesteps", [1000, 40])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "flow_matching"])
@pytest.mark.parametrize(("solver", "order"), SOLVERS)
def test_offset_of_each_row_equals_as_many_steps_of_diffusers_solver(
    solver: str, order: int, prediction_type: str, num_timesteps: int
) -> None:
    latents = torch.randn(5, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    ours = roll_out(prediction_type, num_timesteps, solver, order, latents, calls=[])
    for row, (start, num_steps) in enumerate(zip(starts(num_timesteps), STEPS, strict=True)):
        scheduler = reference(prediction_type, num_timesteps, solver, order)
        own = latents[row : row + 1]
        theirs = rolled_out_by_diffusers(scheduler, own.clone(), start, num_steps, num_timesteps)
        assert (theirs - own).abs().max() > 1e-3
        torch.testing.assert_close(ours[row : row + 1], theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "flow_matching"])
def test_solvers_and_orders_differ_where_steps_are_long(prediction_type: str) -> None:
    latents = torch.randn(5, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    ended = [roll_out(prediction_type, 40, *solver, latents, calls=[]) for solver in SOLVERS]
    torch.testing.assert_close(ended[0], ended[1])  # DPM-Solver++ of order 1 is Euler in its own variables
    for index, one in enumerate(ended):
        for other in ended[max(2, index + 1) :]:
            assert (one - other).abs().max() > 5e-4


def test_row_forwards_add_up_to_the_offsets_in_as_many_calls_as_the_longest() -> None:
    calls: list[int] = []
    roll_out("epsilon", 1000, "unipc", 2, torch.randn(5, 4, 2, 2), calls)
    assert len(calls) == max(STEPS)
    assert sum(calls) == sum(STEPS)


def settings(**values) -> RolloutSettings:
    return RolloutSettings(**{f"scheduled_sampling_{name}": value for name, value in values.items()})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"probability": 0.8}, {0: 0.8, 9000: 0.8}),
        ({"probability": 1.0, "ramp_steps": 1000}, {0: 0.0, 250: 0.25, 1000: 1.0, 5000: 1.0}),
        ({"probability": 1.0, "ramp_steps": 100, "start_step": 50}, {49: 0.0, 50: 0.0, 100: 0.5, 150: 1.0}),
        ({"probability": 1.0, "ramp_steps": 1000, "prob_start": 1.0, "prob_end": 0.5}, {0: 1.0, 500: 0.75}),
        ({"probability": 1.0, "ramp_steps": 4, "ramp_shape": "cosine"}, {1: 0.5 - 0.5**1.5, 2: 0.5, 4: 1.0}),
        ({"probability": 0.5, "start_step": 10}, {9: 0.0, 10: 0.5}),
        ({"probability": 0.5, "prob_end": 0.25}, {0: 0.5, 9000: 0.5}),
        ({"prob_end": 0.25}, {0: 0.25}),
        ({}, {0: 0.0}),
        ({"probability": 1.0, "max_step_offset": 0}, {0: 0.0}),
    ],
)
def test_probability_ramps_up_from_zero_unless_told_otherwise(given: dict, expected: dict) -> None:
    ramp = settings(**{"max_step_offset": 10} | given)
    assert {step: pytest.approx(rollout_probability(step, ramp)) for step in expected} == expected


@pytest.mark.parametrize(
    ("strategy", "mean"), [("uniform", 5.0), ("biased_early", 10 / 3), ("biased_late", 20 / 3)]
)
def test_offsets_lie_between_none_and_the_most_and_follow_the_strategy(strategy: str, mean: float) -> None:
    given = settings(max_step_offset=10, probability=1.0, strategy=strategy)
    drawn = [rollout_length(3, step, row, given) for step in range(500) for row in range(4)]
    assert set(drawn) == set(range(11))
    assert sum(drawn) / len(drawn) == pytest.approx(mean, abs=0.25)
    assert drawn == [rollout_length(3, step, row, given) for step in range(500) for row in range(4)]
    if strategy == "uniform":
        assert min(Counter(drawn).values()) > 120


def test_share_of_rows_that_are_rolled_out_is_the_probability() -> None:
    given = settings(max_step_offset=10, probability=0.4, strategy="biased_late")
    lengths = [rollout_length(0, step, 0, given) for step in range(4000)]
    assert sum(length > 0 for length in lengths) / 4000 == pytest.approx(0.4 * 0.975, abs=0.03)
