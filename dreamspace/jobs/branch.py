"""A run that begins at a checkpoint of another, which stays as it is."""

import json
import re
import shutil
from pathlib import Path

from dreamspace.config import RunConfig, apply_settings
from dreamspace.files import replace_file
from dreamspace.jobs.events import EVENTS_FILE, read_events
from dreamspace.jobs.new_run import copy_run
from dreamspace.run_folder import HELD_OUT_FILE, step_of, weights_file


def branch_run(
    run_dir: Path,
    checkpoint: Path,
    num_steps: int | None = None,
    restart_schedule: bool = False,
    settings: list[str] | None = None,
) -> None:
    """Write a run into `run_dir` that goes on from a checkpoint of another run when it is resumed.

    It has that run's settings, its held-out photos, the checkpoint, and the losses and images up to it.

    Args:
        checkpoint: a folder `checkpoints/step-...` of a run.
        num_steps: the steps of the whole run; None takes those of the other.
        restart_schedule: the learning-rate schedule begins anew at the checkpoint; else it is that of a run
            of `num_steps` from its beginning.
        settings: "key=value" each, on top of the other run's.

    Raises:
        ValueError: if there is no such checkpoint, it has as many steps already, the disk cannot hold it, a
            setting is wrong, or `run_dir` holds a run.
    """
    step = _checked_step(checkpoint)
    other = checkpoint.parent.parent
    config = apply_settings(RunConfig.load(other / "config.json"), settings or [])
    num_steps = config.max_train_steps if num_steps is None else num_steps
    if num_steps <= step:
        raise ValueError(
            f"--steps must be above the {step} steps of {checkpoint.name}, got {num_steps}. Give it more."
        )
    _check_disk(run_dir, checkpoint)
    restart = step if restart_schedule else min(config.lr_restart_step, step)
    changes = [f"max_train_steps={num_steps}", f"lr_restart_step={restart}", "init_lora=null"]
    copy_run(
        run_dir,
        other / "config.json",
        other / "multidatabackend.json",
        [*(settings or []), *changes],
    )
    try:
        _copy_history(other, run_dir, step)
        if (other / HELD_OUT_FILE).is_file():
            shutil.copyfile(other / HELD_OUT_FILE, run_dir / HELD_OUT_FILE)
        shutil.copytree(checkpoint, run_dir / "checkpoints" / checkpoint.name)
    except OSError as error:
        (run_dir / "config.json").unlink()  # without it the folder holds no run
        raise ValueError(
            f"{checkpoint.name} cannot be copied to {run_dir}: {error.strerror}. Choose another folder."
        ) from None


def _checked_step(checkpoint: Path) -> int:
    if not re.fullmatch(r"step-\d+", checkpoint.name) or weights_file(checkpoint) is None:
        raise ValueError(
            f"There is no checkpoint in {checkpoint}. Name a folder such as RUN/checkpoints/step-000200."
        )
    return step_of(checkpoint)


def _check_disk(run_dir: Path, checkpoint: Path) -> None:
    needed = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    existing = next(folder for folder in (run_dir, *run_dir.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed * 1.05:
        raise ValueError(
            f"The disk of {existing} has {free / 1e6:.0f} MB free and {checkpoint.name} takes "
            f"{needed * 1.05 / 1e6:.0f} MB. Free some space, or put the run on another disk."
        )


def _copy_history(other: Path, run_dir: Path, step: int) -> None:
    """Copy the losses and validation images up to a step, and the events that tell of them."""
    events, _ = read_events(other / EVENTS_FILE)
    kept = [event for event in events if event["kind"] in ("loss", "sample") and event["step"] <= step]
    kept += [event for event in events if event["kind"] == "checkpoint" and event["step"] == step][-1:]
    for event in kept:
        if event["kind"] == "sample" and (other / event["path"]).is_file():
            (run_dir / event["path"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(other / event["path"], run_dir / event["path"])
    with replace_file(run_dir / EVENTS_FILE) as temporary:
        lines = [json.dumps({**event, "seq": seq}, separators=(",", ":")) for seq, event in enumerate(kept)]
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
