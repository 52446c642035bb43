"""The losses of a step with masks, rollouts and ReflexFlow, against their definitions on a real denoiser."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from peft.tuners.lora import LoraLayer
from tiny_runs import masked_datasets
from torch import Tensor

from dreamspace.models.sd1x import StableDiffusion
from dreamspace.training.batches import Batch
from dreamspace.training.loop import TrainingStep
from dreamspace.training.objective import elementwise_loss, huber_bounds, per_row
from dreamspace.training.reflexflow import drift_loss, exposure_weights
from dreamspace.training.schedule import noise_schedule

NewStep = Callable[..., TrainingStep]
PLAIN = {"adapter_strength": 0.1, "train_batch_size": 8, "gradient_accumulation_steps": 1, "snr_gamma": None}
ROLLOUT = {
    "scheduled_sampling_max_step_offset": 6,
    "scheduled_sampling_probability": 1.0,
    "scheduled_sampling_sampler": "euler",
}
FLOW = noise_schedule(FlowMatchEulerDiscreteScheduler())


@torch.no_grad()
def predict(step: TrainingStep, latents: Tensor, timesteps: Tensor, batch: Batch) -> Tensor:
    times = step.schedule.model_timesteps(timesteps)
    return step.family.predict(step.denoiser, latents, times, batch.conditioning)


def noisy_latents(step: TrainingStep, batch: Batch) -> Tensor:
    return step.schedule.add_noise(batch.latents, batch.input_noise, batch.timesteps)


def inside_and_outside(errors: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted means over the mask and over the rest, (B,)."""
    return tuple(
        (errors * part).sum(dim=(1, 2, 3)) / (4 * part.sum(dim=(1, 2, 3))) for part in (masks, 1 - masks)
    )


def test_masked_loss_is_that_of_the_subject_alone(new_step: NewStep, tmp_path: Path) -> None:
    step = new_step(datasets=masked_datasets(tmp_path), **PLAIN)
    batch = step.batches.batch(0, 0)
    errors = (predict(step, noisy_latents(step, batch), batch.timesteps, batch) - batch.noise).square()
    expected, _ = inside_and_outside(errors, batch.masks)
    torch.testing.assert_close(step.losses(batch)[0], expected, rtol=1e-4, atol=1e-6)
    by_mean = new_step(datasets=masked_datasets(tmp_path), **PLAIN, masked_loss_normalization="mean")
    expected = (errors * batch.masks).mean(dim=(1, 2, 3))
    torch.testing.assert_close(by_mean.losses(batch)[0], expected, rtol=1e-4, atol=1e-6)


def test_background_is_held_to_the_base_models_own_prediction(new_step: NewStep, tmp_path: Path) -> None:
    step = new_step(datasets=masked_datasets(tmp_path), **PLAIN, masked_prior_weight=0.6)
    batch = step.batches.batch(0, 0)
    noisy = noisy_latents(step, batch)
    trained = predict(step, noisy, batch.timesteps, batch)
    with step.adapter.off():
        base = predict(step, noisy, batch.timesteps, batch)
    inside, _ = inside_and_outside((trained - batch.noise).square(), batch.masks)
    _, outside = inside_and_outside((trained - base).square(), batch.masks)
    assert outside.min() > 1e-4
    torch.testing.assert_close(step.losses(batch)[0], inside + 0.6 * outside, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("weight", "expected"), [(0.6, [(4, True), (4, False)]), (0.0, [(4, False)])])
def test_base_model_sees_masked_rows_only_where_it_is_asked(
    new_step: NewStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float, expected: list
) -> None:
    step = new_step(datasets=masked_datasets(tmp_path), **PLAIN, masked_prior_weight=weight)
    layers = [module for module in step.denoiser.modules() if isinstance(module, LoraLayer)]
    calls, original = [], StableDiffusion.predict

    def counted(family, denoiser, latents, timesteps, conditioning):
        calls.append((len(latents), all(layer.disable_adapters for layer in layers)))
        return original(family, denoiser, latents, timesteps, conditioning)

    monkeypatch.setattr(StableDiffusion, "predict", counted)
    step.backward(0)
    assert calls == expected


