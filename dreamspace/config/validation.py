"""The settings of validation images: what is drawn, when, how large, and where else it is shown."""

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from dreamspace.config.dataset import MAX_EDGE_PX
from dreamspace.config.sections import MAX_SEED, MAX_STEPS, FilledText, Section, Text

_SIZE = r"[1-9]\d{0,4}(x[1-9]\d{0,4})?"


class ValidationSettings(Section):
    """Validation images."""

    validation_disable: bool = Field(False, description="Make no validation images during training.")
    validation_prompt: Text | None = Field(
        None, description="The prompt of the validation images; null takes the instance prompt."
    )
    validation_prompts: list[FilledText] = Field(
        [], description="Further prompts to validate with, an image each; SimpleTuner has no such key."
    )
    validation_prompt_library: FilledText | None = Field(
        None,
        description="More prompts, of scenes, angles and styles: 'living' for a person or an animal, "
        "'object' for a thing, or a JSON file of names and prompts; null takes none.",
    )
    validation_negative_prompt: Text = Field(
        "", description="What validation images should not show; FLUX.1 is not told."
    )
    validation_seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="The seed of the validation images; null takes the run's seed."
    )
    num_validation_images: int = Field(
        1,
        ge=1,
        le=64,
        description="Images of each prompt and size: from validation_seed and the numbers after it.",
    )
    validation_step_interval: int | None = Field(
        100,
        ge=1,
        le=MAX_STEPS,
        description="Steps from one set of validation images to the next, besides those of the first and "
        "the last step; null does not count steps.",
    )
    validation_epoch_interval: float | None = Field(
        None,
        gt=0,
        le=MAX_STEPS,
        description="Epochs from one set to the next, besides those by steps: 0.5 is twice an epoch; null "
        "does not count epochs.",
    )
    validation_num_inference_steps: int = Field(
        20,
        ge=1,
        le=1000,
        description="Denoising steps of a validation image: more take longer and look finer.",
    )
    validation_guidance: float = Field(
        5.0,
        ge=0,
        description="How strictly a validation image follows its prompt; 1 is without guidance, or 0 for "
        "Z-Image, unless the model is told the number itself, as FLUX.1 dev is.",
    )
    validation_resolution: Text | None = Field(
        None,
        description="Size of the validation images in px, as '128' or '96x64', or several with commas, as "
        "'512,96x64'; null takes the training's.",
    )
    validation_lycoris_strength: float = Field(
        1.0, ge=0, le=10, description="How strongly a LyCORIS adapter shows in validation images; 1 is fully."
    )
    validation_preview: bool | None = Field(
        None,
        description="Show validation images while they come into focus; null does wherever there are any.",
    )
    validation_preview_steps: int = Field(
        5, ge=1, le=1000, description="Denoising steps from one preview of a validation image to the next."
    )

    validation_preview_model: FilledText | None = Field(
        None,
        description="The tiny decoder of previews, a folder or a Hub id such as 'madebyollin/taesd'; null "
        "takes the model's own or its family's, and where there is none, previews show colours alone.",
    )
    webhook_config: FilledText | None = Field(
        None,
        description="A JSON file of webhook_type, 'raw' or 'discord', and webhook_url, to which previews and "
        "images are sent as they are drawn; null sends none.",
    )

    @field_validator(
        "validation_prompt",
        "validation_prompt_library",
        "validation_preview_model",
        "webhook_config",
        mode="before",
    )
    @classmethod
    def _blank_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("validation_resolution")
    @classmethod
    def _check_resolution(cls, value: str | None) -> str | None:
        if not value:
            return None
        sizes = [size.strip() for size in value.split(",")]
        for size in sizes:
            if not re.fullmatch(_SIZE, size):
                raise ValueError(
                    "must be sizes in px with commas between them, such as '128' or '512,96x64', "
                    f"got '{value}'."
                )
            if max(map(int, size.split("x"))) > MAX_EDGE_PX:
                raise ValueError(f"must be at most {MAX_EDGE_PX} px wide and high, got '{size}'.")
        return ",".join(dict.fromkeys(sizes))

    @model_validator(mode="after")
    def _check_previews(self) -> "ValidationSettings":
        if self.validation_disable and self.validation_preview:
            raise ValueError(
                "validation_preview shows validation images as they come into focus, and validation_disable "
                "draws none. Set one of the two to false."
            )
        return self

    @property
    def shows_previews(self) -> bool:
        """Whether there are previews: unless they or the images are switched off."""
        return not self.validation_disable and self.validation_preview is not False

    @property
    def validation_sizes_px(self) -> list[tuple[int, int]]:
        """(width, height) of each size that validation images have; none where it is the training's."""
        if self.validation_resolution is None:
            return []
        edges = [[int(edge) for edge in size.split("x")] for size in self.validation_resolution.split(",")]
        return [(each[0], each[-1]) for each in edges]
