"""Masked means: by the definition, independent of the subject's size, and what black and white masks do."""

import pytest
import torch

from dreamspace.training.masked_loss import LEAST_AREA, cell_mean, is_black, subject_weights


@pytest.fixture
def errors() -> torch.Tensor:
    return torch.rand(3, 4, 10, 10, generator=torch.Generator().manual_seed(0))


def test_area_is_the_weighted_mean_over_the_subject(errors: torch.Tensor) -> None:
    masks = torch.zeros(3, 1, 10, 10)
    masks[0, :, :2, :5] = 1
    masks[1, :, 4:, 4:] = 0.5
    masks[2] = 1
    means = cell_mean(errors, masks)
    torch.testing.assert_close(means[0], errors[0, :, :2, :5].mean())
    torch.testing.assert_close(means[1], errors[1, :, 4:, 4:].mean())
    torch.testing.assert_close(means[2], errors[2].mean())
    torch.testing.assert_close(cell_mean(errors, None), errors.mean(dim=(1, 2, 3)))


def test_mean_divides_by_all_cells_as_simpletuner_does(errors: torch.Tensor) -> None:
    masks = torch.rand(3, 1, 10, 10, generator=torch.Generator().manual_seed(1))
    expected = (errors * masks).mean(dim=(1, 2, 3))
    torch.testing.assert_close(cell_mean(errors, masks, "mean"), expected)


def test_size_of_the_subject_does_not_change_its_loss_by_area_and_does_by_mean() -> None:
    small, large = torch.zeros(2, 1, 10, 10)
    small[:, :2, :5] = 1
    large[:, :, :9] = 1
    masks = torch.stack([small, large])
    torch.testing.assert_close(cell_mean(torch.full((2, 4, 10, 10), 2.0), masks), torch.full((2,), 2.0))
    by_mean = cell_mean(torch.full((2, 4, 10, 10), 2.0), masks, "mean")
    assert by_mean.tolist() == pytest.approx([0.2, 1.8])


def test_few_cells_divide_by_the_least_area(errors: torch.Tensor) -> None:
    masks = torch.zeros(3, 1, 10, 10)
    masks[0, 0, 0, 0] = 1
    means = cell_mean(errors, masks)
    torch.testing.assert_close(means[0], errors[0, :, 0, 0].mean() / 100 / LEAST_AREA)
    assert means[1:].tolist() == [0, 0]


def test_background_weight_goes_from_the_subject_alone_to_the_whole_picture(errors: torch.Tensor) -> None:
    masks = torch.zeros(3, 1, 10, 10)
    masks[:, :, :2, :5] = 1
    assert subject_weights(masks, 0.0) is masks
    torch.testing.assert_close(cell_mean(errors, subject_weights(masks, 1.0)), errors.mean(dim=(1, 2, 3)))
    inside, outside = errors[0, :, :2, :5].sum(), errors[0].sum() - errors[0, :, :2, :5].sum()
    half = cell_mean(errors, subject_weights(masks, 0.5))[0]
    torch.testing.assert_close(half, (inside + 0.5 * outside) / (4 * (10 + 0.5 * 90)))


def test_black_masks_are_known() -> None:
    assert is_black(torch.zeros(4, 4))
    assert not is_black(torch.tensor([[0.0, 1e-6]]))
