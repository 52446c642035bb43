"""The probe of `estimate`: a run's first steps in a throwaway folder, and what they took."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from dreamspace.commands.jobs import secrets_for
from dreamspace.config import (
    DatasetConfig,
    Prior,
    RunConfig,
    instance_prompt,
    save_datasets,
    subject_datasets,
)
from dreamspace.data.geometry import MOST_AT_ONCE, dataset_edge_px
from dreamspace.data.photos import photo_files
from dreamspace.files import read_json
from dreamspace.jobs.launcher import follow, stop, submit
from dreamspace.jobs.log import log_tail
from dreamspace.jobs.workspace import Workspace, job_status
from dreamspace.run_folder import PROBE_FILE


def probe(
    config: RunConfig,
    prior: Prior,
    edge_px: int,
    datasets: list[DatasetConfig] | None = None,
    photos_dir: Path | None = None,
) -> tuple[int, dict[str, Any]]:
    """Two real steps of a run; returns the exit status and what was measured, or `failed` with a sentence.

    Nothing is cached, so that encoding is measured too, and nothing stays. Standard error shows the stages.

    Args:
        prior, edge_px, photos_dir: of the run where it has no `datasets`. Without photos, and in place of
            class images that are still to be drawn, there are generated pictures.
    """
    with tempfile.TemporaryDirectory(prefix="probe-", dir=Workspace().cache) as folder:
        job_dir = Path(folder) / "jobs" / "probe"
        job_dir.mkdir(parents=True)
        (Path(folder) / "cache").mkdir()
        if datasets is None:
            datasets = _made_up(config, prior, edge_px, Path(folder), photos_dir)
        else:
            datasets = [_ready(dataset, Path(folder)) for dataset in datasets if not _is_cache(dataset)]
        save_datasets(datasets, job_dir / "multidatabackend.json")
        config.model_copy(update={"num_class_images": 0}).save(job_dir / "config.json")
        submit(
            job_dir, "probe", {}, secrets=secrets_for(config.pretrained_model_name_or_path), grace_seconds=0
        )
        _show(job_dir)
        status = job_status(job_dir)
        if status.status == "done":
            return 0, read_json(job_dir / PROBE_FILE)
        if status.exit_status == 1:
            print(log_tail(job_dir), file=sys.stderr)
        return status.exit_status or 1, {"failed": f"{status.message} {status.hint}".rstrip()}


def _show(job_dir: Path) -> None:
    """Stages and warnings until the job has ended; Ctrl-C ends it."""
    try:
        for event in follow(job_dir):
            if event["kind"] in ("stage", "warning"):
                print(event["message"], file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        stop(job_dir)
        for _ in follow(job_dir):
            pass
        raise


def _made_up(
    config: RunConfig, prior: Prior, edge_px: int, folder: Path, photos_dir: Path | None
) -> list[DatasetConfig]:
    """The datasets of a run that has none: enough pictures for whole steps."""
    photos = photos_dir or _pictures(folder / "photos", edge_px)
    class_photos = {"none": None, "image-free": photos}.get(prior, folder / "class")
    if class_photos == folder / "class":
        _pictures(class_photos, edge_px)
    prompt = instance_prompt(config.token, config.class_word or "dog")
    found = subject_datasets(
        photos,
        prompt,
        edge_px,
        class_photos,
        prompt if class_photos else None,
        regularisation_target="noise" if prior == "noise" else "base",
    )
    rows = config.train_batch_size * config.gradient_accumulation_steps
    return [dataset.model_copy(update={"repeats": rows - 1}) for dataset in found]


def _is_cache(dataset: DatasetConfig) -> bool:
    return dataset.dataset_type in ("text_embeds", "image_embeds")


def _ready(dataset: DatasetConfig, folder: Path) -> DatasetConfig:
    """A dataset without a cache of its own, and with pictures where class images are still to be drawn."""
    changed: dict[str, Any] = {"cache_dir_vae": None}
    source = dataset.instance_data_dir
    is_prior = dataset.is_trained and dataset.is_regularisation_data and source is not None
    if is_prior and not photo_files(source):
        changed["instance_data_dir"] = _pictures(folder / dataset.id, dataset_edge_px(dataset, 1))
    return dataset.model_copy(update=changed)


def _pictures(folder: Path, edge_px: int) -> Path:
    """As many pictures as are encoded together, each unlike the others."""
    folder.mkdir()
    for number in range(MOST_AT_ONCE):
        gradient = Image.radial_gradient("L").rotate(90 * number).resize((edge_px, edge_px))
        shades = gradient.point(lambda value, number=number: (value + 40 * number) % 256)
        Image.merge("RGB", (gradient, shades, shades)).save(folder / f"{number}.png")
    return folder
