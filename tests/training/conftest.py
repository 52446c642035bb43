from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config, write_run_folder

from dreamspace.config import load_datasets
from dreamspace.jobs.events import EventWriter
from dreamspace.models.base import open_model
from dreamspace.training.loop import TrainingStep
from dreamspace.training.optimizers import adamw
from dreamspace.training.preparation import read_training_set
from dreamspace.training.run import load_trainable, new_accelerator


@pytest.fixture
def new_step(
    tmp_path: Path, tiny_model: Path, photos: Path, class_photos: Path
) -> Callable[..., TrainingStep]:
    """Makes a training step on 4 photos and 4 class images; its adapter is not the identity if asked so."""

    def make(adapter_strength: float = 0.0, with_prior: bool = True, **settings) -> TrainingStep:
        config = tiny_config(tiny_model, **{"lora_dropout": 0.0} | settings)
        write_run_folder(tmp_path, tiny_model, photos, class_photos if with_prior else None)
        datasets = load_datasets(tmp_path / "multidatabackend.json")
        accelerator = new_accelerator(config)
        model = open_model(str(tiny_model), "sd1x", tmp_path / "cache", accelerator.device)
        training_set = read_training_set(config, datasets, model, EventWriter(tmp_path))
        denoiser, adapter = load_trainable(config, model)
        generator = torch.Generator().manual_seed(1)
        for parameter in adapter.parameters:
            parameter.data += adapter_strength * torch.randn(parameter.shape, generator=generator)
        return TrainingStep(
            config,
            model.family,
            model.family.noise_scheduler(model.folder),
            denoiser,
            adapter,
            adamw(config, adapter.parameters),
            training_set,
            accelerator,
        )

    return make
