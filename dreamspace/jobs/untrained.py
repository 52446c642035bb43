"""A run that was refused before it learned anything: how it is told, and how its folder is cleared."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import get_args

from dreamspace.jobs.control import ControlName
from dreamspace.jobs.events import EVENTS_FILE
from dreamspace.jobs.job import ENDED_FILE, JOB_FILE, PROCESS_FILE, Job, is_live
from dreamspace.jobs.log import LOG_FILE
from dreamspace.jobs.workspace import job_status
from dreamspace.run_folder import HELD_OUT_FILE, adapter_folder

# Names that only jobs of ours give; a folder that is empty then goes, too.
_PATTERNS = {
    "checkpoints": (".step-*",),
    "control": get_args(ControlName),
    "previews": ("step-*.png", "step-*.jpg", ".step-*"),
    "validation": ("step-*", ".step-*"),
}

# The job last: as long as it is there, a clearing that was cut short is taken up again.
_FILES = (HELD_OUT_FILE, EVENTS_FILE, LOG_FILE, PROCESS_FILE, ENDED_FILE, JOB_FILE)


def is_untrained(run_dir: Path) -> bool:
    """Whether the training of this run has ended and left no checkpoint and no adapter.

    A folder without a run, or that no training was ever submitted in, is someone's own, whatever it holds.

    Raises:
        ValueError: if its `job.json` is broken.
    """
    if not all((run_dir / name).exists() for name in (JOB_FILE, "config.json")):
        return False
    if Job.read(run_dir).kind != "train" or is_live(run_dir) or not job_status(run_dir).is_final:
        return False
    adapters = [adapter_folder(run_dir), adapter_folder(run_dir, ema=True)]
    return not any(folder.exists() for folder in (*adapters, *run_dir.glob("checkpoints/step-*")))


def clear_attempt(run_dir: Path) -> None:
    """Remove what the job of an untrained run left, so that the next one begins with nothing of it."""
    for folder in run_dir.glob(".adapter*"):
        shutil.rmtree(folder, ignore_errors=True)
    for name, patterns in _PATTERNS.items():
        folder = run_dir / name
        for path in [path for pattern in patterns for path in folder.glob(pattern)]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        with suppress(OSError):  # someone's own files stay, and with them their folder
            folder.rmdir()
    for name in _FILES:
        (run_dir / name).unlink(missing_ok=True)
