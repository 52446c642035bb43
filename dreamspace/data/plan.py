"""Which sample each row of each step shows: a pure function of the seed and the row's number."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


def mix_seed(*numbers: int) -> int:
    """One seed in [0, 2**63) from several whole numbers: splitmix64's finaliser after each."""
    mask, state = (1 << 64) - 1, 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1


@dataclass(frozen=True)
class PlannedDataset:
    """A dataset as the plan sees it: `num_samples` samples, each shown `num_passes` times in an epoch."""

    id: str
    num_samples: int
    num_passes: int


class RowPlan:
    """An endless sequence of rows, epoch after epoch; any row can be asked for, in any order.

    Over an epoch every dataset is seen exactly num_samples x num_passes times, spread evenly, so that a
    batch has nearly the same mixture as the epoch; within a dataset each pass is a new permutation.

    Raises:
        ValueError: if no dataset has a sample that is ever shown.
    """

    def __init__(self, datasets: list[PlannedDataset], seed: int) -> None:
        if not any(dataset.num_samples * dataset.num_passes for dataset in datasets):
            raise ValueError("There is nothing to train on: no dataset holds a photo. Add photos.")
        self.datasets = datasets
        self.seed = seed
        self.epoch_rows = sum(dataset.num_samples * dataset.num_passes for dataset in datasets)
        self._epoch = lru_cache(maxsize=2)(self._shuffled_epoch)

    def row(self, number: int) -> tuple[int, int]:
        """(index of the dataset, index of the sample in it) of the row with this number, counted from 0."""
        epoch, position = divmod(number, self.epoch_rows)
        dataset, sample = self._epoch(epoch)[position]
        return int(dataset), int(sample)

    def choice(self, number: int, num_choices: int) -> int:
        """The row's draw of an index below `num_choices`, of captions for example; all are as likely."""
        # Not the number modulo the choices: datasets alternate, so one would always meet one caption.
        return mix_seed(self.seed, number) % num_choices

    def mixture(self, num_rows: int) -> dict[str, float]:
        """Share of each dataset among the first `num_rows` rows."""
        counts = Counter(self.row(number)[0] for number in range(num_rows))
        return {dataset.id: counts[index] / num_rows for index, dataset in enumerate(self.datasets)}

    def _shuffled_epoch(self, epoch: int) -> np.ndarray:
        """(epoch_rows, 2) of dataset and sample indices."""
        rng = np.random.default_rng((self.seed, epoch))
        entries, places = [], []
        for index, dataset in enumerate(self.datasets):
            passes = [rng.permutation(dataset.num_samples) for _ in range(dataset.num_passes)]
            samples = np.concatenate(passes) if passes else np.empty(0, int)
            entries.append(np.stack([np.full(len(samples), index), samples], axis=1))
            # Evenly spaced from a random start: the k-th of n samples stands at (k + start) / n.
            places.append((np.arange(len(samples)) + rng.random()) / max(len(samples), 1))
        return np.concatenate(entries)[np.argsort(np.concatenate(places), kind="stable")]
