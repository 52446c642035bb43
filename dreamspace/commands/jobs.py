"""What the commands that submit a job share."""

import os
from pathlib import Path
from typing import Any

from dreamspace.config import is_hub_id
from dreamspace.console import watch
from dreamspace.jobs.launcher import submit
from dreamspace.jobs.workspace import Workspace


def run_job(kind: str, arguments: dict[str, Any], **options: Any) -> int:
    """Do a job in a new folder of the workspace; see `run_job_in`."""
    return run_job_in(Workspace().new_job_dir(kind), kind, arguments, **options)


def run_job_in(job_dir: Path, kind: str, arguments: dict[str, Any], **options: Any) -> int:
    """Submit a job and show how it goes; returns its exit status.

    Args:
        options: of `dreamspace.jobs.launcher.submit`.
    """
    submit(job_dir, kind, arguments, **options)
    return watch(job_dir)


def hub_token() -> dict[str, str]:
    """HF_TOKEN, for a job that needs it."""
    return {"HF_TOKEN": os.environ["HF_TOKEN"]} if os.environ.get("HF_TOKEN") else {}


def secrets_for(model: str) -> dict[str, str]:
    """HF_TOKEN, if the base model may have to be downloaded."""
    return hub_token() if is_hub_id(model) else {}
