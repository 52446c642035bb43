"""The masks of a subject: shaped for a run, drawn over the photos, and painted by hand."""

import base64
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from dreamspace.data.geometry import PhotoGeometry, apply_geometry
from dreamspace.data.mask_shaping import MaskShaping, shape
from dreamspace.data.masks import Mask
from dreamspace.files import replace_file
from dreamspace.ui.framing import CELL_PX
from dreamspace.ui.subject import SUBJECT_FILE, Subject

PREVIEW_PX = 640
"""The longest edge of what is painted on and of what is drawn over the photos."""

SHAPED_PX = 1024
"""The longest edge of a shaped mask, of which the loss sees an eighth at most."""

MAX_PAINTING_CHARACTERS = 3_000_000

_PNG_PREFIX = "data:image/png;base64,"
# What Pillow raises for pictures that are cut off, lie about their sizes, or hold too much.
_UNREADABLE = (OSError, ValueError, SyntaxError, IndexError, struct.error, Image.DecompressionBombError)
_TINT = (38, 24, 110)
_LINE = (255, 255, 255)


def write_masks(subject: Subject) -> Path:
    """Write the shaped masks of all photos that have a raw one; returns their folder.

    One that is younger than its raw mask and the subject's choices is kept.
    """
    for photo in subject.photos:
        raw, shaped = subject.raw_mask(photo), subject.masks_dir / photo.name
        causes = [path for path in (raw, subject.dir / SUBJECT_FILE) if path is not None and path.exists()]
        is_current = shaped.exists() and all(_changed(shaped) > _changed(cause) for cause in causes)
        if raw is not None and not is_current:
            with replace_file(shaped) as temporary:
                shaped_mask(subject, raw, SHAPED_PX).save(temporary, format="PNG")
    return subject.masks_dir


def shaped_mask(subject: Subject, raw: Path, longest_px: int) -> Image.Image:
    """A raw mask (L) as the subject's choices shape it, at most `longest_px` long."""
    mask = _at_most(_open_mask(raw), longest_px)
    edge = min(mask.size)
    shaping = MaskShaping(
        grow_px=round(subject.grow * edge), feather_px=subject.feather * edge, invert=subject.invert
    )
    shaped = shape(np.asarray(mask, np.float32) / 255, shaping)
    return Image.fromarray(np.round(shaped * 255).astype(np.uint8))


def paintable_size(photo: Path) -> tuple[int, int]:
    """(width, height) in px of the picture on which a photo's mask is painted."""
    with Image.open(photo) as image:
        return _size_at_most(image.size, PREVIEW_PX)


def paintable_mask(subject: Subject, photo: Path) -> Image.Image:
    """What the editor begins with: the raw mask (L), black without one, inverted where masks are."""
    raw = subject.raw_mask(photo)
    size = paintable_size(photo)
    mask = Image.new("L", size) if raw is None else _open_mask(raw).resize(size)
    return ImageOps.invert(mask) if subject.invert else mask


def save_painting(subject: Subject, photo: Path, painting: str) -> None:
    """Take what was painted in a browser as a photo's raw mask.

    Args:
        painting: a PNG as a data URL, white where the subject is, of the photo's paintable size.

    Raises:
        ValueError: if it is anything else.
    """
    mask = _decoded(painting, paintable_size(photo))
    if subject.invert:
        mask = ImageOps.invert(mask)
    with Image.open(photo) as image:
        size = image.size
    with replace_file(subject.raw_masks_dir / photo.name) as temporary:
        mask.resize(size, Image.Resampling.BICUBIC).save(temporary, format="PNG")


def small_mask(raw: Path) -> Image.Image:
    """A raw mask (L) at the size of what is drawn, from which all of it is drawn quickly."""
    return _at_most(_open_mask(raw), PREVIEW_PX)


def draw_overlay(photo: Path, mask: Image.Image) -> Image.Image:
    """The photo (RGB) at the mask's size: dark outside of the mask, with a line along its edge."""
    picture = _picture(photo, mask.size)
    outside = Image.blend(ImageOps.grayscale(picture).convert("RGB"), Image.new("RGB", mask.size, _TINT), 0.6)
    overlay = Image.composite(picture, ImageEnhance.Brightness(outside).enhance(0.8), mask)
    solid = mask.point(lambda value: 255 * (value >= 128))
    width = max(3, min(mask.size) // 120 // 2 * 2 + 1)
    line = ImageChops.difference(solid.filter(ImageFilter.MaxFilter(width)), solid)
    overlay.paste(_LINE, mask=line.filter(ImageFilter.GaussianBlur(0.6)))
    return overlay


def draw_cells(photo: Path, mask_file: Path, geometry: PhotoGeometry) -> Image.Image:
    """The training picture (RGB) with the mask at latent cells, as the loss sees it: bright ones count."""
    columns, rows = (edge // CELL_PX for edge in geometry.size)
    cells = Mask(mask_file, "mask").cells(geometry, columns, rows)
    factor = max(1, PREVIEW_PX // max(columns, rows) // 2)
    size = (columns * factor, rows * factor)
    picture = apply_geometry(_picture(photo, None), geometry).resize(size)
    weights = Image.fromarray(np.round(cells * 255).astype(np.uint8))
    weights = weights.resize(size, Image.Resampling.NEAREST)
    dark = Image.blend(ImageOps.grayscale(picture).convert("RGB"), Image.new("RGB", size, _TINT), 0.75)
    return Image.composite(picture, ImageEnhance.Brightness(dark).enhance(0.7), weights)


def _decoded(painting: str, size: tuple[int, int]) -> Image.Image:
    refusal = ValueError("The painted mask did not arrive whole. Paint and save it again.")
    if not painting.startswith(_PNG_PREFIX) or len(painting) > MAX_PAINTING_CHARACTERS:
        raise refusal
    try:
        content = base64.b64decode(painting.removeprefix(_PNG_PREFIX), validate=True)
        with Image.open(BytesIO(content), formats=("PNG",)) as image:
            if image.size != size:  # before anything is decoded
                raise refusal
            black = Image.new("RGBA", size, "black")
            return Image.alpha_composite(black, image.convert("RGBA")).convert("L")
    except _UNREADABLE:
        raise refusal from None


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns


def _open_mask(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("L")


def _picture(photo: Path, size: tuple[int, int] | None) -> Image.Image:
    with Image.open(photo) as image:
        picture = image.convert("RGB")
    return picture if size is None else picture.resize(size)


def _at_most(image: Image.Image, longest_px: int) -> Image.Image:
    size = _size_at_most(image.size, longest_px)
    return image if size == image.size else image.resize(size, Image.Resampling.BOX)


def _size_at_most(size: tuple[int, int], longest_px: int) -> tuple[int, int]:
    scale = min(1.0, longest_px / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
