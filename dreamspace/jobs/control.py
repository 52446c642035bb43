"""How the app speaks to a running job: an empty file in `control/`, which the job consumes."""

import os
import shutil
from pathlib import Path
from typing import Literal, get_args

ControlName = Literal["stop", "sample", "save"]


def request(job_dir: Path, name: ControlName) -> None:
    """Ask the job to stop (saving first), to make samples, or to save a checkpoint.

    Asking twice is asking once; a job that is not running is not disturbed by it.
    """
    assert name in get_args(ControlName), f"unknown request {name!r}"
    folder = Path(job_dir) / "control"
    folder.mkdir(exist_ok=True)
    (folder / name).touch()


def consume_control(job_dir: Path, name: ControlName) -> bool:
    """Whether `name` was asked for since the last call. For the worker, on rank 0, once a step."""
    assert name in get_args(ControlName), f"unknown request {name!r}"
    path = Path(job_dir) / "control" / name
    try:
        if name == "stop":
            # The supervisor and the app must still see that the job is on its way out.
            os.replace(path, path.with_name("stopping"))
        else:
            path.unlink()
    except FileNotFoundError:
        return False
    return True


def asked(job_dir: Path, name: ControlName) -> bool:
    """Whether a request waits to be consumed."""
    return (Path(job_dir) / "control" / name).exists()


def stop_requested(job_dir: Path) -> bool:
    """Whether a request to stop waits to be consumed. For the worker, inside long steps."""
    return asked(job_dir, "stop")


def is_stopping(job_dir: Path) -> bool:
    """Whether the job was asked to stop, consumed or not. For the supervisor and the app."""
    return stop_requested(job_dir) or (Path(job_dir) / "control" / "stopping").exists()


def clear_control(job_dir: Path) -> None:
    """Forget all requests, before a job starts again."""
    shutil.rmtree(Path(job_dir) / "control", ignore_errors=True)
