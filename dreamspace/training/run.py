"""The `train` job: from a run folder with two JSON files to an adapter that is proven to work."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from PIL import Image

from dreamspace.config import RunConfig, load_datasets
from dreamspace.data.geometry import edge_px
from dreamspace.files import read_json, write_json
from dreamspace.jobs.control import consume_control, stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.adapters import Adapter, add_lora
from dreamspace.models.base import open_model
from dreamspace.models.family import Family
from dreamspace.models.previews import load_tiny_vae
from dreamspace.training.checkpoints import load_optimizer, replace_folder, save_optimizer
from dreamspace.training.loop import LossLog, TrainingStep
from dreamspace.training.preparation import (
    fill_class_folder,
    read_training_set,
    sampling_settings,
    validation_prompts,
)
from dreamspace.training.validation import Validator

PROOF_THRESHOLD = 0.5
"""Mean difference in grey levels (of 255) that an adapter must make to an image at a fixed seed."""


def train(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Train the run in `job_dir`.

    Args:
        arguments: `resume` (bool) goes on from the newest checkpoint that holds an optimizer.

    Raises:
        ValueError: for everything that the user can mend.
    """
    config = RunConfig.load(job_dir / "config.json")
    datasets = load_datasets(job_dir / "multidatabackend.json")
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    name = config.pretrained_model_name_or_path
    model = open_model(name, config.model_family, cache_of(job_dir), accelerator.device)
    family, folder = model.family, model.folder
    resolution_px = edge_px(datasets[0].resolution, datasets[0].resolution_type, family.multiple_px(folder))
    with accelerator.main_process_first():
        fill_class_folder(config, datasets, model, resolution_px, events, lambda: stop_requested(job_dir))
        if consume_control(job_dir, "stop"):
            events.write("stopped", step=0, path=None)
            return
        training_set = read_training_set(config, datasets, model, events)

    events.write("stage", name="loading", message="Loading the model.")
    denoiser = family.load_denoiser(folder, accelerator.device, torch.float32)
    adapter = add_lora(
        denoiser, family.lora_targets, config.lora_rank, config.lora_alpha, config.lora_dropout, config.seed
    )
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(
        adapter.parameters,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.adam_weight_decay,
        fused=True,
    )
    vae = family.load_vae(folder, accelerator.device)
    validator = Validator(
        config,
        job_dir,
        events,
        family,
        family.pipeline(folder, denoiser, vae),
        load_tiny_vae(folder, accelerator.device),
        validation_prompts(config, datasets),
        training_set.conditioning,
        sampling_settings(config, training_set.size_px),
    )
    step = TrainingStep(
        config,
        family,
        family.noise_scheduler(folder),
        accelerator.prepare(denoiser),
        adapter,
        optimizer,
        training_set,
        accelerator,
    )
    run = Run(config, job_dir, events, family, folder, accelerator, adapter, optimizer, validator)
    counts = training_set.plan.mixture(
        min(config.max_train_steps * step.num_step_rows, training_set.plan.epoch_rows)
    )
    events.write(
        "mixture",
        datasets=counts,
        num_instances=sum(
            len(s)
            for s, d in zip(training_set.samples, datasets, strict=True)
            if not d.is_regularisation_data
        ),
        num_prior=sum(
            len(s) for s, d in zip(training_set.samples, datasets, strict=True) if d.is_regularisation_data
        ),
    )
    start = run.resume() if arguments.get("resume") else 0
    if run.loop(step, start):
        run.finish()


