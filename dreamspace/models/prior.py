"""The `prior` job: class images by the base model."""

from pathlib import Path
from typing import Any

from dreamspace.jobs.control import consume_control, stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.base import base_config, open_model
from dreamspace.models.class_images import class_image_settings, draw_class_images
from dreamspace.models.preview_choice import new_previewer
from dreamspace.models.previews import PreviewSink, announced_previews


def prior(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Draw class images into a folder, with previews; those that are there already are kept.

    The last event's path is the folder's full path, because it lies outside the job's.

    Args:
        arguments: `model`, the `model_settings` of the run that it is for, `prompts` (list), `count`, `seed`,
            `out` (folder).
    """
    model = open_model(base_config(arguments["model"], arguments["model_settings"]), cache_of(job_dir))
    out, count = Path(arguments["out"]), arguments["count"]
    num_inference_steps = class_image_settings(model).num_inference_steps

    def on_progress(done: int, total: int) -> None:
        events.write("stage", name="prior", message=f"Drawing class images: {done} of {total}.")
        events.write("progress", step=done, num_steps=total, steps_per_second=None, eta_seconds=None)

    def previews(prompts: list[str], first_index: int, seeds: list[int]) -> PreviewSink:
        return announced_previews(
            events, job_dir, prompts, num_inference_steps, seeds=seeds, first_index=first_index
        )

    done = draw_class_images(
        model,
        arguments["prompts"],
        count,
        out,
        on_progress,
        lambda: stop_requested(job_dir),
        arguments["seed"],
        lambda: new_previewer(model, events),
        previews,
    )
    stopped = done < count and consume_control(job_dir, "stop")
    events.write("stopped" if stopped else "done", step=done, path=out)
