"""Noise levels against diffusers' schedulers, and models that cannot be trained as asked."""

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from dreamspace.training.objective import per_row
from dreamspace.training.schedule import noise_schedule

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TIMESTEPS = torch.tensor([0, 3, 500, 999])


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noisy_latents_equal_diffusers_to_the_last_bit(prediction_type: str) -> None:
    scheduler = DDPMScheduler(prediction_type=prediction_type, **BETAS)
    latents, noise = torch.randn(2, 4, 4, 8, 8)
    schedule = noise_schedule(scheduler)
    ours = schedule.add_noise(latents, noise, TIMESTEPS)
    assert torch.equal(ours, scheduler.add_noise(latents, noise, TIMESTEPS))
    assert torch.equal(schedule.model_timesteps(TIMESTEPS), TIMESTEPS)
    assert schedule.num_timesteps == 1000


def test_flow_equals_diffusers_grid_and_its_times_are_its_sigmas() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    schedule = noise_schedule(scheduler)
    torch.testing.assert_close(schedule.sigmas.flip(0), scheduler.sigmas)
    latents, noise = torch.randn(2, 4, 4, 8, 8)
    listed = scheduler.timesteps[999 - TIMESTEPS]
    torch.testing.assert_close(
        schedule.add_noise(latents, noise, TIMESTEPS), scheduler.scale_noise(latents, listed, noise)
    )
    assert schedule.model_timesteps(TIMESTEPS).tolist() == pytest.approx([0.001, 0.004, 0.501, 1.0])


@pytest.mark.parametrize("scheduler", [DDPMScheduler(**BETAS), FlowMatchEulerDiscreteScheduler()])
def test_noise_is_found_again_between_latents_and_noisy_latents(scheduler) -> None:
    schedule = noise_schedule(scheduler)
    latents, noise = torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    noisy_latents = schedule.add_noise(latents, noise, TIMESTEPS)
    drawn = noise + 0.1 * torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    found = schedule.noise_after(noisy_latents, latents, drawn, TIMESTEPS)
    torch.testing.assert_close(found[2:], noise[2:], rtol=1e-3, atol=1e-3)
    for row in (0, 1):  # above an SNR of 16 only a share of the difference is found
        share = schedule.sigmas[TIMESTEPS[row]] / (0.25 * schedule.alphas[TIMESTEPS[row]])
        expected = drawn[row] + share * (noise[row] - drawn[row])
        assert share < 0.4
        torch.testing.assert_close(found[row], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scheduler", [DDPMScheduler(**BETAS), FlowMatchEulerDiscreteScheduler()])
def test_drift_makes_no_target_beyond_four_times_itself(scheduler) -> None:
    schedule = noise_schedule(scheduler)
    latents, noise, drift = torch.randn(3, 1000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    timesteps = torch.arange(1000)
    noisy_latents = schedule.add_noise(latents, noise, timesteps)
    found = schedule.noise_after(noisy_latents + drift, latents, noise, timesteps)
    assert ((found - noise).abs() <= 5.01 * drift.abs() + 1e-5).all()
    scale = per_row(schedule.alphas), per_row(schedule.sigmas)
    exact = (noisy_latents + drift - scale[0] * latents) / scale[1]
    noisy = schedule.snr < 16
    assert noisy[250:].all()
    torch.testing.assert_close(found[noisy], exact[noisy], rtol=1e-3, atol=1e-3)


def test_zero_terminal_snr_equals_diffusers_and_ends_in_pure_noise() -> None:
    settings = {**BETAS, "prediction_type": "v_prediction"}
    schedule = noise_schedule(DDPMScheduler(**settings), rescale_zero_snr=True)
    expected = DDPMScheduler(**settings, rescale_betas_zero_snr=True)
    assert torch.equal(schedule.alphas.square(), expected.alphas_cumprod.sqrt().square())
    assert (schedule.alphas[-1], schedule.sigmas[-1], schedule.snr[-1]) == (0, 1, 0)
    already = noise_schedule(expected)
    assert torch.equal(already.sigmas, schedule.sigmas)


def test_zero_terminal_snr_is_refused_for_epsilon() -> None:
    with pytest.raises(ValueError, match=r"rescale_betas_zero_snr needs a model of v-prediction"):
        noise_schedule(DDPMScheduler(**BETAS), rescale_zero_snr=True)


def test_model_that_predicts_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r"predicts 'sample'; epsilon, v_prediction and flow_matching can"):
        noise_schedule(DDPMScheduler(prediction_type="sample", **BETAS))
