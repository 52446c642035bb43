"""Photos in: any camera's file becomes an upright RGB image without metadata, named by its content."""

import errno
import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pillow_heif
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from dreamspace.files import replace_file

SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff",
            ".webp")  # fmt: skip
OTHER_SUFFIXES = (".ai", ".arw", ".cr2", ".cr3", ".dng", ".eps", ".ico", ".jp2", ".jxl", ".nef", ".orf",
                  ".pdf", ".pef", ".psd", ".raf", ".raw", ".rw2", ".srw", ".svg", ".tga", ".xcf")  # fmt: skip
"""Of pictures that are not read: drawings, layers, and what cameras keep for their makers' own programs."""

MAX_PIXELS = 40_000_000
MAX_FILE_BYTES = 50_000_000
MAX_PHOTOS = 200

# Naming the formats keeps Pillow's other decoders (EPS starts Ghostscript) away from uploaded files.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "HEIF", "GIF", "BMP")
_FORMATS_IN_WORDS = "JPEG, PNG, WebP, AVIF, TIFF, HEIC, GIF or BMP"
_NUM_NAMED = 3
# What Pillow's and libheif's decoders raise on damaged files; OSError covers truncated ones.
_DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)
_PROFILE_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}

pillow_heif.register_heif_opener()


class PhotoError(ValueError):
    """A file that cannot be used as a photo; `reason` is the sentence without the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


@dataclass(frozen=True)
class Photo:
    """An imported photo: an upright RGB PNG named by its content."""

    id: str
    path: Path
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Refused:
    """A file that was not imported, by its name, and why."""

    name: str
    reason: str


@dataclass
class ImportReport:
    """What became of each file: accepted (each photo once), refused with a reason, and what else to know."""

    accepted: list[Photo] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_photo(path: Path) -> tuple[Image.Image, list[str]]:
    """The photo as an upright 8-bit sRGB image without metadata, and what the user should know about it.

    The EXIF turn and an embedded colour profile are applied, alpha is laid over white, CMYK, palettes
    and 16-bit images are converted, and of several frames the first is taken (with a warning).

    Raises:
        PhotoError: a ValueError that names the file and says why it cannot be used.
    """
    path = Path(path)
    with _opened(path) as image:
        try:
            return _upright_srgb(image, path.name)
        except _DECODE_ERRORS as error:
            raise PhotoError(
                path.name, f"the file is damaged or cut off ({error}). Copy or export it again."
            ) from error


def photo_size(path: Path) -> tuple[int, int]:
    """(width, height) in px of the upright photo, from the file's head: no pixel is decoded.

    Raises:
        PhotoError: as `read_photo`, but for damage that only decoding finds.
    """
    with _opened(Path(path)) as image:
        try:
            turn = image.getexif().get(ExifTags.Base.Orientation)
        except _DECODE_ERRORS:
            turn = None
        # Pillow gives the size of a TIFF as it is after the turn.
        lies = turn in _ON_ITS_SIDE and image.format != "TIFF"
        return (image.height, image.width) if lies else image.size


def photo_id(image: Image.Image) -> str:
    """The name of a photo by its content: 16 hex digits of a SHA-256 over its size and its RGB bytes."""
    assert image.mode == "RGB", image.mode
    digest = hashlib.sha256(struct.pack("<II", *image.size))
    digest.update(image.tobytes())
    return digest.hexdigest()[:16]


def photo_files(folder: Path) -> list[Path]:
    """The photo files directly in `folder`, sorted by name, none where there is no folder.

    Hidden files and other suffixes are left out.

    Raises:
        OSError: if it is no folder, or may not be read.
    """
    try:
        entries = sorted(Path(folder).iterdir())
    except FileNotFoundError:
        return []
    return [
        entry
        for entry in entries
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    ]


def list_photos(folder: Path, what: str = "photo") -> list[Path]:
    """The photo files directly in `folder`, as `photo_files` has them, at least one.

    Args:
        what: they are called in an error.

    Raises:
        ValueError: if the folder is missing, is no folder, may not be read or holds no photo.
    """
    folder = Path(folder)
    try:
        paths = photo_files(folder)
    except NotADirectoryError:
        raise ValueError(f"{folder} is not a folder. Give the folder that holds the {what}s.") from None
    except PermissionError:
        raise ValueError(f"The folder {folder} may not be read. Change its permissions.") from None
    if not folder.exists():
        raise ValueError(f"There is no folder {folder}. Check the path.")
    if not paths:
        advice = " ".join(unread_pictures(folder)) or f"Put {_FORMATS_IN_WORDS} files into it."
        raise ValueError(f"The folder {folder} holds no {what}. {advice}")
    return paths


def unread_pictures(folder: Path, known: Collection[Path] = ()) -> list[str]:
    """What in a folder of photos looks like photos and is not read, a sentence for each reason.

    Args:
        known: folders that are read by themselves, wherever they lie.
    """
    entries = [entry for entry in sorted(Path(folder).iterdir()) if not entry.name.startswith(".")]
    others = [entry.name for entry in entries if entry.suffix.lower() in OTHER_SUFFIXES]
    inner = [f"{entry.name}/" for entry in entries if entry not in known and _holds_photos(entry)]
    remarks = []
    if others:
        remarks.append(
            f"Not read, because of their kind: {_named(others)} in {folder}. Save them as JPEG or PNG."
        )
    if inner:
        remarks.append(f"Photos in folders inside {folder} are not read: {_named(inner)}. Move them up.")
    return remarks


def _holds_photos(entry: Path) -> bool:
    try:
        return entry.is_dir() and bool(photo_files(entry))
    except PermissionError:
        return False


def _named(names: list[str]) -> str:
    num_more = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {num_more} more" if num_more > 0 else "")


def import_photos(
    paths: Iterable[Path],
    out_dir: Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Write each photo to `out_dir` as `<id>.png`; one bad file never costs the others.

    Args:
        paths: files to read, in the order in which they count against the limit.
        out_dir: created if missing; holds at most `MAX_PHOTOS`. The photos that are there already count
            against the limit, and one of them given again is accepted as it is, with a warning.
        on_progress: called with (files read, files in all) before the first file and after each.

    Raises:
        ValueError: if `out_dir` cannot be written to.
    """
    paths = [Path(path) for path in paths]
    out_dir = Path(out_dir)
    _make_folder(out_dir)
    report = ImportReport()
    present = {path.stem: "a photo that is here already" for path in out_dir.glob("[!.]*.png")}
    limit_reason = f"the limit of {MAX_PHOTOS} photos is reached. Leave others out to make room."
    for num_read, path in enumerate(paths):
        if on_progress is not None:
            on_progress(num_read, len(paths))
        if len(report.accepted) >= MAX_PHOTOS:  # the rest of a huge folder is not even decoded
            report.refused.append(Refused(path.name, limit_reason))
            continue
        try:
            image, notes = read_photo(path)
            name = photo_id(image)
            photo = Photo(name, out_dir / f"{name}.png", *image.size)
            if name in present:
                notes = [f"{path.name} is the same photo as {present[name]}; it counts once."]
            elif len(present) >= MAX_PHOTOS:
                raise PhotoError(path.name, limit_reason)
            else:
                _write_png(image, photo.path, path.name)
        except PhotoError as error:
            report.refused.append(Refused(error.name, error.reason))
            continue
        present.setdefault(name, path.name)
        report.warnings.extend(notes)
        if photo not in report.accepted:
            report.accepted.append(photo)
    if on_progress is not None:
        on_progress(len(paths), len(paths))
    return report


