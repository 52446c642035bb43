"""A job on the terminal: its events as lines, and Ctrl-C as a request to stop."""

import sys
import time
from pathlib import Path

from dreamspace.jobs.events import Event
from dreamspace.jobs.job import Job
from dreamspace.jobs.launcher import follow, stop
from dreamspace.jobs.workspace import job_status

PROGRESS_SECONDS = 3.0


def watch(job_dir: Path) -> int:
    """Print the events of a submitted job until it has ended; returns the exit status.

    Ctrl-C asks the job to save and stop; a second one leaves it to itself.
    """
    printer = Printer(job_dir, Job.read(job_dir).first_seq)
    try:
        printer.follow()
    except KeyboardInterrupt:
        print("\nStopping: the job saves first. Press Ctrl-C again to leave it to itself.", file=sys.stderr)
        stop(job_dir)
        try:
            printer.follow()
        except KeyboardInterrupt:
            return 1
    status = job_status(job_dir)
    if status.exit_status:
        print(f"dreamspace: {status.message} {status.hint}".rstrip(), file=sys.stderr)
        if status.exit_status == 1:
            print(f"The log is {job_dir / 'log.txt'}.", file=sys.stderr)
    return status.exit_status


class Printer:
    """Shows events as lines: stages, progress every few seconds, warnings, verdict, and where results are.

    Args:
        first_seq: of the first event to show; those of an earlier attempt have been seen.
    """

    def __init__(self, job_dir: Path, first_seq: int = 0) -> None:
        self.job_dir = job_dir
        self._next_seq = first_seq
        self._last_progress = 0.0
        self._last_loss: float | None = None

    def follow(self) -> None:
        """Show what has not been shown yet, until the job has ended."""
        for event in follow(self.job_dir):
            if event["seq"] >= self._next_seq:
                self.show(event)
                self._next_seq = event["seq"] + 1

    def show(self, event: Event) -> None:
        """Print one event, if it is of a kind that is worth a line."""
        match event["kind"]:
            case "stage":
                print(event["message"], flush=True)
            case "loss":
                self._last_loss = float("nan") if event["loss"] is None else event["loss"]
            case "progress" if self._last_loss is not None:  # other jobs say it by their stages
                self._show_progress(event)
            case "sample":
                print(f"  {event['path']}: {event['prompt']}", flush=True)
            case "mixture":
                shares = ", ".join(f"{_percent(share)} {name}" for name, share in event["datasets"].items())
                counts = f"{event['num_instances']} photos, {event['num_prior']} class images"
                print(f"Rows: {shares} ({counts}).", flush=True)
            case "warning":
                text = f"Warning: {event['message']} {event['hint'] or ''}"
                print(text.rstrip(), file=sys.stderr, flush=True)
            case "verdict":
                print(f"Verdict: {event['reason']}", flush=True)
            case "done" | "stopped":
                ended = "Done" if event["kind"] == "done" else "Stopped and saved"
                path = str(event["path"] or "")
                print(f"{ended}: {path if '://' in path else self.job_dir / path}", flush=True)

    def _show_progress(self, event: Event) -> None:
        now, last = time.monotonic(), event["step"] == event["num_steps"]
        if now - self._last_progress > PROGRESS_SECONDS or last:
            self._last_progress = now
            minutes, seconds = divmod(round(event["eta_seconds"] or 0), 60)
            print(
                f"  step {event['step']} of {event['num_steps']}, loss {self._last_loss:.4f}, "
                f"{minutes}:{seconds:02d} left",
                flush=True,
            )


def _percent(share: float) -> str:
    """A share in percent, whole or, so near to nothing or all that it would read as such, with a decimal."""
    return f"{share:.1%}" if 0 < min(share, 1 - share) < 0.01 else f"{share:.0%}"
