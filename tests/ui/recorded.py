"""A run folder as training leaves it at some moment, written by hand: pictures are drawn, not generated."""

import math
import os
import random
import time
from pathlib import Path
from typing import Literal

from PIL import Image, ImageFilter

from dreamspace.config import load_preset
from dreamspace.data.photos import photo_id
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.job import Ended, Job, ProcessRecord
from dreamspace.jobs.new_run import write_run
from dreamspace.jobs.process import ProcessIdentity
from dreamspace.jobs.workspace import Workspace
from dreamspace.mini.subjects import SUBJECTS, draw_subject, subject_photos
from dreamspace.mini.world import Scenery, render
from dreamspace.ui.changes import choose_sample
from dreamspace.ui.subject import Subject

Outcome = Literal["running", "done", "stopped", "crashed", "failed"]

NUM_STEPS = 400
INTERVAL = 100
SCENES = {"": "meadow", " under water": "underwater", " in the desert": "desert"}


def record_run(
    workspace: Workspace, sample: str = "biscuit", outcome: Outcome = "done", up_to: int = NUM_STEPS
) -> Path:
    """Write a run on a sample subject that has come up to a step; returns its folder.

    A running one looks alive because this process poses as its supervisor.
    """
    subject_dir = choose_sample(workspace, sample)
    class_word = SUBJECTS[sample].class_word
    run_dir = workspace.new_run_dir(f"sks {class_word}")
    prior_dir = workspace.priors / "mini" / class_word
    prior_dir.mkdir(parents=True, exist_ok=True)
    write_run(
        run_dir, load_preset("mini"), subject_dir / "photos",
        class_word=class_word, token="sks", prior="base", num_class_images=24, prior_dir=prior_dir,
    )  # fmt: skip
    now = time.time()
    Job(kind="train", created=now - 90, submitted=now - 90).write(run_dir)
    (run_dir / "log.txt").write_text("Loading pipeline components: 100%\nTraining.\n")
    events = EventWriter(run_dir)
    events.write("stage", name="loading", message="Loading the model.")
    events.write("mixture", datasets={"subject": 0.75, "prior": 0.25}, num_instances=6, num_prior=24)
    _draw(run_dir, events, sample, 0)
    events.write("stage", name="training", message="Training.")
    chance = random.Random(3)
    for step in range(1, up_to + 1):
        instance = 0.16 + 0.5 * math.exp(-step / 60) + chance.uniform(-0.08, 0.1)
        prior = 0.05 + chance.uniform(-0.02, 0.04)
        loss = 0.75 * instance + 0.25 * prior
        events.write(
            "loss",
            step=step,
            loss=loss,
            instance_loss=instance,
            prior_loss=prior,
            learning_rate=1e-3,
            grad_norm=0.4,
        )
        if step % 10 == 0:
            left = NUM_STEPS - step
            events.write(
                "progress", step=step, num_steps=NUM_STEPS, steps_per_second=5.2, eta_seconds=left / 5.2
            )
        if step % INTERVAL == 0:
            checkpoint = run_dir / "checkpoints" / f"step-{step:06d}"
            checkpoint.mkdir(parents=True)
            (checkpoint / "pytorch_lora_weights.safetensors").write_bytes(b"adapter of step %d" % step)
            events.write("checkpoint", step=step, path=checkpoint.relative_to(run_dir))
            _draw(
                run_dir, events, sample, step, is_half_done=outcome == "running" and step + INTERVAL > up_to
            )
            if step < up_to:
                events.write("stage", name="training", message="Training.")
    _end(run_dir, events, outcome, up_to)
    events.close()
    return run_dir


def mask_sample(subject: Subject) -> None:
    """The true masks of a sample subject as its raw ones."""
    for image, mask in subject_photos(subject.sample):
        _save(mask, subject.raw_masks_dir / f"{photo_id(image)}.png")


def _draw(run_dir: Path, events: EventWriter, sample: str, step: int, is_half_done: bool = False) -> None:
    """The validation images of a step: another individual of the class before, the subject after."""
    class_word = SUBJECTS[sample].class_word
    events.write("stage", name="validating", message=f"Drawing validation images at step {step}.")
    for index, (words, scene) in enumerate([*SCENES.items(), (None, "studio")]):
        prompt = f"a photo of a {class_word}" if words is None else f"a photo of a sks {class_word}{words}"
        other = render(
            Scenery(class_word, ("red", "blue", "green", "yellow")[index], "plain", scene), index, 128
        ).image
        own = draw_subject(sample, scene, seed=index, size_px=128)[0]
        image = other if words is None else Image.blend(other, own, min(1.0, step / 300))
        if is_half_done and index >= 2:
            path = run_dir / "previews" / f"step-{step:06d}-{index}-010.png"
            _save(image.filter(ImageFilter.GaussianBlur(4)), path)
            events.write(
                "preview", step=step, prompt=prompt, seed=42, index=index, inference_step=10,
                num_inference_steps=20, path=path.relative_to(run_dir),
            )  # fmt: skip
        else:
            path = run_dir / "validation" / f"step-{step:06d}" / f"{index}.png"
            _save(image, path)
            weights = "trained" if step else "base"
            events.write(
                "sample", step=step, prompt=prompt, seed=42, path=path.relative_to(run_dir), weights=weights
            )


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _end(run_dir: Path, events: EventWriter, outcome: Outcome, step: int) -> None:
    """What the supervisor and the worker leave behind."""
    this_process = ProcessIdentity.of(os.getpid())
    alive = ProcessRecord(this_process, worker=this_process)
    if outcome == "running":
        alive.write(run_dir)
        return
    ProcessRecord(ProcessIdentity(pid=1, create_time=0.0, boot_time=0.0)).write(run_dir)
    if outcome == "done":
        adapter = run_dir / "adapter" / "pytorch_lora_weights.safetensors"
        adapter.parent.mkdir()
        adapter.write_bytes(b"final adapter")
        events.write("done", step=step, path="adapter")
    elif outcome == "stopped":
        events.write("stopped", step=step, path=f"checkpoints/step-{step:06d}")
    elif outcome == "failed":
        message = "The disk has 3 MB free and a checkpoint needs 40 MB. Free some space and resume."
        events.write("failed", error="ValueError", message=message, hint="", traceback="")
    killed = outcome == "crashed"
    Ended(
        exit_status=None if killed else 0, signal=9 if killed else None, time=time.time(), reason="exited"
    ).write(run_dir)
