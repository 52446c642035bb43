"""Our multidatabackend.json in SimpleTuner's words, entry by entry."""

from typing import Any

from dreamspace.config.dataset import DatasetConfig
from dreamspace.config.findings import Finding
from dreamspace.data.geometry import COMMON_SHAPES
from dreamspace.data.lint import dataset_source, local_photos, masks_by_photo
from dreamspace.simpletuner.reading import Notes

_ALWAYS = {
    "caption_strategy",
    "crop",
    "crop_aspect",
    "crop_style",
    "dataset_type",
    "id",
    "instance_data_dir",
    "repeats",
    "resolution",
    "resolution_type",
    "type",
}
"""Keys that are written even at their defaults: SimpleTuner's are others, or it demands them."""

_ALIGNMENT_PX = 64
_SMALLEST_PX = 512


def export_dataset(
    dataset: DatasetConfig, datasets: list[DatasetConfig]
) -> tuple[dict[str, Any], list[Finding]]:
    """A dataset in SimpleTuner's words, and what is lost.

    Raises:
        ValueError: if it takes its masks from a dataset that does not exist.
    """
    notes = Notes(dataset_source(dataset.id))
    values = dataset.model_dump(mode="json")
    changed = dataset.model_dump(mode="json", exclude_defaults=True)
    if dataset.dataset_type in ("text_embeds", "image_embeds"):
        return {key: values[key] for key in values if key in {"id", "type", "dataset_type", *changed}}, []
    entry = {
        key: value for key, value in values.items() if key in _ALWAYS | changed.keys() and value is not None
    }
    entry.pop("regularisation_target", None)
    if dataset.dataset_type == "conditioning":
        del entry["caption_strategy"]
    if dataset.type == "huggingface":
        entry["metadata_backend"] = "huggingface"
    _crops(dataset, entry, notes)
    if dataset.is_regularisation_data and dataset.regularisation_target == "noise":
        del entry["is_regularisation_data"]
        message = "an ordinary dataset is written, which is the paper's loss at a weight of 1."
        notes.say("differs", "regularisation_target", message)
    _sizes(dataset, notes)
    if dataset.dataset_type == "image" and not dataset.disabled:
        _mask_names(dataset, datasets, notes)
    return entry, notes.findings


def text_cache(taken: set[str]) -> dict[str, Any]:
    """The cache of captions that SimpleTuner does not start without, under an id that is not taken."""
    name = "text-embeds"
    while name in taken:
        name += "-default"
    cache = {"type": "local", "dataset_type": "text_embeds", "default": True, "cache_dir": "cache/text"}
    return {"id": name, **cache}


def _crops(dataset: DatasetConfig, entry: dict[str, Any], notes: Notes) -> None:
    if dataset.crop_style == "subject":
        entry["crop_style"] = "center"
        notes.say("differs", "crop_style", "SimpleTuner's crops do not follow masks: 'center' is written.")
    if dataset.crop_style == "random":
        entry["vae_cache_clear_each_epoch"] = False  # else it draws them anew in each epoch
    if dataset.crop_aspect in ("closest", "random") and dataset.crop_aspect_buckets is None:
        entry["crop_aspect_buckets"] = list(COMMON_SHAPES)
    if dataset.crop and dataset.maximum_image_size is not None:
        message = "with crop on, SimpleTuner scales every photo to target_downsample_size, larger or not."
        notes.say("trap", "maximum_image_size", message)


def _sizes(dataset: DatasetConfig, notes: Notes) -> None:
    if dataset.resolution_type != "area" and dataset.resolution % _ALIGNMENT_PX:
        notes.say("differs", "resolution", f"SimpleTuner rounds edges to multiples of {_ALIGNMENT_PX} px.")
    sizes = {
        "maximum_image_size": dataset.maximum_image_size,
        "target_downsample_size": dataset.target_downsample_size,
    }
    for key, value in sizes.items():
        if dataset.resolution_type == "pixel" and value is not None and value < _SMALLEST_PX:
            message = f"SimpleTuner refuses less than {_SMALLEST_PX} px: leave it out, or use 'pixel_area'."
            notes.say("error", key, message)


def _mask_names(dataset: DatasetConfig, datasets: list[DatasetConfig], notes: Notes) -> None:
    masks = masks_by_photo(dataset, datasets, local_photos(dataset) or [])
    renamed = [photo.name for photo, mask in masks.items() if mask is None or mask.name != photo.name]
    if renamed:
        message = (
            f"SimpleTuner wants masks under their photos' whole names, and '{renamed[0]}' has none: copy "
            "them under these names."
        )
        notes.say("error", "conditioning_data", message)
