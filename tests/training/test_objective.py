"""The loss against its definitions: the papers' other spaces, diffusers, and any split of the rows."""

import math

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from dreamspace.training.objective import (
    class_row_weight,
    debiased_weights,
    elementwise_loss,
    huber_bounds,
    min_snr_weights,
    per_sample_loss,
    predicted_latents,
    signal_to_noise,
    step_loss,
    training_target,
)

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
TIMESTEPS = torch.tensor([0, 1, 57, 500, 998, 999])
KINDS = ["epsilon", "v_prediction", "flow_matching"]


def levels(prediction_type: str) -> tuple[Tensor, Tensor]:
    """alpha and sigma of the timesteps, in fp64."""
    if prediction_type == "flow_matching":
        sigmas = (TIMESTEPS.double() + 1) / 1001
        return 1 - sigmas, sigmas
    alpha_bar = SCHEDULER.alphas_cumprod.double()[TIMESTEPS]
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


@pytest.fixture
def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Latents, noise and a prediction, (6, 4, 8, 8) each, in fp64, so that identities hold exactly."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(6, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(3))


def x0_errors(rows: tuple[Tensor, Tensor, Tensor], prediction_type: str) -> tuple[Tensor, Tensor]:
    """The squared errors of the clean latents that predictions stand for, and those of the predictions."""
    latents, noise, prediction = rows
    alphas, sigmas = levels(prediction_type)
    noisy_latents = alphas.view(-1, 1, 1, 1) * latents + sigmas.view(-1, 1, 1, 1) * noise
    predicted = predicted_latents(prediction, noisy_latents, alphas, sigmas, prediction_type)
    target = training_target(latents, noise, alphas, sigmas, prediction_type)
    return (
        (predicted - latents).square().mean(dim=(1, 2, 3)),
        (prediction - target).square().mean(dim=(1, 2, 3)),
    )


@pytest.mark.parametrize("prediction_type", KINDS)
def test_target_stands_for_the_clean_latents(
    rows: tuple[Tensor, Tensor, Tensor], prediction_type: str
) -> None:
    latents, noise, _ = rows
    alphas, sigmas = levels(prediction_type)
    target = training_target(latents, noise, alphas, sigmas, prediction_type)
    errors, _ = x0_errors((latents, noise, target), prediction_type)
    assert errors.max() < 1e-20


