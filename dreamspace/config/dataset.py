"""One entry of multidatabackend.json: a dataset, under SimpleTuner's names."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from dreamspace.config.dialects import DATASET_DIALECT
from dreamspace.config.parsing import parse_settings, shown
from dreamspace.config.sections import FilledText, Section

RegularisationTarget = Literal["base", "noise"]

MAX_CAPTION_CHARACTERS = 2_000
"""Far beyond what text encoders read; a longer text is no caption."""

MAX_EDGE_PX = 8192
"""The longest edge of a picture that is trained at or drawn; no model of today comes near it."""


class HuggingFaceColumns(Section):
    """Which columns of a dataset from the Hub hold what."""

    image_column: FilledText = Field("image", description="The column of the pictures.")
    caption_column: FilledText | None = Field(
        None, description="The column of the captions; null where instance_prompt gives them."
    )


class DatasetConfig(Section):
    """One entry of multidatabackend.json: a folder of photos and how they enter the training. Immutable."""

    id: FilledText = Field(description="The name of the dataset, unlike any other's.")
    type: Literal["local", "huggingface"] = Field(
        "local",
        description="Where it lies: 'local' is a folder of files, 'huggingface' a dataset of the Hub's kind.",
    )
    dataset_type: Literal["image", "conditioning", "eval", "text_embeds", "image_embeds"] = Field(
        "image",
        description="What it holds: photos to learn from ('image'), their masks ('conditioning'), photos "
        "kept apart to measure by ('eval'), or a cache.",
    )
    disabled: bool = Field(False, description="Leave this dataset out of the run.")
    instance_data_dir: Path | None = Field(
        None,
        description="The folder of the photos, relative to where the command is run; it is only ever read, "
        "and null is for caches and the Hub.",
    )
    dataset_name: FilledText | None = Field(
        None, description="Of type 'huggingface': the Hub id or the folder; null for a local one."
    )
    split: FilledText = Field("train", description="Of type 'huggingface': which part of the dataset.")
    huggingface: HuggingFaceColumns = Field(
        HuggingFaceColumns(), description="Of type 'huggingface': which columns hold what."
    )
    cache_dir_vae: Path | None = Field(
        None, description="The folder of this dataset's encoded photos; null takes the workspace's cache."
    )
    cache_dir: Path | None = Field(None, description="Of a cache: its folder; null takes the workspace's.")
    default: bool = Field(False, description="Of a cache: take it for everything that names no other.")
    caption_strategy: Literal["instanceprompt", "textfile", "filename", "huggingface"] = Field(
        "instanceprompt",
        description="Where captions come from: the prompt below, a .txt file beside each photo (each line is "
        "one, a row draws one), the photo's file name, or a column.",
    )
    instance_prompt: FilledText | list[FilledText] | None = Field(
        None,
        description="The caption of all photos, or a list of captions of which each row draws one; null "
        "where captions come from elsewhere.",
    )
    prepend_instance_prompt: bool = Field(
        False, description="Put the instance prompt before each photo's own caption."
    )
    only_instance_prompt: bool = Field(
        False, description="Take the instance prompt alone, whatever caption_strategy says."
    )
    repeats: int = Field(
        0, ge=0, le=100_000, description="Extra passes over the photos in an epoch: 0 is once, 1 is twice."
    )
    probability: float = Field(
        1.0, ge=0, description="The dataset's weight against the others when a row is drawn; 0 means never."
    )
    resolution: float = Field(
        1024, gt=0, description="The size that photos are trained at, in the unit of resolution_type."
    )
    resolution_type: Literal["pixel", "area", "pixel_area"] = Field(
        "pixel_area",
        description="'pixel': resolution is the shorter edge in px; 'area': megapixels; 'pixel_area': the "
        "edge in px of a square of equal area.",
    )
    minimum_image_size: float | None = Field(
        None, ge=0, description="Leave out smaller photos, in the unit of resolution_type; null keeps all."
    )
    maximum_image_size: float | None = Field(
        None,
        gt=0,
        description="Scale larger photos to target_downsample_size before they are cropped, in the unit of "
        "resolution_type; null leaves them.",
    )
    target_downsample_size: float | None = Field(
        None, gt=0, description="What photos above maximum_image_size are scaled to; null without a maximum."
    )
    minimum_aspect_ratio: float | None = Field(
        None, gt=0, description="Leave out photos with a smaller width / height; null keeps all."
    )
    maximum_aspect_ratio: float | None = Field(
        None, gt=0, description="Leave out photos with a larger width / height; null keeps all."
    )
    crop: bool = Field(
        False, description="Cut photos to the shape that crop_aspect names; else each keeps its shape."
    )
    crop_aspect: Literal["square", "preserve", "closest", "random"] = Field(
        "square",
        description="The shape of the crop: square, the photo's own, the closest of crop_aspect_buckets, or "
        "one of them at random.",
    )
    crop_aspect_buckets: list[float] | None = Field(
        None, description="The shapes (width / height) for closest and random; null takes common ones."
    )
    crop_style: Literal["center", "corner", "random", "face", "subject"] = Field(
        "center",
        description="Which part of a photo the crop keeps: its centre, a corner, any, the face, or what its "
        "mask shows, whole.",
    )
    conditioning_data: FilledText | list[FilledText] | None = Field(
        None, description="The id of the dataset that holds the masks of these photos; null for no masks."
    )
    conditioning_type: Literal["mask", "segmentation"] | None = Field(
        None,
        description="Of masks: 'mask' is soft and always applied, 'segmentation' is made black and white and "
        "obeys masked_loss_probability; null for photos.",
    )
    is_regularisation_data: bool = Field(
        False, description="Class images: what the base model knows of the class, so that it forgets less."
    )
    regularisation_target: RegularisationTarget = Field(
        "base",
        description="What class images are trained towards: 'base' is the base model's own prediction, "
        "'noise' the noise that was added, weighed by prior_loss_weight.",
    )
    metadata_backend: Literal["discovery"] = Field(
        "discovery", description="How photos are found: 'discovery' looks into the folder."
    )
    max_num_samples: int | None = Field(
        None, ge=1, description="Use only so many of the photos, the same ones each time; null uses all."
    )
    start_step: int = Field(0, ge=0, description="The step from which on this dataset takes part.")
    end_step: int | None = Field(
        None, ge=1, description="The step before which it leaves; null stays to the end."
    )
    vae_cache_clear_each_epoch: Literal[False] = Field(
        False, description="Random crops are fixed once for each photo, so that the cache stays true."
    )

    @property
    def instance_prompts(self) -> list[str]:
        """The instance prompt as a list; empty where there is none."""
        if self.instance_prompt is None:
            return []
        return [self.instance_prompt] if isinstance(self.instance_prompt, str) else self.instance_prompt

    @property
    def is_trained(self) -> bool:
        """Whether photos of it are ever learned from."""
        return self.dataset_type == "image" and not self.disabled and self.probability > 0

    @property
    def needs_instance_prompt(self) -> bool:
        """Whether its captions, or parts of them, are the instance prompt."""
        return (
            self.caption_strategy == "instanceprompt"
            or self.only_instance_prompt
            or self.prepend_instance_prompt
        )

    @model_validator(mode="before")
    @classmethod
    def _masks_are_conditioning(cls, values: Any) -> Any:
        # SimpleTuner takes a conditioning_type as reason enough.
        if isinstance(values, dict) and values.get("conditioning_type") and "dataset_type" not in values:
            return {**values, "dataset_type": "conditioning"}
        return values

    @field_validator("instance_data_dir", "cache_dir_vae", "cache_dir", mode="before")
    @classmethod
    def _check_path(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            raise ValueError("must name a folder, got an empty text.")
        return value

    @field_validator("instance_prompt", mode="before")
    @classmethod
    def _check_prompt(cls, value: Any) -> Any:
        prompts = value if isinstance(value, list) else [value]
        if value is not None and not (
            prompts and all(isinstance(prompt, str) and prompt.strip() for prompt in prompts)
        ):
            raise ValueError(f"must be a text or a list of texts, none of them empty, got {shown(value)}.")
        longest = max(map(len, prompts)) if value is not None else 0
        if longest > MAX_CAPTION_CHARACTERS:
            raise ValueError(
                f"must have at most {MAX_CAPTION_CHARACTERS:,} characters, got {longest:,}. Shorten it."
            )
        return value

    @field_validator("conditioning_data", mode="before")
    @classmethod
    def _check_ids(cls, value: Any) -> Any:
        ids = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(name, str) and name.strip() for name in ids):
            raise ValueError(f"must be the id of a dataset or a list of ids, got {shown(value)}.")
        return value

    @field_validator("crop_style", mode="before")
    @classmethod
    def _one_spelling(cls, value: Any) -> Any:
        return "center" if value == "centre" else value

    @field_validator("crop_aspect_buckets")
    @classmethod
    def _check_aspects(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and not (value and all(0.25 <= aspect <= 4 for aspect in value)):
            raise ValueError(f"must be a list of shapes (width / height) from 0.25 to 4, got {shown(value)}.")
        return value

    @model_validator(mode="after")
    def _check_source(self) -> "DatasetConfig":
        holds_pictures = self.dataset_type in ("image", "conditioning", "eval")
        if holds_pictures and self.type == "local" and self.instance_data_dir is None:
            raise ValueError("the key 'instance_data_dir' is missing. Add the folder of the photos.")
        if holds_pictures and self.type == "huggingface" and self.dataset_name is None:
            raise ValueError("the key 'dataset_name' is missing. Add the Hub id or the folder.")
        if self.caption_strategy == "huggingface" and self.type == "local":
            raise ValueError(
                "caption_strategy 'huggingface' belongs to a dataset of type 'huggingface'. Use 'textfile'."
            )
        if self.caption_strategy == "huggingface" and self.huggingface.caption_column is None:
            raise ValueError(
                'caption_strategy "huggingface" needs the column: add '
                '"huggingface": {"caption_column": "..."}.'
            )
        is_captioned = self.dataset_type in ("image", "eval")
        if is_captioned and self.needs_instance_prompt and self.instance_prompt is None:
            raise ValueError("the key 'instance_prompt' is missing. Add it, such as 'a photo of a sks dog'.")
        return self

    @model_validator(mode="after")
    def _check_conditioning(self) -> "DatasetConfig":
        if self.dataset_type == "conditioning" and self.conditioning_type is None:
            raise ValueError(
                "a dataset_type of 'conditioning' needs conditioning_type 'mask' or 'segmentation'."
            )
        if self.dataset_type != "conditioning" and self.conditioning_type is not None:
            raise ValueError(
                f"conditioning_type belongs to masks, and dataset_type is '{self.dataset_type}'. "
                "Remove one of the two."
            )
        if self.conditioning_data is not None and self.dataset_type != "image":
            raise ValueError("conditioning_data belongs to photos, of dataset_type 'image'. Remove it.")
        if self.crop_style == "subject" and self.dataset_type == "image" and not self.conditioning_data:
            raise ValueError(
                "crop_style 'subject' follows the masks, and there are none. Add conditioning_data, "
                "or use 'center'."
            )
        return self

    @model_validator(mode="after")
    def _check_sizes(self) -> "DatasetConfig":
        sizes = ("resolution", "minimum_image_size", "maximum_image_size", "target_downsample_size")
        is_area = self.resolution_type == "area"
        for name in sizes:
            value = getattr(self, name)
            if is_area and value is not None and value > MAX_EDGE_PX**2 / 1e6:
                raise ValueError(
                    f"{name} counts megapixels with a resolution_type of 'area', got {value:.10g}. "
                    "Use 'pixel_area' for an edge in px."
                )
            if not is_area and value is not None and value > MAX_EDGE_PX:
                raise ValueError(f"{name} must be at most {MAX_EDGE_PX} px, got {value:.10g}. Lower it.")
        smallest, largest = self.minimum_image_size, self.maximum_image_size
        if smallest is not None and largest is not None and smallest > largest:
            raise ValueError(
                f"minimum_image_size ({smallest:.10g}) is above maximum_image_size ({largest:.10g}). "
                "Swap them."
            )
        if self.maximum_image_size is not None and self.target_downsample_size is None:
            raise ValueError("maximum_image_size needs a target_downsample_size to scale to. Add it.")
        lowest, highest = self.minimum_aspect_ratio, self.maximum_aspect_ratio
        if lowest is not None and highest is not None and lowest > highest:
            raise ValueError(
                f"minimum_aspect_ratio ({lowest:g}) is above maximum_aspect_ratio ({highest:g}). Swap them."
            )
        if self.end_step is not None and self.end_step <= self.start_step:
            raise ValueError(
                f"end_step ({self.end_step}) must be above start_step ({self.start_step}). Raise it."
            )
        return self

    @field_serializer("resolution", "minimum_image_size", "maximum_image_size", "target_downsample_size")
    def _plain_number(self, value: float | None) -> int | float | None:
        return int(value) if value is not None and value % 1 == 0 else value


def parse_dataset(values: dict[str, Any], *, source: str = "dataset") -> DatasetConfig:
    """Validate one entry; keys may carry leading dashes or SimpleTuner's other spellings.

    Args:
        source: where the entry comes from; an error begins with it.

    Raises:
        ValueError: one sentence for the first thing that is wrong; a key of SimpleTuner that has no effect
            here yet is told apart from an unknown one.
    """
    if isinstance(values, dict) and isinstance(values.get("id"), str):
        source = f"{source}, dataset '{values['id']}'"
    return parse_settings(DatasetConfig, values, DATASET_DIALECT, source=source)
