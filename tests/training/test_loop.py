"""A training step: the same rows in any split, the base model's prediction as a target, and bad numbers."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft.tuners.lora import LoraLayer
from tiny_runs import tiny_config

from dreamspace.jobs.events import EventWriter, read_events
from dreamspace.models.sd1x import StableDiffusion1
from dreamspace.training.loop import NON_FINITE_LIMIT, LossLog, StepReport, TrainingStep, clip_gradients
from dreamspace.training.optimizers import learning_rate_schedule

NewStep = Callable[..., TrainingStep]


def gradients(step: TrainingStep, number: int = 0) -> tuple[torch.Tensor, float]:
    """All gradients of a step as one vector, and its loss."""
    loss, _, _ = step.backward(number)
    vector = torch.cat([parameter.grad.flatten().double() for parameter in step.adapter.parameters])
    step.optimizer.zero_grad(set_to_none=True)
    return vector, loss.item()


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


def test_two_processes_see_the_rows_of_one(new_step: NewStep) -> None:
    one = new_step(train_batch_size=2, gradient_accumulation_steps=2)
    ranks = [copy.copy(one), copy.copy(one)]
    for index, rank in enumerate(ranks):
        rank.config = one.config.model_copy(update={"train_batch_size": 1})
        rank.accelerator = SimpleNamespace(device=torch.device("cpu"), num_processes=2, process_index=index)
    for step in (0, 5):
        alone = [one.batch(step, micro_step) for micro_step in range(2)]
        for micro_step in range(2):
            batches = [rank.batch(step, micro_step) for rank in ranks]
            for name in ("latents", "noise", "timesteps", "uses_base_target"):
                together = torch.cat([getattr(batch, name) for batch in batches])
                assert torch.equal(together, getattr(alone[micro_step], name)), name


def test_class_images_cost_nothing_at_the_start_and_subject_rows_keep_their_gradient(
    new_step: NewStep,
) -> None:
    step = new_step(train_batch_size=8, gradient_accumulation_steps=1, snr_gamma=None)
    batch = step.batch(0, 0)
    assert batch.uses_base_target.sum() == 4
    losses, _ = step.losses(batch)
    assert losses[batch.uses_base_target].max() < 1e-9, "a new adapter is the identity"
    assert losses[~batch.uses_base_target].min() > 0.1
    losses.sum().backward()
    together = torch.cat([parameter.grad.flatten().clone() for parameter in step.adapter.parameters])
    step.optimizer.zero_grad(set_to_none=True)
    subject = batch.uses_base_target.logical_not().nonzero().flatten()
    alone = replace(
        batch,
        latents=batch.latents[subject],
        noise=batch.noise[subject],
        timesteps=batch.timesteps[subject],
        conditioning={name: value[subject] for name, value in batch.conditioning.items()},
        uses_base_target=batch.uses_base_target[subject],
    )
    step.losses(alone)[0].sum().backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in step.adapter.parameters])
    assert expected.norm() > 1e-3
    assert (together - expected).norm() / expected.norm() < 1e-4


def test_trained_adapter_pays_for_what_it_changes_on_class_images(new_step: NewStep) -> None:
    step = new_step(adapter_strength=0.1, train_batch_size=8, gradient_accumulation_steps=1, snr_gamma=None)
    batch = step.batch(0, 0)
    noisy = step.noise_scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    with torch.no_grad():
        trained = step.family.predict(step.denoiser, noisy, batch.timesteps, batch.conditioning)
        with step.adapter.off():
            base = step.family.predict(step.denoiser, noisy, batch.timesteps, batch.conditioning)
        losses, weights = step.losses(batch)
    is_prior = batch.uses_base_target
    expected = torch.where(
        is_prior,
        (trained - base).square().mean(dim=(1, 2, 3)),
        (trained - batch.noise).square().mean(dim=(1, 2, 3)),
    )
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
    torch.testing.assert_close(weighted[1:], plain[1:])
    losses, weights = step.losses(step.batch(0, 0))
    torch.testing.assert_close(weighted[0], (losses * weights).mean())
    assert weighted[0] < 0.8 * plain[0]


@pytest.mark.parametrize("with_prior", [True, False])
def test_base_model_sees_only_the_rows_that_need_it(
    new_step: NewStep, with_prior: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = new_step(with_prior=with_prior, train_batch_size=4, gradient_accumulation_steps=1)
    layers = [module for module in step.denoiser.modules() if isinstance(module, LoraLayer)]
    calls = []
    predict = StableDiffusion1.predict

    def counted(family, denoiser, noisy_latents, timesteps, conditioning):
        is_off = all(layer.disable_adapters for layer in layers)
        calls.append((len(noisy_latents), is_off, torch.is_grad_enabled()))
        return predict(family, denoiser, noisy_latents, timesteps, conditioning)

    monkeypatch.setattr(StableDiffusion1, "predict", counted)
    num_prior = int(step.batch(0, 0).uses_base_target.sum())
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


def report(step: int, loss: float = 0.5, grad_norm: float = 1.0) -> StepReport:
    values = [torch.tensor(value) for value in (loss, loss, float("nan"), grad_norm)]
    return StepReport(step, *values, learning_rate=0.1)


def test_losses_are_written_a_step_late_and_what_is_not_finite_is_null(tmp_path: Path) -> None:
    log = LossLog(EventWriter(tmp_path), 0, 2)
    log.add(report(1, loss=float("inf")))
    assert read_events(tmp_path / "events.jsonl")[0] == []
    log.add(report(2))
    log.flush()
    log.flush()
    events = [event for event in read_events(tmp_path / "events.jsonl")[0] if event["kind"] == "loss"]
    assert [(event["step"], event["loss"], event["prior_loss"]) for event in events] == [
        (1, None, None),
        (2, 0.5, None),
    ]
    progress = read_events(tmp_path / "events.jsonl")[0][-1]
    assert (progress["kind"], progress["step"], progress["eta_seconds"]) == ("progress", 2, 0.0)


@pytest.mark.parametrize("bad", [{"loss": float("nan")}, {"grad_norm": float("inf")}])
def test_losses_that_stay_non_finite_end_the_run_with_advice(tmp_path: Path, bad: dict[str, float]) -> None:
    log = LossLog(EventWriter(tmp_path), 0, 1000)
    for step in range(1, NON_FINITE_LIMIT):
        log.add(report(step, **bad))
    log.add(report(NON_FINITE_LIMIT))  # a good one in between starts the count again
    for step in range(NON_FINITE_LIMIT + 1, 2 * NON_FINITE_LIMIT + 1):
        log.add(report(step, **bad))
    with pytest.raises(ValueError, match=rf"up to step {2 * NON_FINITE_LIMIT}\. Lower learning_rate"):
        log.flush()


def test_learning_rate_is_a_function_of_the_step() -> None:
    settings = {"max_train_steps": 10, "lr_warmup_steps": 4, "learning_rate": 0.5}
    linear = learning_rate_schedule(tiny_config(Path("mini"), **settings, lr_scheduler="linear"))
    expected = [0.0, 0.125, 0.25, 0.375, 0.5, 0.5 * 5 / 6, 0.5 * 4 / 6, 0.25, 0.5 * 2 / 6, 0.5 / 6]
    assert linear == pytest.approx(expected)
    constant = learning_rate_schedule(tiny_config(Path("mini"), **settings, lr_scheduler="constant"))
    assert constant == [0.5] * 10
