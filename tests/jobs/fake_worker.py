"""The real worker edge with the fake kinds of jobs."""

import inspect
import sys

import fake_jobs

from dreamspace.worker import main

KINDS = {name: f"fake_jobs:{name}" for name, _ in inspect.getmembers(fake_jobs, inspect.isfunction)}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], kinds=KINDS))
