"""The `caption` job: a caption for each photo of a folder."""

from pathlib import Path
from typing import Any

from dreamspace.data.captions import caption_file, write_caption
from dreamspace.data.photos import list_photos, read_photo
from dreamspace.jobs.control import consume_control, stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.models.captioner import Captioner
from dreamspace.models.device import best_device


def caption(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Write a caption beside each photo; a photo that cannot be captioned becomes a warning.

    The last event's step is the number of captions written, its path the folder's full path, because it
    lies outside the job's.

    Args:
        arguments: `photos` (folder), `model` (folder or Hub id), `prefix` (text before each caption, "" for
            none), `overwrite` (write the captions anew that are there).

    Raises:
        ValueError: if the folder holds no photo, the model cannot be had, or no caption could be written.
    """
    folder = Path(arguments["photos"])
    photos = list_photos(folder)
    if not arguments["overwrite"]:
        photos = [photo for photo in photos if caption_file(photo) is None]
    num_done = num_written = 0
    _report(events, num_done, len(photos))
    captioner = Captioner(arguments["model"], best_device()) if photos else None
    for photo in photos:
        if stop_requested(job_dir):
            break
        try:
            text = captioner.caption(read_photo(photo)[0])
            write_caption(photo, f"{arguments['prefix'].rstrip()} {text}".strip())
            num_written += 1
        except ValueError as error:
            hint = "Write its caption by hand, or leave it out."
            events.write("warning", message=f"{photo.name} has no new caption. {error}", hint=hint)
        num_done += 1
        _report(events, num_done, len(photos))
    if num_done == len(photos) > num_written == 0:
        raise ValueError(f"None of the photos in {folder} could be captioned. The warnings say why.")
    stopped = num_done < len(photos) and consume_control(job_dir, "stop")
    events.write("stopped" if stopped else "done", step=num_written, path=folder)


def _report(events: EventWriter, done: int, total: int) -> None:
    message = f"Captioning photos: {done} of {total}." if total else "Every photo has a caption already."
    events.write("stage", name="captioning", message=message)
    events.write("progress", step=done, num_steps=total, steps_per_second=None, eta_seconds=None)
