"""Publishes as a worker does: `python publish_in_process.py JOB_DIR`, with HF_ENDPOINT set before any import."""

import json
import sys
from pathlib import Path

from dreamspace.hub.push import publish
from dreamspace.jobs.events import EventWriter

job_dir = Path(sys.argv[1])
arguments = json.loads((job_dir / "job.json").read_text())["arguments"]
events = EventWriter(job_dir)
try:
    publish(job_dir, arguments, events)
except ValueError as error:
    events.write("failed", error="ValueError", message=str(error))
    raise
