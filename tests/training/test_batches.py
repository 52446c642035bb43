"""What a row is: its caption, noise, timestep, mask, weight and rollout, each as the settings say."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_runs import CLASS_PROMPT, INSTANCE_PROMPT, cropped_dataset, masked_datasets

from dreamspace.training.loop import TrainingStep
from dreamspace.training.timesteps import random_rows

NewStep = Callable[..., TrainingStep]
ONE_BATCH = {"train_batch_size": 8, "gradient_accumulation_steps": 1}


def test_captions_are_dropped_with_their_probability_and_the_empty_prompt_is_encoded(
    new_step: NewStep,
) -> None:
    step = new_step(**ONE_BATCH, caption_dropout_probability=0.4)
    conditioning = step.training_set.conditioning
    dropped = Counter()
    for number in range(60):
        batch = step.batches.batch(number, 0)
        for row, sample in enumerate(batch.samples):
            prompt = CLASS_PROMPT if sample.regularisation else INSTANCE_PROMPT
            embeds = batch.conditioning["prompt_embeds"][row]
            is_dropped = torch.equal(embeds, conditioning[""]["prompt_embeds"])
            assert is_dropped or torch.equal(embeds, conditioning[prompt]["prompt_embeds"])
            dropped[is_dropped] += 1
    assert dropped[True] / dropped.total() == pytest.approx(0.4, abs=0.08)
    assert step.config.validation_negative_prompt == ""


def test_offset_noise_is_one_value_a_channel_and_the_target_knows_of_it(new_step: NewStep) -> None:
    plain, offset = (new_step(**ONE_BATCH, noise_offset=value) for value in (0.0, 0.1))
    without, with_offset = plain.batches.batch(0, 0), offset.batches.batch(0, 0)
    added = (with_offset.noise - without.noise) / 0.1
    assert added.std(dim=(2, 3)).max() < 1e-4
    assert 0.3 < added.mean(dim=(2, 3)).std() < 2
    assert with_offset.input_noise is with_offset.noise
    assert torch.equal(with_offset.timesteps, without.timesteps)


def test_perturbation_is_more_noise_than_the_target_knows_of(new_step: NewStep) -> None:
    plain, perturbed = (new_step(**ONE_BATCH, input_perturbation=value) for value in (0.0, 0.1))
    without, batch = plain.batches.batch(0, 0), perturbed.batches.batch(0, 0)
    assert torch.equal(batch.noise, without.noise)
    assert without.input_noise is without.noise
    added = (batch.input_noise - batch.noise) / 0.1
    assert added.std().item() == pytest.approx(1, abs=0.1)
    assert abs((added * batch.noise).mean()) < 0.1


def test_stratified_timesteps_cover_the_range_in_each_step(new_step: NewStep) -> None:
    step = new_step(**ONE_BATCH, stratified_timesteps=True)
    halves = new_step(train_batch_size=4, gradient_accumulation_steps=2, stratified_timesteps=True)
    for number in range(3):
        timesteps = step.batches.batch(number, 0).timesteps
        assert sorted(timesteps.div(125, rounding_mode="floor").tolist()) == list(range(8))
        parts = torch.cat([halves.batches.batch(number, micro).timesteps for micro in range(2)])
        assert torch.equal(parts, timesteps)


def test_shifted_timesteps_are_noisier_and_leave_the_noise_as_it_is(new_step: NewStep) -> None:
    plain = new_step(**ONE_BATCH)
    shifted = new_step(**ONE_BATCH, timestep_sampling="shifted", timestep_shift=6.0)
    drawn = torch.cat([shifted.batches.batch(number, 0).timesteps for number in range(20)])
    assert drawn.float().mean() > 650
    assert torch.equal(plain.batches.batch(0, 0).noise, shifted.batches.batch(0, 0).noise)
    _, uniform = random_rows(plain.config.seed, 0, range(8), (4, 8, 8), 1000)
    assert torch.equal(plain.batches.batch(0, 0).timesteps, uniform)


def test_masks_lie_at_latent_cells_and_soft_ones_stay_soft(new_step: NewStep, tmp_path: Path) -> None:
    step = new_step(datasets=masked_datasets(tmp_path), **ONE_BATCH)
    batch = step.batches.batch(0, 0)
    assert batch.masks.shape == (4, 1, 8, 8)
    for row, sample in enumerate(batch.samples):
        expected = torch.zeros(8, 8)
        # The centre crop begins 8 px from the left, and a cell is 8 px wide.
        expected[:, :4] = 128 / 255 if sample.path.name == "01.png" else 1
        torch.testing.assert_close(batch.masks[row, 0], expected)
    assert batch.masked_rows == [0, 1, 2, 3]


def test_segmentations_are_black_and_white_and_apply_with_their_probability(
    new_step: NewStep, tmp_path: Path
) -> None:
    step = new_step(
        datasets=masked_datasets(tmp_path, "segmentation"), **ONE_BATCH, masked_loss_probability=0.3
    )
    num_masked = 0
    for number in range(100):
        batch = step.batches.batch(number, 0)
        num_masked += len(batch.masked_rows)
        for row in range(4):
            is_masked = row in batch.masked_rows
            if batch.masks is not None:
                assert batch.masks[row].mean() == (0.5 if is_masked else 1)
    assert num_masked / 400 == pytest.approx(0.3, abs=0.07)
    always = new_step(datasets=masked_datasets(tmp_path), **ONE_BATCH, masked_loss_probability=0.0)
    assert len(always.batches.batch(0, 0).masked_rows) == 4, "a soft mask always applies"


def test_row_whose_mask_is_black_at_latent_size_weighs_nothing(new_step: NewStep, tmp_path: Path) -> None:
    outside_the_crop = {2: (0, 0, 4, 64)}
    step = new_step(datasets=masked_datasets(tmp_path, boxes=outside_the_crop), **ONE_BATCH)
    batch = step.batches.batch(0, 0)
    names = [sample.path.name for sample in batch.samples]
    black = names.index("02.png")
    assert batch.weights.tolist() == [float(row != black) for row in range(4)]
    assert batch.roles[0].tolist() == [row != black for row in range(4)]
    assert black not in batch.masked_rows
    assert batch.masks[black].min() == 1


def test_class_images_with_the_noise_as_target_weigh_as_in_the_paper(
    new_step: NewStep, photos: Path, class_photos: Path
) -> None:
    prior = cropped_dataset(
        class_photos,
        id="prior",
        instance_prompt=CLASS_PROMPT,
        is_regularisation_data=True,
        regularisation_target="noise",
        max_num_samples=2,
    )
    step = new_step(datasets=[cropped_dataset(photos), prior], **ONE_BATCH, prior_loss_weight=0.5)
    batch = step.batches.batch(0, 0)
    is_instance, is_prior = batch.roles
    assert (int(is_instance.sum()), int(is_prior.sum()), batch.divisor) == (4, 2, 4)
    assert batch.weights[is_instance].tolist() == [1.0] * 4
    assert batch.weights[is_prior].tolist() == [0.5 * 4 / 2] * 2
    assert batch.base_rows == []
    losses, weights = step.losses(batch)
    loss, instance_loss, prior_loss, _ = step.backward(0)
    torch.testing.assert_close(instance_loss, losses[is_instance].mean())
    torch.testing.assert_close(prior_loss, losses[is_prior].mean())
    snr_weights = weights / batch.weights
    weighted = losses * snr_weights
    torch.testing.assert_close(loss, weighted[is_instance].mean() + 0.5 * weighted[is_prior].mean())


def test_rollouts_start_at_most_at_the_last_timestep_longest_first(new_step: NewStep) -> None:
    step = new_step(
        **ONE_BATCH,
        scheduled_sampling_max_step_offset=100,
        scheduled_sampling_probability=1.0,
        scheduled_sampling_strategy="biased_late",
    )
    clamped = 0
    for number in range(40):
        batch = step.batches.batch(number, 0)
        assert len({rollout.row for rollout in batch.rollouts}) == len(batch.rollouts)
        lengths = [rollout.num_steps for rollout in batch.rollouts]
        assert lengths == sorted(lengths, reverse=True)
        for rollout in batch.rollouts:
            assert rollout.start - rollout.num_steps == batch.timesteps[rollout.row]
            assert rollout.start <= 999
            clamped += rollout.start == 999
    assert clamped > 3
    assert new_step(**ONE_BATCH).batches.batch(0, 0).rollouts == []
