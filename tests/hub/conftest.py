"""A run folder as training leaves it, a Hub, and publishing by the worker's own command."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.numpy import save_file

from dreamspace.config import RunConfig, save_datasets, subject_datasets
from dreamspace.files import write_json
from dreamspace.jobs.events import EventWriter, read_events
from tests.hub.fake_hub import FakeHub

ROOT = Path(__file__).parents[2]
PHOTOS = "/home/maria/photos-of-rex"


@dataclass(frozen=True)
class Outcome:
    """How a publish job ended."""

    exit_status: int
    output: str
    events: list[dict[str, Any]]
    job_dir: Path

    @property
    def message(self) -> str:
        """What the job failed with."""
        assert self.events[-1]["kind"] == "failed", self.events
        return self.events[-1]["message"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with FakeHub(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of 200 steps with images at 100 and 200, full of paths that must not leave the machine."""
    run = tmp_path / "workspace" / "runs" / "rex-1"
    RunConfig(
        pretrained_model_name_or_path="stable-diffusion-v1-5/stable-diffusion-v1-5",
        learning_rate=1e-4,
        max_train_steps=200,
        validation_prompts=["a photo of a sks dog in the snow"],
        token="sks",
        class_word="dog",
    ).save(run / "config.json")
    prompt = "a photo of a sks dog"
    datasets = subject_datasets(Path(PHOTOS), prompt, 512, Path("/priors"), "a photo of a dog")
    save_datasets(datasets[::-1], run / "multidatabackend.json")
    write_adapter(run / "adapter" / "pytorch_lora_weights.safetensors")
    (run / "log.txt").write_text(f"reading {PHOTOS}")
    events = EventWriter(run)
    for step, weights in ((0, "base"), (100, "trained"), (200, "trained")):
        for seed, sampled in enumerate((prompt, f"{prompt} in the snow"), 1):
            image = write_image(run / "validation" / f"step-{step:06d}" / f"{seed}.png", step + seed)
            path = image.relative_to(run)
            events.write("sample", step=step, prompt=sampled, seed=seed, path=path, weights=weights)
    events.write("checkpoint", step=200, path="checkpoints/step-000200")
    events.write("done", step=200, path="adapter")
    events.close()
    return run


def write_adapter(path: Path, alpha: int = 8) -> Path:
    """An adapter with metadata as PEFT leaves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {
        "unet.to_q.lora_A.weight": np.random.default_rng(0).normal(size=(16, 20_000)).astype("float32")
    }
    settings = {"unet.lora_alpha": alpha, "unet.r": 16, "unet.base_model_name_or_path": PHOTOS}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(settings), "ss_dataset_dirs": PHOTOS}
    save_file(weights, path, metadata=metadata)
    return path


def write_image(path: Path, shade: int) -> Path:
    """A PNG of one colour, with a text chunk that names a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = PngInfo()
    text.add_text("source", PHOTOS)
    Image.new("RGB", (24, 24), (shade, 0, 0)).save(path, pnginfo=text)
    return path


@pytest.fixture
def publish_run(tmp_path: Path, hub: FakeHub, run_dir: Path) -> Callable[..., Outcome]:
    """Publish `run_dir` to `hub` by the worker's command: `publish_run(repo_id, private=..., HF_X=value)`."""
    jobs = iter(range(1000))

    def publish_run(repo_id: str = "alice/rex", private: bool = True, **environment: str) -> Outcome:
        job_dir = tmp_path / "workspace" / "jobs" / f"publish-{next(jobs)}"
        arguments = {"run_dir": str(run_dir), "repo_id": repo_id, "private": private}
        write_json(job_dir / "job.json", {"kind": "publish", "arguments": arguments})
        inherited = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        # Without it hub 2.4 asks for a list of programs to name in its user agent.
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_TELEMETRY": "1"}
        with (job_dir / "log.txt").open("w+") as log:
            process = subprocess.run(
                [sys.executable, "-m", "dreamspace.worker", str(job_dir)],
                env=inherited | settings | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=300,
                check=False,
            )
        output = (job_dir / "log.txt").read_text()
        return Outcome(process.returncode, output, read_events(job_dir / "events.jsonl")[0], job_dir)

    return publish_run
