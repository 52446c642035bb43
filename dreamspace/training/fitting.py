"""Memory before a run and when it runs out: what is said, and what `auto_fit` does about it."""

import gc
import os
from pathlib import Path

import torch

from dreamspace.config import DatasetConfig, RunConfig, load_datasets, prior_of, read_datasets, save_datasets
from dreamspace.data.geometry import dataset_edge_px
from dreamspace.estimate.fit import Change, Situation, cheapest_change, next_change
from dreamspace.estimate.hardware import this_machine
from dreamspace.estimate.profiles import known_profile, stored_profile
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.base import best_device
from dreamspace.models.source import model_folder
from dreamspace.training.checkpoints import resumable_checkpoints


def settle_memory(job_dir: Path, events: EventWriter) -> None:
    """Say before a run whether it fits; with `auto_fit` make it fit, and write what was changed.

    Nothing is said of a base model whose profile is not known.

    Raises:
        ValueError: if the run surely does not fit.
    """
    config = RunConfig.load(job_dir / "config.json")
    situation = situation_of(config, load_datasets(job_dir / "multidatabackend.json"), cache_of(job_dir))
    if situation is None or situation.fits:
        return
    change, needed = cheapest_change(situation), _gb(situation.memory.peak)
    message = (
        f"About {needed} of memory are needed for {situation.memory.largest_stage}, "
        f"and {_gb(situation.hardware.free_bytes)} are free."
    )
    if change is not None and config.auto_fit:
        apply_change(job_dir, change)
        events.write("warning", message=message, hint=f"auto_fit did this: {change.sentence}")
        return
    advice = "Choose a smaller model, or rent a larger GPU." if change is None else change.sentence
    if situation.surely_too_large:
        raise ValueError(f"{message} {advice}")
    events.write("warning", message=message, hint=advice)


def after_out_of_memory(job_dir: Path, events: EventWriter) -> str | None:
    """What to do when memory ran out: a sentence, or None if `auto_fit` has done it and the run may go on."""
    config = RunConfig.load(job_dir / "config.json")
    datasets = load_datasets(job_dir / "multidatabackend.json")
    situation = situation_of(config, datasets, cache_of(job_dir))
    # What a checkpoint holds of an optimizer is of no use to another.
    keeps_optimizer = bool(resumable_checkpoints(job_dir))
    change = next_change(config, situation, best_device().type, keeps_optimizer)
    if change is None:
        return "Memory ran out, and nothing is left that saves any. Choose a smaller model or a larger GPU."
    if not config.auto_fit or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return f"Memory ran out. {change.sentence}"
    apply_change(job_dir, change)
    events.write(
        "warning",
        message="Memory ran out. The run goes on from its newest checkpoint.",
        hint=f"auto_fit did this: {change.sentence}",
    )
    return None


def release_memory() -> None:
    """Give back what a failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def situation_of(config: RunConfig, datasets: list[DatasetConfig], cache: Path) -> Situation | None:
    """The run on this machine; None if its base model's profile is not known, or it has another device."""
    hardware = this_machine()
    profile = known_profile(config)
    if profile is None:
        profile = stored_profile(config, model_folder(config.pretrained_model_name_or_path), cache)
    if profile is None or hardware.device != best_device().type:
        return None
    edge = max(dataset_edge_px(dataset, 1) for dataset in datasets if dataset.is_trained)
    has_base = prior_of(datasets) in ("base", "image-free") or config.masked_prior_weight > 0
    return Situation(config, profile, (edge, edge), hardware, has_base)


def apply_change(job_dir: Path, change: Change) -> None:
    """Write the changed settings, and a lower resolution into the datasets."""
    change.applied(RunConfig.load(job_dir / "config.json")).save(job_dir / "config.json")
    if change.share == 1:
        return
    datasets = read_datasets(job_dir / "multidatabackend.json")
    save_datasets(
        [_smaller(dataset, change.share) if dataset.is_trained else dataset for dataset in datasets],
        job_dir / "multidatabackend.json",
    )


def _smaller(dataset: DatasetConfig, share: float) -> DatasetConfig:
    if dataset.resolution_type == "area":  # megapixels
        return dataset.model_copy(update={"resolution": dataset.resolution * share**2})
    edge = max(64, round(dataset.resolution * share / 64) * 64)
    return dataset.model_copy(update={"resolution": edge})


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
