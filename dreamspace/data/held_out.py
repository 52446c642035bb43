"""Held-out photos: those of the subject that a run is judged by and never learns from."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from dreamspace.config import DatasetConfig, RunConfig
from dreamspace.data.geometry import GeometryRules, reason_to_leave_out
from dreamspace.data.photos import PhotoError, photo_files, photo_size
from dreamspace.files import read_json, write_json
from dreamspace.run_folder import HELD_OUT_FILE

FEWEST_PHOTOS = 6
"""With fewer, each is needed for the training."""

ONE_IN = 5


def num_held_out(num_photos: int) -> int:
    """How many of so many different photos are held out."""
    return num_photos // ONE_IN if num_photos >= FEWEST_PHOTOS else 0


def num_trained(num_photos: int, holds_out: bool) -> int:
    """How many of so many different photos are trained on, where some may be held out or none."""
    return num_photos - num_held_out(num_photos) if holds_out else num_photos


def held_out_ids(content_ids: Iterable[str]) -> set[str]:
    """Of different photos, by the hashes of their content, those to hold out: the lowest, one in five.

    A photo keeps its place whatever it is called and wherever it lies; with fewer than 6 photos there are
    none.
    """
    different = sorted(set(content_ids))
    return set(different[: num_held_out(len(different))])


def content_id(path: Path) -> str:
    """16 hex digits that follow from a file's bytes."""
    return _hashed(path, path.stat().st_mtime_ns)


# A run's photos are asked for when it is written, when it is announced, and when they are read.
@lru_cache(maxsize=4096)
def _hashed(path: Path, _changed_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def holds_out(config: RunConfig, datasets: Sequence[DatasetConfig]) -> bool:
    """Whether a run keeps photos out of its training: it may, and has no dataset of its own for that."""
    return config.held_out_photos and not eval_datasets(datasets)


def read_held_out(run_dir: Path) -> frozenset[str] | None:
    """The content ids of the photos that a run has held out so far.

    None where no checkpoint was trained yet, so that it may still choose, or where an older run did not
    write them down.

    Raises:
        ValueError: if the file is broken.
    """
    file = run_dir / HELD_OUT_FILE
    if not file.exists() or not any(run_dir.glob("checkpoints/step-*")):
        return None
    ids = read_json(file)
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise ValueError(
            f"{file} must be a list of content ids. Delete it, and the run chooses its held-out photos anew."
        )
    return frozenset(ids)


def write_held_out(run_dir: Path, content_ids: Iterable[str]) -> None:
    """Write down which photos a run holds out: those of its folders may change before it is judged."""
    write_json(run_dir / HELD_OUT_FILE, sorted(content_ids))


def eval_datasets(datasets: Iterable[DatasetConfig]) -> list[DatasetConfig]:
    """The datasets that a run is judged by."""
    return [dataset for dataset in datasets if dataset.dataset_type == "eval" and not dataset.disabled]


def held_out_files(
    config: RunConfig, datasets: Sequence[DatasetConfig], recorded: Collection[str] | None = None
) -> list[Path]:
    """The files of the subject's photos that a run will hold out, sorted; those of folders here alone.

    Photos that the run leaves out for their size count as little here as there.

    Args:
        recorded: what the run has held out so far; see `read_held_out`.
    """
    if not holds_out(config, datasets):
        return []
    usable = [
        _usable_photos(dataset)
        for dataset in datasets
        if dataset.is_trained and not dataset.is_regularisation_data and dataset.type == "local"
    ]
    photos = sorted({photo for found in usable for photo in found})
    if recorded is None and len(photos) < FEWEST_PHOTOS:
        return []
    ids = {photo: content_id(photo) for photo in photos}
    chosen = held_out_ids(ids.values()) if recorded is None else recorded
    if any(found and all(ids[photo] in chosen for photo in found) for found in usable):
        return []  # as a dataset would be left empty
    return [photo for photo in photos if ids[photo] in chosen]


def _usable_photos(dataset: DatasetConfig) -> list[Path]:
    """The photos of a dataset that its rules do not leave out."""
    folder, rules = dataset.instance_data_dir, GeometryRules.of(dataset)
    photos = photo_files(folder)[: dataset.max_num_samples] if folder and folder.is_dir() else []
    sizes = {photo: _size(photo, photo.stat().st_mtime_ns) for photo in photos}
    return [photo for photo, size in sizes.items() if size and reason_to_leave_out(size, rules) is None]


@lru_cache(maxsize=4096)
def _size(path: Path, _changed_ns: int) -> tuple[int, int] | None:
    """(width, height) in px of an upright photo; None of one that cannot be used."""
    try:
        return photo_size(path)
    except PhotoError:
        return None


def announcement(
    config: RunConfig,
    datasets: Sequence[DatasetConfig],
    recorded: Collection[str] | None = None,
    called: Callable[[Path], str] = lambda photo: photo.name,
) -> str:
    """What a run is judged by, in a sentence for before it starts, or goes on with what is `recorded`.

    Args:
        called: how the sentence calls a photo.
    """
    held_out = held_out_files(config, datasets, recorded)
    if held_out:
        names = ", ".join(map(called, held_out))
        return (
            f"Held out to judge the run by, never trained on: {names}. Set held_out_photos to false to train "
            "on all photos."
        )
    if eval_datasets(datasets):
        return "The run is judged by the photos of its eval datasets."
    if recorded is not None:
        return (
            "None of the photos that are here now was held out from the first step on, so that scores are "
            "weak evidence; a new run chooses anew."
        )
    return (
        f"All photos are trained on, so that scores are weak evidence; with {FEWEST_PHOTOS} or more, and "
        "held_out_photos, one in five is kept to judge by."
    )
