"""The worker: `python -m dreamspace.worker JOB_DIR` does what `job.json` says, as a process of its own.

This is the process edge: the only place that catches everything, and turns it into a `failed` event.
"""

import errno
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamspace.estimate.out_of_memory import is_out_of_memory
from dreamspace.jobs.events import FINAL_KINDS, MENDABLE_ERRORS, EventWriter
from dreamspace.jobs.job import Job
from dreamspace.jobs.lock import WORKERS_LOCK_VARIABLE, hold_workers_lock
from dreamspace.jobs.process import SUPERVISOR_VARIABLE, ProcessIdentity, die_with
from dreamspace.suggest import nearest

JobFunction = Callable[[Path, dict[str, Any], EventWriter], None]

# "module:function" of each kind of job, imported when it is asked for. A function takes the job folder, the
# arguments and the event writer, and writes its own `done` or `stopped`.
KINDS: dict[str, str] = {
    "train": "dreamspace.training.run:train",
    "probe": "dreamspace.training.probe:probe",
    "prior": "dreamspace.models.prior:prior",
    "mask": "dreamspace.models.mask_job:mask",
    "caption": "dreamspace.models.caption_job:caption",
    "evaluate": "dreamspace.evaluation.evaluate_job:evaluate",
    "generate": "dreamspace.models.generate:generate",
    "tokens": "dreamspace.prompts.tokens_job:tokens",
    "lookalikes": "dreamspace.prompts.lookalikes_job:lookalikes",
    "export": "dreamspace.models.export:export",
    "publish": "dreamspace.hub.push:publish",
}

SLOW_PACKAGES = frozenset({"torchao", "bitsandbytes"})
"""Those that diffusers and transformers import, needed or not, wherever they are installed."""

_OUT_OF_MEMORY_HINT = (
    "Lower train_batch_size or resolution, turn gradient_checkpointing on, choose a lower precision, "
    "or close what else uses the memory."
)
_DISK_FULL_HINT = "Free some space on this disk, then start it again: what it had saved is kept."


def main(arguments: Sequence[str], kinds: Mapping[str, str] = KINDS, *, owns_process: bool = False) -> int:
    """Run the job of the folder named in `arguments`; returns the exit status.

    Where it owns the process, slow packages that the job does not need are hidden in it. 0 on success, 2 for
    what the user can mend (one line on standard error), 1 for our own fault.
    """
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m dreamspace.worker JOB_DIR, where JOB_DIR holds job.json", file=sys.stderr)
        return 2
    job_dir = Path(arguments[0]).resolve()
    faulthandler.enable()
    # diffusers imports it; without a GPU it warns of a kernel that only quantised images would use.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # diffusers 0.42 warns that it cannot read checkpoints of torchao 0.18, of which there are none here.
    logging.getLogger("diffusers.quantizers.torchao").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # Runs what `finally` promises.
    if WORKERS_LOCK_VARIABLE in os.environ:
        hold_workers_lock(Path(os.environ[WORKERS_LOCK_VARIABLE]))
    if SUPERVISOR_VARIABLE in os.environ:
        die_with(ProcessIdentity(**json.loads(os.environ[SUPERVISOR_VARIABLE])))
    events = EventWriter(job_dir, writes=os.environ.get("RANK", "0") == "0")
    try:
        events.write("stage", name="loading", message="Loading what the job needs.")
        job = Job.read(job_dir)
        if owns_process:
            _hide(SLOW_PACKAGES - _needed_packages(job, job_dir))
        _job_function(job.kind, kinds)(job_dir, job.arguments, events)
        assert events.last_kind in FINAL_KINDS, f"the job '{job.kind}' ended without saying so"
    except Exception as error:
        return _report(error, events)
    return 0


def _needed_packages(job: Job, job_dir: Path) -> set[str]:
    """What the run in the job's folder needs, or the one that the job is about."""
    from dreamspace.config import RunConfig

    if "model_settings" in job.arguments:
        return RunConfig(**job.arguments["model_settings"]).packages
    config = Path(job.arguments.get("run_dir") or job_dir) / "config.json"
    return RunConfig.load(config).packages if config.exists() else set()


def _hide(packages: Iterable[str]) -> None:
    """Have these packages count as not installed in this process: None is Python's own mark for that.

    diffusers 0.42 and transformers 5.23 import torchao (four seconds) and bitsandbytes (two) while they are
    imported themselves, because their quantisers do so at the top of their modules. To be deleted when both
    import them where they quantise.
    """
    for package in packages:
        sys.modules[package] = None


def _job_function(kind: str, kinds: Mapping[str, str]) -> JobFunction:
    if kind not in kinds:
        known = ", ".join(sorted(kinds))
        raise ValueError(f"There is no kind of job '{kind}'.{nearest(kind, kinds)} Known: {known}.")
    module, _, function = kinds[kind].partition(":")
    return getattr(importlib.import_module(module), function)


def _report(error: Exception, events: EventWriter) -> int:
    """Write the `failed` event, print the error, and return the exit status."""
    name, hint = type(error).__name__, ""
    if isinstance(error, ValueError):
        name = "ValueError"  # For subclasses too, such as pydantic's: it says that the user can mend it.
    elif is_out_of_memory(error):
        name, hint = "OutOfMemoryError", _OUT_OF_MEMORY_HINT
    elif os.strerror(errno.ENOSPC) in str(error) or os.strerror(errno.EDQUOT) in str(error):
        name, hint = "DiskFullError", _DISK_FULL_HINT
    message = str(error) or type(error).__name__
    can_be_mended = name in MENDABLE_ERRORS
    if can_be_mended:
        print(" ".join(message.split()), file=sys.stderr)
    else:
        traceback.print_exception(error)
    trace = "".join(traceback.format_exception(error))
    events.write("failed", error=name, message=message, hint=hint, traceback=trace)
    return 2 if can_be_mended else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], owns_process=True))
