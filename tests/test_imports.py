"""The process border: who may import what, and what that costs."""

import subprocess
import sys

import pytest
from tiny_runs import command_environment

HEAVY = ("torch", "diffusers", "transformers", "accelerate", "peft")


def imported(modules: str) -> set[str]:
    """The top-level packages in memory after importing `modules`, in a new process."""
    code = f"import sys, {modules}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", code], env=command_environment(), capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_training_and_models_load_no_gradio() -> None:
    modules = imported(
        "dreamspace.training.run, dreamspace.models.generate, dreamspace.models.prior, dreamspace.worker"
    )
    assert "torch" in modules
    assert not modules & {"gradio", "fastapi", "uvicorn"}


@pytest.mark.parametrize(
    "modules",
    [
        "dreamspace.config, dreamspace.data.photos, dreamspace.data.geometry, dreamspace.data.samples",
        "dreamspace.data.plan, dreamspace.jobs.supervisor, dreamspace.jobs.launcher, dreamspace.jobs.new_run",
        "dreamspace.estimate.profiles, dreamspace.estimate.fit, dreamspace.estimate.speed",
        "dreamspace.cli, dreamspace.console, dreamspace.doctor, dreamspace.worker",
    ],
)
def test_what_both_sides_share_loads_no_torch(modules: str) -> None:
    assert not imported(modules) & {*HEAVY, "gradio"}
