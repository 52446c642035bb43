"""ReflexFlow by its definition; the first numbers are those of SimpleTuner's own test."""

import pytest
import torch

from dreamspace.training.reflexflow import drift_loss, exposure_weights


def test_what_the_rollout_lost_doubles_the_weight_of_a_single_cell() -> None:
    clean, biased = torch.full((1, 1, 1, 1), 0.6), torch.full((1, 1, 1, 1), 0.4)
    assert exposure_weights(clean, biased, 1.0).item() == pytest.approx(2.0)
    assert exposure_weights(clean, biased, 0.0).item() == 1.0
    assert exposure_weights(biased, clean, 2.0).item() == 0.0, "no error is rewarded"
    assert exposure_weights(clean, clean, 1.0).item() == 1.0


def test_weights_are_shared_out_over_each_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, biased = torch.randn(2, 3, 4, 8, 8, generator=generator)
    weights = exposure_weights(clean, biased, 1.0)
    lost = clean - biased
    for row in range(3):
        torch.testing.assert_close(weights[row], 1 + lost[row] / lost[row].abs().sum())


def test_drift_is_the_distance_of_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, away = torch.randn(2, 3, 4, 8, 8, generator=generator)
    noisy_latents = latents + 0.3 * away
    assert drift_loss(5 * away, noisy_latents, latents).max() < 1e-10, "along the way, at any length"
    torch.testing.assert_close(drift_loss(-away, noisy_latents, latents), torch.full((3,), 4.0))
    other = torch.randn(3, 4, 8, 8, generator=generator)
    cosine = torch.cosine_similarity(other.flatten(1), away.flatten(1))
    torch.testing.assert_close(drift_loss(other, noisy_latents, latents), 2 - 2 * cosine)


def test_masked_cells_have_no_part_in_the_drift() -> None:
    latents, away = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(1, 1, 8, 8)
    weights[..., :4] = 1
    prediction = away.clone()
    prediction[..., 4:] = 9.0
    assert drift_loss(prediction, latents + away, latents, weights).max() < 1e-10
    assert drift_loss(prediction, latents + away, latents).min() > 0.1
