"""multidatabackend.json: the list of datasets of a run, and what is learned from which."""

from pathlib import Path
from typing import Literal

from dreamspace.config.dataset import DatasetConfig, RegularisationTarget, parse_dataset
from dreamspace.config.parsing import shown
from dreamspace.config.run import RunConfig
from dreamspace.files import read_json, write_json
from dreamspace.suggest import nearest

Prior = Literal["none", "image-free", "noise", "base"]
"""How a run keeps what the model knew of the class: not at all; on the subject's own photos under the class
prompt, towards the base model's prediction; on class images towards their noise (the paper's prior
preservation); or on class images towards the base model's prediction."""


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
        ValueError: if two share an id, none is left to learn the subject from, a folder is missing, or masks
            are asked for that are not there.
    """
    ids = [dataset.id for dataset in datasets]
    doubled = next((name for index, name in enumerate(ids) if name in ids[:index]), None)
    if doubled is not None:
        raise ValueError(f"{source}: two datasets have the id '{doubled}'. Rename one of them.")
    subject_dataset(datasets, source=source)
    for dataset in datasets:
        if dataset.disabled:
            continue
        mask_datasets(dataset, datasets, source=source)
        folder = dataset.instance_data_dir
        if folder is not None and not folder.is_dir():
            raise ValueError(
                f"{source}: dataset '{dataset.id}' has no folder {folder}. Check instance_data_dir."
            )


def subject_dataset(datasets: list[DatasetConfig], *, source: str = "datasets") -> DatasetConfig:
    """The first dataset that the subject is learned from.

    Raises:
        ValueError: if there is none.
    """
    for dataset in datasets:
        if dataset.is_trained and not dataset.is_regularisation_data:
            return dataset
    raise ValueError(
        f"{source}: no dataset shows the subject (all are disabled, never drawn or regularisation). "
        "Add one of dataset_type 'image'."
    )


def mask_datasets(
    dataset: DatasetConfig, datasets: list[DatasetConfig], *, source: str = "datasets"
) -> list[DatasetConfig]:
    """The datasets that hold the masks of this one's photos, in the order in which it names them.

    Raises:
        ValueError: if there is none of a name that it gives, or that one holds no masks or the photos.
    """
    given = dataset.conditioning_data or []
    known = {found.id: found for found in datasets if not found.disabled}
    found = []
    for name in [given] if isinstance(given, str) else given:
        if name not in known:
            raise ValueError(
                f"{source}: dataset '{dataset.id}' takes its masks from '{name}', which does not exist."
                f"{nearest(name, known) or ' Add it, or remove conditioning_data.'}"
            )
        if known[name].dataset_type != "conditioning":
            raise ValueError(
                f"{source}: dataset '{dataset.id}' takes its masks from '{name}', which holds none. "
                "Give that one dataset_type 'conditioning' and conditioning_type 'mask'."
            )
        if known[name].instance_data_dir == dataset.instance_data_dir is not None:
            raise ValueError(
                f"{source}: dataset '{dataset.id}' and its masks '{name}' name one folder, "
                f"{dataset.instance_data_dir}. Put the masks into a folder of their own."
            )
        found.append(known[name])
    return found


def subject_prompt(config: RunConfig, datasets: list[DatasetConfig]) -> str:
    """The prompt that calls a run's subject: a caption that its photos are trained with.

    Of several captions it is the one made of token and class word, else the first; where captions come from
    files it is made of the words.

    Raises:
        ValueError: if no dataset shows the subject, or nothing says what to call it.
    """
    captions = subject_dataset(datasets).instance_prompts
    has_words = config.token or config.class_word
    made = instance_prompt(config.token, config.class_word) if has_words else None
    if made is not None and (made in captions or not captions):
        return made
    if not captions:
        raise ValueError(
            "Nothing says how to call the subject: its captions come from files. "
            "Set token and class_word, or validation_prompt."
        )
    return captions[0]


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
    class_prompt: str | list[str] | None = None,
    *,
    regularisation_target: RegularisationTarget = "base",
    masks_dir: Path | None = None,
    has_captions: bool = False,
) -> list[DatasetConfig]:
    """The datasets of a run without files of its own: `subject`, and where asked for `masks` and `prior`.

    Args:
        resolution: edge of the training images in px.
        prior_dir: folder of class images; the subject's own folder makes the prior image-free.
        class_prompt: the caption of the class images; required with `prior_dir`.
        has_captions: whether the photos have captions of their own, instead of the instance prompt.
    """
    assert (prior_dir is None) == (class_prompt is None), (prior_dir, class_prompt)
    size = {"resolution": resolution, "resolution_type": "pixel", "crop": True}
    subject = DatasetConfig(
        id="subject",
        instance_data_dir=photos_dir,
        instance_prompt=instance_prompt,
        caption_strategy="textfile" if has_captions else "instanceprompt",
        conditioning_data="masks" if masks_dir else None,
        **size,
    )
    datasets = [subject]
    if masks_dir is not None:
        datasets.append(
            DatasetConfig(
                id="masks",
                dataset_type="conditioning",
                conditioning_type="mask",
                instance_data_dir=masks_dir,
                **size,
            )
        )
    if prior_dir is not None:
        datasets.append(
            DatasetConfig(
                id="prior",
                instance_data_dir=prior_dir,
                instance_prompt=class_prompt,
                is_regularisation_data=True,
                regularisation_target=regularisation_target,
                **size,
            )
        )
    return datasets


def prior_of(datasets: list[DatasetConfig]) -> Prior:
    """Which of the four ways these datasets keep the prior, by the first regularisation dataset."""
    found = next((d for d in datasets if d.is_trained and d.is_regularisation_data), None)
    if found is None:
        return "none"
    if found.regularisation_target == "noise":
        return "noise"
    is_free = found.instance_data_dir == subject_dataset(datasets).instance_data_dir
    return "image-free" if is_free else "base"
