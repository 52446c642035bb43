"""Micro-batches: which rows a process takes, what each draws, and what it weighs."""

from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor

from dreamspace.config import RunConfig
from dreamspace.data.plan import Row, mix_seed
from dreamspace.data.samples import Sample
from dreamspace.models.device import sent
from dreamspace.models.family import Conditioning, Family, num_trained_timesteps, stack_conditioning
from dreamspace.training.masked_loss import is_black
from dreamspace.training.objective import class_row_weight
from dreamspace.training.preparation import TrainingSet
from dreamspace.training.rollout import Rollout, rollout_length
from dreamspace.training.timesteps import (
    CAPTION_DROPOUT,
    CONDITIONING,
    MASK,
    OFFSET_NOISE,
    PERTURBATION,
    TIMESTEP,
    random_normal,
    random_rows,
    stratified,
    timestep_at,
    uniform,
)


@dataclass(frozen=True)
class Batch:
    """A micro-batch. What decides which rows a model sees stays on the host.

    Attributes:
        samples, captions: of each row.
        latents, noise: (B, C, h, w).
        input_noise: what the latents are made noisy with: the noise, and what the target does not know of.
            In rows that are rolled out it is the noise alone, since their target is told by where they end.
        timesteps: (B,) int64.
        conditioning: entries with a leading batch dimension.
        masks: (B, 1, h, w) in [0, 1], 1 on the subject; None where no row has one.
        weights: (B,), what each row counts in the step's loss.
        divisor: of the step's loss; see `class_row_weight`.
        roles: (2, B) bool: rows of the subject, and rows of the prior; neither where a row only fills up, or
            nothing is left of its mask.
        base_rows: rows whose target is the base model's own prediction.
        masked_rows: rows to which a mask applies.
        rollouts: of the rows that the model denoises by itself first, the longest first.
    """

    samples: list[Sample]
    captions: list[str]
    latents: Tensor
    noise: Tensor
    input_noise: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    masks: Tensor | None
    weights: Tensor
    divisor: int
    roles: Tensor
    base_rows: list[int]
    masked_rows: list[int]
    rollouts: list[Rollout]

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on a device."""

        def there(tensor: Tensor) -> Tensor:
            return sent(tensor, device)

        return replace(
            self,
            latents=there(self.latents),
            noise=there(self.noise),
            input_noise=there(self.input_noise),
            timesteps=there(self.timesteps),
            conditioning={name: there(values) for name, values in self.conditioning.items()},
            masks=None if self.masks is None else there(self.masks),
            weights=there(self.weights),
            roles=there(self.roles),
        )


class Batches:
    """The rows of every global step, in micro-batches.

    Row r of step n is a function of (seed, n, r): process p takes, in micro-batch a, the rows from
    (a * num_processes + p) * train_batch_size on, so any split of the same rows gives the same step. A step
    with fewer rows than a full one has fewer micro-batches, and smaller ones; a process for which no row is
    left takes the first with weight 0, because all must take part.
    """

    def __init__(
        self,
        config: RunConfig,
        family: Family,
        training_set: TrainingSet,
        num_timesteps: int,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.family, self.training_set = config, family, training_set
        self.num_timesteps = num_trained_timesteps(family, num_timesteps)
        self.accelerator = accelerator

    def num_micro_steps(self, step: int) -> int:
        """How many micro-batches a step has; the same in every process."""
        per_micro_step = self.config.train_batch_size * self.accelerator.num_processes
        return -(-len(self.training_set.plan.rows(step)) // per_micro_step)

    def batch(self, step: int, micro_step: int) -> Batch:
        """This process' rows of a micro-batch."""
        planned = self.training_set.plan.rows(step)
        size = self.config.train_batch_size
        first = (micro_step * self.accelerator.num_processes + self.accelerator.process_index) * size
        is_filler = first >= len(planned)
        rows = range(1) if is_filler else range(first, min(first + size, len(planned)))
        places = [planned[row] for row in rows]
        samples = [self.training_set.samples[dataset][sample] for dataset, sample in places]
        latents = torch.stack([self.training_set.latents[dataset][sample] for dataset, sample in places])
        captions = [self._caption(step, row, sample) for row, sample in zip(rows, samples, strict=True)]
        conditioning = [
            self._conditioning(step, row, caption, sample, photo)
            for row, caption, sample, photo in zip(rows, captions, samples, latents, strict=True)
        ]
        noise, input_noise, timesteps = self._noise(step, rows, latents.shape[1:], len(planned))
        masks = [self._mask(step, row, place) for row, place in zip(rows, places, strict=True)]
        counts = [not is_filler and (mask is None or not is_black(mask)) for mask in masks]
        rollouts = self._rollouts(step, rows, timesteps)
        for rollout in rollouts:
            input_noise[rollout.row] = noise[rollout.row]
        divisor, class_weight = self._class_row_weight(step)
        weights = [
            is_counted * (class_weight if sample.regularisation == "noise" else 1.0)
            for is_counted, sample in zip(counts, samples, strict=True)
        ]
        roles = [
            [is_counted and (sample.regularisation is not None) is is_prior
             for is_counted, sample in zip(counts, samples, strict=True)]
            for is_prior in (False, True)
        ]  # fmt: skip
        batch = Batch(
            samples=samples,
            captions=captions,
            latents=latents,
            noise=noise,
            input_noise=input_noise,
            timesteps=timesteps,
            conditioning=stack_conditioning(conditioning),
            masks=_stacked(masks, counts, latents),
            weights=torch.tensor(weights),
            divisor=divisor,
            roles=torch.tensor(roles),
            base_rows=[row for row, sample in enumerate(samples) if sample.regularisation == "base"],
            masked_rows=[row for row, mask in enumerate(masks) if mask is not None and counts[row]],
            rollouts=rollouts,
        )
        return batch.to(self.accelerator.device)

    def _conditioning(
        self, step: int, row: int, caption: str, sample: Sample, latents: Tensor
    ) -> Conditioning:
        """Of the row's caption and its photo."""
        seed = mix_seed(self.config.seed, step, row, CONDITIONING)
        return self.training_set.conditioning[caption] | self.family.row_conditioning(
            sample.geometry, latents, seed
        )

    def _caption(self, step: int, row: int, sample: Sample) -> str:
        probability = self.config.caption_dropout_probability
        if probability and uniform(self.config.seed, step, row, CAPTION_DROPOUT) < probability:
            return ""
        return sample.captions[self.training_set.plan.choice(step, row, len(sample.captions))]

    def _mask(self, step: int, row: int, place: Row) -> Tensor | None:
        """The mask (h, w) that applies to a row, if any."""
        sample = self.training_set.samples[place.dataset][place.sample]
        mask = self.training_set.masks[place.dataset][place.sample]
        if sample.mask is None or sample.mask.kind == "mask":
            return mask
        is_applied = uniform(self.config.seed, step, row, MASK) < self.config.masked_loss_probability
        return mask if is_applied else None

    def _noise(
        self, step: int, rows: range, shape: torch.Size, num_rows: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, the noise of the input, and timesteps, all on the CPU."""
        config = self.config
        noise, timesteps = random_rows(config.seed, step, rows, shape, self.num_timesteps)
        if config.timestep_sampling != "uniform" or config.stratified_timesteps:
            shares = [self._share(step, row, num_rows) for row in rows]
            timesteps = timestep_at(
                torch.tensor(shares, dtype=torch.float64),
                config.timestep_sampling,
                config.timestep_shift,
                self.num_timesteps,
            )
        if config.noise_offset:
            per_channel = random_normal(config.seed, step, rows, OFFSET_NOISE, (shape[0], 1, 1))
            noise = noise + config.noise_offset * per_channel
        input_noise = noise
        if config.input_perturbation:
            more = random_normal(config.seed, step, rows, PERTURBATION, tuple(shape))
            input_noise = noise + config.input_perturbation * more
        return noise, input_noise, timesteps

    def _share(self, step: int, row: int, num_rows: int) -> float:
        if self.config.stratified_timesteps:
            return stratified(self.config.seed, step, row, num_rows)
        return uniform(self.config.seed, step, row, TIMESTEP)

    def _rollouts(self, step: int, rows: range, timesteps: Tensor) -> list[Rollout]:
        """Those of the rows; none starts above the last timestep."""
        if not self.config.scheduled_sampling_max_step_offset:
            return []
        found = []
        for index, (row, timestep) in enumerate(zip(rows, timesteps.tolist(), strict=True)):
            length = rollout_length(self.config.seed, step, row, self.config)
            length = min(length, self.num_timesteps - 1 - timestep)
            if length:
                found.append(Rollout(index, timestep + length, length))
        return sorted(found, key=lambda rollout: -rollout.num_steps)

    def _class_row_weight(self, step: int) -> tuple[int, float]:
        """The divisor of the step's loss, and what class images with the noise as target weigh."""
        planned = self.training_set.plan.rows(step)
        of_rows = (self.training_set.samples[dataset][sample].regularisation for dataset, sample in planned)
        num_class_rows = sum(regularisation == "noise" for regularisation in of_rows)
        return class_row_weight(len(planned), num_class_rows, self.config.prior_loss_weight)


def _stacked(masks: list[Tensor | None], counts: list[bool], latents: Tensor) -> Tensor | None:
    """(B, 1, h, w), 1 where a row has no mask or does not count; None if that is so everywhere."""
    applied = [mask if is_counted else None for mask, is_counted in zip(masks, counts, strict=True)]
    if all(mask is None for mask in applied):
        return None
    everything = torch.ones(latents.shape[-2:])
    return torch.stack([everything if mask is None else mask for mask in applied])[:, None]
