"""What tests of training share: photos, small runs, the real command, and the worker in this process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from dreamspace.config import DatasetConfig, RunConfig, save_datasets, subject_datasets
from dreamspace.jobs.events import EVENTS_FILE, Event, EventWriter, read_events
from dreamspace.jobs.launcher import follow, submit
from dreamspace.jobs.workspace import job_status

REPOSITORY = Path(__file__).resolve().parents[1]
RESOLUTION_PX = 64
INSTANCE_PROMPT, CLASS_PROMPT = "a photo of a sks dog", "a photo of a dog"

# Everything that could break exactness is in it: dropout, accumulation, a schedule, class images, Min-SNR.
SETTINGS: dict[str, Any] = {
    "token": "sks",
    "class_word": "dog",
    "lora_rank": 8,
    "lora_alpha": 3,
    "lora_dropout": 0.2,
    "learning_rate": 0.02,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 2,
    "train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_train_steps": 24,
    "snr_gamma": 5,
    "checkpoint_step_interval": 4,
    "checkpoints_total_limit": 2,
    "validation_prompts": [CLASS_PROMPT],
    "validation_step_interval": 1000,
    "validation_num_inference_steps": 2,
    "validation_preview_steps": 1,
    "held_out_photos": False,
    "eval_loss_disable": True,
    "evaluation_type": "none",
    "evaluate_checkpoints": False,
}


# On top of them: as little as a run can be.
QUICK: dict[str, Any] = {
    "gradient_accumulation_steps": 1,
    "max_train_steps": 3,
    "validation_disable": True,
    "validation_prompts": [],
}


def draw_photos(folder: Path, count: int, first: int = 0) -> Path:
    """Simple pictures of 80 x 64 px, each unlike the others."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        image = Image.new("RGB", (80, RESOLUTION_PX), (30 * number % 256, 200, 255 - 25 * number % 256))
        box = (5 + 3 * number, 10, 45 + 3 * number, 50)
        ImageDraw.Draw(image).ellipse(box, fill=(220, 40 * number % 256, 20))
        image.save(folder / f"{number:02d}.png")
    return folder


def cropped_dataset(folder: Path, **settings: Any) -> DatasetConfig:
    """Photos of the subject, cropped to the square that the tiny model was made for."""
    size = {"resolution": RESOLUTION_PX, "resolution_type": "pixel", "crop": True}
    values = {"id": "subject", "instance_prompt": INSTANCE_PROMPT} | size | settings
    return DatasetConfig(instance_data_dir=folder, **values)


def two_bucket_dataset(folder: Path) -> DatasetConfig:
    """3 photos of 80 x 64 px and 2 of 64 x 80, each kept as it is, so that no step of 4 rows is full."""
    photos = draw_photos(folder / "photos", 5)
    for name in ("03.png", "04.png"):
        with Image.open(photos / name) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(photos / name)
    return cropped_dataset(photos, crop=False)


def masked_datasets(
    folder: Path, kind: str = "mask", boxes: dict[int, tuple[int, int, int, int]] | None = None
) -> list[DatasetConfig]:
    """Four photos and their masks: white in a box (in px of the photo), grey for the second photo.

    After the crop the usual box is the left half.
    """
    photos = draw_photos(folder / "photos", 4)
    (folder / "masks").mkdir(exist_ok=True)
    for number, photo in enumerate(sorted(photos.iterdir())):
        mask = Image.new("L", (80, RESOLUTION_PX), 0)
        mask.paste(128 if number == 1 else 255, (boxes or {}).get(number, (8, 0, 40, RESOLUTION_PX)))
        mask.save(folder / "masks" / photo.name)
    masks = DatasetConfig(
        id="masks",
        dataset_type="conditioning",
        instance_data_dir=folder / "masks",
        conditioning_type=kind,
    )
    return [cropped_dataset(photos, conditioning_data="masks"), masks]


