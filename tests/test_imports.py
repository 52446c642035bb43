"""The process border: who may import what, and what that costs."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import QUICK, command_environment, events_of, write_run_folder

from dreamspace.jobs.job import Job

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
        "dreamspace.prompts.candidates, dreamspace.prompts.names, dreamspace.prompts.preview",
        "dreamspace.cli, dreamspace.console, dreamspace.doctor, dreamspace.worker",
    ],
)
def test_what_both_sides_share_loads_no_torch(modules: str) -> None:
    assert not imported(modules) & {*HEAVY, "gradio"}


WORKER = """
import runpy, sys
try:
    runpy.run_module("dreamspace.worker", run_name="__main__", alter_sys=True)
finally:
    print("imported", *[name for name in ("torchao", "bitsandbytes") if sys.modules.get(name)])
"""


@pytest.mark.parametrize(
    ("needed", "settings"),
    [
        (set(), {}),
        (
            {"torchao", "bitsandbytes"},
            {
                "base_model_precision": "nf4-bnb",
                "text_encoder_1_precision": "int8-torchao",
                "optimizer": "bnb-adamw8bit",
            },
        ),
    ],
    ids=["plain", "quantised"],
)
def test_worker_imports_slow_packages_for_runs_that_name_them_only(
    needed: set[str], settings: dict, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | settings)
    Job("train", {}).write(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path)],
        env=command_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert events_of(tmp_path, "done")
    assert set(result.stdout.rpartition("imported")[2].split()) == needed
