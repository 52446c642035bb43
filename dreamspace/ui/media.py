"""Pictures and files of the workspace over HTTP: what is served, how it is found, and its address."""

import hashlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Literal, get_args
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import FileResponse
from PIL import Image

from dreamspace.data.geometry import LeftOut
from dreamspace.files import replace_file
from dreamspace.jobs.events import Event
from dreamspace.jobs.workspace import Workspace
from dreamspace.mini.scenes import SCENES
from dreamspace.mini.subjects import SUBJECTS, draw_subject
from dreamspace.mini.world import CLASSES, Scenery, render
from dreamspace.run_folder import REPORT_FILE
from dreamspace.ui.framing import SIZES_PX, framing
from dreamspace.ui.masks import (
    PREVIEW_PX,
    draw_cells,
    draw_overlay,
    paintable_mask,
    shaped_mask,
    small_mask,
)
from dreamspace.ui.subject import Subject

THUMBNAIL_WIDTHS = (160, 320, 640)

_PICTURE_TYPES = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_PICTURE_FOLDERS = {
    "runs": ("previews", "validation", "evaluation"),
    "jobs": ("previews", "images"),
    "subjects": ("photos",),
}
HEADERS = {
    "Cache-Control": "private, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
_ILLUSTRATION_PX = 256


def picture_url(folder: Path, path: str | Path, version: int = 0, width_px: int | None = None) -> str:
    """The address of a picture in a run, job or subject folder.

    Args:
        folder: the run's, job's or subject's folder in the workspace.
        path: of the picture, relative to it.
        version: the `seq` of the event that announced it: a picture that was drawn anew has a new address,
            so that browsers may keep each one for ever.
        width_px: one of `THUMBNAIL_WIDTHS` for a smaller copy.
    """
    assert width_px is None or width_px in THUMBNAIL_WIDTHS, width_px
    query = f"?v={version}" + (f"&w={width_px}" if width_px else "")
    return f"/media/{folder.parent.name}/{quote(folder.name)}/{quote(Path(path).as_posix())}{query}"


def event_picture_url(folder: Path, event: Event, width_px: int | None = None) -> str:
    """The address of the picture that a `preview` or `sample` event announces."""
    return picture_url(folder, event["path"], event["seq"], width_px)


def report_url(run_dir: Path, version: int) -> str:
    """The address of the report of a run's evaluation, to download."""
    return f"/media/reports/{quote(run_dir.name)}.html?v={version}"


MaskView = Literal["overlay", "cells", "paint"]


def mask_url(subject: Subject, photo: Path, view: MaskView, resolution: int = 0) -> str:
    """The address of a picture of a photo's mask; it changes with the mask and with how it is shaped.

    Args:
        view: over the photo, at latent cells as the loss sees it, or as it is painted on.
        resolution: of the training in px; for the cells.
    """
    query = f"?v={_mask_version(subject, photo)}" + (f"&r={resolution}" if resolution else "")
    return f"/media/masks/{quote(subject.dir.name)}/{quote(photo.stem)}/{view}{query}"


def class_image_url(file: Path, width_px: int = 160) -> str:
    """The address of a small copy of a class image in the workspace."""
    folders = "/".join(quote(part) for part in file.parts[-3:])
    return f"/media/priors/{folders}?v={file.stat().st_mtime_ns}&w={width_px}"


def is_picture(file: Path) -> bool:
    """Whether a file is of a kind that browsers show."""
    return file.suffix.lower() in _PICTURE_TYPES


def subject_url(name: str, scene: str = "meadow") -> str:
    """The address of a picture of a sample subject in a scene of mini's world."""
    return f"/media/samples/{quote(name)}/{quote(scene)}.webp"


def class_url(class_word: str, seed: int = 1) -> str | None:
    """The address of a picture of any thing of this class; None for a class outside of mini's world."""
    return f"/media/classes/{quote(class_word)}/{seed}.webp" if class_word in CLASSES else None


def media_router(workspace: Workspace) -> APIRouter:
    """The routes behind the addresses; whatever they will not serve does not exist for them (404)."""
    router = APIRouter()
    router.include_router(_illustrations())
    router.include_router(_masks_and_priors(workspace))
    folder_of = {"runs": workspace.run_dir, "jobs": workspace.job_dir, "subjects": workspace.subject_dir}

    @router.get("/media/reports/{name}.html")
    def report(name: str) -> FileResponse:
        run_dir = existing_folder(workspace.run_dir, name)
        file = run_dir / REPORT_FILE
        if not is_inside(file, run_dir):
            raise HTTPException(404)
        return FileResponse(file, headers=HEADERS, media_type="text/html", filename=f"{name}.html")

    @router.get("/media/{kind}/{name}/{path:path}")
    def picture(kind: str, name: str, path: str, w: int | None = None) -> Response:
        if kind not in folder_of:
            raise HTTPException(404)
        file = _picture_in(existing_folder(folder_of[kind], name), path, _PICTURE_FOLDERS[kind])
        try:
            return _served(file if w is None else _thumbnail_asked(file, w, workspace))
        except FileNotFoundError:  # its run is being deleted
            raise HTTPException(404) from None

    return router


def _illustrations() -> APIRouter:
    """The routes of what mini's world draws."""
    router = APIRouter()

    @router.get("/media/samples/{name}/{scene}.webp")
    def sample_subject(name: str, scene: str) -> Response:
        if name not in SUBJECTS or scene not in SCENES:
            raise HTTPException(404)
        return _drawn(_draw_sample(name, scene))

    @router.get("/media/classes/{class_word}/{seed}.webp")
    def class_picture(class_word: str, seed: int) -> Response:
        if class_word not in CLASSES or not 0 <= seed < 100:
            raise HTTPException(404)
        return _drawn(_draw_class(class_word, seed))

    return router


def _masks_and_priors(workspace: Workspace) -> APIRouter:
    """The routes of masks and class images."""
    router = APIRouter()
    # Each size that is served is kept on the disk, so only those that the page asks for are.
    resolutions = {0, *SIZES_PX}

    @router.get("/media/masks/{subject_id}/{photo_id}/{view}")
    def mask(subject_id: str, photo_id: str, view: str, r: int = 0) -> Response:
        subject = Subject.read(existing_folder(workspace.subject_dir, subject_id))
        photo = subject.photo(photo_id)
        is_known = view in get_args(MaskView) and r in resolutions
        has_mask = photo is not None and (view == "paint" or subject.raw_mask(photo) is not None)
        if not (is_known and has_mask) or (view == "cells" and r == 0):
            raise HTTPException(404)
        return _served(_mask_picture(subject, photo, view, r, workspace.cache / "thumbnails"))

    @router.get("/media/priors/{model}/{name}/{file_name}")
    def class_image(model: str, name: str, file_name: str, w: int) -> Response:
        folder = _listed(_listed(workspace.priors, model), name)
        return _served(_thumbnail_asked(_picture_in(folder, file_name, (file_name,)), w, workspace))

    return router


def _served(file: Path) -> Response:
    return Response(file.read_bytes(), headers=HEADERS, media_type=_PICTURE_TYPES[file.suffix.lower()])


def _thumbnail_asked(file: Path, width_px: int, workspace: Workspace) -> Path:
    if width_px not in THUMBNAIL_WIDTHS:
        raise HTTPException(404)
    return _thumbnail(file, width_px, workspace.cache / "thumbnails")


def existing_folder(find: Callable[[str], Path], name: str) -> Path:
    """The folder of this name; 404 if there is none."""
    try:
        return find(name)
    except ValueError:
        raise HTTPException(404) from None


def _listed(folder: Path, name: str) -> Path:
    """The folder of this name in another, found by looking: a name is never joined to a path."""
    found = next((path for path in folder.iterdir() if path.name == name), None)
    if found is None or name.startswith(".") or found.is_symlink() or not found.is_dir():
        raise HTTPException(404)
    return found


def _mask_version(subject: Subject, photo: Path) -> str:
    raw = subject.raw_mask(photo)
    changed = raw.stat().st_mtime_ns if raw is not None else 0
    return _key(photo, changed, subject.grow, subject.feather, subject.invert)


def _mask_picture(subject: Subject, photo: Path, view: str, resolution: int, folder: Path) -> Path:
    """A picture of a mask, drawn once and kept under a name of all that decides it."""
    version = _mask_version(subject, photo)
    file = folder / f"mask-{view}-{resolution}-{version}{'.png' if view == 'paint' else '.webp'}"
    if view == "paint":
        return _kept(file, lambda: paintable_mask(subject, photo))
    raw, picture = subject.raw_mask(photo), _thumbnail(photo, PREVIEW_PX, folder)
    small = _kept(folder / f"{_key(raw, raw.stat().st_mtime_ns)}.png", lambda: small_mask(raw))
    if view == "overlay":
        return _kept(file, lambda: draw_overlay(picture, shaped_mask(subject, small, PREVIEW_PX)))
    geometry = framing(photo, resolution).geometry
    if isinstance(geometry, LeftOut):
        raise HTTPException(404)
    shaped = _kept(folder / f"mask-{version}.png", lambda: shaped_mask(subject, small, PREVIEW_PX))
    return _kept(file, lambda: draw_cells(picture, shaped, geometry))


def _kept(file: Path, draw: Callable[[], Image.Image]) -> Path:
    """The file, which is drawn if it is not there."""
    if not file.exists():
        with replace_file(file) as temporary:
            draw().save(temporary)
    return file


def _key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _picture_in(folder: Path, path: str, subfolders: tuple[str, ...]) -> Path:
    """The picture at a relative path, if it lies in one of the subfolders, links followed, and is one."""
    parts = PurePosixPath(path).parts
    file = folder / path
    is_plain = (
        bool(parts) and parts[0] in subfolders and not any(part.startswith((".", "/")) for part in parts)
    )
    if not is_plain or not is_picture(file) or not is_inside(file, folder):
        raise HTTPException(404)
    return file


def is_inside(file: Path, folder: Path) -> bool:
    """Whether a file is there and lies in the folder, links followed."""
    return file.is_file() and file.resolve().is_relative_to(folder.resolve())


def _thumbnail(file: Path, width_px: int, folder: Path) -> Path:
    """A copy of the picture at most `width_px` wide, kept under a name of the file's path and time."""
    with Image.open(file) as image:
        if image.width <= width_px:
            return file
        thumbnail = folder / f"{_key(file, file.stat().st_mtime_ns, width_px)}.webp"
        if not thumbnail.exists():
            image.thumbnail((width_px, 4 * width_px))
            with replace_file(thumbnail) as temporary:
                image.save(temporary, quality=82)
    return thumbnail


def _drawn(content: bytes) -> Response:
    headers = {**HEADERS, "Cache-Control": "private, max-age=86400"}
    return Response(content, media_type="image/webp", headers=headers)


@cache
def _draw_sample(name: str, scene: str) -> bytes:
    return _webp(draw_subject(name, scene, seed=7, size_px=_ILLUSTRATION_PX)[0])


@cache
def _draw_class(class_word: str, seed: int) -> bytes:
    colours, scenes = ("blue", "yellow", "red", "green"), ("table", "studio", "meadow", "beach")
    scenery = Scenery(class_word, colours[seed % 4], "plain", scenes[seed % 4])
    return _webp(render(scenery, seed, size_px=_ILLUSTRATION_PX).image)


def _webp(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "webp", quality=88)
    return buffer.getvalue()
