"""The real supervisor with the fake worker, and less patience."""

import sys

from dreamspace.jobs.supervisor import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], worker_module="fake_worker", kill_grace_seconds=2.0))
