"""SimpleTuner's multidatabackend.json, entry by entry: the same dataset in our words, or why it is lost."""

from collections.abc import Mapping
from typing import Any

from dreamspace.config.dataset import DatasetConfig
from dreamspace.config.dialects import DATASET_DIALECT
from dreamspace.config.findings import Finding
from dreamspace.config.parsing import shown
from dreamspace.config.simpletuner_keys import IGNORED_DATASET_KEYS
from dreamspace.data.lint import dataset_source, local_photos, masks_by_photo, num_rows
from dreamspace.data.photos import photo_files
from dreamspace.simpletuner.reading import Draft, Notes, is_true

_CACHES = ("text_embeds", "image_embeds", "conditioning_image_embeds", "distillation_cache")
_CAPTIONED = ("image", "eval")
_SIZES = ("minimum_image_size", "maximum_image_size", "target_downsample_size")


def import_dataset(
    values: Any, fallbacks: Mapping[str, Any], file_name: str
) -> tuple[DatasetConfig | None, list[Finding]]:
    """An entry in our words, None if it has to be left out, and what there is to know about it.

    Args:
        fallbacks: what config.json says for every dataset without a value of its own.
        file_name: where the entry comes from, for the findings.

    Raises:
        ValueError: if it is no JSON object, or says two things under one name.
    """
    name = values.get("id") if isinstance(values, Mapping) else None
    source = dataset_source(name, file_name) if isinstance(name, str) else file_name
    draft = Draft.of(values, source, DATASET_DIALECT.aliases)
    kind = draft.given.get("dataset_type", "conditioning" if "conditioning_type" in draft.given else "image")
    if not _can_be_read(draft, kind):
        return None, draft.findings
    if kind in _CAPTIONED:
        for key, value in fallbacks.items():
            if not (key == "caption_strategy" and draft.given.get("type") == "huggingface"):
                draft.given.setdefault(key, value)
        _captions(draft)
    if kind not in _CACHES:
        _geometry(draft, copied=kind == "conditioning")
        _source(draft)
    if kind == "eval":
        draft.say("hint", "dataset_type", "its photos are never trained on, and nothing measures them yet.")
    draft.take_rest(DatasetConfig.model_fields, IGNORED_DATASET_KEYS)
    return draft.finish(DatasetConfig), draft.findings


def look_into_folder(
    dataset: DatasetConfig, datasets: list[DatasetConfig], train_batch_size: int, file_name: str
) -> list[Finding]:
    """What an imported dataset's folder tells, as far as it is there: by its files' names alone."""
    notes = Notes(dataset_source(dataset.id, file_name))
    folder = dataset.instance_data_dir
    if dataset.disabled or dataset.type != "local" or folder is None:
        return []
    photos = local_photos(dataset)
    if photos is None:
        notes.say("hint", "instance_data_dir", f"there is no folder {folder} here: its photos were not seen.")
        return notes.findings
    num_inner = sum(len(photo_files(inner)) for inner in folder.iterdir() if inner.is_dir())
    if num_inner:
        message = f"{num_inner} photos in folders inside are read by SimpleTuner and not here: move them up."
        notes.say("differs", "instance_data_dir", message)
    if dataset.is_trained and 0 < num_rows(dataset, len(photos)) < train_batch_size:
        message = (
            f"{len(photos)} photos and repeats {dataset.repeats} are fewer than a batch of "
            f"{train_batch_size}, which SimpleTuner refuses; here the step is smaller."
        )
        notes.say("trap", "repeats", message)
    masks = masks_by_photo(dataset, datasets, photos)
    renamed = [photo.name for photo, mask in masks.items() if mask and mask.name != photo.name]
    if renamed:
        message = (
            f"the mask of {renamed[0]} has another name, which is fine here; SimpleTuner wants the photo's, "
            "extension included."
        )
        notes.say("trap", "conditioning_data", message)
    return notes.findings


