"""Stable eval loss: of the same photos, noise and timesteps whenever it is measured, never trained on."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dreamspace.config import RunConfig
from dreamspace.data.plan import mix_seed
from dreamspace.data.samples import Sample
from dreamspace.models.device import sent
from dreamspace.models.family import Conditioning, Family, num_trained_timesteps, stack_conditioning
from dreamspace.models.text import TextEncoders, told
from dreamspace.training.objective import training_target
from dreamspace.training.schedule import NoiseSchedule

POOLED = "all"
"""The name of the loss over all datasets, where `eval_dataset_pooling` wants one."""


@dataclass(frozen=True)
class EvalPhoto:
    """A photo to measure on: its latents (C, h, w) on the CPU, and the first of its captions."""

    sample: Sample
    latents: Tensor

    @property
    def caption(self) -> str:
        return self.sample.captions[0]


@dataclass(frozen=True)
class EvalLoss:
    """Measures the mean squared error of predictions, unmasked and unweighted, in evaluation mode.

    Noise follows from the photo's content and the timestep alone, so that two measurements of the same
    weights agree to the last bit, and those of different runs can be compared.

    Attributes:
        schedule: on the device.
        photos: by dataset.
        conditioning: of their captions, as the base model knows them.
        text: text encoders that are trained along, which say the captions anew.
    """

    config: RunConfig
    family: Family
    schedule: NoiseSchedule
    photos: dict[str, list[EvalPhoto]]
    conditioning: dict[str, Conditioning]
    accelerator: Accelerator
    text: TextEncoders | None = None

    @property
    def timesteps(self) -> list[int]:
        """The middles of `eval_timesteps` equal parts of those that are trained."""
        count = self.config.eval_timesteps
        of_all = num_trained_timesteps(self.family, self.schedule.num_timesteps)
        return [int((index + 0.5) * of_all / count) for index in range(count)]

    def measure(self, denoiser: nn.Module) -> dict[str, list[tuple[int, float]]]:
        """By dataset, or pooled, each timestep with its mean loss over the photos; empty without any.

        Args:
            denoiser: in evaluation mode, with the weights to measure in place.
        """
        losses = {
            name: [self._by_timestep(denoiser, photo) for photo in photos]
            for name, photos in self.photos.items()
        }
        if losses and self.config.eval_dataset_pooling:
            losses = {POOLED: [row for rows in losses.values() for row in rows]}
        means = {name: torch.stack(rows).mean(dim=0).tolist() for name, rows in losses.items()}
        return {name: list(zip(self.timesteps, found, strict=True)) for name, found in means.items()}

    @torch.no_grad()
    def _by_timestep(self, denoiser: nn.Module, photo: EvalPhoto) -> Tensor:
        """(T,) losses of a photo, on the CPU."""
        caption = told([photo.caption], self.conditioning, self.text)[photo.caption]
        rows = []
        for timesteps in self._chunks():
            noise = torch.stack([self._noise(photo, timestep) for timestep in timesteps])
            conditioning = [
                caption
                | self.family.row_conditioning(
                    photo.sample.geometry, photo.latents, self._seed(photo, timestep)
                )
                for timestep in timesteps
            ]
            rows.append(self._losses(denoiser, photo.latents, noise, timesteps, conditioning))
        return torch.cat(rows).cpu()

    def _chunks(self) -> Iterator[list[int]]:
        size, timesteps = self.config.train_batch_size, self.timesteps
        return (timesteps[start : start + size] for start in range(0, len(timesteps), size))

    def _losses(
        self,
        denoiser: nn.Module,
        latents: Tensor,
        noise: Tensor,
        timesteps: list[int],
        conditioning: list[Conditioning],
    ) -> Tensor:
        """(B,) losses of one photo at several timesteps."""
        device, schedule = self.accelerator.device, self.schedule
        latents, noise = sent(latents.expand_as(noise), device), sent(noise, device)
        steps = sent(torch.tensor(timesteps), device)
        batched = {name: sent(values, device) for name, values in stack_conditioning(conditioning).items()}
        noisy_latents = schedule.add_noise(latents, noise, steps)
        levels = schedule.alphas[steps], schedule.sigmas[steps]
        target = training_target(latents, noise, *levels, schedule.prediction_type)
        with self.accelerator.autocast():
            times = schedule.model_timesteps(steps)
            prediction = self.family.predict(denoiser, noisy_latents, times, batched)
        return (prediction.float() - target).square().mean(dim=(1, 2, 3))

    def _seed(self, photo: EvalPhoto, timestep: int) -> int:
        return mix_seed(int(photo.sample.content_id, 16), timestep)

    def _noise(self, photo: EvalPhoto, timestep: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._seed(photo, timestep))
        return torch.randn(photo.latents.shape, generator=generator)
