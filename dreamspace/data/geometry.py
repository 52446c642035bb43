"""Where a photo lands in the training image: resize, crop, and the size that the model sees."""

import math
from dataclasses import dataclass
from typing import Literal

from PIL import Image

ResolutionType = Literal["pixel", "area", "pixel_area"]


@dataclass(frozen=True)
class PhotoGeometry:
    """How a photo becomes a training image; a mask of the photo goes the same way.

    Attributes:
        resized_size: (width, height) in px of the whole photo after scaling.
        crop: (left, top, right, bottom) in px of the resized photo; the part that is kept.
        size: (width, height) in px of the training image.
        scale: resized edge / original edge; above 1 the photo is enlarged.
    """

    resized_size: tuple[int, int]
    crop: tuple[int, int, int, int]
    size: tuple[int, int]
    scale: float


def plan_geometry(
    width_px: int,
    height_px: int,
    *,
    resolution: float,
    multiple_px: int,
    resolution_type: ResolutionType = "pixel",
) -> PhotoGeometry:
    """The centre crop to a square of a photo of `width_px` x `height_px`.

    Args:
        resolution: see `edge_px`.
        multiple_px: the model's images have edges that are multiples of this.

    Raises:
        ValueError: if the model cannot use the resolution; see `edge_px`.
    """
    assert min(width_px, height_px) > 0, (width_px, height_px)
    edge = edge_px(resolution, resolution_type, multiple_px)
    scale = edge / min(width_px, height_px)
    width, height = round(width_px * scale), round(height_px * scale)
    left, top = (width - edge) // 2, (height - edge) // 2
    return PhotoGeometry((width, height), (left, top, left + edge, top + edge), (edge, edge), scale)


def edge_px(resolution: float, resolution_type: ResolutionType, multiple_px: int) -> int:
    """The edge in px of the square that a dataset's resolution stands for.

    Args:
        resolution: `pixel` and `pixel_area`: the edge itself in px; `area`: megapixels, whose square is
            rounded to the nearest multiple, since no round number of megapixels has a fitting edge.

    Raises:
        ValueError: if it is no multiple of `multiple_px`, or below it; the nearest one is named.
    """
    edge = math.sqrt(resolution * 1e6) if resolution_type == "area" and resolution > 0 else resolution
    fitting = max(multiple_px, math.floor(edge / multiple_px + 0.5) * multiple_px)
    if edge < multiple_px or (resolution_type != "area" and edge != fitting):
        raise ValueError(
            f"resolution must be a positive multiple of {multiple_px} px for this model, got {edge:g}. "
            f"Try {fitting}."
        )
    return fitting


def apply_geometry(
    image: Image.Image,
    geometry: PhotoGeometry,
    resample: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """Cut and scale `image` in one resampling; the result has the size `geometry.size`.

    Args:
        image: the photo for which the geometry was planned, or its mask at any size.
        resample: LANCZOS for photos; BOX for masks, since it never leaves the range of its input.
    """
    # The crop in the image's own pixels, so that nothing is resampled twice.
    left, top, right, bottom = geometry.crop
    per_x = image.width / geometry.resized_size[0]
    per_y = image.height / geometry.resized_size[1]
    box = (left * per_x, top * per_y, min(right * per_x, image.width), min(bottom * per_y, image.height))
    return image.resize(geometry.size, resample, box=box)
