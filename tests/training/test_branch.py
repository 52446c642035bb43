"""A run that goes on from a checkpoint of another."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import QUICK, assert_refused, draw_photos, events_of, train_here, write_run_folder

from dreamspace.jobs.branch import branch_run
from dreamspace.run_folder import WEIGHTS_NAME
from dreamspace.training.checkpoints import RESUMING_FILES

Shell = Callable[..., tuple[int, str, str]]

SETTINGS = QUICK | {
    "max_train_steps": 6,
    "checkpoint_step_interval": 3,
    "checkpoints_total_limit": 2,
    "validation_disable": False,
    "use_ema": True,
    "learning_rate": 0.01,
    "lr_scheduler": "linear",
    "lr_warmup_steps": 0,
}


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run_dir = folder / "runs" / "run"
    write_run_folder(run_dir, tiny_model, draw_photos(folder / "photos", 2), **SETTINGS)
    assert train_here(run_dir)[-1]["kind"] == "done"
    return run_dir


def listing(folder: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_run_from_a_checkpoint_repeats_what_the_other_did_and_leaves_it_alone(
    finished: Path, tmp_path: Path
) -> None:
    before, run_dir = listing(finished), tmp_path / "runs" / "branch"
    branch_run(run_dir, finished / "checkpoints" / "step-000003")
    assert [event["seq"] for event in events_of(run_dir, "loss", "sample", "checkpoint")] == list(range(5))
    assert train_here(run_dir, resume=True)[-1]["kind"] == "done"
    assert listing(finished) == before
    losses = [
        [(event["step"], event["loss"]) for event in events_of(run, "loss")] for run in (finished, run_dir)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6
    ours, expected = (load_file(run / "adapter" / WEIGHTS_NAME) for run in (run_dir, finished))
    assert all(torch.equal(ours[key], expected[key]) for key in expected)
    # The image of the base model, which the run itself never draws.
    base = events_of(run_dir, "sample")[0]
    assert base["weights"] == "base"
    assert (run_dir / base["path"]).is_file()


@pytest.mark.parametrize(("restart", "rates"), [(False, [4, 3, 2, 1]), (True, [7, 5.25, 3.5, 1.75])])
def test_schedule_of_more_steps_is_stretched_or_begins_anew(
    finished: Path, tmp_path: Path, restart: bool, rates: list[float]
) -> None:
    run_dir = tmp_path / "runs" / "branch"
    step = finished / "checkpoints" / "step-000003"
    branch_run(run_dir, step, 7, restart, ["learning_rate=0.07", "validation_disable=true"])
    train_here(run_dir, resume=True)
    found = [event["learning_rate"] for event in events_of(run_dir, "loss") if event["step"] > 3]
    assert found == pytest.approx([rate / 100 for rate in rates])


def test_pruned_checkpoint_goes_on_with_its_weights_and_says_so(finished: Path, tmp_path: Path) -> None:
    other, run_dir = tmp_path / "runs" / "other", tmp_path / "runs" / "branch"
    shutil.copytree(finished, other)
    for name in RESUMING_FILES:
        (other / "checkpoints" / "step-000003" / name).unlink(missing_ok=True)
    branch_run(run_dir, other / "checkpoints" / "step-000003", 5)
    assert train_here(run_dir, resume=True)[-1]["kind"] == "done"
    assert "step-000003 holds no optimizer state any more" in events_of(run_dir, "warning")[0]["message"]
    # The first loss is of the weights alone, whatever the optimizer then does.
    fourth = [
        event["loss"] for run in (finished, run_dir) for event in events_of(run, "loss") if event["step"] == 4
    ]
    assert fourth[0] == fourth[1]
    assert [event["step"] for event in events_of(run_dir, "checkpoint")] == [3, 5]


def test_what_cannot_be_gone_on_from_is_refused(
    finished: Path,
    tmp_path: Path,
    shell: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir = tmp_path / "runs" / "branch"
    checkpoint = finished / "checkpoints" / "step-000003"
    command = ["train", "--run", run_dir, "--from-checkpoint"]
    for given in (finished, finished / "checkpoints" / "step-000004", tmp_path / "none"):
        assert_refused(shell(*command, given), f"There is no checkpoint in {given}.", "step-000200")
    assert_refused(shell(*command, checkpoint, "--steps", 3), "--steps must be above the 3 steps", "got 3")
    assert_refused(shell(*command, checkpoint, "--token", "x"), "Leave out --token", "--set")
    assert_refused(shell(*command, checkpoint, "--set", "lora_rnk=4"), "Did you mean 'lora_rank'?")
    assert_refused(shell(*command, checkpoint, "--resume"), "Leave out --from-checkpoint")
    assert_refused(shell("train", "--run", finished, "--from-checkpoint", checkpoint), "holds a run already")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 100))
        assert_refused(shell(*command, checkpoint), "has 0 MB free and step-000003 takes")
    assert not run_dir.exists()
