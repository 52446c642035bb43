"""Stable eval loss: what it is measured on, and that it says the same of the same weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import cropped_dataset, draw_photos, events_of, train_here, write_run_folder

from dreamspace.config import DatasetConfig
from dreamspace.jobs.events import EventWriter
from dreamspace.training.run import begin

EVAL = {"eval_loss_disable": False, "eval_timesteps": 5, "validation_disable": True, "validation_prompts": []}

Begun = Callable[..., Any]


@pytest.fixture
def datasets(photos: Path, tmp_path: Path) -> list[DatasetConfig]:
    """Four photos to train on, and two to measure on."""
    held_out = draw_photos(tmp_path / "held out", 2, first=20)
    return [cropped_dataset(photos), cropped_dataset(held_out, id="held out", dataset_type="eval")]


@pytest.fixture
def begun(tmp_path: Path, tiny_model: Path) -> Begun:
    """A run that has read its photos, and has taken no step."""

    def begin_run(datasets: Path | list[DatasetConfig], **settings: Any):
        write_run_folder(tmp_path / "run", tiny_model, datasets, **EVAL | settings)
        run, _ = begin(tmp_path / "run", EventWriter(tmp_path / "run"))
        run.state.adapter.denoiser.eval()
        return run

    return begin_run


def test_two_measurements_of_the_same_weights_agree_to_the_last_bit_and_of_others_do_not(
    begun: Begun, datasets: list[DatasetConfig]
):
    run = begun(datasets)
    denoiser = run.state.adapter.denoiser
    first = run.eval_loss.measure(denoiser)
    torch.manual_seed(1)  # What the training draws in between changes nothing.
    assert run.eval_loss.measure(denoiser) == first
    with torch.no_grad():
        for weight in run.state.adapter.parameters:
            weight.add_(0.05)
    assert run.eval_loss.measure(denoiser) != first


def test_it_is_the_mean_squared_error_at_each_timestep(begun: Begun, datasets: list[DatasetConfig]):
    run = begun(datasets)
    measured, denoiser = run.eval_loss.measure(run.state.adapter.denoiser), run.state.adapter.denoiser
    ((name, found),) = measured.items()
    assert name == "held out"
    assert [timestep for timestep, _ in found] == [100, 300, 500, 700, 900]
    assert len(run.eval_loss.photos[name]) == 2
    scheduler = run.model.noise_scheduler()
    for timestep, loss in found:
        errors = []
        for photo in run.eval_loss.photos[name]:
            noise = run.eval_loss._noise(photo, timestep)
            noisy = scheduler.add_noise(photo.latents[None], noise[None], torch.tensor([timestep]))
            embeds = run.eval_loss.conditioning[photo.caption]["prompt_embeds"][None]
            with torch.no_grad():
                prediction = denoiser(noisy, torch.tensor([timestep]), embeds).sample
            errors.append((prediction - noise).square().mean().item())
        assert loss == pytest.approx(sum(errors) / 2, rel=1e-5)


def test_held_out_photos_are_measured_and_never_trained_on(begun: Begun, tmp_path: Path):
    run = begun(draw_photos(tmp_path / "seven", 7), held_out_photos=True)
    (held_out,) = events_of(tmp_path / "run", "mixture")[0]["held_out"]
    assert [photo.sample.path.name for photo in run.eval_loss.photos["subject"]] == [held_out]


def test_where_nothing_is_held_out_nothing_is_measured(begun: Begun, photos: Path):
    run = begun(photos)
    assert run.eval_loss.measure(run.state.adapter.denoiser) == {}


def test_as_many_photos_are_measured_as_the_configuration_says(begun: Begun, datasets: list[DatasetConfig]):
    assert len(begun(datasets, num_eval_images=1).eval_loss.photos["held out"]) == 1


def test_datasets_are_measured_apart_or_pooled(begun: Begun, photos: Path, tmp_path: Path):
    datasets = [
        cropped_dataset(photos),
        *(
            cropped_dataset(draw_photos(tmp_path / name, 2, first), id=name, dataset_type="eval")
            for name, first in (("near", 20), ("far", 30))
        ),
    ]
    apart = begun(datasets)
    measured = apart.eval_loss.measure(apart.state.adapter.denoiser)
    assert set(measured) == {"near", "far"}
    pooled = begun(datasets, eval_dataset_pooling=True)
    ((name, mean),) = pooled.eval_loss.measure(pooled.state.adapter.denoiser).items()
    assert name == "all"
    for row, (timestep, loss) in enumerate(mean):
        assert timestep == measured["near"][row][0]
        assert loss == pytest.approx((measured["near"][row][1] + measured["far"][row][1]) / 2)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"eval_steps_interval": 2}, [0, 2, 4, 5]),
        ({"eval_epoch_interval": 0.5}, [0, 1, 2, 3, 4, 5]),
        ({"eval_epoch_interval": 2}, [0, 4, 5]),
        ({"validation_step_interval": 3}, [0, 3, 5]),
        ({"eval_loss_disable": True}, []),
    ],
)
def test_it_is_measured_when_the_configuration_says(
    tmp_path: Path,
    tiny_model: Path,
    datasets: list[DatasetConfig],
    settings: dict[str, Any],
    steps: list[int],
):
    quick = {"max_train_steps": 5, "gradient_accumulation_steps": 1, "lr_scheduler": "constant"}
    write_run_folder(tmp_path / "run", tiny_model, datasets, **EVAL | quick | settings)
    train_here(tmp_path / "run")
    events = events_of(tmp_path / "run", "eval_loss")
    assert [event["step"] for event in events] == steps
    for event in events:
        mean = sum(loss for _, loss in event["by_timestep"]) / 5
        assert event["loss"] == pytest.approx(mean)
    assert json.dumps(events)
