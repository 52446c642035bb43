"""Which samples each step shows: a pure function of the seed and the step's number."""

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import ceil, floor
from typing import Literal, NamedTuple

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


def balancing_repeats(num_photos: int, num_class_images: int) -> int:
    """The `repeats` with which photos of the subject are seen about as often as class images are once.

    SimpleTuner counts repeats as extra passes: 10 photos against 1,000 class images need 99. It is 0 where
    the photos are not fewer.
    """
    assert num_photos > 0, num_photos
    return max(0, (2 * num_class_images + num_photos) // (2 * num_photos) - 1)


@dataclass(frozen=True)
class PlannedDataset:
    """A dataset as the plan sees it.

    Attributes:
        sizes: (width, height) in px of each sample's training image, which is its bucket.
        num_passes: how often an epoch shows each sample.
        probability: its weight against the other datasets; 0 means never.
        start_step, end_step: it takes part from the one on and before the other; None is the end.
    """

    id: str
    sizes: tuple[tuple[int, int], ...]
    num_passes: int
    probability: float = 1.0
    start_step: int = 0
    end_step: int | None = None

    @property
    def num_rows(self) -> int:
        """How many rows an epoch has of it."""
        return len(self.sizes) * self.num_passes if self.probability > 0 else 0

    def is_active(self, step: int) -> bool:
        """Whether it takes part in this step."""
        is_over = self.end_step is not None and step >= self.end_step
        return self.num_rows > 0 and self.start_step <= step and not is_over


class Row(NamedTuple):
    """A row of a step: the indices of its dataset and of the sample in it."""

    dataset: int
    sample: int


class StepPlan:
    """An endless sequence of steps, epoch after epoch; any step can be asked for, in any order.

    Over an epoch every dataset is seen exactly len(sizes) x num_passes times; within a dataset each pass is a
    new permutation. All rows of a step are of one size (aspect bucket), so that they fit into one batch. A
    bucket is split into steps of nearly equal length, none longer than `step_rows`: a bucket with fewer
    photos gives a smaller step; none is shown more often to fill it. Datasets that begin or end at a
    step start a new epoch there.

    Args:
        step_rows: rows of a full global step, over all ranks and micro-batches.
        sampling: SimpleTuner's `data_backend_sampling`: the order within an epoch follows each dataset's
            probability x number of rows ("auto-weighting"), so that steps have nearly the same mixture as the
            epoch, or its probability alone ("uniform"), so that short datasets are used up early.
        num_steps: the length of the run, after which there may be nothing left to show; None is endless.

    Raises:
        ValueError: if at some step no dataset has a sample to show.
    """

    def __init__(
        self,
        datasets: list[PlannedDataset],
        seed: int,
        step_rows: int,
        sampling: Literal["auto-weighting", "uniform"] = "auto-weighting",
        num_steps: int | None = None,
    ) -> None:
        self.datasets, self.seed, self.step_rows, self.sampling = datasets, seed, step_rows, sampling
        borders = {0, *(d.start_step for d in datasets), *(d.end_step for d in datasets if d.end_step)}
        self._borders = sorted(border for border in borders if num_steps is None or border < num_steps)
        for border in self._borders:
            if not any(dataset.is_active(border) for dataset in datasets):
                raise ValueError(
                    f"There is nothing to train on at step {border}: no dataset that takes part holds a "
                    "photo. Add photos, or change start_step and end_step."
                )
        self._bucket_counts = lru_cache(maxsize=8)(self._counted_buckets)
        self._epoch = lru_cache(maxsize=2)(self._planned_epoch)

    def rows(self, step: int) -> list[Row]:
        """The rows of a global step, counted from 0; at least 1 and at most `step_rows`, of one size."""
        border, epoch, place = self._position(step)
        return self._epoch(border, epoch)[place]

    def size(self, step: int) -> tuple[int, int]:
        """(width, height) in px of the images of a step."""
        first = self.rows(step)[0]
        return self.datasets[first.dataset].sizes[first.sample]

    def choice(self, step: int, row: int, num_choices: int) -> int:
        """The draw of an index below `num_choices` for a row, of captions for example; all are as likely."""
        return mix_seed(self.seed, step, row, 1) % num_choices

    def epoch_steps(self, step: int = 0) -> int:
        """The number of steps of the epoch that this step belongs to, if nothing begins or ends in it."""
        border, _, _ = self._position(step)
        return self._num_steps(border)

    def ends_interval(self, num_steps: int, interval: float) -> bool:
        """Whether the last of the first `num_steps` steps completes another `interval` epochs."""
        # As it is written: the float 0.1 is a little more than a tenth.
        whole = Fraction(str(interval))
        before, after = (floor(self._num_epochs(number) / whole) for number in (num_steps - 1, num_steps))
        return after > before

    def _num_epochs(self, num_steps: int) -> Fraction:
        """The epochs that the first steps make; one that a dataset's beginning or end cuts off is a part."""
        borders = [border for border in self._borders if border < num_steps]
        parts = pairwise([*borders, num_steps])
        return sum((Fraction(end - border, self._num_steps(border)) for border, end in parts), Fraction())

    def mixture(self, num_steps: int) -> dict[str, float]:
        """Share of each dataset among the rows of the first `num_steps` steps."""
        counts = Counter(row.dataset for step in range(num_steps) for row in self.rows(step))
        return {dataset.id: counts[index] / counts.total() for index, dataset in enumerate(self.datasets)}

    def _position(self, step: int) -> tuple[int, int, int]:
        """(step at which the datasets that take part last changed, epoch since then, step in that epoch)."""
        border = max(border for border in self._borders if border <= step)
        return border, *divmod(step - border, self._num_steps(border))

    def _num_steps(self, border: int) -> int:
        """The steps of each epoch from this step on."""
        return sum(ceil(count / self.step_rows) for count in self._bucket_counts(border).values())

    def _active(self, border: int) -> list[int]:
        return [index for index, dataset in enumerate(self.datasets) if dataset.is_active(border)]

    def _counted_buckets(self, border: int) -> Counter[tuple[int, int]]:
        """Rows of an epoch by size."""
        counts: Counter[tuple[int, int]] = Counter()
        for index in self._active(border):
            for size in self.datasets[index].sizes:
                counts[size] += self.datasets[index].num_passes
        return counts

    def _planned_epoch(self, border: int, epoch: int) -> list[list[Row]]:
        rng = np.random.default_rng((self.seed, border, epoch))
        buckets: dict[tuple[int, int], list[tuple[float, Row]]] = {}
        for index in self._active(border):
            dataset = self.datasets[index]
            passes = [rng.permutation(len(dataset.sizes)) for _ in range(dataset.num_passes)]
            samples = [int(sample) for one_pass in passes for sample in one_pass]
            rate = dataset.probability * (len(samples) if self.sampling == "auto-weighting" else 1)
            # Evenly spaced from a random start: the k-th row of a dataset stands at (k + start) / rate.
            start = rng.random()
            for number, sample in enumerate(samples):
                rows = buckets.setdefault(dataset.sizes[sample], [])
                rows.append(((number + start) / rate, Row(index, sample)))
        steps: list[tuple[float, list[Row]]] = []
        for _, rows in sorted(buckets.items()):
            rows.sort()
            for places in np.array_split(np.arange(len(rows)), ceil(len(rows) / self.step_rows)):
                middle = rows[places[len(places) // 2]][0]
                steps.append((middle, [rows[place][1] for place in places]))
        return [rows for _, rows in sorted(steps)]