def tiny_config(model: Path, **settings: Any) -> RunConfig:
    """A quick run on `model`, on top of `SETTINGS`."""
    return RunConfig(pretrained_model_name_or_path=str(model), **SETTINGS | settings)


def write_run_folder(
    folder: Path,
    model: Path,
    photos: Path | list[DatasetConfig],
    class_photos: Path | None = None,
    **settings: Any,
) -> list[str | Path]:
    """Write the two files of a run; returns the options that name them.

    Args:
        photos: their folder, or all datasets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    datasets = photos
    if isinstance(photos, Path):
        class_prompt = CLASS_PROMPT if class_photos else None
        datasets = subject_datasets(photos, INSTANCE_PROMPT, RESOLUTION_PX, class_photos, class_prompt)
    save_datasets(datasets, folder / "multidatabackend.json")
    tiny_config(model, **settings).save(folder / "config.json")
    return ["--config", folder / "config.json", "--datasets", folder / "multidatabackend.json"]


def command(*arguments: str | Path) -> list[str]:
    """The real command line."""
    return [sys.executable, "-m", "dreamspace", *map(str, arguments)]


def command_environment() -> dict[str, str]:
    """The environment for it, whatever the working folder is."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY)}


def run_command(*arguments: str | Path, timeout_seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the real command to its end."""
    return subprocess.run(
        command(*arguments),
        env=command_environment(),
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


def train_here(run_dir: Path, resume: bool = False) -> list[Event]:
    """Train in this process; returns this attempt's events."""
    from dreamspace.training.run import train

    earlier, _ = read_events(run_dir / EVENTS_FILE)
    events = EventWriter(run_dir)
    try:
        train(run_dir, {"resume": resume}, events)
    finally:
        events.close()
    return read_events(run_dir / EVENTS_FILE)[0][len(earlier) :]


def train_in_two_processes(run_dir: Path, resume: bool = False) -> None:
    submit(run_dir, "train", {"resume": resume}, num_processes=2)
    for _ in follow(run_dir):
        pass
    assert job_status(run_dir).status == "done", (run_dir / "log.txt").read_text()


def assert_same_losses(run_dir: Path, expected_dir: Path, steps: range) -> None:
    ours, expected = (
        {event["step"]: event for event in events_of(run, "loss")} for run in (run_dir, expected_dir)
    )
    for step in steps:
        for name in ("loss", "instance_loss", "prior_loss", "grad_norm"):
            mine, other = ours[step][name], expected[step][name]
            assert mine == (other if other is None else pytest.approx(other, rel=1e-4, abs=1e-9)), name


def events_of(run_dir: Path, *kinds: str) -> list[Event]:
    """The events of these kinds, in order."""
    return [event for event in read_events(run_dir / EVENTS_FILE)[0] if event["kind"] in kinds]


def pair(files: Path, tmp_path: Path) -> list[str | Path]:
    """The command that trains on the two files in a folder."""
    datasets = files / "multidatabackend.json"
    return ["train", "--config", files / "config.json", "--datasets", datasets, "--run", tmp_path / "run"]


def change(path: Path, **values: object) -> None:
    """Change keys of a JSON object, or of the first in a list."""
    content = json.loads(path.read_text())
    (content[0] if isinstance(content, list) else content).update(values)
    path.write_text(json.dumps(content))


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit status 2 and one sentence with these words."""
    status, _, errors = result
    assert status == 2
    assert len(errors.splitlines()) == 1, errors
    assert "Traceback" not in errors
    assert errors.rstrip().endswith((".", "?")), errors
    for word in words:
        assert word in errors, errors


def hide_packages(packages: Iterable[str], patch: pytest.MonkeyPatch) -> None:
    """Have packages count as not installed, whether they were imported before or not."""
    for package in packages:
        patch.setitem(sys.modules, package, None)
        for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
            patch.setitem(sys.modules, name, None)
