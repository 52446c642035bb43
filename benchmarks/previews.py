"""What previews add to the drawing of validation images, on mini.

    python -m benchmarks.previews [--rounds N]

In CPU-seconds on one core: those of the callback and of the thread that writes pictures and events, as they
are spent, against the rest of the drawing. The difference of two drawings is less than what other work does
to them.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dreamspace.config import RunConfig
from dreamspace.data.cache import pixels_of
from dreamspace.jobs.events import EventWriter
from dreamspace.mini.subjects import subject_photos
from dreamspace.models.base import open_model
from dreamspace.models.preview_choice import new_previewer
from dreamspace.models.previews import PreviewCallback, Previewer, announced_previews
from dreamspace.models.sampling import SamplingSettings, sample_images

PROMPTS = ["a photo of a dog on the beach", "a photo of a red mug on a wooden table"]
EDGE_PX = 128

spent_seconds: list[float] = []


def timed(method: Callable) -> Callable:
    """The method, which notes the CPU-seconds of its thread."""

    def measured(*arguments: Any) -> Any:
        started = time.thread_time()
        try:
            return method(*arguments)
        finally:
            spent_seconds.append(time.thread_time() - started)

    return measured


def drawing(folder: Path) -> Callable[[Previewer, int], tuple[float, float]]:
    """Draws two images, with previews at every so many steps; returns CPU-seconds: of these, and the rest."""
    model = open_model(RunConfig(), folder / "cache", torch.device("cpu"))
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae())
    conditioning = model.encode_prompts([*PROMPTS, ""])
    rows = [conditioning[prompt] for prompt in PROMPTS]
    events = EventWriter(folder)

    def draw(previewer: Previewer, every: int) -> tuple[float, float]:
        settings = SamplingSettings(EDGE_PX, EDGE_PX, 20, 5.0, every)
        spent_seconds.clear()
        started = time.process_time()
        sink = announced_previews(events, folder, PROMPTS, settings.num_inference_steps, seeds=[1, 2], step=0)
        sample_images(model.family, pipeline, rows, conditioning[""], [1, 2], settings, previewer, sink)
        spent = sum(spent_seconds)
        return spent, time.process_time() - started - spent

    return draw


def previewers(folder: Path) -> dict[str, Previewer]:
    """As a run on a sample subject has them, and the map alone."""
    model = open_model(RunConfig(), folder / "cache", torch.device("cpu"))
    photos = [photo.resize((EDGE_PX, EDGE_PX)) for photo, _ in subject_photos("biscuit")]
    pictures = [pixels_of(photo) for photo in photos]
    latents = list(model.family.encode_image(model.load_vae(), torch.stack(pictures)))
    both = new_previewer(model, EventWriter(folder), None, latents, pictures)
    alone = Previewer(model.family, None, both.linear)
    return {"tiny decoder and linear map": both, "linear map": alone}


def main(rounds: int) -> None:
    """Print a table of ratios."""
    torch.set_num_threads(1)
    PreviewCallback.__call__ = timed(PreviewCallback.__call__)
    PreviewCallback._send = timed(PreviewCallback._send)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw, shown = drawing(folder), previewers(folder)
        print("| previews by | at each step number | previews (CPU s) | the rest (CPU s) | ratio |")
        print("| --- | --- | --- | --- | --- |")
        for (name, previewer), every in itertools.product(shown.items(), (1, 5)):
            draw(previewer, every)
            times = [draw(previewer, every) for _ in range(rounds)]
            spent, rest = (statistics.median(each) for each in zip(*times, strict=True))
            ratio = 1 + statistics.median(mine / other for mine, other in times)
            print(f"| {name} | {every} | {spent:.3f} | {rest:.3f} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    main(parser.parse_args().rounds)
