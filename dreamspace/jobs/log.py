"""`log.txt`: what a job's processes print, without tokens."""

import os
from contextlib import suppress
from pathlib import Path

from dreamspace.jobs.secrecy import redact

LOG_FILE = "log.txt"

_MAX_LINE_BYTES = 65_536


class RedactedLog:
    """Appends output to a file with tokens taken out, a line (or a stroke of a progress bar) at a time."""

    def __init__(self, path: Path, secret_values: tuple[str, ...] = ()) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._secret_values = secret_values
        self._unfinished = b""

    def feed(self, output: bytes) -> None:
        """Take output in pieces as they come; a token may be cut in two between them."""
        output = self._unfinished + output
        end = max(output.rfind(b"\n"), output.rfind(b"\r")) + 1
        if len(output) - end > _MAX_LINE_BYTES:
            end = len(output)
        self._unfinished = output[end:]
        self._write(output[:end])

    def close(self) -> None:
        """Write what has no end of line yet, and close the file."""
        self._write(self._unfinished)
        os.close(self._file)

    def _write(self, output: bytes) -> None:
        text = redact(output.decode(errors="replace"), self._secret_values)
        # A full disk must not end a training because of its log: the worker finds out when it saves.
        with suppress(OSError):
            os.write(self._file, text.encode())


def log_tail(job_dir: Path, num_bytes: int = 16_384) -> str:
    """The end of a job's log, for display: whole lines, progress bars at their last stroke, no tokens."""
    path = Path(job_dir) / LOG_FILE
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - num_bytes)
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return ""
    if start > 0:
        content = content[content.find(b"\n") + 1 :]
    text = content.decode(errors="replace").replace("\r\n", "\n")
    return redact("\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")))