def _can_be_read(draft: Draft, kind: str) -> bool:
    """Whether Dreamspace reads this kind of storage and dataset; says so if not."""
    given = draft.given
    storage = given.get("type", "local")
    if is_true(given.get("disabled")) and storage in DATASET_DIALECT.later_values["type"]:
        draft.say("ignored", "disabled", "the dataset is switched off, and left out.")
        return False
    if kind in _CACHES and (storage != "local" or kind in _CACHES[2:]):
        draft.say("ignored", "dataset_type", "this cache is left out: Dreamspace arranges its own.")
        return False
    unread = {
        "type": storage in DATASET_DIALECT.later_values["type"],
        "dataset_type": kind in DATASET_DIALECT.later_values["dataset_type"],
        "conditioning_type": given.get("conditioning_type") not in (None, "mask", "segmentation"),
        "caption_strategy": given.get("caption_strategy") in DATASET_DIALECT.later_values["caption_strategy"],
    }
    for key, is_unread in unread.items():
        if is_unread:
            draft.say("error", key, f"{shown(given[key])} cannot be read here: the dataset is left out.")
            return False
    return True


def _captions(draft: Draft) -> None:
    strategy = draft.take("caption_strategy")
    if strategy is None:
        strategy = "huggingface" if draft.given.get("type") == "huggingface" else "filename"
        draft.write(
            "caption_strategy",
            strategy,
            f"absent: SimpleTuner's default {strategy!r} is written (ours is 'instanceprompt').",
        )
    elif strategy == "instance_prompt":
        strategy = "instanceprompt"
        draft.say(
            "trap",
            "caption_strategy",
            "SimpleTuner offers 'instance_prompt' and then refuses it: 'instanceprompt' is written.",
        )
    draft.settings["caption_strategy"] = strategy


def _geometry(draft: Draft, *, copied: bool) -> None:
    """Crops and sizes; those of masks are copied from their photos, so that traps are named once."""
    given = draft.given
    for key in _SIZES:
        if given.get(key) == 0:  # none, there
            del given[key]
    crop = is_true(given.get("crop"))
    if "crop_aspect_buckets" in given:
        buckets = given["crop_aspect_buckets"]
        if isinstance(buckets, list) and any(isinstance(bucket, dict) for bucket in buckets):
            shapes = [b.get("aspect_bucket") if isinstance(b, dict) else b for b in buckets]
            del given["crop_aspect_buckets"]
            draft.write("crop_aspect_buckets", shapes, "weights are left out: all shapes are as likely.")
    if copied:
        draft.take("vae_cache_clear_each_epoch")
        return
    if crop and "crop_style" not in given:
        message = "absent: SimpleTuner's default 'random' is written (ours is 'center')."
        draft.write("crop_style", "random", message)
    style = draft.settings.get("crop_style", given.get("crop_style"))
    redraws = draft.take("vae_cache_clear_each_epoch")
    if (crop and style == "random" and redraws is not False) or is_true(redraws):
        draft.say(
            "differs",
            "vae_cache_clear_each_epoch",
            "SimpleTuner draws random crops anew in each epoch; here each photo keeps the one it drew.",
        )
    if crop and given.get("maximum_image_size") and given.get("target_downsample_size"):
        draft.say(
            "trap",
            "maximum_image_size",
            "with crop on, SimpleTuner scales every photo to target_downsample_size and never compares it "
            "with the maximum; here only larger photos are scaled.",
        )
    if given.get("crop_aspect") in ("closest", "random") and "crop_aspect_buckets" not in given:
        draft.say(
            "trap",
            "crop_aspect_buckets",
            "SimpleTuner demands it, though its document does not; here common shapes are taken.",
        )


def _source(draft: Draft) -> None:
    """Where photos come from: what a dataset of the Hub says in several places."""
    given = draft.given
    backend = draft.take("metadata_backend")
    if backend not in (None, "discovery", "huggingface"):
        draft.say("ignored", "metadata_backend", f"{shown(backend)} is left out: photos are looked at.")
    columns = given.get("huggingface")
    columns = dict(columns) if isinstance(columns, Mapping) and given.get("type") == "huggingface" else {}
    for key in ("dataset_name", "split"):
        value = columns.pop(key, None)
        if value is not None:
            given.setdefault(key, value)
    if "image_column" in given:
        columns["image_column"] = draft.take("image_column")
    kept = {key: value for key, value in columns.items() if key in ("image_column", "caption_column")}
    for key in sorted(columns.keys() - kept.keys()):
        consequence = IGNORED_DATASET_KEYS.get(key, "Dreamspace reads image_column and caption_column alone.")
        draft.say("ignored", f"huggingface.{key}", f"{shown(columns[key])} is left out. {consequence}")
    if columns:
        draft.take("huggingface")
        draft.settings["huggingface"] = kept
