"""Kohya's folders of photos: "10_sks dog" is shown 10 times an epoch and captioned "sks dog"."""

import re
from pathlib import Path
from typing import NamedTuple

from dreamspace.config.dataset import DatasetConfig
from dreamspace.data.photos import photo_files

_NAME = re.compile(r"(\d+)_(.*\S)\s*")
_PHOTOS = ("img", "image", "images")
_CLASS_IMAGES = ("reg", "reg_data", "regularization", "regularisation")


class _Part(NamedTuple):
    folder: Path
    num_passes: int
    prompt: str


def is_kohya_folder(folder: Path) -> bool:
    """Whether photos lie in folders such as "10_sks dog" in it, or in its "img", and none beside them."""
    folder = Path(folder)
    try:
        return folder.is_dir() and not photo_files(folder) and bool(_parts(_photos_dir(folder)))
    except PermissionError:  # whoever reads the photos says so
        return False


def read_kohya_folder(folder: Path, resolution_px: int) -> list[DatasetConfig]:
    """The datasets of a kohya folder: a folder a dataset, and class images from a `reg` folder beside it.

    N passes are repeats N - 1, and a folder of 0 passes is left out, as there. Where every photo has a .txt,
    that is its caption, else the folder's words are. Class images are trained towards the noise, as there.

    Args:
        resolution_px: edge of the training images; kohya's folders do not say it.

    Raises:
        ValueError: if it is no such folder, or its captions are in files that only kohya reads.
    """
    folder = Path(folder)
    if not is_kohya_folder(folder):
        raise ValueError(
            f"{folder} is no kohya folder. It needs folders of photos in it, such as '10_sks dog', and no "
            "photo beside them."
        )
    photos_dir = _photos_dir(folder)
    beside = folder if photos_dir != folder else folder.parent
    class_parts = [
        part for name in _CLASS_IMAGES if beside / name != folder for part in _parts(beside / name)
    ]
    return [
        *(_dataset(part, resolution_px, is_class=False) for part in _parts(photos_dir)),
        *(_dataset(part, resolution_px, is_class=True) for part in class_parts),
    ]


def _photos_dir(folder: Path) -> Path:
    return next((folder / name for name in _PHOTOS if _parts(folder / name)), folder)


def _parts(folder: Path) -> list[_Part]:
    """The folders inside that carry a number of passes and words, and hold photos."""
    if not folder.is_dir():
        return []
    parts = []
    for inner in sorted(folder.iterdir()):
        name = _NAME.fullmatch(inner.name)
        if name and int(name[1]) > 0 and inner.is_dir() and photo_files(inner):
            parts.append(_Part(inner, int(name[1]), name[2]))
    return parts


def _dataset(part: _Part, resolution_px: int, *, is_class: bool) -> DatasetConfig:
    photos = photo_files(part.folder)
    has_captions = all(photo.with_suffix(".txt").is_file() for photo in photos)
    elsewhere = [photo for photo in photos if photo.with_suffix(".caption").is_file()]
    if elsewhere and not has_captions:
        raise ValueError(
            f"{part.folder} keeps captions in .caption files, such as {elsewhere[0].stem}.caption. "
            "Copy them to .txt files beside the photos."
        )
    return DatasetConfig(
        id=f"{part.folder.parent.name} {part.folder.name}" if is_class else part.folder.name,
        instance_data_dir=part.folder,
        instance_prompt=part.prompt,
        caption_strategy="textfile" if has_captions else "instanceprompt",
        repeats=part.num_passes - 1,
        resolution=resolution_px,
        resolution_type="pixel",
        crop=True,
        is_regularisation_data=is_class,
        regularisation_target="noise" if is_class else "base",
    )