@pytest.mark.parametrize("loss_type", ["huber", "smooth_l1"])
def test_huber_bounds_follow_the_timestep(new_step: NewStep, loss_type: str) -> None:
    step = new_step(**PLAIN, with_prior=False, loss_type=loss_type)
    batch = step.batches.batch(0, 0)
    prediction = predict(step, noisy_latents(step, batch), batch.timesteps, batch)
    bounds = huber_bounds("snr", 0.1, batch.timesteps, step.schedule.snr[batch.timesteps], 1000)
    expected = elementwise_loss(prediction, batch.noise, loss_type, bounds).mean(dim=(1, 2, 3))
    torch.testing.assert_close(step.losses(batch)[0], expected, rtol=1e-4, atol=1e-6)


def test_debiased_estimation_weighs_by_the_root_of_snr(new_step: NewStep) -> None:
    step = new_step(**PLAIN, debiased_estimation=True)
    batch = step.batches.batch(0, 0)
    _, weights = step.losses(batch)
    torch.testing.assert_close(weights, step.schedule.snr[batch.timesteps].clamp(1e-3, 1e3).rsqrt())


def rolled_out_by_hand(step: TrainingStep, batch: Batch) -> Tensor:
    """Row by row, one call for each step of Euler's method in clean latents and noise."""
    schedule, latents = step.schedule, noisy_latents(step, batch)
    for rollout in batch.rollouts:
        row = slice(rollout.row, rollout.row + 1)
        at = torch.tensor([rollout.start])
        x = schedule.add_noise(batch.latents[row], batch.noise[row], at)
        while at > batch.timesteps[row]:
            own = {name: values[row] for name, values in batch.conditioning.items()}
            with torch.no_grad():
                output = step.family.predict(step.denoiser, x, schedule.model_timesteps(at), own)
            alpha, sigma = per_row(schedule.alphas[at]), per_row(schedule.sigmas[at])
            if schedule.is_flow:
                clean, noise = x - sigma * output, x + alpha * output
            else:
                clean, noise = (x - sigma * output) / alpha, output
            at = at - 1
            x = per_row(schedule.alphas[at]) * clean + per_row(schedule.sigmas[at]) * noise
        latents[row] = x
    return latents


@pytest.mark.parametrize("target", ["recomputed", "original_noise"])
def test_rolled_out_rows_are_trained_where_the_model_itself_ended(new_step: NewStep, target: str) -> None:
    settings = {"scheduled_sampling_target": target, "input_perturbation": 0.1}
    step = new_step(**PLAIN, **ROLLOUT, **settings, with_prior=False)
    batch = step.batches.batch(0, 0)
    assert 2 <= len(batch.rollouts) < 8
    of_rollouts = [rollout.row for rollout in batch.rollouts]
    is_plain = (batch.input_noise == batch.noise).flatten(1).all(dim=1)
    assert is_plain.nonzero().flatten().tolist() == sorted(of_rollouts), "no target knows of a perturbation"
    ended = rolled_out_by_hand(step, batch)
    noise = batch.noise
    if target == "recomputed":
        rolled = torch.tensor([rollout.row for rollout in batch.rollouts])
        found = step.schedule.noise_after(ended, batch.latents, batch.noise, batch.timesteps)
        noise = noise.index_copy(0, rolled, found[rolled])
        assert (noise - batch.noise)[rolled].abs().max() > 1e-3
    expected = (predict(step, ended, batch.timesteps, batch) - noise).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(step.losses(batch)[0], expected, rtol=1e-3, atol=1e-5)


