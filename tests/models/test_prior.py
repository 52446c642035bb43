"""Class images: the same call draws the same images, and goes on where it was cut off."""

from pathlib import Path

from tiny_runs import draw_photos

from dreamspace.jobs.control import request
from dreamspace.jobs.events import EventWriter, read_events
from dreamspace.models.base import BaseModel
from dreamspace.models.class_images import draw_class_images
from dreamspace.models.prior import prior
from dreamspace.models.sampling import SamplingSettings

SETTINGS = SamplingSettings(64, 64, num_inference_steps=2, guidance_scale=3.0)
PROMPTS = ["a photo of a dog", "a dog"]


def draw(
    model: BaseModel, folder: Path, count: int = 6, *, max_batches: int = 9, seed: int = 0
) -> list[tuple]:
    """Draw; returns the reported progress."""
    folder.mkdir(exist_ok=True)
    progress: list[tuple[int, int]] = []
    draw_class_images(
        model,
        PROMPTS,
        count,
        seed,
        folder,
        SETTINGS,
        lambda done, total: progress.append((done, total)),
        lambda: len(progress) > max_batches,
    )
    return progress


def images(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_same_call_draws_the_same_images(model: BaseModel, tmp_path: Path) -> None:
    assert draw(model, tmp_path / "first") == [(0, 6), (4, 6), (6, 6)]
    draw(model, tmp_path / "second")
    assert images(tmp_path / "first") == images(tmp_path / "second")
    assert len(images(tmp_path / "first")) == 6
    draw(model, tmp_path / "other", seed=100)
    assert not set(images(tmp_path / "other")) & set(images(tmp_path / "first"))


def test_call_that_was_cut_off_goes_on_where_it_was(model: BaseModel, tmp_path: Path) -> None:
    draw(model, tmp_path / "whole")
    assert draw(model, tmp_path / "cut", max_batches=1) == [(0, 6), (4, 6)]
    half = images(tmp_path / "cut")
    assert len(half) == 4
    assert draw(model, tmp_path / "cut") == [(4, 6), (6, 6)]
    assert images(tmp_path / "cut") == images(tmp_path / "whole")
    assert draw(model, tmp_path / "cut") == [], "nothing is loaded for nothing"


def test_photos_that_are_there_count(model: BaseModel, tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "classes", 4)
    assert draw(model, folder) == [(4, 6), (6, 6)]
    assert len(images(folder)) == 6
    assert draw(model, folder, count=3) == []


def test_prior_job_ends_with_done_or_stopped(tiny_model: Path, tmp_path: Path) -> None:
    job_dir, out = tmp_path / "job", tmp_path / "out"
    job_dir.mkdir()
    arguments = {
        "model": str(tiny_model),
        "prompts": PROMPTS,
        "count": 2,
        "seed": 0,
        "out": str(out),
    }
    request(job_dir, "stop")
    prior(job_dir, arguments, EventWriter(job_dir))
    last = read_events(job_dir / "events.jsonl")[0][-1]
    assert (last["kind"], last["step"], last["path"]) == ("stopped", 0, str(out))
    prior(job_dir, arguments, EventWriter(job_dir))
    events = read_events(job_dir / "events.jsonl")[0]
    assert (events[-1]["kind"], events[-1]["step"]) == ("done", 2)
    assert events[-2]["message"] == "Drawing class images: 2 of 2."
    assert len(images(out)) == 2
