"""Validation images: the same prompts, seeds and sizes at every checkpoint, coming into focus as drawn."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from dreamspace.config import MAX_SEED, RunConfig
from dreamspace.data.geometry import pictures_at_once
from dreamspace.data.samples import Sample
from dreamspace.files import replace_file
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.webhook import Picture, Webhook
from dreamspace.models.device import on_device
from dreamspace.models.family import Conditioning, Family, PictureFamily
from dreamspace.models.previews import Previewer, PreviewSink, announced_previews
from dreamspace.models.sampling import NOT_FINITE_HINT, SamplingSettings, sample_images, with_pictures
from dreamspace.models.text import TextEncoders, told
from dreamspace.run_folder import step_name
from dreamspace.training.saving import Weights


@dataclass(frozen=True)
class Shot:
    """An image that is drawn at every checkpoint."""

    prompt: str
    seed: int
    size_px: tuple[int, int]


@dataclass
class Validator:
    """Draws the validation images of a run and announces them.

    `prompts` are unique and in the order of the pictures; `conditioning` holds them and the negative prompt
    as the base model knows them, which text encoders that were trained (`text`) say anew. `settings` are
    those of the first size.
    """

    config: RunConfig
    run_dir: Path
    events: EventWriter
    family: Family
    pipeline: Any
    vae: nn.Module | None
    previewer: Previewer | None
    prompts: list[str]
    conditioning: dict[str, Conditioning]
    settings: SamplingSettings
    photos: dict[str, Sample] = field(default_factory=dict)
    text: TextEncoders | None = None
    webhook: Webhook | None = None

    @property
    def seed(self) -> int:
        """`validation_seed`, else the run's; that of the first image of each prompt."""
        return self.config.seed if self.config.validation_seed is None else self.config.validation_seed

    @property
    def shots(self) -> list[Shot]:
        """The images of a step: each prompt at the first seed and size, then at those that follow."""
        sizes = self.config.validation_sizes_px or [(self.settings.width_px, self.settings.height_px)]
        seeds = [(self.seed + number) % (MAX_SEED + 1) for number in range(self.config.num_validation_images)]
        every = itertools.product(sizes, seeds, self.prompts)
        return [Shot(prompt, seed, size) for size, seed, prompt in every]

    def folder(self, step: int) -> Path:
        """Where the images of a step lie."""
        return self.run_dir / "validation" / step_name(step)

    def path(self, step: int, weights: Weights, index: int) -> Path:
        """The image of a shot, with the trained or base weights or their moving average."""
        return self.folder(step) / (f"{index}-ema.png" if weights == "ema" else f"{index}.png")

    def are_drawn(self, step: int, weights: Weights) -> bool:
        """Whether all images of a step with these weights are there."""
        return all(self.path(step, weights, index).exists() for index in range(len(self.shots)))

    def drawn(self, step: int, weights: Weights) -> dict[str, list[Image.Image]]:
        """The images of a step by their prompts, as they lie in their files."""
        found: dict[str, list[Image.Image]] = {}
        for index, shot in enumerate(self.shots):
            path = self.path(step, weights, index)
            if path.exists():
                found.setdefault(shot.prompt, []).append(Image.open(path).convert("RGB"))
        return found

    def draw(self, step: int, weights: Weights, should_stop: Callable[[], bool]) -> None:
        """Draw an image of each shot, with previews, and announce each.

        One that is not finite is no image: a warning says so, and the training goes on.

        Args:
            weights: that are in place, as the events say it.
            should_stop: asked before each batch; what is drawn stays.
        """
        validator = replace(self, text=None) if weights == "base" else self
        first_index = 0
        for size, of_size in itertools.groupby(self.shots, key=lambda shot: shot.size_px):
            shots, batch_size = list(of_size), pictures_at_once(*size)
            for start in range(0, len(shots), batch_size):
                if should_stop():
                    return
                batch = shots[start : start + batch_size]
                images = validator.images(
                    [shot.prompt for shot in batch],
                    [shot.seed for shot in batch],
                    size,
                    self._preview_sink(step, batch, first_index),
                )
                for index, (shot, image) in enumerate(zip(batch, images, strict=True), first_index):
                    self._announce(step, weights, index, shot, image)
                first_index += len(batch)

    def close(self) -> None:
        """Let the webhook send its last pictures; afterwards it says nothing more."""
        if self.webhook is not None:
            self.webhook.close()

    def _preview_sink(self, step: int, batch: list[Shot], first_index: int) -> PreviewSink:
        """Announces previews, and sends them to the webhook."""
        announce = announced_previews(
            self.events,
            self.run_dir,
            [shot.prompt for shot in batch],
            self.settings.num_inference_steps,
            seeds=[shot.seed for shot in batch],
            first_index=first_index,
            step=step,
        )

        def sink(row: int, inference_step: int, picture: Image.Image) -> None:
            announce(row, inference_step, picture)
            # The last preview is followed by the image itself.
            if self.webhook is not None and inference_step < self.settings.num_inference_steps:
                shot = batch[row]
                self.webhook.send(
                    Picture("preview", picture, step, shot.prompt, shot.seed, inference_step=inference_step)
                )

        return sink

    def _announce(
        self, step: int, weights: Weights, index: int, shot: Shot, image: Image.Image | None
    ) -> None:
        """Save an image, and tell of it."""
        if image is None:
            message = (
                f"At step {step}, what the {weights} weights draw for '{shot.prompt}' is not finite, so that "
                "there is no image."
            )
            self.events.write(
                "warning", message=message, hint=f"Lower learning_rate if it lasts. {NOT_FINITE_HINT}"
            )
            return
        path = self.path(step, weights, index)
        with replace_file(path) as temporary:
            image.save(temporary)
        self.events.write(
            "sample",
            step=step,
            prompt=shot.prompt,
            seed=shot.seed,
            width=image.width,
            height=image.height,
            path=path.relative_to(self.run_dir),
            weights=weights,
        )
        if self.webhook is not None:
            self.webhook.send(Picture("sample", image, step, shot.prompt, shot.seed, weights))

    def images(
        self,
        prompts: list[str],
        seeds: list[int] | None = None,
        size_px: tuple[int, int] | None = None,
        on_preview: PreviewSink | None = None,
    ) -> list[Image.Image | None]:
        """Draw images of these prompts, None for one that is not finite; only then is the VAE on the device.

        Args:
            seeds: of each; None takes the first for all.
            size_px: width and height; None takes the first.
        """
        negative, settings = self.config.validation_negative_prompt, self.settings
        if size_px is not None:
            settings = replace(settings, width_px=size_px[0], height_px=size_px[1])
        # Around the encoding of prompts too: pipelines tell their device by the VAE.
        with on_device(self.vae, getattr(self.pipeline, self.family.denoiser_part).device):
            rows = told([*prompts, negative], self.conditioning, self.text)
            drawn = [rows[prompt] for prompt in prompts]
            if isinstance(self.family, PictureFamily):
                drawn = with_pictures(drawn, [self.photos[prompt] for prompt in prompts], settings)
            return sample_images(
                self.family,
                self.pipeline,
                drawn,
                rows[negative],
                seeds or [self.seed] * len(prompts),
                settings,
                self.previewer,
                on_preview,
            )
