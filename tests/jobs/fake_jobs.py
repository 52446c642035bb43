"""Small kinds of jobs, run by `fake_worker` through the real worker edge."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dreamspace.jobs.control import consume_control
from dreamspace.jobs.events import EventWriter


def count(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Count to `num_steps` from where the last attempt left, and obey a request to stop."""
    reached = job_dir / "reached"
    first_step = int(reached.read_text()) + 1 if reached.exists() else 1
    num_steps = arguments.get("num_steps", 3)
    for step in range(first_step, num_steps + 1):
        time.sleep(arguments.get("step_seconds", 0.01))
        reached.write_text(str(step))
        events.write("progress", step=step, num_steps=num_steps)
        if consume_control(job_dir, "stop"):
            events.write("stopped", step=step)
            return
    events.write("done", step=num_steps)


def wait_for_file(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Hold the GPU until the file `go` is there."""
    while not (job_dir / "go").exists():
        time.sleep(0.02)
    events.write("done", step=1)


def refuse(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    raise ValueError("There are no photos in\nthe folder. Add some.")


def break_down(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    raise KeyError("our own mistake")


def run_out_of_memory(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    raise type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.")


def fill_the_disk(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "checkpoint.safetensors")


def say_nothing(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    return


def vanish(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Leave at step 2 without a word, and a child in a session of its own behind."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (job_dir / "child_pid").write_text(str(child.pid))
    events.write("progress", step=2, num_steps=9)
    print("last words", flush=True)
    os._exit(7)


def ignore_everything(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Neither a request nor SIGTERM ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (job_dir / f"pid_of_rank_{os.environ.get('RANK', '0')}").write_text(str(os.getpid()))
    for step in range(1, 100_000):
        events.write("progress", step=step, num_steps=100_000)
        time.sleep(0.05)


def hold_without_end(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Deaf to requests, but not to SIGTERM, whose `finally` it runs."""
    try:
        events.write("progress", step=1, num_steps=2)
        time.sleep(600)
    finally:
        (job_dir / "cleaned_up").touch()


def leak(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Do everything wrong that can be done with a secret; keep only proof that it arrived."""
    token, password = os.environ["HF_TOKEN"], os.environ["HUB_PASSWORD"]
    (job_dir / "digest").write_text(hashlib.sha256((token + password).encode()).hexdigest())
    (job_dir / "names").write_text("\n".join(sorted(os.environ)))
    for output in (f"token {token} password {password}\n", token[:9], token[9:], "\n"):
        print(output, end="", flush=True)
        time.sleep(0.05)
    events.write("warning", message=f"{token} and {password}", hint={"deep": [token]})
    raise RuntimeError(f"401 for {token} and {password}")


def report_rank(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Leave a file for each rank; every rank writes events, of which only rank 0's may arrive."""
    rank = os.environ["RANK"]
    (job_dir / f"rank_{rank}_of_{os.environ['WORLD_SIZE']}").touch()
    events.write("warning", message=f"from rank {rank}")
    events.write("done", step=0)
