"""A training step: the same rows in any split, the base model's prediction as a target, bad gradients."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft.tuners.lora import LoraLayer
from tiny_runs import two_bucket_dataset

from dreamspace.models.sd1x import StableDiffusion
from dreamspace.training.batches import Batch, Batches
from dreamspace.training.loop import TrainingStep, clip_gradients

NewStep = Callable[..., TrainingStep]


def gradients(step: TrainingStep, number: int = 0) -> tuple[torch.Tensor, float]:
    """All gradients of a step as one vector, and its loss."""
    loss, _, _, _ = step.backward(number)
    vector = torch.cat([parameter.grad.flatten().double() for parameter in step.adapter.parameters])
    step.optimizer.zero_grad(set_to_none=True)
    return vector, loss.item()


def noisy_latents(step: TrainingStep, batch: Batch) -> torch.Tensor:
    return step.schedule.add_noise(batch.latents, batch.input_noise, batch.timesteps)


@torch.no_grad()
def predictions(step: TrainingStep, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model says with its adapter and without."""
    arguments = (noisy_latents(step, batch), batch.timesteps, batch.conditioning)
    trained = step.family.predict(step.denoiser, *arguments)
    with step.adapter.off():
        return trained, step.family.predict(step.denoiser, *arguments)


def weights(step: TrainingStep) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in step.adapter.parameters])


def test_batch_of_two_equals_accumulation_of_two_and_four_of_one(new_step: NewStep) -> None:
    splits = [(4, 1), (2, 2), (1, 4)]
    results = [
        gradients(
            new_step(adapter_strength=0.1, train_batch_size=size, gradient_accumulation_steps=accumulation)
        )
        for size, accumulation in splits
    ]
    expected, loss = results[0]
    assert expected.norm() > 1e-3
    for gradient, other_loss in results[1:]:
        assert (gradient - expected).norm() / expected.norm() < 1e-5
        assert other_loss == pytest.approx(loss, rel=1e-5)


def test_gradient_checkpointing_changes_no_gradient(new_step: NewStep) -> None:
    plain, _ = gradients(new_step(adapter_strength=0.1))
    checkpointed, _ = gradients(new_step(adapter_strength=0.1, gradient_checkpointing=True))
    assert (checkpointed - plain).norm() / plain.norm() < 1e-6


def ranks_of(step: TrainingStep, size: int, count: int = 2) -> list[Batches]:
    """The batches of several processes with the rows of this step's one process."""
    config = step.config.model_copy(update={"train_batch_size": size})
    return [
        Batches(
            config,
            step.family,
            step.training_set,
            step.schedule.num_timesteps,
            SimpleNamespace(device=torch.device("cpu"), num_processes=count, process_index=index),
        )
        for index in range(count)
    ]


def test_two_processes_see_the_rows_of_one(new_step: NewStep) -> None:
    one = new_step(train_batch_size=2, gradient_accumulation_steps=2)
    ranks = ranks_of(one, size=1)
    for step in (0, 5):
        for micro_step in range(2):
            alone = one.batches.batch(step, micro_step)
            batches = [rank.batch(step, micro_step) for rank in ranks]
            for name in ("latents", "noise", "timesteps", "weights"):
                together = torch.cat([getattr(batch, name) for batch in batches])
                assert torch.equal(together, getattr(alone, name)), name


def test_buckets_and_short_steps_have_the_gradient_of_any_split(new_step: NewStep, tmp_path: Path) -> None:
    datasets = [two_bucket_dataset(tmp_path)]
    settings = {"adapter_strength": 0.1, "datasets": datasets, "snr_gamma": None}
    whole = new_step(**settings, train_batch_size=4, gradient_accumulation_steps=1)
    split = new_step(**settings, train_batch_size=2, gradient_accumulation_steps=2)
    num_rows = []
    for number in range(2):
        rows = whole.training_set.plan.rows(number)
        num_rows.append(len(rows))
        expected, loss = gradients(whole, number)
        gradient, other_loss = gradients(split, number)
        assert split.batches.num_micro_steps(number) == math.ceil(len(rows) / 2)
        assert (gradient - expected).norm() / expected.norm() < 1e-5
        assert other_loss == pytest.approx(loss, rel=1e-5)
        batch = whole.batches.batch(number, 0)
        losses, _ = whole.losses(batch)
        assert loss == pytest.approx(losses.mean().item(), rel=1e-5), "the mean over the rows that are there"
    assert sorted(num_rows) == [2, 3]


def test_process_without_a_row_takes_part_with_weight_zero(new_step: NewStep, tmp_path: Path) -> None:
    one = new_step(datasets=[two_bucket_dataset(tmp_path)], train_batch_size=4, gradient_accumulation_steps=1)
    number = next(number for number in range(2) if len(one.training_set.plan.rows(number)) == 3)
    first, second = ranks_of(one, size=2)
    assert [rank.num_micro_steps(number) for rank in (first, second)] == [1, 1]
    assert (len(first.batch(number, 0).samples), len(second.batch(number, 0).samples)) == (2, 1)
    first, second = ranks_of(one, size=4)
    assert len(first.batch(number, 0).samples) == 3
    filler = second.batch(number, 0)
    assert filler.weights.tolist() == [0.0]
    assert not filler.roles.any()
    assert filler.divisor == 3


