"""multidatabackend.json: the list of datasets of a run, under SimpleTuner's names."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_serializer,
    field_validator,
)

from dreamspace.config.parsing import parse_settings, shown
from dreamspace.config.run import RunConfig
from dreamspace.config.simpletuner import DATASET_DIALECT
from dreamspace.files import read_json, write_json

FilledText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class DatasetConfig(BaseModel):
    """One entry of multidatabackend.json: a folder of photos and how they enter the training. Immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)

    id: FilledText = Field(description="The name of the dataset, unlike any other's.")
    type: Literal["local"] = Field(
        "local", description="Where the dataset lies: 'local' is a folder on disk."
    )
    dataset_type: Literal["image"] = Field(
        "image", description="What it holds: 'image' is photos to learn from."
    )
    disabled: bool = Field(False, description="Leave this dataset out of the run.")
    instance_data_dir: Path = Field(
        description="The folder of the photos, relative to where the command is run; it is only ever read."
    )
    caption_strategy: Literal["instanceprompt"] = Field(
        "instanceprompt",
        description="Where captions come from: 'instanceprompt' gives each photo the prompt below.",
    )
    instance_prompt: FilledText | list[FilledText] = Field(
        description="The caption of all photos, or a list of captions of which each row draws one."
    )
    repeats: int = Field(
        0, ge=0, description="Extra passes over the photos in an epoch: 0 is once, 1 is twice."
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
    crop: bool = Field(True, description="Cut photos to the shape that crop_aspect names.")
    crop_aspect: Literal["square"] = Field("square", description="The shape of the crop.")
    crop_style: Literal["center"] = Field("center", description="Which part of a photo the crop keeps.")
    is_regularisation_data: bool = Field(
        False,
        description="Class images: their target is the base model's own prediction, so that it forgets less.",
    )
    cache_dir_vae: Path | None = Field(
        None, description="The folder of this dataset's encoded photos; null takes the workspace's cache."
    )
    max_num_samples: int | None = Field(
        None, ge=1, description="Use only so many of the photos, the same ones each time; null uses all."
    )

    @property
    def instance_prompts(self) -> list[str]:
        """The captions as a list, at least one."""
        return [self.instance_prompt] if isinstance(self.instance_prompt, str) else self.instance_prompt

    @field_validator("instance_data_dir", "cache_dir_vae", mode="before")
    @classmethod
    def _check_path(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            raise ValueError("must name a folder, got an empty text.")
        return value

    @field_validator("instance_prompt", mode="before")
    @classmethod
    def _check_prompt(cls, value: Any) -> Any:
        prompts = value if isinstance(value, list) else [value]
        if not prompts or not all(isinstance(prompt, str) and prompt.strip() for prompt in prompts):
            raise ValueError(f"must be a text or a list of texts, none of them empty, got {shown(value)}.")
        return value

    @field_validator("crop")
    @classmethod
    def _check_crop(cls, value: bool) -> bool:
        if not value:
            raise ValueError("false (aspect buckets) is not supported yet. Use true for now.")
        return value

    @field_validator("crop_style", mode="before")
    @classmethod
    def _one_spelling(cls, value: Any) -> Any:
        return "center" if value == "centre" else value

    @field_serializer("resolution")
    def _plain_number(self, value: float) -> int | float:
        return int(value) if value.is_integer() else value


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


def read_datasets(path: Path) -> list[DatasetConfig]:
    """All datasets of a multidatabackend.json as they are written; their folders may be gone.

    Raises:
        ValueError: if the file is missing or no JSON list, or an entry is wrong.
    """
    name = Path(path).name
    entries = read_json(path)
    if not isinstance(entries, list):
        raise ValueError(f"{name} must hold a list of datasets, got {shown(entries)}. Put [ ] around it.")
    return [parse_dataset(entry, source=name) for entry in entries]


def load_datasets(path: Path) -> list[DatasetConfig]:
    """The datasets of a multidatabackend.json to train on, in its order; disabled ones are left out.

    Raises:
        ValueError: as `read_datasets`, and if `check_datasets` objects.
    """
    datasets = read_datasets(path)
    check_datasets(datasets, source=Path(path).name)
    return [dataset for dataset in datasets if not dataset.disabled]


def save_datasets(datasets: list[DatasetConfig], path: Path) -> None:
    """Write a multidatabackend.json with all keys, defaults too."""
    write_json(path, [dataset.model_dump(mode="json") for dataset in datasets])


def check_datasets(datasets: list[DatasetConfig], *, source: str = "datasets") -> None:
    """Check what no entry can know alone.

    Raises:
        ValueError: if two share an id, none is left to learn the subject from, or a folder is missing.
    """
    ids = [dataset.id for dataset in datasets]
    doubled = next((name for index, name in enumerate(ids) if name in ids[:index]), None)
    if doubled is not None:
        raise ValueError(f"{source}: two datasets have the id '{doubled}'. Rename one of them.")
    subject_dataset(datasets, source=source)
    for dataset in datasets:
        if not dataset.disabled and not dataset.instance_data_dir.is_dir():
            raise ValueError(
                f"{source}: dataset '{dataset.id}' has no folder {dataset.instance_data_dir}. "
                "Check instance_data_dir."
            )


def subject_dataset(datasets: list[DatasetConfig], *, source: str = "datasets") -> DatasetConfig:
    """The first dataset that the subject is learned from.

    Raises:
        ValueError: if there is none.
    """
    for dataset in datasets:
        if not dataset.disabled and not dataset.is_regularisation_data and dataset.probability > 0:
            return dataset
    raise ValueError(
        f"{source}: no dataset shows the subject (all are disabled, never drawn or regularisation). "
        "Add one of dataset_type 'image'."
    )


def subject_prompt(config: RunConfig, datasets: list[DatasetConfig]) -> str:
    """The prompt that calls a run's subject: a caption that its photos are trained with.

    Of several captions it is the one made of token and class word, else the first.

    Raises:
        ValueError: if no dataset shows the subject.
    """
    captions = subject_dataset(datasets).instance_prompts
    has_words = config.token or config.class_word
    made = instance_prompt(config.token, config.class_word) if has_words else None
    return made if made in captions else captions[0]


def instance_prompt(token: str | None, class_word: str | None) -> str:
    """The caption of the subject's photos, such as "a photo of a sks dog"; either word may be missing.

    Raises:
        ValueError: if both are missing.
    """
    words = [word.strip() for word in (token, class_word) if word and word.strip()]
    if not words:
        raise ValueError("Neither token nor class_word is given. Say what the subject is, such as 'dog'.")
    return f"a photo of a {' '.join(words)}"


def class_prompt(class_word: str | None) -> str:
    """The caption of class images, such as "a photo of a dog".

    Raises:
        ValueError: if there is no class word.
    """
    if not class_word or not class_word.strip():
        raise ValueError("class_word is empty. Say what the subject is, such as 'dog'.")
    return instance_prompt(None, class_word)


def subject_datasets(
    photos_dir: Path,
    instance_prompt: str,
    resolution: int,
    prior_dir: Path | None = None,
    class_prompt: str | None = None,
) -> list[DatasetConfig]:
    """The datasets of a run without files of its own: `subject`, and `prior` if there are class images.

    Args:
        resolution: edge of the training images in px.
        prior_dir: folder of class images; their target is the base model's own prediction.
        class_prompt: the caption of the class images; required with `prior_dir`.
    """
    assert (prior_dir is None) == (class_prompt is None), (prior_dir, class_prompt)
    size = {"resolution": resolution, "resolution_type": "pixel"}
    datasets = [
        DatasetConfig(id="subject", instance_data_dir=photos_dir, instance_prompt=instance_prompt, **size)
    ]
    if prior_dir is not None:
        datasets.append(
            DatasetConfig(
                id="prior",
                instance_data_dir=prior_dir,
                instance_prompt=class_prompt,
                is_regularisation_data=True,
                **size,
            )
        )
    return datasets