def test_v_target_equals_diffusers_velocity(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    latents, noise, _ = rows
    target = training_target(latents, noise, *levels("v_prediction"), "v_prediction")
    torch.testing.assert_close(
        target, SCHEDULER.get_velocity(latents, noise, TIMESTEPS), rtol=1e-5, atol=1e-5
    )


def test_epsilon_target_is_the_noise_and_the_flow_goes_from_picture_to_noise(
    rows: tuple[Tensor, Tensor, Tensor],
) -> None:
    latents, noise, _ = rows
    assert training_target(latents, noise, *levels("epsilon"), "epsilon") is noise
    flow = training_target(latents, noise, *levels("flow_matching"), "flow_matching")
    assert torch.equal(flow, noise - latents)


def test_unknown_prediction_type_is_refused(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    latents, noise, prediction = rows
    alphas, sigmas = levels("epsilon")
    sentence = r"must be one of epsilon, v_prediction, flow_matching, got 'sample'\."
    with pytest.raises(ValueError, match=sentence):
        training_target(latents, noise, alphas, sigmas, "sample")
    with pytest.raises(ValueError, match=sentence):
        predicted_latents(prediction, latents, alphas, sigmas, "sample")
    with pytest.raises(ValueError, match=sentence):
        min_snr_weights(torch.ones(2), 5.0, "sample")


def test_signal_to_noise_equals_diffusers() -> None:
    ours = signal_to_noise(SCHEDULER.alphas_cumprod, TIMESTEPS)
    torch.testing.assert_close(ours, compute_snr(SCHEDULER, TIMESTEPS), rtol=1e-4, atol=0)


@pytest.mark.parametrize("prediction_type", KINDS)
def test_min_snr_weights_the_loss_as_its_definition_weights_the_loss_of_x0(
    prediction_type: str, rows: tuple[Tensor, Tensor, Tensor]
) -> None:
    alphas, sigmas = levels(prediction_type)
    snr = (alphas / sigmas).square()
    of_x0, of_prediction = x0_errors(rows, prediction_type)
    weights = min_snr_weights(snr, 5.0, prediction_type)
    torch.testing.assert_close(weights * of_prediction, snr.clamp(max=5) * of_x0)
    assert (snr > 5).any()
    assert (snr < 5).any()


@pytest.mark.parametrize("prediction_type", KINDS)
def test_debiased_weights_are_one_over_the_root_of_snr_on_the_loss_of_the_noise(
    prediction_type: str, rows: tuple[Tensor, Tensor, Tensor]
) -> None:
    alphas, sigmas = levels(prediction_type)
    snr = (alphas / sigmas).square()
    of_x0, of_prediction = x0_errors(rows, prediction_type)
    of_epsilon = of_x0 * snr
    inside = (snr > 1e-3) & (snr < 1e3)
    weighted = debiased_weights(snr, prediction_type) * of_prediction
    torch.testing.assert_close(weighted[inside], (of_epsilon / snr.sqrt())[inside])
    assert inside.any()


def test_weights_stay_finite_without_any_signal_and_without_any_noise() -> None:
    snr = torch.tensor([0.0, 1e9])
    assert min_snr_weights(snr, 5.0, "v_prediction")[0] == 0
    assert min_snr_weights(snr, 5.0, "flow_matching")[0] == 0
    for prediction_type in KINDS:
        weights = debiased_weights(snr, prediction_type)
        assert weights.isfinite().all()
        assert weights.max() < 32


def test_per_sample_loss_is_computed_in_fp32() -> None:
    prediction, target = torch.full((2, 4, 8, 8), 300.0, dtype=torch.float16), torch.zeros(2, 4, 8, 8)
    losses = per_sample_loss(prediction, target)
    assert losses.dtype == torch.float32
    assert losses.tolist() == [90_000.0, 90_000.0], "which fp16 cannot hold"


@pytest.mark.parametrize("loss_type", ["huber", "smooth_l1"])
def test_smooth_distances_are_quadratic_near_and_linear_far_away(loss_type: str) -> None:
    bounds = torch.tensor([0.1, 2.0])
    scale = 1.0 if loss_type == "huber" else 1 / bounds

    def loss(error: float) -> Tensor:
        prediction = torch.full((2, 1, 1, 1), error, dtype=torch.float32)
        return elementwise_loss(prediction, torch.zeros(2, 1, 1, 1), loss_type, bounds).flatten()

    # 2 c (sqrt(e² + c²) - c) is e² for small e, and 2 c e for large e; smooth_l1 is that over c.
    torch.testing.assert_close(loss(0.02), scale * torch.full((2,), 0.02**2), rtol=0.02, atol=0)
    torch.testing.assert_close(loss(1e4), scale * 2 * bounds * 1e4, rtol=1e-3, atol=0)
    assert torch.equal(loss(0.5), loss(-0.5))


def test_huber_equals_diffusers_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 3, 4, 5, 5, generator=generator)
    bounds = torch.tensor([0.1, 0.5, 1.0])
    expected = [
        2 * c * (((prediction[row] - target[row]) ** 2 + c**2) ** 0.5 - c)
        for row, c in enumerate(bounds.tolist())
    ]
    ours = elementwise_loss(prediction, target, "huber", bounds)
    torch.testing.assert_close(ours, torch.stack(expected))


def test_schedules_of_the_huber_bound_equal_the_trainers_formulas() -> None:
    snr = compute_snr(SCHEDULER, TIMESTEPS)
    exponential = huber_bounds("exponential", 0.1, TIMESTEPS, snr, 1000)
    expected = [math.exp(math.log(0.1) / 1000 * timestep) for timestep in TIMESTEPS.tolist()]
    torch.testing.assert_close(exponential, torch.tensor(expected))
    alpha_bar = SCHEDULER.alphas_cumprod[TIMESTEPS]
    sigmas = ((1 - alpha_bar) / alpha_bar) ** 0.5
    by_snr = huber_bounds("snr", 0.1, TIMESTEPS, snr, 1000)
    torch.testing.assert_close(by_snr, (1 - 0.1) / (1 + sigmas) ** 2 + 0.1)
    assert huber_bounds("constant", 0.1, TIMESTEPS, snr, 1000).tolist() == pytest.approx([0.1] * 6)
    assert huber_bounds("snr", 0.1, TIMESTEPS[:1], torch.zeros(1), 1000).item() == pytest.approx(0.1)


@pytest.mark.parametrize(("world_size", "size"), [(1, 12), (1, 1), (1, 4), (2, 3), (4, 1), (3, 2)])
def test_any_split_over_ranks_and_micro_batches_adds_up_to_the_weighted_mean(
    world_size: int, size: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    losses, weights = torch.rand(2, 12, generator=generator, dtype=torch.float64)
    of_rank = [0.0] * world_size
    for number, start in enumerate(range(0, 12, size)):
        rows = slice(start, start + size)
        of_rank[number % world_size] += step_loss(losses[rows], weights[rows], 12, world_size)
    averaged_over_ranks = sum(of_rank) / world_size
    torch.testing.assert_close(averaged_over_ranks, (losses * weights).sum() / 12)


@pytest.mark.parametrize(("num_instances", "num_class"), [(3, 1), (1, 3), (4, 0), (0, 4)])
def test_prior_preservation_equals_instance_plus_weighted_class_loss(
    num_instances: int, num_class: int
) -> None:
    losses = torch.rand(num_instances + num_class, generator=torch.Generator().manual_seed(0))
    divisor, class_weight = class_row_weight(num_instances + num_class, num_class, 0.7)
    weights = torch.tensor([1.0] * num_instances + [class_weight] * num_class)
    instance_loss = losses[:num_instances].mean() if num_instances else 0.0
    class_loss = losses[num_instances:].mean() if num_class else 0.0
    expected = torch.as_tensor(instance_loss + 0.7 * class_loss)
    torch.testing.assert_close(step_loss(losses, weights, divisor, 1), expected)
