"""The `train` job: from a run folder with two JSON files to an adapter that is proven to work."""

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from safetensors import SafetensorError

from dreamspace.config import RunConfig, load_datasets
from dreamspace.config.families import FEW_STEP_WARNING, few_step_advice
from dreamspace.data.held_out import read_held_out, write_held_out
from dreamspace.data.plan import StepPlan
from dreamspace.estimate.out_of_memory import is_out_of_memory
from dreamspace.evaluation.plan import evaluation_plan
from dreamspace.jobs.control import stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.base import BaseModel, open_model
from dreamspace.models.family import is_distilled
from dreamspace.models.text import trained_text
from dreamspace.run_folder import adapter_folder, checkpoint_folder
from dreamspace.training.checkpoints import (
    has_optimizer,
    prune_optimizers,
    remove_unfinished,
    replace_folder,
    resumable_checkpoints,
)
from dreamspace.training.eval_loss import EvalLoss
from dreamspace.training.fitting import after_out_of_memory, release_memory, settle_memory
from dreamspace.training.judging import Judging
from dreamspace.training.loop import TrainingStep
from dreamspace.training.loss_log import LossLog
from dreamspace.training.new_validator import new_validator
from dreamspace.training.optimizers import learning_rate_schedule, new_optimizer
from dreamspace.training.preparation import validation_prompts
from dreamspace.training.proof import prove
from dreamspace.training.ranks import consume_requests, distributed, new_accelerator
from dreamspace.training.saving import TrainingState, Weights
from dreamspace.training.setup import check_run, load_trainable, new_ema, prepared
from dreamspace.training.validation import Validator