def test_rollout_costs_as_many_row_forwards_as_its_offsets_add_up_to(
    new_step: NewStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = new_step(**PLAIN, **ROLLOUT | {"scheduled_sampling_sampler": "unipc"})
    calls, original = [], StableDiffusion.predict

    def counted(family, denoiser, latents, timesteps, conditioning):
        calls.append((len(latents), torch.is_grad_enabled()))
        return original(family, denoiser, latents, timesteps, conditioning)

    monkeypatch.setattr(StableDiffusion, "predict", counted)
    lengths = [rollout.num_steps for rollout in step.batches.batch(0, 0).rollouts]
    step.backward(0)
    *rollout, teacher, student = calls
    assert (teacher, student) == ((4, False), (8, True))
    assert sum(rows for rows, _ in rollout) == sum(lengths)
    assert len(rollout) == max(lengths)
    assert not any(with_gradient for _, with_gradient in rollout)


def test_rollout_keeps_the_gradient_under_autocast(new_step: NewStep) -> None:
    gradients = []
    for is_mixed in (False, True):
        step = new_step(**PLAIN, **ROLLOUT, with_prior=False)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            losses, _ = step.losses(step.batches.batch(0, 0))
        losses.sum().backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in step.adapter.parameters]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


def test_flow_is_trained_towards_noise_minus_picture(new_step: NewStep) -> None:
    step = new_step(**PLAIN | {"snr_gamma": 5.0}, schedule=FLOW, with_prior=False)
    batch = step.batches.batch(0, 0)
    sigmas = per_row((batch.timesteps + 1) / 1000)
    noisy = (1 - sigmas) * batch.latents + sigmas * batch.noise
    prediction = predict(step, noisy, batch.timesteps, batch)
    expected = (prediction - (batch.noise - batch.latents)).square().mean(dim=(1, 2, 3))
    losses, weights = step.losses(batch)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-6)
    snr = ((1 - sigmas) / sigmas).square().flatten()
    torch.testing.assert_close(weights, sigmas.flatten().square() * snr.clamp(max=5), rtol=1e-4, atol=1e-6)


def test_reflexflow_corrects_rolled_out_rows_and_no_others(new_step: NewStep) -> None:
    settings = {"scheduled_sampling_reflexflow_alpha": 3.0, "scheduled_sampling_reflexflow_beta1": 2.0}
    step = new_step(**PLAIN, **ROLLOUT, **settings, scheduled_sampling_reflexflow_beta2=0.5, schedule=FLOW)
    assert step.uses_reflexflow
    batch = step.batches.batch(0, 0)
    rolled = sorted(rollout.row for rollout in batch.rollouts if rollout.row not in batch.base_rows)
    others = [row for row in range(8) if row not in rolled]
    assert rolled
    ended = rolled_out_by_hand(step, batch)
    clean = predict(step, noisy_latents(step, batch), batch.timesteps, batch)
    prediction = predict(step, ended, batch.timesteps, batch)
    noise = step.schedule.noise_after(ended, batch.latents, batch.noise, batch.timesteps)
    target = noise - batch.latents
    errors = (prediction - target).square() * exposure_weights(clean, prediction, 3.0)
    drift = drift_loss(prediction, ended, batch.latents)
    expected = 0.5 * errors.mean(dim=(1, 2, 3)) + 2.0 * drift
    losses, _ = step.losses(batch)
    torch.testing.assert_close(losses[rolled], expected[rolled], rtol=1e-3, atol=1e-5)
    plain = new_step(**PLAIN, **ROLLOUT, scheduled_sampling_reflexflow=False, schedule=FLOW)
    assert not plain.uses_reflexflow
    torch.testing.assert_close(plain.losses(batch)[0][others], losses[others])
    assert not torch.allclose(plain.losses(batch)[0][rolled], losses[rolled])


def test_reflexflow_is_refused_where_there_is_no_flow(new_step: NewStep) -> None:
    with pytest.raises(ValueError, match=r"is for models of flow matching, and this one predicts epsilon"):
        new_step(**PLAIN, scheduled_sampling_reflexflow=True)
    assert not new_step(**PLAIN).uses_reflexflow


def test_average_follows_the_steps_that_were_taken(new_step: NewStep) -> None:
    step = new_step(adapter_strength=0.1, use_ema=True, ema_decay=0.5)
    expected = [weight.detach().clone() for weight in step.adapter.parameters]
    for number in range(3):
        step(number, 0.01)
        expected = [
            0.5 * old + 0.5 * new.detach() for old, new in zip(expected, step.adapter.parameters, strict=True)
        ]
    torch.testing.assert_close(step.ema.weights, expected)