def _check_file(path: Path) -> None:
    try:
        num_bytes = path.stat().st_size
    except FileNotFoundError:
        raise PhotoError(path.name, "there is no such file. Check the path.") from None
    except OSError as error:
        raise PhotoError(path.name, f"the file cannot be read ({error.strerror}).") from None
    if not path.is_file():
        raise PhotoError(path.name, "this is not a file. Give the photos themselves.")
    if num_bytes == 0:
        raise PhotoError(path.name, "the file is empty. Copy or export it again.")
    if num_bytes > MAX_FILE_BYTES:
        raise PhotoError(
            path.name,
            f"the file has {num_bytes / 1e6:.1f} MB and the limit is {MAX_FILE_BYTES / 1e6:.0f} MB. "
            "Save it smaller, as JPEG for example.",
        )


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture before it is decoded; raises PhotoError."""
    _check_file(path)
    # Pillow warns of large images, odd EXIF and cut-off TIFFs; what matters of these is said in our words.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(path.name, f"{image.width} x {image.height} px")
            yield image


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError:
        raise _too_large(path.name, f"more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} megapixels") from None
    except UnidentifiedImageError:
        raise PhotoError(path.name, f"this is not a {_FORMATS_IN_WORDS} image, or it is damaged.") from None
    except PermissionError:
        raise PhotoError(path.name, "the file may not be read. Change its permissions.") from None
    except _DECODE_ERRORS as error:
        raise PhotoError(path.name, f"the file is damaged ({error}). Copy or export it again.") from error


def _too_large(name: str, given: str) -> PhotoError:
    return PhotoError(
        name, f"the image has {given} and the limit is {MAX_PIXELS / 1e6:.0f} megapixels. Save it smaller."
    )


def _upright_srgb(image: Image.Image, name: str) -> tuple[Image.Image, list[str]]:
    notes = []
    # Pillow gives `is_animated` only to formats that can hold several frames. MPO is the JPEG of phones
    # that store a second picture (depth, gain map) behind the first.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        notes.append(f"{name} holds {image.n_frames} frames; only the first is used.")
    image.load()
    # After load(), because Pillow turns TIFFs while loading and then no longer reports a turn.
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except _DECODE_ERRORS:
        turn = None
        notes.append(f"{name} has unreadable EXIF data; if it lies on its side, turn it and save it again.")
    profile = image.info.get("icc_profile")
    image = _opaque_eight_bit(image)
    try:
        image = _to_srgb(image, profile) if profile else image
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append(f"{name} has an unreadable colour profile; its colours are taken as sRGB.")
    image = image.convert("RGB")
    image = image.transpose(turn) if turn is not None else image
    clean = Image.new("RGB", image.size)  # a new image: Pillow's conversions carry the metadata along
    clean.paste(image)
    return clean, notes


def _opaque_eight_bit(image: Image.Image) -> Image.Image:
    """The image in mode RGB, L or CMYK, with transparent parts over white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _scale_grey(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode in _PROFILE_SPACES else image.convert("RGB")


def _scale_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 or more bits as 8-bit grey; Pillow's own conversion would clip everything above 255."""
    grey = image.convert("F")
    _, highest = grey.getextrema()
    full_scale = 1.0 if image.mode == "F" else 65535.0
    factor = 255.0 / max(full_scale, highest)  # beyond 16 bits, or 1.0, only the image tells its range
    return grey.point(lambda value: value * factor + 0.5).convert("L")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert by an embedded ICC profile (Display P3 of phones, Adobe RGB, a press's CMYK)."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if ImageCms.getProfileDescription(source).startswith("sRGB"):
        return image
    if source.profile.xcolor_space.strip() != _PROFILE_SPACES[image.mode]:
        return image
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    return converted


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> ValueError:
    reason = error.strerror or error
    return ValueError(f"Photos cannot be written to {folder}: {reason}. Choose another folder.")


def _write_png(image: Image.Image, path: Path, name: str) -> None:
    try:
        with replace_file(path) as temporary:
            image.save(temporary, format="PNG", compress_level=1)  # level 6 takes three times as long
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise PhotoError(name, "the disk is full. Free some space and add this photo again.") from error
        raise _cannot_write(path.parent, error) from error