@dataclass
class Run:
    """A run in progress: what saving, validating and finishing need."""

    config: RunConfig
    run_dir: Path
    events: EventWriter
    family: Family
    model_folder: Path
    accelerator: Accelerator
    adapter: Adapter
    optimizer: torch.optim.Optimizer
    validator: Validator

    def loop(self, training_step: TrainingStep, start: int) -> bool:
        """Steps from `start` to the end; returns whether the end was reached."""
        config = self.config
        learning_rates = learning_rate_schedule(config)
        if start == 0:
            self.validate(0, "base")
        self.events.write("stage", name="training", message="Training.")
        log = LossLog(self.events, start, config.max_train_steps)
        for index in range(start, config.max_train_steps):
            log.add(training_step(index, learning_rates[index]))
            step = index + 1
            last = step == config.max_train_steps
            stop = self.asked("stop")
            if last or stop or step % config.checkpoint_step_interval == 0 or self.asked("save"):
                log.flush()
                self.save(step)
            if stop:
                self.events.write("stopped", step=step, path=f"checkpoints/step-{step:06d}")
                return False
            if last or step % config.validation_step_interval == 0 or self.asked("sample"):
                log.flush()
                self.validate(step, "trained")
                if not last:
                    self.events.write("stage", name="training", message="Training.")
        return True

    def asked(self, name: str) -> bool:
        """Whether the app asked for this; rank 0 reads the request, and all ranks act on it."""
        asked = self.accelerator.is_main_process and consume_control(self.run_dir, name)
        if self.accelerator.num_processes == 1:
            return asked
        flag = torch.tensor([int(asked)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "max").item())

    def validate(self, step: int, weights: str) -> None:
        if self.config.validation_disable or not self.accelerator.is_main_process:
            return
        self.events.write("stage", name="validating", message=f"Drawing validation images at step {step}.")
        self.adapter.denoiser.eval()
        self.validator.draw(step, weights)
        self.adapter.denoiser.train()

    def save(self, step: int) -> None:
        """Write a checkpoint whole or not at all, and prune the optimizer state of old ones."""
        if not self.accelerator.is_main_process:
            return
        folder = self.run_dir / "checkpoints" / f"step-{step:06d}"
        temporary = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        check_disk(temporary, self.adapter, self.optimizer)
        self.family.save_adapter(self.adapter.denoiser, temporary)
        save_optimizer(self.optimizer, temporary)
        write_json(temporary / "state.json", {"step": step})
        replace_folder(temporary, folder)
        resumable = sorted(folder.parent.glob("step-*/optimizer.safetensors"))
        for outdated in resumable[: -self.config.checkpoints_total_limit]:
            outdated.unlink()
            outdated.with_suffix(".json").unlink()
        self.events.write("checkpoint", step=step, path=folder.relative_to(self.run_dir))

    def resume(self) -> int:
        """Restore the newest checkpoint that can be resumed from; returns its step, 0 where there is none."""
        found = sorted((self.run_dir / "checkpoints").glob("step-*/optimizer.json"))
        if not found:
            return 0
        folder = found[-1].parent
        self.adapter.load(folder)
        load_optimizer(self.optimizer, folder)
        return read_json(folder / "state.json")["step"]

    def finish(self) -> None:
        """Export the adapter, and say `done` only once it was loaded again and changed an image as trained."""
        if not self.accelerator.is_main_process:
            return
        self.events.write("stage", name="saving", message="Saving the adapter and proving that it loads.")
        temporary, final = self.run_dir / ".adapter.new", self.run_dir / "adapter"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        self.family.save_adapter(self.adapter.denoiser, temporary)
        replace_folder(temporary, final)
        self.prove(final)
        self.events.write("done", step=self.config.max_train_steps, path="adapter")

    def prove(self, adapter_folder: Path) -> None:
        """Load the saved adapter into a fresh base model by the stock loader, and compare images.

        Raises:
            ValueError: if the adapter changes nothing.
            RuntimeError: if the reloaded adapter draws another image than the one in training.
        """
        self.adapter.denoiser.eval()
        prompts = self.validator.prompts[:1]
        settings = self.validator.settings
        if not self.config.validation_disable:
            settings = replace(settings, num_inference_steps=min(10, settings.num_inference_steps))
        validator = replace(self.validator, settings=settings)
        trained = validator.images(prompts)[0]
        fresh = self.family.load_denoiser(self.model_folder, self.accelerator.device, torch.float32)
        pipeline = self.family.pipeline(self.model_folder, fresh, self.validator.pipeline.vae)
        base = validator.images(prompts, pipeline=pipeline)[0]
        pipeline.load_lora_weights(adapter_folder)
        loaded = validator.images(prompts, pipeline=pipeline)[0]
        if (change := grey_levels_apart(base, loaded)) < PROOF_THRESHOLD:
            raise ValueError(
                f"The trained adapter changes the image of '{prompts[0]}' by {change:.2f} of 255 grey levels, which is "
                f"nothing. Train longer than {self.config.max_train_steps} steps, or raise learning_rate."
            )
        if (error := grey_levels_apart(trained, loaded)) > max(0.5, 0.1 * change):
            raise RuntimeError(
                f"The saved adapter draws an image {error:.2f} grey levels away from the trained one's (base: {change:.2f})."
            )


def learning_rate_schedule(config: RunConfig) -> list[float]:
    """The learning rate of every step, by diffusers' schedule of that name: a function of the step alone."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    scheduler = get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=config.max_train_steps,
    )
    rates = []
    for _ in range(config.max_train_steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def grey_levels_apart(first: Image.Image, second: Image.Image) -> float:
    """Mean absolute difference of two RGB pictures of one size, in grey levels of 255."""
    return float(np.abs(np.asarray(first, np.float32) - np.asarray(second, np.float32)).mean())


def check_disk(folder: Path, adapter: Adapter, optimizer: torch.optim.Optimizer) -> None:
    """Refuse to begin a checkpoint that the disk cannot hold.

    Raises:
        ValueError: with what is free and what is needed.
    """
    needed = 4 * sum(parameter.numel() * 4 for parameter in adapter.parameters) + 10_000_000
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"The disk has {free / 1e6:.0f} MB free and a checkpoint needs {needed / 1e6:.0f} MB. "
            "Free some space and resume; earlier checkpoints are kept."
        )
