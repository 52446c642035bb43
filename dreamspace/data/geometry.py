"""Where a photo lands in the training image: its bucket, the part that is kept, and how far it is scaled."""

import math
from dataclasses import dataclass, fields
from itertools import product
from typing import Literal, NamedTuple

from PIL import Image

from dreamspace.config import DatasetConfig
from dreamspace.data.plan import mix_seed

ResolutionType = Literal["pixel", "area", "pixel_area"]
Size = tuple[int, int]

COMMON_SHAPES = (9 / 16, 2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2, 16 / 9)
"""The shapes (width / height) that crop_aspect `closest` and `random` choose from, unless told otherwise."""

LARGEST_SCALE = 1.5
"""A photo that is enlarged further gets a remark."""

_COARSE_PX = 64
# 0.25 megapixels are 500 px, and are written for 512.
_COARSE_FROM_PX = 500
_LONGEST_SHAPE = 4.0


class Box(NamedTuple):
    """A part of a photo in px; right and bottom are the first column and row outside."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class GeometryRules:
    """What decides a photo's geometry: the keys of a dataset, by the same names."""

    resolution: float
    resolution_type: ResolutionType = "pixel_area"
    minimum_image_size: float | None = None
    maximum_image_size: float | None = None
    target_downsample_size: float | None = None
    minimum_aspect_ratio: float | None = None
    maximum_aspect_ratio: float | None = None
    crop: bool = False
    crop_aspect: Literal["square", "preserve", "closest", "random"] = "square"
    crop_aspect_buckets: tuple[float, ...] = COMMON_SHAPES
    crop_style: Literal["center", "corner", "random", "face", "subject"] = "center"

    @classmethod
    def of(cls, dataset: DatasetConfig) -> "GeometryRules":
        """The rules of a dataset."""
        values = dataset.model_dump(include={field.name for field in fields(cls)})
        return cls(**values | {"crop_aspect_buckets": tuple(dataset.crop_aspect_buckets or COMMON_SHAPES)})

    @property
    def follows(self) -> Literal["face", "subject"] | None:
        """What the crop looks for in the photo itself, if anything."""
        if self.crop and self.crop_style in ("face", "subject"):
            return self.crop_style
        return None


@dataclass(frozen=True)
class PhotoGeometry:
    """How a photo becomes a training image; a mask of the photo goes the same way.

    Attributes:
        original_size: (width, height) in px of the upright photo.
        resized_size: (width, height) in px of the whole photo after scaling.
        crop: (left, top, right, bottom) in px of the resized photo; the part that is kept.
        size: (width, height) in px of the training image, which is its bucket.
        scale: resized edge / original edge; above 1 the photo is enlarged.
        remarks: what the user should know, a sentence each that calls the photo "it".
    """

    original_size: Size
    resized_size: Size
    crop: tuple[int, int, int, int]
    size: Size
    scale: float
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A photo that the rules leave out, and why: a sentence that calls the photo "it"."""

    reason: str


MOST_AT_ONCE = 4
PIXELS_AT_ONCE = 2**20
"""Of one batch: at 1024 px one picture, for which a VAE takes 3 GB, and more of smaller ones."""


def pictures_at_once(width_px: int, height_px: int) -> int:
    """How many photos of a size are encoded together, and how many images are drawn."""
    return max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // (width_px * height_px)))


def plan_geometry(
    width_px: int,
    height_px: int,
    rules: GeometryRules,
    multiple_px: int,
    *,
    seed_key: int = 0,
    focus: Box | None = None,
) -> PhotoGeometry | LeftOut:
    """Where an upright photo of `width_px` x `height_px` lands, or why it is left out.

    Without `crop` a photo keeps its shape: it is scaled to cover the nearest bucket, and the small excess is
    cut off on both sides. With it, the bucket has the shape of `crop_aspect` and `crop_style` says which part
    of the photo fills it. The photo is scaled so that it just covers the bucket; only one above
    `maximum_image_size` is scaled to `target_downsample_size`, so that a larger target means a tighter crop.
    As all is done in one resampling, these two change nothing without `crop`.

    Args:
        multiple_px: the edges of the model's images are multiples of this.
        seed_key: decides what is random, for good: `mix_seed` of the run's seed and the photo's id.
        focus: the face or the subject in the photo's px, where `rules.follows` one and it was found.

    Raises:
        ValueError: if the model cannot use the resolution; see `edge_px`.
    """
    assert min(width_px, height_px) > 0, (width_px, height_px)
    photo = (width_px, height_px)
    size = _bucket(photo, rules, multiple_px, seed_key)
    reason = reason_to_leave_out(photo, rules)
    if reason is not None:
        return LeftOut(reason)
    scale = cover = max(size[0] / width_px, size[1] / height_px)
    if rules.crop and _is_above_maximum(photo, rules):
        scale = max(cover, min(1.0, _target_scale(photo, rules)))
    if focus is not None and rules.follows == "subject":
        fitting = min(size[0] / (focus.right - focus.left), size[1] / (focus.bottom - focus.top))
        scale = max(cover, min(scale, fitting))
    resized = (max(size[0], round(width_px * scale)), max(size[1], round(height_px * scale)))
    if focus is not None:
        focus = Box(*(focus[side] * resized[side % 2] / photo[side % 2] for side in range(4)))
    left, top = (_crop_start(axis, resized[axis], size[axis], rules, seed_key, focus) for axis in (0, 1))
    crop = (left, top, left + size[0], top + size[1])
    return PhotoGeometry(photo, resized, crop, size, scale, _remarks(photo, crop, scale, rules, focus))


def edge_px(resolution: float, resolution_type: ResolutionType, multiple_px: int) -> int:
    """The edge in px of the square that a dataset's resolution stands for.

    Args:
        resolution: `pixel` and `pixel_area`: the edge itself in px; `area`: megapixels, whose square is
            rounded to the nearest bucket, since no round number of megapixels has a fitting edge.

    Raises:
        ValueError: if it is no multiple of `multiple_px`, or below it; the nearest one is named.
    """
    is_area = resolution_type == "area" and resolution > 0
    edge = math.sqrt(resolution * 1e6) if is_area else resolution
    step = _bucket_step_px(edge, multiple_px) if is_area else multiple_px
    fitting = max(step, math.floor(edge / step + 0.5) * step)
    if edge < multiple_px or (resolution_type != "area" and edge != fitting):
        raise ValueError(
            f"resolution must be a positive multiple of {multiple_px} px for this model, got {edge:g}. "
            f"Try {fitting}."
        )
    return fitting


def dataset_edge_px(dataset: DatasetConfig, multiple_px: int) -> int:
    """The `edge_px` of a dataset's resolution; the error names the dataset."""
    try:
        return edge_px(dataset.resolution, dataset.resolution_type, multiple_px)
    except ValueError as error:
        raise ValueError(f"Dataset '{dataset.id}': {error}") from None