def test_class_images_cost_nothing_at_the_start_and_subject_rows_keep_their_gradient(
    new_step: NewStep,
) -> None:
    step = new_step(train_batch_size=8, gradient_accumulation_steps=1, snr_gamma=None)
    batch = step.batches.batch(0, 0)
    is_instance, is_prior = batch.roles
    assert batch.base_rows == is_prior.nonzero().flatten().tolist()
    assert len(batch.base_rows) == 4
    losses, _ = step.losses(batch)
    assert losses[is_prior].max() < 1e-9, "a new adapter is the identity"
    assert losses[is_instance].min() > 0.1
    losses.sum().backward()
    together = torch.cat([parameter.grad.flatten().clone() for parameter in step.adapter.parameters])
    step.optimizer.zero_grad(set_to_none=True)
    subject = is_instance.nonzero().flatten()
    alone = replace(
        batch,
        samples=[batch.samples[row] for row in subject],
        latents=batch.latents[subject],
        noise=batch.noise[subject],
        input_noise=batch.input_noise[subject],
        timesteps=batch.timesteps[subject],
        conditioning={name: value[subject] for name, value in batch.conditioning.items()},
        weights=batch.weights[subject],
        base_rows=[],
    )
    step.losses(alone)[0].sum().backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in step.adapter.parameters])
    assert expected.norm() > 1e-3
    assert (together - expected).norm() / expected.norm() < 1e-4


def test_trained_adapter_pays_for_what_it_changes_on_class_images(new_step: NewStep) -> None:
    step = new_step(adapter_strength=0.1, train_batch_size=8, gradient_accumulation_steps=1, snr_gamma=None)
    batch = step.batches.batch(0, 0)
    noisy, (trained, base) = noisy_latents(step, batch), predictions(step, batch)
    losses, weights = step.losses(batch)
    _, is_prior = batch.roles
    expected = torch.where(
        is_prior,
        (trained - base).square().mean(dim=(1, 2, 3)),
        (trained - batch.noise).square().mean(dim=(1, 2, 3)),
    )
    assert noisy.isfinite().all()
    assert expected[is_prior].min() > 1e-4
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-8)
    assert torch.equal(weights, torch.ones(8))


def test_min_snr_weighs_the_loss_that_is_minimised_and_not_the_means_that_are_reported(
    new_step: NewStep,
) -> None:
    settings = {"adapter_strength": 0.1, "train_batch_size": 8, "gradient_accumulation_steps": 1}
    plain = new_step(**settings, snr_gamma=None).backward(0)
    step = new_step(**settings, snr_gamma=1.0)
    weighted = step.backward(0)
    torch.testing.assert_close(weighted[1:3], plain[1:3])
    losses, weights = step.losses(step.batches.batch(0, 0))
    torch.testing.assert_close(weighted[0], (losses * weights).mean())
    assert weighted[0] < 0.8 * plain[0]


@pytest.mark.parametrize("with_prior", [True, False])
def test_base_model_sees_only_the_rows_that_need_it(
    new_step: NewStep, with_prior: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = new_step(with_prior=with_prior, train_batch_size=4, gradient_accumulation_steps=1)
    layers = [module for module in step.denoiser.modules() if isinstance(module, LoraLayer)]
    calls = []
    predict = StableDiffusion.predict

    def counted(family, denoiser, noisy_latents, timesteps, conditioning):
        is_off = all(layer.disable_adapters for layer in layers)
        calls.append((len(noisy_latents), is_off, torch.is_grad_enabled()))
        return predict(family, denoiser, noisy_latents, timesteps, conditioning)

    monkeypatch.setattr(StableDiffusion, "predict", counted)
    num_prior = len(step.batches.batch(0, 0).base_rows)
    assert num_prior == (2 if with_prior else 0)
    step.backward(0)
    teacher = [(2, True, False)] if with_prior else []
    assert calls == [*teacher, (4, False, True)]


def test_non_finite_gradient_leaves_weights_and_optimizer_as_they_are(new_step: NewStep) -> None:
    step = new_step(adapter_strength=0.1)
    step(0, 0.01)
    before, state = weights(step), repr(step.optimizer.state_dict()["state"])
    step.training_set.latents[0][0][0, 0, 0] = float("nan")
    for number in range(1, 3):  # an epoch of 8 rows, so that the bad row comes up
        report = step(number, 0.01)
        if not report.grad_norm.isfinite():
            assert torch.equal(weights(step), before)
            assert repr(step.optimizer.state_dict()["state"]) == state
            break
        before, state = weights(step), repr(step.optimizer.state_dict()["state"])
    else:
        pytest.fail("the bad row was not drawn")
    step.training_set.latents[0][0][0, 0, 0] = 0.0
    assert step(3, 0.01).grad_norm.isfinite()
    assert weights(step).isfinite().all()
    assert not torch.equal(weights(step), before)


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_equals_torch(max_norm: float) -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in [(3, 4), (9,)]]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    ours = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    for mine, parameter in zip(ours, parameters, strict=True):
        mine.grad = parameter.grad.clone()
    expected = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    torch.testing.assert_close(clip_gradients(ours, max_norm), expected)
    for mine, parameter in zip(ours, parameters, strict=True):
        torch.testing.assert_close(mine.grad, parameter.grad)
