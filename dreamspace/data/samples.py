"""The samples of a run: every photo of every dataset, with its captions, geometry and mask."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from dreamspace.config import DatasetConfig, mask_datasets
from dreamspace.config.dataset import RegularisationTarget
from dreamspace.data.captions import captions_of, check_captions
from dreamspace.data.faces import largest_face
from dreamspace.data.geometry import (
    Box,
    GeometryRules,
    LeftOut,
    PhotoGeometry,
    Size,
    apply_geometry,
    plan_geometry,
)
from dreamspace.data.held_out import content_id
from dreamspace.data.masks import Mask, find_mask
from dreamspace.data.photos import PhotoError, list_photos, read_photo
from dreamspace.data.plan import mix_seed

_MAX_WARNINGS = 20


@dataclass(frozen=True)
class Sample:
    """A photo as it is trained on.

    Attributes:
        content_id: 16 hex digits that follow from the file's bytes.
        captions: of which each row takes one.
        regularisation: what a class image is trained towards, the `base` model's own prediction or the
            `noise`; None for photos of the subject.
        mask: None where all of the photo counts.
    """

    path: Path
    content_id: str
    captions: tuple[str, ...]
    geometry: PhotoGeometry
    regularisation: RegularisationTarget | None = None
    mask: Mask | None = None

    def picture(self) -> Image.Image:
        """The cropped picture, RGB."""
        return apply_geometry(read_photo(self.path)[0], self.geometry)


def check_files(datasets: list[DatasetConfig], drawn_later: Collection[str] = ()) -> None:
    """Check in a moment, without decoding a photo, that folders hold photos, and photos captions and masks.

    Datasets of type `huggingface` are checked once they are local; see `hub_dataset.local_copy`.

    Args:
        drawn_later: ids of datasets whose photos the base model has yet to draw.

    Raises:
        ValueError: if a folder holds no photo, a photo has no mask, or captions are missing or wrong.
    """
    for dataset in datasets:
        is_read = dataset.dataset_type in ("image", "eval") and not dataset.disabled
        if not is_read or dataset.type == "huggingface" or dataset.id in drawn_later:
            continue
        photos = _photos(dataset)
        check_captions(dataset, photos)
        folders = [found.instance_data_dir for found in mask_datasets(dataset, datasets)]
        if folders and None not in folders:
            for folder in folders:
                list_photos(folder, "mask")
            for photo in photos:
                find_mask(photo, folders)


def read_samples(
    dataset: DatasetConfig,
    datasets: list[DatasetConfig],
    multiple_px: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Sample], list[str]]:
    """The samples of a dataset, sorted by file name, and a warning for each photo that is odd or left out.

    Args:
        dataset: a local one of type `image` or `eval`.
        datasets: all of the run, since masks are datasets of their own.
        multiple_px: the edges of the model's images are multiples of this.
        seed: decides random crops and shapes, once for each photo.
        on_progress: called after each photo with the number read so far and the number of all.

    Raises:
        ValueError: if the folder is empty or unreadable, no photo in it can be used, the resolution does
            not fit the model, a caption is missing or wrong, or a mask is missing or of another shape.
    """
    rules = GeometryRules.of(dataset)
    masks = mask_datasets(dataset, datasets)
    samples, warnings = [], []
    photos = _photos(dataset)
    for number, path in enumerate(photos, start=1):
        try:
            sample, remarks = _read_sample(path, dataset, rules, masks, multiple_px, seed)
            samples.append(sample)
            warnings += remarks
        except PhotoError as error:
            warnings.append(f"Left out {error}")
        if on_progress is not None:
            on_progress(number, len(photos))
    if not samples:
        raise ValueError(
            f"None of the {len(photos)} photos in {dataset.instance_data_dir} can be used. {warnings[0]}"
        )
    num_more = len(warnings) - _MAX_WARNINGS
    if num_more > 0:
        warnings[_MAX_WARNINGS:] = [f"{num_more} more remarks of this kind on photos of '{dataset.id}'."]
    return samples, warnings


def _photos(dataset: DatasetConfig) -> list[Path]:
    assert dataset.instance_data_dir is not None, "a dataset of the Hub's kind is made local first"
    return list_photos(dataset.instance_data_dir)[: dataset.max_num_samples]


def _read_sample(
    path: Path,
    dataset: DatasetConfig,
    rules: GeometryRules,
    masks: list[DatasetConfig],
    multiple_px: int,
    seed: int,
) -> tuple[Sample, list[str]]:
    """A sample, and what the user should know about it.

    Raises:
        PhotoError: if the photo is left out.
        ValueError: as `read_samples`.
    """
    changed_ns = path.stat().st_mtime_ns
    size, own_id, read_remarks = _read_facts(path, changed_ns)
    mask, focus = None, None
    if masks:
        mask = _mask_of(path, masks)
        focus = mask.box(*size)
    if rules.follows == "face":
        focus = _find_face(path, changed_ns)
    seed_key = mix_seed(seed, int(own_id, 16))
    geometry = plan_geometry(*size, rules, multiple_px, seed_key=seed_key, focus=focus)
    if isinstance(geometry, LeftOut):
        raise PhotoError(path.name, geometry.reason)
    target = dataset.regularisation_target if dataset.is_regularisation_data else None
    sample = Sample(path, own_id, captions_of(dataset, path), geometry, target, mask)
    return sample, [*read_remarks, *(f"{path.name}: {remark}" for remark in geometry.remarks)]


def _mask_of(photo: Path, masks: list[DatasetConfig]) -> Mask:
    kinds = {dataset.instance_data_dir: dataset.conditioning_type for dataset in masks}
    path = find_mask(photo, list(kinds))
    return Mask(path, kinds[path.parent])


# A folder is often trained at two sizes: it is decoded once, for its facts, as long as no file changes.
@lru_cache(maxsize=4096)
def _read_facts(path: Path, _changed_ns: int) -> tuple[Size, str, tuple[str, ...]]:
    """(width, height) in px, the content id and remarks; raises PhotoError."""
    picture, remarks = read_photo(path)
    return picture.size, content_id(path), tuple(remarks)


@lru_cache(maxsize=4096)
def _find_face(path: Path, _changed_ns: int) -> Box | None:
    return largest_face(read_photo(path)[0])
