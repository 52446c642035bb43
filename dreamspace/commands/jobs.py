"""What the commands that submit a job share."""

import os

from dreamspace.config import is_hub_id
from dreamspace.console import watch
from dreamspace.jobs.launcher import submit
from dreamspace.jobs.workspace import Workspace


def run_job(
    kind: str, arguments: dict, *, needs_gpu: bool = True, secrets: dict[str, str] | None = None
) -> int:
    """Submit a job in a new folder and show how it goes; returns its exit status."""
    job_dir = Workspace().new_job_dir(kind)
    submit(job_dir, kind, arguments, needs_gpu=needs_gpu, secrets=secrets)
    return watch(job_dir)


def hub_token() -> dict[str, str]:
    """HF_TOKEN, for a job that needs it."""
    return {"HF_TOKEN": os.environ["HF_TOKEN"]} if os.environ.get("HF_TOKEN") else {}


def secrets_for(model: str) -> dict[str, str]:
    """HF_TOKEN, if the base model may have to be downloaded."""
    return hub_token() if is_hub_id(model) else {}
