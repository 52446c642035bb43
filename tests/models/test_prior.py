"""Class images: the same call draws the same images, and goes on where it was cut off."""

from pathlib import Path

import pytest
from tiny_runs import draw_photos

from dreamspace.config import DatasetConfig
from dreamspace.data.samples import read_samples
from dreamspace.jobs.control import request
from dreamspace.jobs.events import EventWriter, read_events
from dreamspace.models import class_images
from dreamspace.models.base import BaseModel
from dreamspace.models.class_images import draw_class_images
from dreamspace.models.prior import prior

PROMPTS = ["a photo of a dog", "a dog"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_images, "NUM_INFERENCE_STEPS", 2)


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
        folder,
        lambda done, total: progress.append((done, total)),
        lambda: len(progress) > max_batches,
        seed,
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


def test_own_photos_count_and_come_first(model: BaseModel, tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "classes", 4)
    (folder / "00.png").rename(folder / "your dog.png")
    own = set(images(folder))
    assert draw(model, folder) == [(4, 6), (6, 6)]
    assert len(images(folder)) == 6
    assert draw(model, folder, count=3) == []
    assert {path.name for path in first(folder, 4)} == own


def test_fewer_images_are_the_first_of_more_whatever_was_drawn_before(
    model: BaseModel, tmp_path: Path
) -> None:
    draw(model, tmp_path / "few", count=3)
    draw(model, tmp_path / "many", count=6)
    assert draw(model, tmp_path / "many", count=3) == []
    planned = [path.read_bytes() for path in first(tmp_path / "many", 3)]
    assert planned == list(images(tmp_path / "few").values())


def first(folder: Path, count: int) -> list[Path]:
    """The photos that a training with so many class images takes."""
    dataset = DatasetConfig(
        id="prior", instance_data_dir=folder, instance_prompt="x", resolution=64, max_num_samples=count
    )
    return [sample.path for sample in read_samples(dataset, [dataset], 16, 0)[0]]


def test_prior_job_ends_with_done_or_stopped(tiny_model: Path, tmp_path: Path) -> None:
    job_dir, out = tmp_path / "job", tmp_path / "out"
    job_dir.mkdir()
    arguments = {
        "model": str(tiny_model),
        "model_settings": {},
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
    assert (events[-2]["kind"], events[-2]["step"], events[-2]["num_steps"]) == ("progress", 2, 2)
    assert events[-3]["message"] == "Drawing class images: 2 of 2."
    assert len(images(out)) == 2
