"""The `mask` job: a mask of the subject for each photo of a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreamspace.data.grabcut import grabcut
from dreamspace.data.mask_shaping import MaskShaping, is_empty, shape
from dreamspace.data.masks import MASK_METHODS
from dreamspace.data.photos import PhotoError, list_photos, read_photo
from dreamspace.files import replace_file
from dreamspace.jobs.control import consume_control, stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.models.device import best_device
from dreamspace.models.segmentation import best_available, open_segmenter
from dreamspace.suggest import nearest

FindSubject = Callable[[Image.Image], np.ndarray]
"""An RGB photo to its mask, (H, W) float32 in [0, 1], at the photo's size."""


def mask(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Write `<photo's stem>.png` (L, the photo's upright size) for each photo; existing masks are kept.

    Where no subject is found the mask is all white, and a warning says so. The last event's path is the
    folder's full path, because it lies outside the job's.

    Args:
        arguments: `photos` (folder), `out` (folder), `subject_text` such as "dog", `method` (one of
            `MASK_METHODS`), `model` (see `open_segmenter`; None for the method's default), `overwrite`, and
            the fields of `MaskShaping`.

    Raises:
        ValueError: if there is no photo, no such method, or its model cannot be had.
    """
    photos, out = list_photos(Path(arguments["photos"])), Path(arguments["out"])
    shaping = MaskShaping(**{name: arguments[name] for name in MaskShaping.__dataclass_fields__})
    _refuse_shared_stems(photos)
    missing = [photo for photo in photos if arguments["overwrite"] or not mask_path(out, photo).exists()]
    done = 0
    _report(events, done, len(missing))
    if missing:
        name, find_subject = _method(arguments["method"], arguments["model"], arguments["subject_text"])
        events.write("stage", name="masking", message=f"Masking by {name}.")
    for photo in missing:
        if stop_requested(job_dir):
            break
        try:
            picture, _ = read_photo(photo)
        except PhotoError as error:
            events.write("warning", message=f"No mask of {error}", hint="Leave this photo out.")
        else:
            _write_mask(find_subject(picture), shaping, mask_path(out, photo), events)
        done += 1
        _report(events, done, len(missing))
    stopped = done < len(missing) and consume_control(job_dir, "stop")
    events.write("stopped" if stopped else "done", step=done, path=out)


def mask_path(folder: Path, photo: Path) -> Path:
    """Where the mask of a photo lies in the folder of masks."""
    return folder / f"{photo.stem}.png"


def _refuse_shared_stems(photos: list[Path]) -> None:
    """Raise ValueError if two photos would share a mask."""
    by_stem = {photo.stem: photo for photo in reversed(photos)}
    for photo in photos:
        if by_stem[photo.stem] != photo:
            raise ValueError(
                f"{by_stem[photo.stem].name} and {photo.name} would share the mask {photo.stem}.png. "
                "Rename one of the photos."
            )


def _method(method: str, model: str | None, subject_text: str) -> tuple[str, FindSubject]:
    """The name of the method that is taken, and what finds the subject by it."""
    if method not in MASK_METHODS:
        raise ValueError(
            f"There is no method '{method}' to mask by.{nearest(method, MASK_METHODS)} "
            f"Known: {', '.join(MASK_METHODS)}."
        )
    chosen = (best_available(model) or "grabcut") if method == "auto" else method
    if chosen == "grabcut":
        return "grabcut", lambda photo: grabcut(np.asarray(photo))
    if not subject_text.strip():
        raise ValueError(
            f"The method {chosen} finds the subject by its name. Give it by --subject-text, such as dog."
        )
    segmenter = open_segmenter(chosen, model, best_device())
    return segmenter.name, lambda photo: segmenter.mask(photo, subject_text)


def _write_mask(raw: np.ndarray, shaping: MaskShaping, path: Path, events: EventWriter) -> None:
    # A threshold says what counts as found, even on a map that is faint throughout.
    found = shape(raw, MaskShaping(threshold=shaping.threshold))
    shaped = shape(raw, shaping)
    if is_empty(found) or is_empty(shaped):
        what = "No subject was found in" if is_empty(found) else "Shaping leaves nothing of the subject in"
        events.write(
            "warning",
            message=f"{what} {path.stem}, so all of this photo counts.",
            hint="Try another method or shaping, or paint the mask.",
        )
        shaped = np.ones_like(raw)
    with replace_file(path) as temporary:
        Image.fromarray(np.round(shaped * 255).astype(np.uint8)).save(temporary, format="PNG")


def _report(events: EventWriter, done: int, total: int) -> None:
    message = f"Masking photos: {done} of {total}." if total else "Every photo has a mask already."
    events.write("stage", name="masking", message=message)
    events.write("progress", step=done, num_steps=total, steps_per_second=None, eta_seconds=None)
