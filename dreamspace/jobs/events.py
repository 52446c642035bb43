"""The event log of a job: one JSON object a line, appended by one process, read by anyone."""

import errno
import json
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

from dreamspace.jobs.secrecy import handed_secrets, redact

EVENTS_FILE = "events.jsonl"

Event = dict[str, Any]

# Every kind of event and its fields, besides `seq`, `time` and `kind`, which each event has.
EVENT_FIELDS: dict[str, tuple[str, ...]] = {
    "stage": ("name", "message"),
    "progress": ("step", "num_steps", "steps_per_second", "eta_seconds"),
    "loss": ("step", "loss", "instance_loss", "prior_loss", "learning_rate", "grad_norm"),
    "preview": (
        *("step", "prompt", "seed", "width", "height", "index"),
        *("inference_step", "num_inference_steps", "path"),
    ),
    "mixture": ("datasets", "num_instances", "num_prior", "held_out"),
    "sample": ("step", "prompt", "seed", "width", "height", "path", "weights"),
    "eval_loss": ("step", "loss", "by_timestep", "dataset"),
    "clip_score": ("step", "weights", "mean", "min", "max", "by_prompt"),
    "fidelity": ("step", "weights", "clip_i", "dino", "copy_risk", "spread", "evidence"),
    "checkpoint": ("step", "path"),
    "verdict": ("step", "weights", "path", "reason"),
    "warning": ("message", "hint"),
    "failed": ("error", "message", "hint", "traceback"),
    "stopped": ("step", "path"),
    "done": ("step", "path"),
}
FINAL_KINDS = frozenset({"failed", "stopped", "done"})
# Values of a `failed` event's `error` that the user can do something about: exit status 2.
MENDABLE_ERRORS = frozenset({"ValueError", "OutOfMemoryError", "DiskFullError"})

_TAIL_BYTES = 65_536


class EventWriter:
    """Appends events to `events.jsonl` of a job folder; safe to use from several threads.

    `seq` goes on where the file ends. A line that a killed process left half written is cut off first.
    Only one process may write at a time; under several ranks the others pass `writes=False`, and their
    events are checked and dropped.
    """

    def __init__(self, job_dir: Path, writes: bool = True) -> None:
        self.path = Path(job_dir) / EVENTS_FILE
        self.last_kind: str | None = None
        self._lock = threading.Lock()
        self._secret_values = tuple(handed_secrets(os.environ).values())
        self._file: int | None = None
        self._seq = 0
        if writes:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            _mend_last_line(self._file)
            self._seq = next_seq(self.path)

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event. A field that is left out is null, and so is a float that is not finite.

        Args:
            kind: a key of `EVENT_FIELDS`.
            fields: values that JSON knows, or paths (relative to the job folder).

        Raises:
            OSError: if the line could not be written whole; nothing of it stays in the file.
        """
        assert kind in EVENT_FIELDS, f"unknown event kind {kind!r}"
        unknown = fields.keys() - set(EVENT_FIELDS[kind])
        assert not unknown, f"event {kind!r} has no field {sorted(unknown)}"
        with self._lock:
            if self._file is not None:
                event = {"seq": self._seq, "time": round(time.time(), 3), "kind": kind}
                event |= {name: self._clean(fields.get(name)) for name in EVENT_FIELDS[kind]}
                _append_line(self._file, json.dumps(event, allow_nan=False, separators=(",", ":")))
                self._seq += 1
            self.last_kind = kind

    def close(self) -> None:
        """Close the file. Nothing can be written afterwards."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _clean(self, value: Any) -> Any:
        if isinstance(value, Path):
            value = value.as_posix()
        if isinstance(value, str):
            return redact(value, self._secret_values)
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, dict):
            return {self._clean(key): self._clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(item) for item in value]
        return value


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The events from byte `offset` on, and the offset to read on from.

    Only complete lines are taken. A file that is not there yet has no events.
    """
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            content = file.read()
    except FileNotFoundError:
        return [], offset
    end = content.rfind(b"\n") + 1
    return _parse_lines(content[:end]), offset + end


def read_last_events(path: Path, num_bytes: int = _TAIL_BYTES) -> list[Event]:
    """The last events of the file: those within its last `num_bytes`, but at least one if it has any."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            while True:
                start = max(0, size - num_bytes)
                file.seek(start)
                content = file.read(size - start)
                first = 0 if start == 0 else content.find(b"\n") + 1
                events = _parse_lines(content[first : content.rfind(b"\n") + 1])
                if events or start == 0:
                    return events
                num_bytes *= 4
    except FileNotFoundError:
        return []


def read_last_event(path: Path, kind: str) -> Event | None:
    """The last event of a kind, however far back, or None.

    Reads backwards until it is found and parses no event of another kind: a few milliseconds for 10 MB.
    """
    marker = f'"kind":"{kind}"'.encode()
    try:
        with open(path, "rb") as file:
            end, line_ending = file.seek(0, os.SEEK_END), b""
            while end > 0:
                start = max(0, end - _TAIL_BYTES)
                file.seek(start)
                content = file.read(end - start) + line_ending
                # Where the reading began, the first line may lack its beginning.
                line_ending, _, lines = content.partition(b"\n") if start > 0 else (b"", b"", content)
                if marker in lines:
                    marked = b"\n".join(line for line in lines.split(b"\n") if marker in line)
                    events = [event for event in _parse_lines(marked) if event.get("kind") == kind]
                    if events:
                        return events[-1]
                end = start
    except FileNotFoundError:
        pass
    return None


def next_seq(path: Path) -> int:
    """The `seq` that the next event of the file will have."""
    events = read_last_events(path)
    return events[-1]["seq"] + 1 if events else 0


def _parse_lines(content: bytes) -> list[Event]:
    events = []
    for line in content.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # A power cut can leave a line of zeros; the rest of the log is still worth reading.
        if isinstance(event, dict):
            events.append(event)
    return events


def _append_line(file: int, line: str) -> None:
    size = os.fstat(file).st_size
    encoded = line.encode() + b"\n"
    try:
        num_written = os.write(file, encoded)
        if num_written != len(encoded):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), EVENTS_FILE)
    except OSError:
        os.ftruncate(file, size)
        raise


def _mend_last_line(file: int) -> None:
    """Complete a last line that only lacks its line feed, cut off one that lacks more."""
    size = os.fstat(file).st_size
    num_bytes = min(size, _TAIL_BYTES)
    while True:
        tail = os.pread(file, num_bytes, size - num_bytes)
        if b"\n" in tail or num_bytes == size:
            break
        num_bytes = min(size, num_bytes * 4)
    last_line = tail[tail.rfind(b"\n") + 1 :]
    if not last_line:
        return
    if _parse_lines(last_line):
        os.write(file, b"\n")
    else:
        os.ftruncate(file, size - len(last_line))
