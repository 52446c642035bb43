"""Exactness through the real command: killed, stopped and resumed, a run repeats the uninterrupted one."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from tiny_runs import (
    CLASS_PROMPT,
    INSTANCE_PROMPT,
    QUICK,
    SETTINGS,
    assert_same_losses,
    change,
    command,
    command_environment,
    events_of,
    run_command,
    train_here,
    train_in_two_processes,
    two_bucket_dataset,
    write_run_folder,
)

from dreamspace.config import RunConfig
from dreamspace.jobs.job import ProcessRecord
from dreamspace.jobs.launcher import stop
from dreamspace.jobs.workspace import job_status
from dreamspace.run_folder import WEIGHTS_NAME
from dreamspace.training.proof import grey_levels_apart

NUM_STEPS = SETTINGS["max_train_steps"]


def losses(run_dir: Path) -> dict[int, set[tuple]]:
    """What each step reported, over all attempts: one entry where they agree to the last bit."""
    reported: dict[int, set[tuple]] = {}
    for event in events_of(run_dir, "loss"):
        numbers = tuple(event[name] for name in ("loss", "instance_loss", "prior_loss", "grad_norm"))
        reported.setdefault(event["step"], set()).add((*numbers, event["learning_rate"]))
    return reported


def steps_seen(run_dir: Path) -> int:
    """The last step of this attempt."""
    steps = [event["step"] for event in events_of(run_dir, "loss")]
    return steps[-1] if steps else 0


def train_until(
    run_dir: Path, options: list[str | Path], step: int, interrupt: Callable[[], None]
) -> subprocess.Popen:
    """Run the command, and call `interrupt` once the log shows `step`."""
    process = subprocess.Popen(
        command("train", *options, "--run", run_dir),
        env=command_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    give_up_at = time.monotonic() + 240
    while steps_seen(run_dir) < step:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < give_up_at, (run_dir / "log.txt").read_text()
        time.sleep(0.005)
    interrupt()
    return process


def kill_worker(run_dir: Path) -> None:
    record = ProcessRecord.read(run_dir)
    assert record is not None
    assert record.worker is not None
    os.kill(record.worker.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def interrupted_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, photos: Path, class_photos: Path
) -> Path:
    """Killed by SIGKILL after step 5, resumed, stopped after step 13, resumed, finished."""
    run_dir = tmp_path_factory.mktemp("runs") / "interrupted"
    files = write_run_folder(run_dir.with_name("files"), tiny_model, photos, class_photos)
    process = train_until(run_dir, files, 5, lambda: kill_worker(run_dir))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "it was killed (SIGKILL)" in errors
    assert "Resume it" in errors
    assert job_status(run_dir).status == "crashed"
    assert steps_seen(run_dir) < NUM_STEPS

    process = train_until(run_dir, ["--resume"], 13, lambda: stop(run_dir))
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    stopped = events_of(run_dir, "stopped")[-1]
    assert 13 <= stopped["step"] < NUM_STEPS
    assert stopped["path"] == f"checkpoints/step-{stopped['step']:06d}"
    assert f"Stopped and saved: {run_dir / stopped['path']}" in output

    result = run_command("train", "--resume", "--run", run_dir)
    assert result.returncode == 0, result.stderr
    assert "step 1 of" not in result.stdout, "what earlier attempts said is not repeated"
    return run_dir


def test_losses_of_the_interrupted_run_equal_the_uninterrupted_ones_exactly(
    interrupted_run: Path, finished_run: Path
) -> None:
    expected = losses(finished_run)
    assert list(expected) == list(range(1, NUM_STEPS + 1))
    assert all(len(numbers) == 1 for numbers in expected.values())
    assert losses(interrupted_run) == expected
    assert next(iter(expected[1]))[2] < 1e-9, "class images cost nothing at first"
    assert max(next(iter(numbers))[2] for numbers in expected.values()) > 1e-4


def test_adapter_and_images_are_the_same_to_the_last_bit(interrupted_run: Path, finished_run: Path) -> None:
    ours, expected = (load_file(run / "adapter" / WEIGHTS_NAME) for run in (interrupted_run, finished_run))
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)
    for name in ("step-000000/0.png", "step-000024/0.png", "step-000024/1.png"):
        paths = [run / "validation" / name for run in (interrupted_run, finished_run)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_steps_since_the_last_checkpoint_were_repeated_after_the_kill(interrupted_run: Path) -> None:
    resumed_at = [event["step"] for event in events_of(interrupted_run, "loss")]
    drops = [after for before, after in itertools.pairwise(resumed_at) if after <= before]
    assert drops == [5], "killed after step 5, resumed from the checkpoint at 4"


def test_events_are_one_sequence_over_all_attempts(interrupted_run: Path) -> None:
    events = events_of(interrupted_run, *("stage", "loss", "progress", "checkpoint", "sample", "preview"),
                       *("mixture", "warning", "failed", "stopped", "done"))  # fmt: skip
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert [event["kind"] for event in events_of(interrupted_run, "failed", "stopped", "done")] == [
        "stopped",
        "done",
    ]
    assert events_of(interrupted_run, "warning") == []
    assert job_status(interrupted_run).status == "done"


def test_all_adapters_are_kept_and_old_optimizers_are_pruned(finished_run: Path) -> None:
    folders = sorted((finished_run / "checkpoints").iterdir())
    assert [folder.name for folder in folders] == [f"step-{step:06d}" for step in range(4, NUM_STEPS + 1, 4)]
    assert all((folder / WEIGHTS_NAME).exists() for folder in folders)
    with_optimizer = [folder.name for folder in folders if (folder / "optimizer.safetensors").exists()]
    assert with_optimizer == ["step-000020", "step-000024"]
    announced = [event["path"] for event in events_of(finished_run, "checkpoint")]
    assert announced == [f"checkpoints/{folder.name}" for folder in folders]


@pytest.mark.parametrize("which", ["finished_run", "interrupted_run"])
def test_run_folder_holds_no_pickle_and_nothing_half_written(
    which: str, request: pytest.FixtureRequest
) -> None:
    run_dir = request.getfixturevalue(which)
    allowed = {".safetensors", ".json", ".jsonl", ".png", ".jpg", ".txt"}
    for path in sorted(run_dir.rglob("*")):
        if path.is_file() and path.name not in ("stopping", ".submission.lock"):
            assert path.suffix in allowed, path
            assert not path.name.startswith("."), path
            assert path.read_bytes()[:2] not in (b"\x80\x02", b"\x80\x04", b"PK"), path
        elif path.is_dir():
            assert not path.name.startswith("."), path


def test_events_announce_files_that_are_there(finished_run: Path) -> None:
    for event in events_of(finished_run, "preview", "sample", "checkpoint", "done"):
        assert (finished_run / event["path"]).exists()
    samples = events_of(finished_run, "sample")
    assert [(event["step"], event["prompt"], event["weights"]) for event in samples] == [
        (0, INSTANCE_PROMPT, "base"),
        (0, CLASS_PROMPT, "base"),
        (NUM_STEPS, INSTANCE_PROMPT, "trained"),
        (NUM_STEPS, CLASS_PROMPT, "trained"),
    ]
    previews = [event for event in events_of(finished_run, "preview") if event["step"] == NUM_STEPS]
    assert [(event["index"], event["inference_step"]) for event in previews] == [
        (0, 1),
        (1, 1),
        (0, 2),
        (1, 2),
    ]
    (mixture,) = events_of(finished_run, "mixture")
    assert mixture["datasets"] == {"subject": 0.5, "prior": 0.5}
    assert (mixture["num_instances"], mixture["num_prior"]) == (4, 4)


def test_adapter_in_stock_diffusers_draws_the_validation_image(finished_run: Path, tiny_model: Path) -> None:
    config = RunConfig.load(finished_run / "config.json")
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)

    def draw() -> Image.Image:
        return pipeline(
            INSTANCE_PROMPT,
            width=64,
            height=64,
            num_inference_steps=config.validation_num_inference_steps,
            guidance_scale=config.validation_guidance,
            generator=torch.Generator().manual_seed(config.seed),
        ).images[0]

    def validation(step: int) -> Image.Image:
        return Image.open(finished_run / "validation" / f"step-{step:06d}" / "0.png")

    assert grey_levels_apart(draw(), validation(0)) < 0.1
    pipeline.load_lora_weights(finished_run / "adapter")
    (loaded,) = pipeline.unet.peft_config.values()
    assert (loaded.r, loaded.lora_alpha) == (8, 3.0)
    assert grey_levels_apart(draw(), validation(NUM_STEPS)) < 0.1
    assert grey_levels_apart(validation(0), validation(NUM_STEPS)) > 2


SHARED = QUICK | {"lora_dropout": 0.0, "gradient_accumulation_steps": 2, "lr_scheduler": "constant"}


def test_two_processes_train_as_one_and_either_goes_on_from_the_other(
    tiny_model: Path, photos: Path, class_photos: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_run_folder(one, tiny_model, photos, class_photos, train_batch_size=2, **SHARED)
    train_here(one)
    write_run_folder(two, tiny_model, photos, class_photos, train_batch_size=1, **SHARED)
    train_in_two_processes(two)
    assert_same_losses(two, one, range(1, 4))
    assert len(events_of(two, "done")) == 1, "rank 0 alone speaks"
    ours, expected = (load_file(run / "adapter" / WEIGHTS_NAME) for run in (two, one))
    # Not each weight for itself: AdamW makes a step of full length of a gradient that is rounding alone.
    for name, weight in ours.items():
        assert (weight - expected[name]).norm() < 1e-2 * expected[name].norm(), name
    for run in (one, two):
        change(run / "config.json", max_train_steps=5, train_batch_size=1 if run == one else 2)
    train_in_two_processes(one, resume=True)
    train_here(two, resume=True)
    assert_same_losses(two, one, range(4, 6))


def test_gradients_of_two_processes_equal_those_of_one_with_buckets_and_short_steps(
    tiny_model: Path, tmp_path: Path
) -> None:
    dataset = two_bucket_dataset(tmp_path)
    settings = SHARED | {"max_train_steps": 2, "checkpoint_step_interval": 1, "learning_rate": 0.01}
    one, two = tmp_path / "one", tmp_path / "two"
    write_run_folder(one, tiny_model, [dataset], train_batch_size=2, **settings)
    train_here(one)
    write_run_folder(two, tiny_model, [dataset], train_batch_size=1, **settings)
    train_in_two_processes(two)
    assert_same_losses(two, one, range(1, 3))
    # AdamW's mean of gradients after one step is a tenth of the first gradient.
    ours, expected = (
        load_file(run / "checkpoints" / "step-000001" / "optimizer.safetensors") for run in (two, one)
    )
    names = [name for name in expected if name.endswith("exp_avg")]
    gradients = [torch.cat([found[name].flatten() for name in names]).double() for found in (ours, expected)]
    assert gradients[1].norm() > 1e-5
    assert (gradients[0] - gradients[1]).norm() / gradients[1].norm() < 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_type": "lycoris", "lycoris_config": {"algo": "lokr"}},
        {"lora_type": "lycoris", "lycoris_config": {"algo": "dylora", "linear_dim": 8}},
        {"model_type": "full", "learning_rate": 1e-3},
        {"enable_group_offload": True, "gradient_checkpointing": True},
    ],
    ids=["lokr", "dylora", "full", "offloaded"],
)
def test_two_processes_train_every_kind_of_weights(
    settings: dict[str, Any], tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    settings = SHARED | {"max_train_steps": 2} | settings
    write_run_folder(tmp_path / "two", tiny_model, photos, train_batch_size=1, **settings)
    train_in_two_processes(tmp_path / "two")
    if "dylora" not in str(settings):  # which draws other ranks in each process
        write_run_folder(tmp_path / "one", tiny_model, photos, train_batch_size=2, **settings)
        train_here(tmp_path / "one")
        assert_same_losses(tmp_path / "two", tmp_path / "one", range(1, 3))
