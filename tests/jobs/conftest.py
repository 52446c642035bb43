import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from dreamspace.jobs.events import EVENTS_FILE, Event, read_events
from dreamspace.jobs.job import ProcessRecord, is_live
from dreamspace.jobs.launcher import submit
from dreamspace.jobs.workspace import JobStatus, job_status


class Jobs:
    """Jobs of the fake kinds in a folder of this test, with a lock of this test."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def submit(self, name: str, kind: str, arguments: dict[str, Any] | None = None, **options: Any) -> Path:
        job_dir = self.root / name
        submit(job_dir, kind, arguments or {}, supervisor_module="fake_supervisor", **options)
        return job_dir

    def wait_until(self, condition: Callable[[], bool], timeout_seconds: float = 240.0) -> None:
        give_up_at = time.monotonic() + timeout_seconds
        while not condition():
            assert time.monotonic() < give_up_at, [
                (path.name, job_status(path), (path / "log.txt").read_text()) for path in self.root.iterdir()
            ]
            time.sleep(0.02)

    def wait_for_end(self, job_dir: Path) -> JobStatus:
        self.wait_until(lambda: not is_live(job_dir))
        return job_status(job_dir)

    def wait_for_step(self, job_dir: Path, step: int = 1) -> None:
        self.wait_until(lambda: job_status(job_dir).status == "running" and job_status(job_dir).step >= step)

    def events(self, job_dir: Path) -> list[Event]:
        return read_events(job_dir / EVENTS_FILE)[0]

    def record(self, job_dir: Path) -> ProcessRecord:
        record = ProcessRecord.read(job_dir)
        assert record is not None
        return record

    def is_gone(self, pid: int) -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    monkeypatch.setenv("DREAMSPACE_LOCK_DIR", str(tmp_path / "lock"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    root = tmp_path / "jobs"
    root.mkdir()
    yield Jobs(root)
    for job_dir in root.iterdir():
        record = ProcessRecord.read(job_dir)
        if record is not None and is_live(job_dir):
            with suppress(ProcessLookupError):
                os.kill(record.supervisor.pid, signal.SIGKILL)
