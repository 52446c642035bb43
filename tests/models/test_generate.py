"""The `generate` job: the run's own images again, from the run, a checkpoint, or the adapter's folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tiny_runs import (
    INSTANCE_PROMPT,
    QUICK,
    SETTINGS,
    assert_refused,
    events_of,
    train_here,
    write_run_folder,
)

from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import Workspace
from dreamspace.models.generate import generate
from dreamspace.run_folder import WEIGHTS_NAME
from dreamspace.training.proof import grey_levels_apart

SEED = 42  # of the run's validation
LAST_STEP = SETTINGS["max_train_steps"]


def validation(run_dir: Path, step: int, name: str = "0.png") -> Image.Image:
    return Image.open(run_dir / "validation" / f"step-{step:06d}" / name)


@pytest.mark.parametrize("which", ["run", "checkpoint", "adapter"])
def test_run_checkpoint_and_adapter_draw_the_validation_image(
    which: str, shell: Callable, finished_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = {
        "run": ["--run", finished_run],
        "checkpoint": ["--run", finished_run, "--checkpoint", LAST_STEP],
        "adapter": ["--model", tiny_model, "--adapter", finished_run / "adapter", "--steps", 2],
    }[which]
    result = shell(
        "generate", *options, "--prompt", INSTANCE_PROMPT, "--prompt", "x", "--seed", SEED, "--out", tmp_path
    )
    assert result.status == 0, result.errors
    assert f"Done: {tmp_path}" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png"]
    assert grey_levels_apart(Image.open(tmp_path / "0.png"), validation(finished_run, LAST_STEP)) < 0.1
    assert grey_levels_apart(Image.open(tmp_path / "0.png"), validation(finished_run, 0)) > 2


def test_earlier_checkpoint_draws_an_image_between(
    shell: Callable, finished_run: Path, tmp_path: Path
) -> None:
    options = ["--prompt", INSTANCE_PROMPT, "--seed", SEED, "--out", tmp_path]
    assert shell("generate", "--run", finished_run, "--checkpoint", 4, *options).status == 0
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    assert shell("generate", "--run", finished_run, "--checkpoint", 4, *options).status == 0
    assert Image.open(tmp_path / "0.png").size == (8, 8), "images that are there already stay"
    image = Image.open(tmp_path / "1.png")
    assert grey_levels_apart(image, validation(finished_run, 0)) > 0.5
    assert grey_levels_apart(image, validation(finished_run, LAST_STEP)) > 0.5


def test_moving_average_draws_other_images(
    shell: Callable, tiny_model: Path, photos: Path, finished_run: Path, tmp_path: Path
) -> None:
    run_dir, out = tmp_path / "run", tmp_path / "out"
    settings = {"use_ema": True, "ema_decay": 0.5, "ema_validation": "ema_only", "validation_disable": False}
    settings |= {"max_train_steps": 4, "checkpoint_step_interval": 2, "validation_step_interval": 2}
    write_run_folder(run_dir, tiny_model, photos, **QUICK | settings)
    train_here(run_dir)
    for number, checkpoint in enumerate([[], ["--checkpoint", 2]]):
        options = ["--ema", *checkpoint, "--prompt", INSTANCE_PROMPT, "--seed", SEED, "--out", out]
        result = shell("generate", "--run", run_dir, *options)
        assert result.status == 0, result.errors
        drawn = Image.open(out / f"{number}.png")
        step = 2 if checkpoint else 4
        assert grey_levels_apart(drawn, validation(run_dir, step, "0-ema.png")) < 0.1
    result = shell("generate", "--run", finished_run, *options)
    assert result.status != 0
    assert "has no moving average: its use_ema is false. Leave it out." in result.errors
    result = shell("generate", "--adapter", run_dir / "adapter-ema", "--ema", *options[3:])
    assert result.status != 0
    assert "--ema belongs to --run" in result.errors


@pytest.mark.parametrize(
    ("ema", "options", "sentence"),
    [
        (False, [], "has ended without a proven adapter. Take a checkpoint. Its checkpoints are: 2, 4."),
        (True, ["--ema"], "has ended without a proven moving average. Take a checkpoint. "
                          "Its checkpoints are: 4."),
    ],
)  # fmt: skip
def test_run_that_ended_without_a_proof_offers_its_checkpoints(
    shell: Callable, tiny_model: Path, photos: Path, tmp_path: Path, ema: bool, options: list, sentence: str
) -> None:
    run_dir = tmp_path / "run"
    write_run_folder(run_dir, tiny_model, photos, **QUICK | {"use_ema": True, "max_train_steps": 4})
    for folder in ("step-000002", "step-000004", "step-000004/ema"):
        (run_dir / "checkpoints" / folder).mkdir(parents=True)
        (run_dir / "checkpoints" / folder / WEIGHTS_NAME).touch()
    result = shell("generate", "--run", run_dir, *options, "--prompt", "x", "--out", tmp_path / "out")
    assert_refused(result, sentence)


def test_images_go_into_the_job_and_are_announced(finished_run: Path) -> None:
    job_dir = Workspace().new_job_dir("generate")
    arguments = {"run_dir": str(finished_run), "prompts": [INSTANCE_PROMPT], "seed": SEED}
    generate(job_dir, arguments, EventWriter(job_dir))
    (sample,) = events_of(job_dir, "sample")
    assert (sample["path"], sample["weights"], sample["seed"]) == ("images/0.png", "trained", SEED)
    assert (job_dir / "images/0.png").exists()
    previews = events_of(job_dir, "preview")
    assert [preview["inference_step"] for preview in previews] == [1, 2]
    assert all((job_dir / preview["path"]).exists() for preview in previews)
    assert events_of(job_dir, "done")[0]["path"] == "images"


def test_base_model_alone_draws_the_image_before_training(finished_run: Path, tiny_model: Path) -> None:
    job_dir = Workspace().new_job_dir("generate")
    arguments = {
        "model": str(tiny_model),
        "prompts": [INSTANCE_PROMPT],
        "seed": SEED,
        "num_inference_steps": 2,
    }
    generate(job_dir, arguments, EventWriter(job_dir))
    assert events_of(job_dir, "sample")[0]["weights"] == "base"
    assert grey_levels_apart(Image.open(job_dir / "images/0.png"), validation(finished_run, 0)) < 0.1


def test_run_draws_on_when_its_photos_are_gone_at_the_size_of_what_was_trained(
    finished_run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("config.json", "adapter"):
        (copy / name).symlink_to(finished_run / name)
    datasets = json.loads((finished_run / "multidatabackend.json").read_text().replace("photos", "gone"))
    never = {**datasets[0], "id": "never", "probability": 0, "resolution": 32}
    (copy / "multidatabackend.json").write_text(json.dumps([never, *datasets]))
    job_dir = Workspace().new_job_dir("generate")
    arguments = {"run_dir": str(copy), "prompts": ["x"], "seed": 0}
    generate(job_dir, arguments, EventWriter(job_dir))
    assert events_of(job_dir, "done")
    assert Image.open(job_dir / "images" / "0.png").size == (64, 64)
