"""Validation images: the same prompts and seeds at every checkpoint, coming into focus as they are drawn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dreamspace.config import RunConfig
from dreamspace.files import replace_file
from dreamspace.jobs.events import EventWriter
from dreamspace.models.family import Conditioning, Family
from dreamspace.models.sampling import SamplingSettings, sample_images


def validation_size_px(config: RunConfig, training_size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the validation images: `validation_resolution`, else the training's."""
    if config.validation_resolution is None:
        return training_size
    edges = [int(edge) for edge in config.validation_resolution.split("x")]
    return edges[0], edges[-1]


@dataclass
class Validator:
    """Draws the validation images of a run and announces them.

    `prompts` are unique and in the order of the pictures; `conditioning` holds them and the negative prompt.
    """

    config: RunConfig
    run_dir: Path
    events: EventWriter
    family: Family
    pipeline: Any
    tiny_vae: Any
    prompts: list[str]
    conditioning: dict[str, Conditioning]
    settings: SamplingSettings

    @property
    def seed(self) -> int:
        return self.config.seed if self.config.validation_seed is None else self.config.validation_seed

    def draw(self, step: int, weights: str) -> list[Path]:
        """Draw an image of each prompt, with previews; returns the paths of the images.

        Args:
            weights: "base" or "trained", as the events say it.
        """
        folder = self.run_dir / "validation" / f"step-{step:06d}"
        paths = []
        for start in range(0, len(self.prompts), self.config.train_batch_size):
            prompts = self.prompts[start : start + self.config.train_batch_size]

            def announce(
                index: int, inference_step: int, picture: Image.Image, start=start, prompts=prompts
            ) -> None:
                place = (
                    self.run_dir / "previews" / f"step-{step:06d}-{start + index}-{inference_step:03d}.png"
                )
                with replace_file(place) as temporary:
                    picture.save(temporary)
                self.events.write(
                    "preview",
                    step=step,
                    prompt=prompts[index],
                    index=start + index,
                    inference_step=inference_step,
                    num_inference_steps=self.settings.num_inference_steps,
                    path=place.relative_to(self.run_dir),
                )

            images = self.images(prompts, announce if self.config.validation_preview else None)
            for index, (prompt, image) in enumerate(zip(prompts, images, strict=True), start):
                paths.append(folder / f"{index}.png")
                with replace_file(paths[-1]) as temporary:
                    image.save(temporary)
                self.events.write(
                    "sample",
                    step=step,
                    prompt=prompt,
                    seed=self.seed,
                    path=paths[-1].relative_to(self.run_dir),
                    weights=weights,
                )
        return paths

    def images(self, prompts: list[str], on_preview=None, pipeline: Any = None) -> list[Image.Image]:
        """Draw images of these prompts with the run's pipeline or the one given, all from the same seed."""
        return sample_images(
            self.family,
            pipeline or self.pipeline,
            [self.conditioning[prompt] for prompt in prompts],
            self.conditioning[self.config.validation_negative_prompt],
            [self.seed] * len(prompts),
            self.settings,
            self.tiny_vae,
            on_preview,
        )
