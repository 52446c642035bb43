"""The part of a picture that counts: means of a loss over cells, weighed by a mask."""

from typing import Literal

import torch
from torch import Tensor

Normalization = Literal["area", "mean"]

LEAST_AREA = 0.03
"""A masked mean divides by at least this share of the cells, lest few cells of a mask count hugely."""


def cell_mean(errors: Tensor, weights: Tensor | None, normalization: Normalization = "area") -> Tensor:
    """The weighted mean of each sample's errors, (B, C, h, w) to (B,).

    Args:
        weights: (B, 1, h, w) in [0, 1]; None is 1 everywhere.
        normalization: "area" divides by the sum of the weights, or `LEAST_AREA` of the cells if that is more,
            so that a small subject counts as much as a large one; "mean" by all cells, as SimpleTuner does.
    """
    if weights is None:
        return errors.mean(dim=(1, 2, 3))
    weighted = (errors * weights).mean(dim=(1, 2, 3))
    if normalization == "mean":
        return weighted
    return weighted / weights.mean(dim=(1, 2, 3)).clamp(min=LEAST_AREA)


def subject_weights(masks: Tensor, background_weight: float) -> Tensor:
    """What each cell weighs: 1 on the subject, `background_weight` beside it. (B, 1, h, w), as the masks."""
    return masks + background_weight * (1 - masks) if background_weight else masks


def is_black(mask: Tensor) -> bool:
    """Whether nothing of a mask (h, w) is left at the size of the latents; such a row is not trained on."""
    return not bool(torch.any(mask > 0))
