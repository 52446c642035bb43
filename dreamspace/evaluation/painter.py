"""Draws what an evaluation asks for, with whatever weights are in place."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image
from torch import nn

from dreamspace.data.geometry import pictures_at_once
from dreamspace.evaluation.plan import Drawing
from dreamspace.models.device import on_device
from dreamspace.models.family import Conditioning, Family
from dreamspace.models.sampling import SamplingSettings, sample_images
from dreamspace.models.text import TextEncoders, told


@dataclass(frozen=True)
class Painter:
    """A pipeline with the conditioning of all prompts.

    Attributes:
        pipeline: as the family makes it; its denoiser may be that of a training in progress.
        conditioning: of all prompts and the negative one, as the base model knows them.
        text: text encoders that say prompts anew; None where they are the base model's.
    """

    family: Family
    pipeline: Any
    vae: nn.Module | None
    conditioning: dict[str, Conditioning]
    negative: str
    settings: SamplingSettings
    text: TextEncoders | None = None

    def of_base(self, denoiser: nn.Module) -> "Painter":
        """Draws with the base model's denoiser, and prompts as it knew them."""
        # A copy, because a pipeline made anew from its parts would lose its settings.
        pipeline = copy.copy(self.pipeline)
        setattr(pipeline, self.family.denoiser_part, denoiser)
        return replace(self, pipeline=pipeline, text=None)

    def draw(
        self, drawings: Sequence[Drawing], on_drawn: Callable[[int], bool] | None = None
    ) -> list[Image.Image | None] | None:
        """An image of each drawing, None for one that is not finite; None for all if `on_drawn` said to stop.

        Args:
            on_drawn: called after each batch with the number of images so far; returns whether to stop.
        """
        prompts = list(dict.fromkeys([*(drawing.prompt for drawing in drawings), self.negative]))
        rows = told(prompts, self.conditioning, self.text)
        images: list[Image.Image | None] = []
        batch_size = pictures_at_once(self.settings.width_px, self.settings.height_px)
        with on_device(self.vae, getattr(self.pipeline, self.family.denoiser_part).device):
            for start in range(0, len(drawings), batch_size):
                batch = drawings[start : start + batch_size]
                images += sample_images(
                    self.family,
                    self.pipeline,
                    [rows[drawing.prompt] for drawing in batch],
                    rows[self.negative],
                    [drawing.seed for drawing in batch],
                    self.settings,
                )
                if on_drawn is not None and on_drawn(len(images)):
                    return None
        return images
