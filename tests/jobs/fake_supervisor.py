"""The real supervisor with the fake worker, and less patience."""

import sys
from pathlib import Path

from dreamspace.jobs.supervisor import supervise

if __name__ == "__main__":
    supervise(Path(sys.argv[1]), worker_module="fake_worker", kill_grace_seconds=0.5)
