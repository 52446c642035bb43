"""The app as users start it, as a process of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]


class App:
    """`python app.py` on a workspace, as a process of its own.

    Attributes:
        url: where it listens; the same after a restart.
        output: what it has printed.
    """

    def __init__(self, workspace: Path, environment: dict[str, str]) -> None:
        self._command = [sys.executable, str(ROOT / "app.py"), "--workspace", str(workspace)]
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        self._port = 0
        self.output: list[str] = []
        self.start()

    def start(self) -> None:
        """Start it, on the port that it had before."""
        self._process = subprocess.Popen(
            [*self._command, "--port", str(self._port)],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        line = self._process.stdout.readline()
        found = re.search(r"http://[\d.]+:(\d+)", line)
        assert found, line + self._process.stdout.read()
        self.url, self._port = found[0], int(found[1])
        # Read on, so that it never waits for a full pipe.
        self._reader = threading.Thread(target=lambda: self.output.extend(self._process.stdout), daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._reader.join()