def train(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Train the run in `job_dir`.

    Args:
        arguments: `resume` (bool) goes on from the newest checkpoint that holds an optimizer.

    Raises:
        ValueError: for everything that the user can mend.
        MemoryError: with what to change, if memory runs out and `auto_fit` is off.
    """
    resume = bool(arguments.get("resume"))
    settle_memory(job_dir, events)
    while True:
        try:
            return _train(job_dir, resume, events)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            traceback.print_exception(error)  # And not kept: its frames hold what the memory is full of.
        release_memory()
        advice = after_out_of_memory(job_dir, events)
        if advice is not None:
            raise MemoryError(advice)
        resume = True


def _train(job_dir: Path, resume: bool, events: EventWriter) -> None:
    """One attempt."""
    resumes = bool(resume and resumable_checkpoints(job_dir))
    found = begin(job_dir, events, resumes)
    if found is None:
        events.write("stopped", step=0)
        return
    run, step = found
    run.state.check_disk(job_dir)
    start = run.resume() if resumes else 0
    try:
        if run.loop(step, start):
            run.finish()
    finally:
        run.validator.close()


def begin(job_dir: Path, events: EventWriter, resumes: bool = False) -> "tuple[Run, TrainingStep] | None":
    """All that comes before the first step: caches, model, optimizer; None if a stop was asked for.

    Args:
        resumes: whether a checkpoint follows, so that the adapter need not begin with `init_lora`.
    """
    config = RunConfig.load(job_dir / "config.json")
    datasets = load_datasets(job_dir / "multidatabackend.json")
    accelerator = new_accelerator(config)
    model = open_model(config, cache_of(job_dir), accelerator.device)
    schedule, settings = check_run(config, datasets, model)
    if accelerator.is_main_process:
        remove_unfinished(job_dir)
    if is_distilled(model.family):
        drawn = config.validation_num_inference_steps, config.validation_guidance
        events.write("warning", message=FEW_STEP_WARNING, hint=few_step_advice(model.family.name, *drawn))
    text = trained_text(config, model)
    held_out = read_held_out(job_dir)
    found = prepared(config, datasets, model, accelerator, job_dir, events, text, held_out)
    if found is None:
        return None
    datasets, training_set = found
    if accelerator.is_main_process and (held_out is not None or not resumes):
        write_held_out(job_dir, training_set.still_held_out(held_out))
    events.write(
        "mixture",
        datasets=training_set.mixture(config.max_train_steps),
        num_instances=training_set.num_instances,
        num_prior=training_set.num_prior,
        held_out=training_set.judged_by.held_out_names,
    )

    events.write("stage", name="loading", message="Loading the model.")
    denoiser, adapter = load_trainable(config, model, not resumes, text)
    prompts = validation_prompts(config, datasets)
    validator = new_validator(
        config,
        job_dir,
        events,
        model,
        denoiser,
        training_set,
        prompts,
        settings,
        text,
        is_seen=accelerator.is_main_process,
    )
    optimizer = new_optimizer(config, adapter.parameter_groups)
    ema = new_ema(config, adapter) if accelerator.is_main_process else None
    state = TrainingState(adapter, optimizer, config.optimizer, ema, accelerator, training_set.digest)
    step = TrainingStep(
        config,
        model.family,
        schedule.to(accelerator.device),
        distributed(denoiser, accelerator),
        adapter,
        optimizer,
        training_set,
        accelerator,
        ema,
        text,
    )
    eval_loss = EvalLoss(
        config,
        model.family,
        step.schedule,
        training_set.eval_photos,
        training_set.conditioning,
        accelerator,
        text,
    )
    judging = Judging(
        config,
        job_dir,
        events,
        model,
        datasets,
        evaluation_plan(config, datasets),
        training_set.judged_by,
        training_set.different_instances,
    )
    return Run(config, job_dir, events, model, state, validator, eval_loss, judging), step


@dataclass
class Run:
    """A run in progress: the loop, and the checkpoints and images on its way."""

    config: RunConfig
    run_dir: Path
    events: EventWriter
    model: BaseModel
    state: TrainingState
    validator: Validator
    eval_loss: EvalLoss
    judging: Judging

    @property
    def accelerator(self) -> Accelerator:
        return self.state.accelerator

    def loop(self, training_step: TrainingStep, start: int) -> bool:
        """Steps from `start` to the end; returns whether the end was reached."""
        config = self.config
        learning_rates = learning_rate_schedule(config)
        plan = training_step.training_set.plan
        if self.is_eval_loss_due(start, plan):
            self.measure(start)
        if self.is_validation_due(start, plan):
            self.validate(start)
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
            if "sample" in requests and self.validate(index):
                self.events.write("stage", name="training", message="Training.")
            log.add(training_step(index, learning_rates[index]))
            step = index + 1
            last = step == config.max_train_steps
            if last or step % config.checkpoint_step_interval == 0:
                log.flush()
                self.save(step)
            if self.is_eval_loss_due(step, plan):
                log.flush()
                self.measure(step)
            if self.is_validation_due(step, plan):
                log.flush()
                if self.validate(step) and not last:
                    self.events.write("stage", name="training", message="Training.")
        stopped = "stop" in consume_requests(self.accelerator, self.run_dir)
        return not stopped or self.leave(config.max_train_steps)

    def leave(self, step: int) -> Literal[False]:
        """Save what has been trained up to `step`, unless it is saved, and say that the run is stopped."""
        if not self.is_saved(step):
            self.save(step)
        self.validator.close()
        path = checkpoint_folder(self.run_dir, step).relative_to(self.run_dir) if step else None
        self.events.write("stopped", step=step, path=path)
        return False

    def is_saved(self, step: int) -> bool:
        """Whether a checkpoint of `step` would add nothing, as before the first step."""
        return step == 0 or checkpoint_folder(self.run_dir, step).exists()

    def is_validation_due(self, step: int, plan: StepPlan) -> bool:
        """Whether the configuration wants images after so many steps."""
        interval, epochs = self.config.validation_step_interval, self.config.validation_epoch_interval
        by_steps = interval is not None and step % interval == 0
        by_epochs = epochs is not None and step > 0 and plan.ends_interval(step, epochs)
        return by_steps or by_epochs or step in (0, self.config.max_train_steps)

    def is_eval_loss_due(self, step: int, plan: StepPlan) -> bool:
        """Whether the configuration wants the eval loss after so many steps; if it is silent, as images."""
        interval, epochs = self.config.eval_steps_interval, self.config.eval_epoch_interval
        if interval is None and epochs is None:
            return self.is_validation_due(step, plan)
        by_steps = interval is not None and step % interval == 0
        by_epochs = epochs is not None and step > 0 and plan.ends_interval(step, epochs)
        return by_steps or by_epochs or step in (0, self.config.max_train_steps)

    def measure(self, step: int) -> None:
        """Measure and announce the eval loss of the trained weights, by dataset or pooled."""
        if not self.eval_loss.photos or not self.accelerator.is_main_process:
            return
        denoiser = self.state.adapter.denoiser.eval()
        with self.state.in_place("trained"):
            losses = self.eval_loss.measure(denoiser)
        denoiser.train()
        for dataset, by_timestep in losses.items():
            mean = sum(loss for _, loss in by_timestep) / len(by_timestep)
            self.events.write("eval_loss", step=step, loss=mean, by_timestep=by_timestep, dataset=dataset)

    def weights_shown(self, step: int) -> list[Weights]:
        """The weights whose images are drawn at a step."""
        if step == 0:
            return ["base"]
        with_ema = self.config.use_ema and self.config.ema_validation != "none"
        trained: list[Weights] = [] if with_ema and self.config.ema_validation == "ema_only" else ["trained"]
        return [*trained, "ema"] if with_ema else trained

    def validate(self, step: int) -> bool:
        """Draw the images of a step that are not there, unless they are disabled; returns whether it did.

        A request to stop cuts it short.
        """
        if self.config.validation_disable or not self.accelerator.is_main_process:
            return False
        missing = [w for w in self.weights_shown(step) if not self.validator.are_drawn(step, w)]
        if not missing:
            return False
        self.events.write("stage", name="validating", message=f"Drawing validation images at step {step}.")
        denoiser = self.state.adapter.denoiser.eval()
        strength = self.config.validation_lycoris_strength
        for weights in missing:
            adapter = self.state.adapter
            # A new adapter changes nothing at step 0; one that the run begins with does.
            is_changed_base = weights == "base" and self.config.init_lora is not None
            shown = adapter.off() if is_changed_base else adapter.at_strength(strength)
            with self.state.in_place(weights), shown:
                self.validator.draw(step, weights, lambda: stop_requested(self.run_dir))
            self.judging.score(step, weights, self.validator)
        denoiser.train()
        return True

    def save(self, step: int) -> None:
        """Write a checkpoint whole or not at all, and prune the optimizer state of old ones."""
        if not self.accelerator.is_main_process:
            return
        self.state.check_disk(self.run_dir)
        folder = checkpoint_folder(self.run_dir, step)
        temporary = folder.with_name(f".{folder.name}.new")
        temporary.mkdir(parents=True)
        self.state.save(step, temporary)
        replace_folder(temporary, folder)
        prune_optimizers(self.run_dir, self.config.checkpoints_total_limit)
        self.events.write("checkpoint", step=step, path=folder.relative_to(self.run_dir))

    def resume(self) -> int:
        """Restore the newest checkpoint that can be resumed from; returns its step, 0 where there is none."""
        found = resumable_checkpoints(self.run_dir)
        if not found:
            return 0
        try:
            state = self.state.load(found[-1])
        except SafetensorError:
            raise ValueError(
                f"The checkpoint {found[-1]} is damaged: a file of it is cut off. Remove this folder, and "
                "the run resumes from the one before."
            ) from None
        if not has_optimizer(found[-1]):
            self.events.write(
                "warning",
                message=f"{found[-1].name} holds no optimizer state any more, so the optimizer begins anew.",
                hint="A higher checkpoints_total_limit keeps it in more checkpoints.",
            )
        if state["digest"] != self.state.digest:
            self.events.write(
                "warning",
                message="The photos, class images, masks or captions are others than when this run was "
                "stopped.",
                hint="It goes on with what is there now.",
            )
        return state["step"]

    def finish(self) -> None:
        """Export the adapter; `done` only once it was loaded again and changed an image as trained.

        The moving average is exported if it does so too; else a warning says why it is not.
        """
        self.events.write("stage", name="saving", message="Saving what was trained, and proving it.")
        if self.accelerator.is_main_process:
            self.state.check_disk(self.run_dir)
            self.state.adapter.denoiser.eval()
            self.export("trained")
            if self.state.ema is not None:
                try:
                    self.export("ema")
                except ValueError as error:
                    remove_unfinished(self.run_dir)
                    self.events.write(
                        "warning", message=str(error), hint="What was trained is proven and saved without it."
                    )
        self.accelerator.wait_for_everyone()
        self.validator.close()
        # Afterwards no process waits for another, so that this may take its time.
        if self.config.evaluate_checkpoints and self.accelerator.is_main_process:
            self.judging.evaluate(self.validator, self.state.adapter)
        self.events.write("done", step=self.config.max_train_steps, path="adapter")

    def export(self, weights: Weights) -> None:
        """Save an adapter with these weights once it is proven.

        Raises:
            ValueError: if it draws nothing, or changes nothing.
        """
        folder = adapter_folder(self.run_dir, ema=weights == "ema")
        temporary = folder.with_name(f".{folder.name}.new")
        temporary.mkdir()
        with self.state.in_place(weights):
            self.state.save_adapter(temporary)
            prove(temporary, self.model, self.validator, weights)
        replace_folder(temporary, folder)
