"""The `lookalikes` job: names and looks that a model knows and that resemble a subject's photos."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from dreamspace.data.photos import list_photos, read_photo
from dreamspace.evaluation.clip import Clip, clip_of
from dreamspace.files import write_json
from dreamspace.jobs.control import consume_control
from dreamspace.jobs.events import EventWriter
from dreamspace.prompts.advice import Found, advice, in_order
from dreamspace.prompts.drawing import base_model, draw_each, opened
from dreamspace.prompts.likeness import among_themselves, likeness
from dreamspace.prompts.names import Name, names_to_rank
from dreamspace.prompts.results import LOOKALIKES_NAME, LOOKALIKES_SHEET_NAME
from dreamspace.prompts.sheet import write_sheet

NUM_PROBED = 4


def lookalikes(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Rank names by CLIP into `lookalikes.json`; with `probe`, the best by the base model's own pictures.

    Args:
        arguments: `model`, `photos` (folder), `class_word`, `names` (list), `own_name` (or null), `probe`
            (bool), `clip` (what compares pictures; null takes the model's own or the usual one).

    Raises:
        ValueError: if there is no such model, or a photo cannot be read.
    """
    class_word = arguments["class_word"]
    model = base_model(arguments["model"], job_dir)
    clip = clip_of(model.folder, arguments["clip"], model.device)
    photos = [read_photo(path)[0] for path in list_photos(Path(arguments["photos"]))]
    if len(photos) == 1:
        events.write(
            "warning",
            message="There is one photo, so that likeness counts its background as much as the subject.",
            hint="Add photos in other places.",
        )
    names = names_to_rank(["", *arguments["names"]], class_word, arguments["own_name"])
    events.write("stage", name="comparing", message=f"Comparing {len(photos)} photos and {len(names)} names.")
    embedded = clip.embed_pictures(photos)
    found = _by_clip(clip, embedded, names)
    report = _Report(job_dir, arguments, photos, among_themselves(embedded))
    report.write(found, {})
    if arguments["probe"]:
        asked = _to_draw(found)
        drawn = draw_each(model, [entry.name.prompt for entry in asked], job_dir, events)
        if drawn is None:
            consume_control(job_dir, "stop")
            events.write("stopped", path=LOOKALIKES_NAME)
            return
        alike = {
            prompt: likeness(clip.embed_pictures(opened(job_dir, paths)), embedded)
            for prompt, paths in drawn.items()
        }
        found = [replace(entry, likeness=alike.get(entry.name.prompt)) for entry in found]
        report.write(found, drawn)
    events.write("done", path=LOOKALIKES_NAME)


def _by_clip(clip: Clip, photos: Tensor, names: Sequence[Name]) -> list[Found]:
    cosines = (photos @ clip.embed_prompts([name.prompt for name in names]).T).mean(dim=0).tolist()
    return [Found(name, cosine) for name, cosine in zip(names, cosines, strict=True)]


def _to_draw(found: Sequence[Found]) -> list[Found]:
    """The subject's own name first, the class alone, and the best others."""
    own = [entry for entry in found if entry.name.is_own]
    of_class = [entry for entry in found if not entry.name.text]
    others = [entry for entry in in_order(found) if entry.name.text and not entry.name.is_own]
    return [*own, *of_class, *others[:NUM_PROBED]]


class _Report:
    """Writes `lookalikes.json`, and the contact sheet where there are pictures."""

    def __init__(
        self, job_dir: Path, arguments: dict[str, Any], photos: Sequence[Image.Image], alike: float | None
    ) -> None:
        self.job_dir, self.arguments, self.photos, self.alike = job_dir, arguments, photos, alike

    def write(self, found: Sequence[Found], drawn: dict[str, list[Path]]) -> None:
        """Write both.

        Args:
            drawn: by prompt, the base model's pictures.
        """
        class_word = self.arguments["class_word"]
        entries = in_order(found)
        of_class = next(entry for entry in entries if not entry.name.text)
        chosen, why = advice(entries, class_word)
        write_json(
            self.job_dir / LOOKALIKES_NAME,
            {
                "model": self.arguments["model"],
                "photos": self.arguments["photos"],
                "class_word": class_word,
                "photos_likeness": self.alike,
                "recommended": chosen,
                "advice": why,
                "names": [
                    {
                        "name": entry.name.text,
                        "prompt": entry.name.prompt,
                        "is_own": entry.name.is_own,
                        "clip": entry.clip,
                        "likeness": entry.mean_likeness,
                        "reason": entry.reason(of_class),
                        "pictures": [str(path) for path in drawn.get(entry.name.prompt, [])],
                    }
                    for entry in entries
                ],
            },
        )
        if drawn:
            num_seeds = len(next(iter(drawn.values())))
            rows = [("photos", "of the subject", self.photos[:num_seeds])]
            rows += [
                (
                    entry.name.text or class_word,
                    entry.reason(of_class),
                    opened(self.job_dir, drawn[entry.name.prompt]),
                )
                for entry in entries
                if entry.name.prompt in drawn
            ]
            write_sheet(rows, self.job_dir / LOOKALIKES_SHEET_NAME)