def apply_geometry(
    image: Image.Image,
    geometry: PhotoGeometry,
    resample: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """Cut and scale `image` in one resampling; the result has the size `geometry.size`.

    Args:
        image: the photo for which the geometry was planned, or its mask at any size.
        resample: LANCZOS for photos; BILINEAR for masks, since it never leaves the range of its input.
    """
    # The crop in the image's own pixels, so that nothing is resampled twice.
    left, top, right, bottom = geometry.crop
    per_x = image.width / geometry.resized_size[0]
    per_y = image.height / geometry.resized_size[1]
    box = (left * per_x, top * per_y, min(right * per_x, image.width), min(bottom * per_y, image.height))
    return image.resize(geometry.size, resample, box=box)


def two_digits(number: float) -> str:
    """A number rounded to two digits, and never as a power of ten: "1.6", "2", "250"."""
    return f"{float(f'{number:.2g}'):.10g}"


def _bucket(photo: Size, rules: GeometryRules, multiple_px: int, seed_key: int) -> Size:
    """(width, height) in px of the training image."""
    edge = edge_px(rules.resolution, rules.resolution_type, multiple_px)
    shape = photo[0] / photo[1]
    if rules.crop and rules.crop_aspect == "square":
        return edge, edge
    if rules.crop and rules.crop_aspect == "closest":
        shape = min(rules.crop_aspect_buckets, key=lambda known: abs(math.log(known / shape)))
    if rules.crop and rules.crop_aspect == "random":
        shape = rules.crop_aspect_buckets[mix_seed(seed_key, 0) % len(rules.crop_aspect_buckets)]
    step = _bucket_step_px(edge, multiple_px)
    if rules.resolution_type == "pixel":
        longer = max(edge, round(edge * min(max(shape, 1 / shape), _LONGEST_SHAPE) / step) * step)
        return (longer, edge) if shape > 1 else (edge, longer)
    return _nearest_bucket(shape, edge, step)


def _nearest_bucket(shape: float, edge: int, step: int) -> Size:
    """The size with edges that are multiples of `step`, about edge² in area and `shape` in width / height."""
    longest = min(_LONGEST_SHAPE, (edge / step) ** 2)
    root = math.sqrt(min(max(shape, 1 / longest), longest))
    wanted = (edge * root, edge / root)

    def distance(size: Size) -> float:
        # What is cut off counts twice as much as what the size costs.
        across, down = math.log(size[0] / wanted[0]), math.log(size[1] / wanted[1])
        return round(2 * abs(across - down) + abs(across + down), 9)

    candidates = product(*(_multiples_around(length, step) for length in wanted))
    return min(candidates, key=lambda size: (distance(size), size))


def _multiples_around(length: float, step: int) -> tuple[int, ...]:
    below = max(1, math.floor(length / step + 1e-9)) * step
    return (below,) if length <= below else (below, below + step)


def _bucket_step_px(edge: float, multiple_px: int) -> int:
    """The edges of buckets are multiples of this: coarse ones, so that few photos do not fall into many."""
    if edge < _COARSE_FROM_PX:
        return multiple_px
    return math.ceil(_COARSE_PX / multiple_px) * multiple_px


def _area_px(size: float, rules: GeometryRules) -> float:
    """A size in the unit of resolution_type as the area of its square in px."""
    return size * 1e6 if rules.resolution_type == "area" else size**2


def reason_to_leave_out(photo: Size, rules: GeometryRules) -> str | None:
    """Why the rules leave out an upright photo of (width, height) px, whatever the model; None if not."""
    width, height = photo
    if rules.minimum_image_size is not None:
        least = _area_px(rules.minimum_image_size, rules)
        by_edge = rules.resolution_type == "pixel" or (rules.crop and rules.crop_aspect == "square")
        if (min(photo) ** 2 if by_edge else width * height) < least:
            edge = round(math.sqrt(least))
            needed = f"{edge} px in both width and height" if by_edge else f"an area of {edge} x {edge} px"
            return f"it has {width} x {height} px, and minimum_image_size asks for {needed}."
    shape, lowest, highest = width / height, rules.minimum_aspect_ratio, rules.maximum_aspect_ratio
    if lowest is not None and shape < lowest:
        return f"its width / height is {shape:.3g}, below minimum_aspect_ratio {lowest:g}."
    if highest is not None and shape > highest:
        return f"its width / height is {shape:.3g}, above maximum_aspect_ratio {highest:g}."
    return None


def _is_above_maximum(photo: Size, rules: GeometryRules) -> bool:
    if rules.maximum_image_size is None:
        return False
    most = _area_px(rules.maximum_image_size, rules)
    return (max(photo) ** 2 if rules.resolution_type == "pixel" else photo[0] * photo[1]) > most


def _target_scale(photo: Size, rules: GeometryRules) -> float:
    """The scale at which the photo has target_downsample_size: its shorter edge, or its area."""
    assert rules.target_downsample_size is not None
    area = min(photo) ** 2 if rules.resolution_type == "pixel" else photo[0] * photo[1]
    return math.sqrt(_area_px(rules.target_downsample_size, rules) / area)


def _crop_start(
    axis: int, resized: int, kept: int, rules: GeometryRules, seed_key: int, focus: Box | None
) -> int:
    """The first column (axis 0) or row (axis 1) of the resized photo that is kept.

    Args:
        focus: in px of the resized photo.
    """
    free = resized - kept
    if rules.crop and rules.crop_style == "corner":  # the top left one, as in SimpleTuner
        return 0
    if rules.crop and rules.crop_style == "random":
        return mix_seed(seed_key, 1 + axis) % (free + 1)
    if rules.follows is None or focus is None:
        return free // 2
    first, last = focus[axis], focus[axis + 2]
    start = min(max(round((first + last - kept) / 2), 0), free)
    lowest, highest = max(0, math.ceil(last - kept)), min(free, math.floor(first))
    return min(max(start, lowest), highest) if lowest <= highest else start


def _remarks(
    photo: Size,
    crop: tuple[int, int, int, int],
    scale: float,
    rules: GeometryRules,
    focus: Box | None,
) -> tuple[str, ...]:
    remarks = []
    if scale > LARGEST_SCALE:
        remarks.append(
            f"it is enlarged {two_digits(scale)} times and will look soft. Use a larger photo or a lower "
            "resolution."
        )
    if not rules.crop and max(photo) > _LONGEST_SHAPE * min(photo):
        remarks.append(f"it is longer than {_LONGEST_SHAPE:g} to 1, so only its middle part is kept.")
    if rules.follows == "face" and focus is None:
        remarks.append("no face was found in it, so its centre is kept.")
    if rules.follows == "subject" and focus is not None:
        cut = max(crop[0] - focus[0], crop[1] - focus[1], focus[2] - crop[2], focus[3] - crop[3])
        if cut >= 1:
            remarks.append(
                f"its subject does not fit into a crop of {crop[2] - crop[0]} x {crop[3] - crop[1]} px. "
                "Set crop to false, or choose another crop_aspect."
            )
    return tuple(remarks)
