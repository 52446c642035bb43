"""How long a run takes, and what it costs."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamspace.config import RunConfig, load_datasets, load_preset, parse_dataset
from dreamspace.data.plan import PlannedDataset, StepPlan
from dreamspace.estimate.hardware import SPACES
from dreamspace.estimate.profiles import known_profile
from dreamspace.estimate.speed import (
    FORWARD_COST,
    PastRun,
    Speed,
    estimate_time,
    expected_speed,
    mean_rollout_steps,
    measured_seconds_per_row,
    prior_share,
    rows_per_step,
)
from dreamspace.jobs.new_run import write_run

MINI = load_preset("mini").config
SPEED = Speed(seconds_per_row=0.03, seconds_per_denoising_step=0.035)
GUIDE = {
    "scheduled_sampling_max_step_offset": 10,
    "scheduled_sampling_probability": 1.0,
    "scheduled_sampling_ramp_steps": 400,
}


@pytest.mark.parametrize(
    ("num_photos", "num_class_images"),
    [(6, 24), (6, 1000), (24, 5), (7, 10), (6, 6), (10, 25), (4, 10), (25, 10)],
)
@pytest.mark.parametrize("prior", ["none", "image-free", "noise", "base"])
def test_the_share_of_the_prior_is_what_the_plan_of_the_written_run_shows(
    tmp_path: Path, prior: str, num_photos: int, num_class_images: int
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(num_photos):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(photos / f"{number}.png")
    run_dir, prior_dir = tmp_path / "run", tmp_path / "priors" / "dog"
    write_run(
        run_dir, load_preset("mini"), photos,
        class_word="dog", prior=prior, prior_dir=prior_dir, settings=["held_out_photos=false"],
        num_class_images=num_class_images if prior in ("noise", "base") else 0,
    )  # fmt: skip
    planned = []
    for dataset in load_datasets(run_dir / "multidatabackend.json"):
        count = num_photos if dataset.instance_data_dir == photos else num_class_images
        planned.append(PlannedDataset(dataset.id, ((128, 128),) * count, dataset.repeats + 1))
    plan = StepPlan(planned, seed=1, step_rows=4)
    mixture = plan.mixture(plan.epoch_steps())
    assert prior_share(prior, num_photos, num_class_images) == pytest.approx(mixture.get("prior", 0.0))


def test_a_run_is_its_steps_its_images_and_its_start() -> None:
    plain = estimate_time(MINI, "none", 0.0, SPEED)
    assert plain.seconds == pytest.approx(
        15 + plain.num_steps * plain.seconds_per_step + plain.num_images * plain.seconds_per_image
    )
    judged = (8 + 2) * 2  # images of eight prompts and two that should not show the subject, two seeds each
    # Four prompts, before and after each 100 of 400 steps; the base model and four checkpoints are judged.
    assert plain.num_images == 4 * 5 + judged * 5
    unjudged = MINI.model_copy(update={"evaluate_checkpoints": False})
    assert estimate_time(unjudged, "none", 0.0, SPEED).num_images == 4 * 5
    averaged = MINI.model_copy(update={"use_ema": True, "token": "sks", "class_word": "dog"})
    assert estimate_time(averaged, "none", 0.0, SPEED).num_images == 4 * 5 + (8 + 4) * 2 * 9
    assert (plain.prior_seconds, plain.rollout_seconds, plain.is_measured) == (0.0, 0.0, False)
    uneven = MINI.model_copy(update={"max_train_steps": 410})
    last = estimate_time(uneven, "none", 0.0, SPEED)
    assert last.num_images == (4 + judged) * 6, "the last step has its own images"
    with_images = MINI.model_copy(update={"num_class_images": 24})
    drawn = [estimate_time(with_images, "noise", 0.5, SPEED, ready) for ready in (0, 10, 30)]
    assert [found.num_class_images for found in drawn] == [24, 14, 0]
    assert [found.prior_seconds for found in drawn] == pytest.approx([24 * 0.7, 14 * 0.7, 0.0])
    assert drawn[0].seconds == pytest.approx(plain.seconds + drawn[0].prior_seconds)
    base = estimate_time(with_images, "base", 0.5, SPEED, 24)
    assert base.prior_seconds == pytest.approx(400 * plain.seconds_per_step * FORWARD_COST * 0.5)
    assert base.seconds == pytest.approx(plain.seconds + base.prior_seconds)


def test_an_earlier_run_tells_the_speed_of_this_machine() -> None:
    photos, prior = (
        parse_dataset(
            {
                "id": name,
                "type": "local",
                "instance_data_dir": name,
                "instance_prompt": "a dog",
                "is_regularisation_data": is_prior,
            }
        )
        for name, is_prior in (("subject", False), ("prior", True))
    )
    progress: Any = {"steps_per_second": 2.0}
    mixture: Any = {"datasets": {"subject": 0.5, "prior": 0.5}}
    untold, plain = PastRun(MINI, (photos,), None, None), PastRun(MINI, (photos,), progress, None)
    per_row = measured_seconds_per_row([untold, plain], MINI)
    assert per_row == 0.5 / rows_per_step(MINI)
    speed = expected_speed(MINI, known_profile(MINI), (128, 128), SPACES["cpu-basic"], per_row)
    again = estimate_time(MINI, "none", 0.0, speed)
    assert again.is_measured
    assert again.seconds_per_step == pytest.approx(0.5)
    assert again.num_images == 4 + 100, "those between the steps are in the measured speed"
    costly = PastRun(MINI, (photos, prior), progress, mixture)
    per_row = measured_seconds_per_row([costly], MINI)
    assert per_row == pytest.approx(0.5 / 4 / (1 + FORWARD_COST * 0.5))
    other = MINI.model_copy(update={"pretrained_model_name_or_path": "owner/big"})
    assert measured_seconds_per_row([plain], other) is None
    assert expected_speed(other, known_profile(other), (64, 64), SPACES["cpu-basic"]) is None
    assert expected_speed(other, None, (64, 64), SPACES["cpu-basic"], 0.1).seconds_per_row == 0.1


def test_mini_takes_on_two_cores_what_was_measured() -> None:
    speed = expected_speed(MINI, known_profile(MINI), (128, 128), SPACES["cpu-basic"])
    assert speed.seconds_per_row == pytest.approx(0.03, rel=0.25)
    assert speed.seconds_per_denoising_step == pytest.approx(0.035, rel=0.25)


@pytest.mark.parametrize(
    ("model", "hardware", "size_px", "checkpointing", "seconds"),
    [
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "l40sx1", 512, False, 0.176),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "l40sx1", 512, True, 0.292),
        ("stabilityai/stable-diffusion-xl-base-1.0", "l40sx1", 1024, False, 0.585),
        ("stabilityai/stable-diffusion-xl-base-1.0", "l40sx1", 1024, True, 1.029),
    ],
)
def test_the_speed_is_in_the_range_of_what_simpletuner_publishes(
    model: str, hardware: str, size_px: int, checkpointing: bool, seconds: float
) -> None:
    config = RunConfig(
        pretrained_model_name_or_path=model,
        train_batch_size=1,
        mixed_precision="bf16",
        gradient_checkpointing=checkpointing,
    )
    speed = expected_speed(config, known_profile(config), (size_px, size_px), SPACES[hardware])
    assert speed.seconds_per_row == pytest.approx(seconds, rel=0.5)


def test_money_is_hours_times_the_price() -> None:
    time = estimate_time(MINI, "none", 0.0, Speed(3.0, 3.0))
    assert time.cost_usd(SPACES["l4x1"]) == pytest.approx(time.seconds / 3600 * 0.80)


@pytest.mark.parametrize(
    ("settings", "mean"),
    [
        ({}, 0.0),
        ({"max_step_offset": 10, "probability": 1.0}, 5.0),
        ({"max_step_offset": 10, "probability": 1.0, "ramp_steps": 400}, 2.5),
        ({"max_step_offset": 10, "probability": 1.0, "ramp_steps": 1600}, 0.625),
        ({"max_step_offset": 10, "probability": 1.0, "ramp_steps": 100, "start_step": 200}, 1.875),
        ({"max_step_offset": 10, "prob_end": 0.5, "strategy": "biased_late"}, 10 / 3),
    ],
)
def test_a_rollout_costs_its_mean_length(settings: dict[str, object], mean: float) -> None:
    given = {f"scheduled_sampling_{name}": value for name, value in settings.items()}
    assert mean_rollout_steps(MINI.model_copy(update=given)) == pytest.approx(mean, rel=0.01)


def test_the_mean_length_is_that_of_the_rows_of_a_run() -> None:
    rollout = pytest.importorskip("dreamspace.training.rollout")
    config = MINI.model_copy(update=GUIDE | {"max_train_steps": 400})
    lengths = [rollout.rollout_length(1, step, row, config) for step in range(400) for row in range(16)]
    assert sum(lengths) / len(lengths) == pytest.approx(mean_rollout_steps(config), rel=0.05)
