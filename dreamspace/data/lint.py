"""What is legal in a run but hardly meant: found by a look at the settings and at the folders' names."""

from collections.abc import Iterable
from pathlib import Path

from dreamspace.config.dataset import DatasetConfig
from dreamspace.config.datasets import mask_datasets
from dreamspace.config.findings import Finding
from dreamspace.config.run import RunConfig
from dreamspace.data.captions import caption_file
from dreamspace.data.masks import find_mask
from dreamspace.data.photos import photo_files
from dreamspace.data.plan import balancing_repeats

_MORE = 1.5
"""Class images shown more often than this, for each showing of the subject, get a hint: whole passes cannot
always balance them better."""


def lint_run(config: RunConfig, datasets: Iterable[DatasetConfig]) -> list[Finding]:
    """Findings about a run before it starts; files are listed, never opened, and missing folders skipped.

    Raises:
        ValueError: if a dataset takes its masks from one that does not exist.
    """
    active = [dataset for dataset in datasets if not dataset.disabled]
    findings = [*_settings(config), *_balance(config, active), *_prompts(active)]
    for dataset in active:
        photos = local_photos(dataset)
        if photos is not None and dataset.dataset_type in ("image", "eval"):
            findings += _photos(dataset, photos)
            findings += _masks(dataset, active, photos)
    return findings


def dataset_source(dataset_id: str, file_name: str = "multidatabackend.json") -> str:
    """Where a finding about a dataset is: "multidatabackend.json, dataset 'x'"."""
    return f"{file_name}, dataset '{dataset_id}'"


def local_photos(dataset: DatasetConfig) -> list[Path] | None:
    """The photos in a dataset's folder, sorted; None where there is no folder to look into."""
    folder = dataset.instance_data_dir
    if dataset.type != "local" or folder is None or not folder.is_dir():
        return None
    return photo_files(folder)


def num_rows(dataset: DatasetConfig, num_photos: int) -> int:
    """How many rows of an epoch show a dataset of so many photos."""
    return min(num_photos, dataset.max_num_samples or num_photos) * (dataset.repeats + 1)


def masks_by_photo(
    dataset: DatasetConfig, datasets: list[DatasetConfig], photos: Iterable[Path]
) -> dict[Path, Path | None]:
    """The mask of each photo, None where it has none; empty without masks, or without their folder.

    Raises:
        ValueError: if the dataset takes its masks from one that does not exist.
    """
    masks = mask_datasets(dataset, datasets)
    if not masks or any(local_photos(mask) is None for mask in masks):
        return {}
    folders = [mask.instance_data_dir for mask in masks]
    return {photo: _mask_or_none(photo, folders) for photo in photos}


def _mask_or_none(photo: Path, folders: list[Path]) -> Path | None:
    try:
        return find_mask(photo, folders)
    except ValueError:
        return None


def _settings(config: RunConfig) -> list[Finding]:
    checks = [
        (
            "lr_warmup_steps",
            config.lr_scheduler == "constant" and config.lr_warmup_steps > 0,
            "lr_scheduler 'constant' has no warm-up: use 'constant_with_warmup'.",
        ),
        (
            "scheduled_sampling_probability",
            config.scheduled_sampling_max_step_offset > 0
            and not config.scheduled_sampling_probability
            and not config.scheduled_sampling_prob_end,
            "rollout is on and never drawn: set a probability, such as 1.",
        ),
        (
            "scheduled_sampling_max_step_offset",
            config.scheduled_sampling_probability > 0 and not config.scheduled_sampling_max_step_offset,
            "rollout has a probability and no steps: set them, such as 10.",
        ),
    ]
    return [Finding("hint", "config.json", key, message) for key, applies, message in checks if applies]


def _balance(config: RunConfig, datasets: list[DatasetConfig]) -> list[Finding]:
    """Class images that outnumber the subject's passes, and the repeats that would balance them."""
    trained = [dataset for dataset in datasets if dataset.is_trained]
    photos = {dataset.id: local_photos(dataset) for dataset in trained}
    if any(found is None for found in photos.values()):
        return []
    rows = {False: 0, True: 0}
    num_photos = 0
    for dataset in trained:
        count = len(photos[dataset.id])
        if dataset.is_regularisation_data:
            count = max(count, config.num_class_images)  # the base model draws the rest
        else:
            num_photos += num_rows(dataset.model_copy(update={"repeats": 0}), count)
        rows[dataset.is_regularisation_data] += num_rows(dataset, count)
    if rows[True] <= _MORE * rows[False] or not num_photos:
        return []
    repeats = balancing_repeats(num_photos, rows[True])
    subjects = [dataset for dataset in trained if not dataset.is_regularisation_data]
    return [
        Finding(
            "hint",
            dataset_source(dataset.id),
            "repeats",
            f"an epoch shows class images {rows[True]} times and the subject {rows[False]} times: "
            f"set repeats to {repeats} for a balance.",
        )
        for dataset in subjects
    ]


def _prompts(datasets: list[DatasetConfig]) -> list[Finding]:
    """Class images under the very words that are to mean the subject."""
    trained = [dataset for dataset in datasets if dataset.is_trained]
    of_subject = {text for d in trained if not d.is_regularisation_data for text in d.instance_prompts}
    return [
        Finding(
            "hint",
            dataset_source(dataset.id),
            "instance_prompt",
            f"class images carry the subject's own prompt '{shared[0]}', which unlearns it: "
            "use a prompt of the class.",
        )
        for dataset in trained
        if dataset.is_regularisation_data
        and (shared := [text for text in dataset.instance_prompts if text in of_subject])
    ]


def _photos(dataset: DatasetConfig, photos: list[Path]) -> list[Finding]:
    source = dataset_source(dataset.id)
    findings = []
    limit = dataset.max_num_samples
    if dataset.is_trained and not dataset.is_regularisation_data and limit and limit < len(photos):
        message = f"only {limit} of the {len(photos)} photos are used: remove it to use all."
        findings.append(Finding("hint", source, "max_num_samples", message))
    if dataset.caption_strategy == "textfile" and not dataset.only_instance_prompt:
        uncaptioned = [photo for photo in photos if caption_file(photo) is None]
        if uncaptioned:
            message = (
                f"{len(uncaptioned)} of {len(photos)} photos have no .txt beside them, the first is "
                f"{uncaptioned[0].name}: write their captions, or use instanceprompt."
            )
            findings.append(Finding("error", source, "caption_strategy", message))
    return findings


def _masks(dataset: DatasetConfig, datasets: list[DatasetConfig], photos: list[Path]) -> list[Finding]:
    missing = [photo for photo, mask in masks_by_photo(dataset, datasets, photos).items() if mask is None]
    if not missing:
        return []
    message = (
        f"{len(missing)} of {len(photos)} photos have no mask, the first is {missing[0].name}: add them, "
        "all white where nothing is to be masked."
    )
    return [Finding("error", dataset_source(dataset.id), "conditioning_data", message)]
