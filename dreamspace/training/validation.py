"""Validation images: the same prompts and seeds at every checkpoint, coming into focus as they are drawn."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from dreamspace.config import RunConfig
from dreamspace.files import replace_file
from dreamspace.jobs.events import EventWriter
from dreamspace.models.device import on_device
from dreamspace.models.family import Conditioning, Family
from dreamspace.models.previews import PreviewSink, announced_previews
from dreamspace.models.sampling import SamplingSettings, sample_images
from dreamspace.models.text import TextEncoders
from dreamspace.run_folder import step_name
from dreamspace.training.saving import Weights


@dataclass
class Validator:
    """Draws the validation images of a run and announces them.

    `prompts` are unique and in the order of the pictures; `conditioning` holds them and the negative prompt
    as the base model knows them, which text encoders that were trained (`text`) say anew.
    """

    config: RunConfig
    run_dir: Path
    events: EventWriter
    family: Family
    pipeline: Any
    vae: nn.Module | None
    tiny_vae: Any
    prompts: list[str]
    conditioning: dict[str, Conditioning]
    settings: SamplingSettings
    text: TextEncoders | None = None

    @property
    def seed(self) -> int:
        """`validation_seed`, else the run's."""
        return self.config.seed if self.config.validation_seed is None else self.config.validation_seed

    def folder(self, step: int) -> Path:
        """Where the images of a step lie."""
        return self.run_dir / "validation" / step_name(step)

    def path(self, step: int, weights: Weights, index: int) -> Path:
        """The image of a prompt, with the trained or base weights or their moving average."""
        return self.folder(step) / (f"{index}-ema.png" if weights == "ema" else f"{index}.png")

    def are_drawn(self, step: int, weights: Weights) -> bool:
        """Whether all images of a step with these weights are there."""
        return all(self.path(step, weights, index).exists() for index in range(len(self.prompts)))

    def draw(self, step: int, weights: Weights, should_stop: Callable[[], bool]) -> None:
        """Draw an image of each prompt, with previews, and announce each.

        Args:
            weights: that are in place, as the events say it.
            should_stop: asked before each batch; what is drawn stays.
        """
        validator = replace(self, text=None) if weights == "base" else self
        for start in range(0, len(self.prompts), self.config.train_batch_size):
            if should_stop():
                return
            prompts = self.prompts[start : start + self.config.train_batch_size]
            on_preview = announced_previews(
                self.events,
                self.run_dir,
                prompts,
                self.settings.num_inference_steps,
                first_index=start,
                step=step,
            )
            images = validator.images(prompts, on_preview if self.config.validation_preview else None)
            for index, (prompt, image) in enumerate(zip(prompts, images, strict=True), start):
                path = self.path(step, weights, index)
                with replace_file(path) as temporary:
                    image.save(temporary)
                self.events.write(
                    "sample",
                    step=step,
                    prompt=prompt,
                    seed=self.seed,
                    path=path.relative_to(self.run_dir),
                    weights=weights,
                )

    def images(self, prompts: list[str], on_preview: PreviewSink | None = None) -> list[Image.Image]:
        """Draw images of these prompts, all from the same seed; only then is the VAE on the device."""
        negative = self.config.validation_negative_prompt
        # Around the encoding of prompts too: pipelines tell their device by the VAE.
        with on_device(self.vae, getattr(self.pipeline, self.family.denoiser_part).device):
            told = {} if self.text is None else self.text.rows([*prompts, negative])
            rows = {each: self.conditioning[each] | told.get(each, {}) for each in [*prompts, negative]}
            return sample_images(
                self.family,
                self.pipeline,
                [rows[prompt] for prompt in prompts],
                rows[negative],
                [self.seed] * len(prompts),
                self.settings,
                self.tiny_vae,
                on_preview,
            )
