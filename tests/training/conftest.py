from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_config, write_run_folder

from dreamspace.config import DatasetConfig, load_datasets
from dreamspace.jobs.events import EventWriter
from dreamspace.models.base import open_model
from dreamspace.training.loop import TrainingStep
from dreamspace.training.optimizers import new_optimizer
from dreamspace.training.preparation import read_training_set
from dreamspace.training.ranks import new_accelerator
from dreamspace.training.schedule import NoiseSchedule, noise_schedule
from dreamspace.training.setup import load_trainable, new_ema


@pytest.fixture
def new_step(
    tmp_path: Path, tiny_model: Path, photos: Path, class_photos: Path
) -> Callable[..., TrainingStep]:
    """Makes a training step on 4 photos and 4 class images; its adapter is not the identity if asked so."""

    def make(
        adapter_strength: float = 0.0,
        with_prior: bool = True,
        datasets: list[DatasetConfig] | None = None,
        schedule: NoiseSchedule | None = None,
        **settings: Any,
    ) -> TrainingStep:
        config = tiny_config(tiny_model, **{"lora_dropout": 0.0} | settings)
        write_run_folder(tmp_path, tiny_model, photos, class_photos if with_prior else None)
        datasets = datasets or load_datasets(tmp_path / "multidatabackend.json")
        accelerator = new_accelerator(config)
        model = open_model(config, tmp_path / "cache", accelerator.device)
        step_rows = config.train_batch_size * config.gradient_accumulation_steps
        training_set = read_training_set(config, datasets, model, EventWriter(tmp_path), step_rows)
        denoiser, adapter = load_trainable(config, model)
        generator = torch.Generator().manual_seed(1)
        for parameter in adapter.parameters:
            parameter.data += adapter_strength * torch.randn(parameter.shape, generator=generator)
        return TrainingStep(
            config,
            model.family,
            schedule or noise_schedule(model.noise_scheduler()),
            denoiser,
            adapter,
            new_optimizer(config, adapter.parameter_groups),
            training_set,
            accelerator,
            new_ema(config, adapter),
        )

    return make
