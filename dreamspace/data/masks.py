"""Masks: which one belongs to a photo, and what the loss sees of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from dreamspace.data.geometry import Box, PhotoGeometry, Size, apply_geometry
from dreamspace.data.photos import PhotoError, read_photo

MaskKind = Literal["mask", "segmentation"]

TEXT_GUIDED_METHODS = ("clipseg", "grounded-sam2", "sam3")
"""The methods that find a subject by its name, the best one last."""

MASK_METHODS = ("auto", "grabcut", *TEXT_GUIDED_METHODS)
"""All methods of the `mask` job; `auto` takes the best one whose weights are at hand."""

_LARGEST_DIFFERENCE = 0.01
"""How far the shapes of photo and mask may differ, as a share of width / height."""


@dataclass(frozen=True)
class Mask:
    """The mask of a photo: its red channel, black 0 and white 1, says how much each part counts.

    Attributes:
        kind: a `mask` is soft; a `segmentation` is made black and white at 0.5.
    """

    path: Path
    kind: MaskKind

    def cells(self, geometry: PhotoGeometry, width: int, height: int) -> np.ndarray:
        """The mask as the loss sees it: (height, width) float32 in [0, 1], at latent cells for example.

        It goes the way of its photo and each cell is the mean of what it covers.

        Args:
            geometry: the photo's.

        Raises:
            ValueError: if the file cannot be read.
        """
        red = _red(self.path).convert("F")
        kept = apply_geometry(red, geometry, Image.Resampling.BILINEAR)
        cells = np.asarray(kept.resize((width, height), Image.Resampling.BOX)) / np.float32(255)
        return (cells >= 0.5).astype(np.float32) if self.kind == "segmentation" else cells.clip(0, 1)

    def box(self, width_px: int, height_px: int) -> Box | None:
        """What the mask shows: from the first to the last column and row that count.

        A part counts if it is at least half as bright as the brightest, or as white for a segmentation.

        Args:
            width_px, height_px: the photo's size; the box is in its px.

        Returns:
            None if the mask is black, so that the photo teaches nothing.

        Raises:
            ValueError: if the file cannot be read, or its shape is not the photo's.
        """
        (width, height), found = _size_and_box(self, self.path.stat().st_mtime_ns)
        shape, photo_shape = width / height, width_px / height_px
        # A small mask cannot have the photo's shape more exactly than its pixels allow.
        allowed = max(_LARGEST_DIFFERENCE, 1 / min(width, height))
        if abs(shape / photo_shape - 1) > allowed:
            raise ValueError(
                f"The mask {self.path} has {width} x {height} px and its photo {width_px} x {height_px} px, "
                "which is another shape. Make the mask again from this photo."
            )
        if found is None:
            return None
        per_x, per_y = width_px / width, height_px / height
        return Box(found[0] * per_x, found[1] * per_y, found[2] * per_x, found[3] * per_y)


def find_mask(photo: Path, folders: Sequence[Path]) -> Path:
    """The mask of a photo: the file of the same name, else the PNG of the same stem, in the first folder.

    Raises:
        ValueError: if there is none.
    """
    for folder in folders:
        for name in (photo.name, f"{photo.stem}.png"):
            if (folder / name).is_file():
                return folder / name
    given = " or ".join(str(folder) for folder in folders)
    raise ValueError(
        f"The photo {photo.name} has no mask in {given}. Add {photo.stem}.png, all white where nothing is "
        "to be masked."
    )


def _red(path: Path) -> Image.Image:
    try:
        return read_photo(path)[0].getchannel("R")
    except PhotoError as error:
        raise ValueError(
            f"The mask {path} cannot be used: {error.reason} Delete it and make it again, for example by the "
            "command mask."
        ) from error


# A folder is often trained at two sizes, and each asks for the same masks.
@lru_cache(maxsize=4096)
def _size_and_box(mask: Mask, _changed_ns: int) -> tuple[Size, tuple[int, int, int, int] | None]:
    red = _red(mask.path)
    brightest = 255 if mask.kind == "segmentation" else max(red.getextrema()[1], 1)
    return red.size, red.point(lambda value: 255 * (value >= brightest / 2)).getbbox()
