"""The `train` job: from a run folder with two JSON files to an adapter that is proven to work."""

import os
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from dreamspace.config import RunConfig, load_datasets
from dreamspace.data.geometry import edge_px
from dreamspace.files import read_json, write_json
from dreamspace.jobs.control import ControlName, consume_control, stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.adapters import Adapter, add_lora
from dreamspace.models.base import BaseModel, open_model
from dreamspace.models.previews import load_tiny_vae
from dreamspace.run_folder import checkpoint_folder
from dreamspace.training.checkpoints import (
    load_optimizer,
    prune_optimizers,
    remove_unfinished,
    replace_folder,
    resumable_checkpoints,
    save_optimizer,
)
from dreamspace.training.loop import LossLog, TrainingStep
from dreamspace.training.optimizers import adamw, learning_rate_schedule
from dreamspace.training.preparation import (
    TrainingSet,
    fill_class_folder,
    read_training_set,
    sampling_settings,
    validation_prompts,
)
from dreamspace.training.proof import prove
from dreamspace.training.validation import Validator


def train(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Train the run in `job_dir`.

    Args:
        arguments: `resume` (bool) goes on from the newest checkpoint that holds an optimizer.

    Raises:
        ValueError: for everything that the user can mend.
    """
    config = RunConfig.load(job_dir / "config.json")
    datasets = [
        dataset for dataset in load_datasets(job_dir / "multidatabackend.json") if dataset.probability > 0
    ]
    accelerator = new_accelerator(config)
    name = config.pretrained_model_name_or_path
    model = open_model(name, config.model_family, cache_of(job_dir), accelerator.device)
    multiple_px = model.family.multiple_px(model.folder)
    resolution_px = edge_px(datasets[0].resolution, datasets[0].resolution_type, multiple_px)
    settings = sampling_settings(config, (resolution_px, resolution_px), multiple_px)
    if accelerator.is_main_process:
        remove_unfinished(job_dir)
        priors = model.cache.with_name("priors")
        fill_class_folder(config, datasets, model, priors, events, lambda: stop_requested(job_dir))
    if "stop" in consume_requests(accelerator, job_dir):
        events.write("stopped", step=0)
        return
    with accelerator.main_process_first():
        training_set = read_training_set(config, datasets, model, events)
    write_mixture(training_set, config, accelerator, events)

    events.write("stage", name="loading", message="Loading the model.")
    denoiser, adapter = load_trainable(config, model)
    validator = Validator(
        config,
        job_dir,
        events,
        model.family,
        model.family.pipeline(model.folder, denoiser, model.family.load_vae(model.folder, model.device)),
        load_tiny_vae(model.folder, model.device),
        validation_prompts(config, datasets),
        training_set.conditioning,
        settings,
    )
    optimizer = adamw(config, adapter.parameters)
    run = Run(config, job_dir, events, model, accelerator, adapter, optimizer, validator, training_set.digest)
    step = TrainingStep(
        config,
        model.family,
        model.family.noise_scheduler(model.folder),
        distributed(denoiser, accelerator),
        adapter,
        optimizer,
        training_set,
        accelerator,
    )
    check_disk(job_dir, adapter)
    start = run.resume() if arguments.get("resume") else 0
    if run.loop(step, start):
        run.finish()


def new_accelerator(config: RunConfig) -> Accelerator:
    """The device, the precision, and the ranks that this process is one of.

    Raises:
        ValueError: if this machine cannot compute in `mixed_precision`.
    """
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise ValueError(
            "mixed_precision 'fp16' needs a GPU, and this machine has none. Set it to 'no' or 'bf16'."
        )
    # Ranks wait for as long as rank 0 draws: class images before the training, validation images in it.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=24))
    # Without a GPU, accelerate joins ranks only if it is told to use the CPU; else each would train alone.
    ranks_on_cpu = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()
    return Accelerator(cpu=ranks_on_cpu, mixed_precision=config.mixed_precision, kwargs_handlers=[patience])


def load_trainable(config: RunConfig, model: BaseModel) -> tuple[torch.nn.Module, Adapter]:
    """The denoiser on its device, in training mode, and the new adapter on it."""
    denoiser = model.family.load_denoiser(model.folder, model.device)
    adapter = add_lora(
        denoiser,
        model.family.lora_targets,
        config.lora_rank,
        config.lora_alpha,
        config.lora_dropout,
        config.seed,
    )
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    return denoiser.train(), adapter


def distributed(denoiser: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module:
    """The denoiser as it is for one process, else wrapped so that gradients are averaged over the ranks."""
    if accelerator.num_processes == 1:
        return denoiser
    wrapped = accelerator.prepare(denoiser)
    # Takes accelerate's autocast off the denoiser's own `forward` again: the loop has its own, and images
    # are drawn without it, so that they equal those of the stock pipeline.
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    return wrapped


def write_mixture(
    training_set: TrainingSet, config: RunConfig, accelerator: Accelerator, events: EventWriter
) -> None:
    """Announce what share of the rows each dataset has, over the run or over an epoch if that is shorter."""
    num_step_rows = config.train_batch_size * config.gradient_accumulation_steps * accelerator.num_processes
    num_rows = min(config.max_train_steps * num_step_rows, training_set.plan.epoch_rows)
    events.write(
        "mixture",
        datasets=training_set.plan.mixture(num_rows),
        num_instances=training_set.num_samples(uses_base_target=False),
        num_prior=training_set.num_samples(uses_base_target=True),
    )


def consume_requests(accelerator: Accelerator, job_dir: Path) -> set[ControlName]:
    """What the app asked for since the last call; rank 0 reads the requests, and all ranks act on them."""
    names = get_args(ControlName)
    found = [accelerator.is_main_process and consume_control(job_dir, name) for name in names]
    if accelerator.num_processes > 1:
        flags = torch.tensor(found, dtype=torch.int32, device=accelerator.device)
        found = accelerator.reduce(flags, "sum").tolist()
    return {name for name, was_found in zip(names, found, strict=True) if was_found}


@dataclass
class Run:
    """A run in progress: what saving, validating and finishing need.

    `digest` tells what is trained on, so that a resumed run notices a change.
    """

    config: RunConfig
    run_dir: Path
    events: EventWriter
    model: BaseModel
    accelerator: Accelerator
    adapter: Adapter
    optimizer: torch.optim.Optimizer
    validator: Validator
    digest: str

    def loop(self, training_step: TrainingStep, start: int) -> bool:
        """Steps from `start` to the end; returns whether the end was reached."""
        config = self.config
        learning_rates = learning_rate_schedule(config)
        if start == 0:
            self.validate(0, "base")
        elif self.is_validation_due(start) and not self.validator.are_drawn(start):
            self.validate(start, "trained")
        self.events.write("stage", name="training", message="Training.")
        log = LossLog(self.events, start, config.max_train_steps)
        for index in range(start, config.max_train_steps):
            requests = consume_requests(self.accelerator, self.run_dir)
            if requests:
                log.flush()
            if "stop" in requests:
                return self.leave(index)
            if "save" in requests and not self.is_saved(index):
                self.save(index)
            if "sample" in requests and not self.validator.are_drawn(index):
                self.validate(index, "trained")
                self.events.write("stage", name="training", message="Training.")
            log.add(training_step(index, learning_rates[index]))
            step = index + 1
            last = step == config.max_train_steps
            if last or step % config.checkpoint_step_interval == 0:
                log.flush()
                self.save(step)
            if self.is_validation_due(step):
                log.flush()
                self.validate(step, "trained")
                if not last:
                    self.events.write("stage", name="training", message="Training.")
        stopped = "stop" in consume_requests(self.accelerator, self.run_dir)
        return not stopped or self.leave(config.max_train_steps)

    def leave(self, step: int) -> Literal[False]:
        """Save what has been trained up to `step`, unless it is saved, and say that the run is stopped."""
        if not self.is_saved(step):
            self.save(step)
        path = checkpoint_folder(self.run_dir, step).relative_to(self.run_dir) if step else None
        self.events.write("stopped", step=step, path=path)
        return False

    def is_saved(self, step: int) -> bool:
        """Whether a checkpoint of `step` would add nothing, as before the first step."""
        return step == 0 or checkpoint_folder(self.run_dir, step).exists()

    def is_validation_due(self, step: int) -> bool:
        """Whether the configuration wants images of this step."""
        return step % self.config.validation_step_interval == 0 or step == self.config.max_train_steps

    def validate(self, step: int, weights: Literal["base", "trained"]) -> None:
        """Draw the validation images, unless they are disabled; a request to stop cuts it short."""
        if self.config.validation_disable or not self.accelerator.is_main_process:
            return
        self.events.write("stage", name="validating", message=f"Drawing validation images at step {step}.")
        self.adapter.denoiser.eval()
        self.validator.draw(step, weights, lambda: stop_requested(self.run_dir))
        self.adapter.denoiser.train()

    def save(self, step: int) -> None:
        """Write a checkpoint whole or not at all, and prune the optimizer state of old ones."""
        if not self.accelerator.is_main_process:
            return
        check_disk(self.run_dir, self.adapter)
        folder = checkpoint_folder(self.run_dir, step)
        temporary = folder.with_name(f".{folder.name}.new")
        temporary.mkdir(parents=True)
        self.model.family.save_adapter(self.adapter.denoiser, temporary)
        save_optimizer(self.optimizer, temporary)
        scaler = self.accelerator.scaler
        state = {"step": step, "digest": self.digest, "grad_scaler": scaler and scaler.state_dict()}
        write_json(temporary / "state.json", state)
        replace_folder(temporary, folder)
        prune_optimizers(self.run_dir, self.config.checkpoints_total_limit)
        self.events.write("checkpoint", step=step, path=folder.relative_to(self.run_dir))

    def resume(self) -> int:
        """Restore the newest checkpoint that can be resumed from; returns its step, 0 where there is none."""
        found = resumable_checkpoints(self.run_dir)
        if not found:
            return 0
        self.adapter.load(found[-1])
        load_optimizer(self.optimizer, found[-1])
        state = read_json(found[-1] / "state.json")
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["grad_scaler"])
        if state["digest"] != self.digest:
            self.events.write(
                "warning",
                message="The photos, class images or captions are others than when this run was stopped.",
                hint="It goes on with what is there now.",
            )
        return state["step"]

    def finish(self) -> None:
        """Export the adapter; `done` only once it was loaded again and changed an image as trained."""
        self.events.write("stage", name="saving", message="Saving the adapter and proving that it loads.")
        if self.accelerator.is_main_process:
            check_disk(self.run_dir, self.adapter)
            temporary = self.run_dir / ".adapter.new"
            temporary.mkdir()
            self.model.family.save_adapter(self.adapter.denoiser, temporary)
            self.adapter.denoiser.eval()
            prove(temporary, self.model, self.validator)
            replace_folder(temporary, self.run_dir / "adapter")
        self.accelerator.wait_for_everyone()
        self.events.write("done", step=self.config.max_train_steps, path="adapter")


def check_disk(folder: Path, adapter: Adapter) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        ValueError: with what is free and what a checkpoint needs.
    """
    # Weights and AdamW's two moments, and the adapter once more at the end, in fp32.
    needed = 4 * sum(parameter.numel() * 4 for parameter in adapter.parameters) + 10_000_000
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"The disk has {free / 1e6:.0f} MB free and a checkpoint needs {needed / 1e6:.0f} MB. "
            "Free some space and resume; earlier checkpoints are kept."
        )
