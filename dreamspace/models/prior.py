"""The `prior` job: class images by the base model."""

from pathlib import Path
from typing import Any

from dreamspace.jobs.control import consume_control, stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.base import open_model
from dreamspace.models.class_images import draw_class_images
from dreamspace.models.sampling import SamplingSettings


def prior(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Draw class images into a folder; those that are there already are kept.

    Args:
        arguments: `model`, `prompts` (list), `count`, `seed`, `out` (folder).
    """
    model = open_model(arguments["model"], arguments.get("family", "sd1x"), cache_of(job_dir))
    out = Path(arguments["out"])
    count = arguments["count"]
    resolution_px = model.family.native_resolution_px(model.folder)
    settings = SamplingSettings(resolution_px, resolution_px, num_inference_steps=20, guidance_scale=5.0)

    def on_progress(done: int, total: int) -> None:
        events.write("stage", name="prior", message=f"Drawing class images: {done} of {total}.")

    done = draw_class_images(
        model,
        arguments["prompts"],
        count,
        arguments["seed"],
        out,
        settings,
        on_progress,
        lambda: stop_requested(job_dir),
    )
    stopped = done < count and consume_control(job_dir, "stop")
    events.write("stopped" if stopped else "done", step=done, path=out)
