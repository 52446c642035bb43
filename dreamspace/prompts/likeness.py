"""Comparing sets of pictures by their embeddings."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamspace.evaluation.scores import likeness_among

CLEAR_T = 2.0
"""From this t value on a difference of means counts; pairs share pictures, so it is a rule of thumb."""


@dataclass(frozen=True)
class Difference:
    """How much higher the mean of one set of numbers is than that of another, and whether that is clear."""

    mean: float
    t: float

    @property
    def is_clear(self) -> bool:
        return self.t > CLEAR_T


def difference(first: Tensor, second: Tensor) -> Difference:
    """Welch's t of two sets of numbers; a single number has no spread of its own."""
    mean = (first.mean() - second.mean()).item()
    squares = [values.var().item() / len(values) for values in (first, second) if len(values) > 1]
    return Difference(mean, mean / max(sum(squares) ** 0.5, 1e-6))


@dataclass(frozen=True)
class Look:
    """What pictures of a word and a class have beyond those of the class alone.

    Attributes:
        drift: how much less they resemble the class's pictures than those resemble each other.
        agreement: how much more they resemble each other than the class's pictures do.
    """

    drift: Difference
    agreement: Difference

    @property
    def is_clear(self) -> bool:
        """Whether the word has a meaning to the model that drew them."""
        return self.drift.is_clear or self.agreement.is_clear


def look_of(pictures: Tensor, of_class: Tensor) -> Look:
    """Compare pictures of a word and a class with those of the class, at the same seeds.

    Pairs of one seed are left out: they share their noise, and so their layout.

    Args:
        pictures: (N, D) unit vectors, N of 2 or more.
        of_class: (N, D), in the order of the same seeds.
    """
    usual = _among(of_class, of_class)
    return Look(
        drift=difference(usual, _among(pictures, of_class)),
        agreement=difference(_among(pictures, pictures), usual),
    )


def likeness(pictures: Tensor, photos: Tensor) -> Tensor:
    """(N,): each picture's mean cosine with the photos; (N, D) and (M, D) unit vectors."""
    return (pictures @ photos.T).mean(dim=1)


def among_themselves(photos: Tensor) -> float | None:
    """Mean cosine of all pairs of photos, (N, D) unit vectors; None for a single one."""
    return likeness_among(photos) if len(photos) > 1 else None


def _among(first: Tensor, second: Tensor) -> Tensor:
    """(N,): each row's mean cosine with the other's rows but the one of its own number."""
    cosines = first @ second.T
    different = ~torch.eye(len(first), dtype=torch.bool)
    return (cosines * different).sum(dim=1) / (len(first) - 1)
