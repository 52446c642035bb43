"""The loss against its definitions: diffusers' scheduler, the papers' other spaces, any split of the rows."""

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from dreamspace.training.objective import (
    min_snr_weights,
    per_sample_loss,
    random_rows,
    signal_to_noise,
    step_loss,
    training_target,
)

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
TIMESTEPS = torch.tensor([0, 1, 57, 500, 998, 999])


@pytest.fixture
def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Latents, noise and a prediction, (6, 4, 8, 8) each, in fp64, so that identities hold exactly."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(6, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(3))


def test_v_target_equals_diffusers_velocity(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    latents, noise, _ = rows
    target = training_target(latents, noise, TIMESTEPS, SCHEDULER.alphas_cumprod, "v_prediction")
    torch.testing.assert_close(target, SCHEDULER.get_velocity(latents, noise, TIMESTEPS))


def test_epsilon_target_is_the_noise(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    latents, noise, _ = rows
    assert training_target(latents, noise, TIMESTEPS, SCHEDULER.alphas_cumprod, "epsilon") is noise


def test_unknown_prediction_type_is_refused(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    latents, noise, _ = rows
    with pytest.raises(ValueError, match="epsilon or v_prediction, got 'sample'"):
        training_target(latents, noise, TIMESTEPS, SCHEDULER.alphas_cumprod, "sample")
    with pytest.raises(ValueError, match="epsilon or v_prediction, got 'sample'"):
        min_snr_weights(torch.ones(2), 5.0, "sample")


def test_signal_to_noise_equals_diffusers() -> None:
    ours = signal_to_noise(SCHEDULER.alphas_cumprod, TIMESTEPS)
    torch.testing.assert_close(ours, compute_snr(SCHEDULER, TIMESTEPS), rtol=1e-4, atol=0)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weights_the_loss_as_its_definition_weights_the_loss_of_x0(
    prediction_type: str, rows: tuple[Tensor, Tensor, Tensor]
) -> None:
    latents, noise, prediction = rows
    alphas_cumprod = SCHEDULER.alphas_cumprod.double()
    alpha_bar = alphas_cumprod[TIMESTEPS].view(-1, 1, 1, 1)
    noisy_latents = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise
    if prediction_type == "epsilon":
        predicted_x0 = (noisy_latents - (1 - alpha_bar).sqrt() * prediction) / alpha_bar.sqrt()
    else:
        predicted_x0 = alpha_bar.sqrt() * noisy_latents - (1 - alpha_bar).sqrt() * prediction
    snr = signal_to_noise(alphas_cumprod, TIMESTEPS)
    definition = snr.clamp(max=5) * (predicted_x0 - latents).square().mean(dim=(1, 2, 3))
    target = training_target(latents, noise, TIMESTEPS, alphas_cumprod, prediction_type)
    losses = (prediction - target).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(min_snr_weights(snr, 5.0, prediction_type) * losses, definition)


def test_zero_terminal_snr_is_finite_for_v() -> None:
    assert min_snr_weights(torch.zeros(1), 5.0, "v_prediction").item() == 0


def test_per_sample_loss_is_computed_in_fp32() -> None:
    prediction, target = torch.full((2, 4, 8, 8), 300.0, dtype=torch.float16), torch.zeros(2, 4, 8, 8)
    losses = per_sample_loss(prediction, target)
    assert losses.dtype == torch.float32
    assert losses.tolist() == [90_000.0, 90_000.0], "which fp16 cannot hold"


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


def test_rows_depend_on_seed_step_and_row_alone() -> None:
    noise, timesteps = random_rows(7, 3, 0, 6, (4, 8, 8), 1000)
    for first, count in [(0, 1), (1, 2), (3, 3), (5, 1)]:
        part_noise, part_timesteps = random_rows(7, 3, first, count, (4, 8, 8), 1000)
        assert torch.equal(part_noise, noise[first : first + count])
        assert torch.equal(part_timesteps, timesteps[first : first + count])
    for seed, step, first in [(8, 3, 0), (7, 4, 0), (7, 3, 1)]:
        other, _ = random_rows(seed, step, first, 1, (4, 8, 8), 1000)
        assert not torch.equal(other[0], noise[0])


def test_rows_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    random_rows(7, 3, 0, 2, (4, 8, 8), 1000)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_normal_and_timesteps_are_uniform() -> None:
    noise, timesteps = random_rows(0, 0, 0, 2000, (4, 4, 4), 1000)
    assert noise.dtype == torch.float32
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert timesteps.dtype == torch.int64
    assert 0 <= timesteps.min() < 10
    assert 990 <= timesteps.max() < 1000
    assert abs(timesteps.float().mean() - 499.5) < 25
    neighbours = torch.stack([noise[:-1].flatten(1), noise[1:].flatten(1)])
    correlation = (neighbours[0] * neighbours[1]).mean()
    assert abs(correlation) < 0.01, "neighbouring rows are independent"
