"""What a run takes: here, or on a machine that can be rented where this one cannot have it."""

import subprocess
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from dreamspace.config import Prior, RunConfig, subject_dataset
from dreamspace.data.held_out import num_trained
from dreamspace.estimate.fit import Change as Saving
from dreamspace.estimate.fit import Situation, cheapest_change
from dreamspace.estimate.hardware import SPACES, Hardware, this_machine
from dreamspace.estimate.profiles import known_profile
from dreamspace.estimate.speed import (
    PastRun,
    TimeEstimate,
    estimate_time,
    expected_speed,
    measured_seconds_per_row,
    prior_share,
)
from dreamspace.ui.framing import SIZES_PX
from dreamspace.ui.library import edge_px
from dreamspace.ui.model_words import PRECISIONS
from dreamspace.ui.new_training import Form, class_images
from dreamspace.ui.options import Change, Need
from dreamspace.ui.page import Page, size

PATIENCE_SECONDS = 43_200.0
"""What takes longer here is told for a machine that can be rented."""


@cache
def here() -> Hardware:
    """This machine, as it was when the app started."""
    found = this_machine()
    # What is in use now may be a training's that this one will wait for.
    return replace(found, free_bytes=found.memory_bytes)


def machine_title() -> str:
    """This machine in words, to follow "into"."""
    machine = here()
    memory = size(machine.memory_bytes)
    return f"your {machine.gpu} ({memory})" if machine.gpu else f"this machine ({memory}, no GPU)"


@cache
def capability() -> tuple[int, int] | None:
    """The compute capability of this machine's GPU; None without one."""
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    major, _, minor = answer.strip().partition("\n")[0].partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def forecaster(page: Page, form: Form) -> "Forecaster":
    """Forecasts by the photos, the prior and the earlier runs that a visitor sees."""
    num_photos = num_trained(len(page.photos), bool(form.experts.get("held_out_photos", True)))
    share = prior_share(form.prior, num_photos, max(0, int(form.num_class_images or 0)))
    past = []
    for run in page.runs:
        history = page.history(run.dir)
        past.append(PastRun(run.config, run.datasets, history.progress, history.mixture))
    return Forecaster(form.prior, share, len(class_images(page, form)), tuple(past))


def expected(page: Page, form: Form) -> TimeEstimate | None:
    """How long the run of this form takes here; ValueError if the form is wrong."""
    return forecaster(page, form).time(form.config(), form.resolution_px)


@dataclass(frozen=True)
class Forecaster:
    """Forecasts for the trainings that a visitor may choose from.

    Attributes:
        prior: how the prior is kept.
        share: of the rows that keep it.
        num_ready: class images that are there already.
        past: the runs of this machine, the newest first.
    """

    prior: Prior
    share: float
    num_ready: int
    past: tuple[PastRun, ...] = ()

    def __call__(self, config: RunConfig, resolution: int) -> Need | None:
        """What a run takes; None where the base model's profile is not known."""
        if known_profile(config) is None:
            return None
        needs_base = self.share > 0 and self.prior in ("base", "image-free")
        asked = config.model_dump_json(), resolution, needs_base
        peak, fits, change = _memory(*asked)
        if change is not None and self._is_slow(*_changed(config, resolution, change)):
            change = None
        time, place, dollars = self.time(config, resolution), "here", None
        if not fits or time.seconds > PATIENCE_SECONDS:
            rented = [(self.time(config, resolution, hardware), hardware) for hardware in _rentable(*asked)]
            time, place = (time, "here") if fits else (None, "on no single GPU")
            if rented:
                time, hardware = min(rented, key=lambda entry: entry[0].cost_usd(entry[1]))
                place, dollars = f"on {hardware.gpu}", time.cost_usd(hardware)
        return Need(
            memory_bytes=peak,
            capacity_bytes=here().memory_bytes,
            fits=fits,
            is_slow=fits and place != "here",
            seconds=time.seconds if time else None,
            dollars=dollars,
            place=place,
            change=change and _in_words(config, resolution, change),
        )

    def time(
        self, config: RunConfig, resolution: int, hardware: Hardware | None = None
    ) -> TimeEstimate | None:
        """How long a run takes on some hardware, this machine if none is named; None where unknown."""
        alike = [run for run in self.past if edge_px(subject_dataset(list(run.datasets))) == resolution]
        measured = measured_seconds_per_row(alike, config) if hardware is None else None
        edges = (resolution, resolution)
        speed = expected_speed(config, known_profile(config), edges, hardware or here(), measured)
        if speed is None:
            return None
        return estimate_time(config, self.prior, self.share, speed, self.num_ready)

    def _is_slow(self, config: RunConfig, resolution: int) -> bool:
        return self.time(config, resolution).seconds > PATIENCE_SECONDS


def _situation(config: RunConfig, resolution: int, needs_base: bool, hardware: Hardware) -> Situation:
    return Situation(config, known_profile(config), (resolution, resolution), hardware, needs_base)


# A page asks for the same few dozen again and again; a configuration has no hash, and its JSON has one.
@lru_cache(maxsize=1024)
def _memory(config: str, resolution: int, needs_base: bool) -> tuple[int, bool, Saving | None]:
    """The memory of a run here, whether it fits, and what would make it fit."""
    situation = _situation(RunConfig.model_validate_json(config), resolution, needs_base, here())
    fits = situation.fits
    return situation.memory.peak, fits, None if fits else cheapest_change(situation)


@lru_cache(maxsize=1024)
def _rentable(config: str, resolution: int, needs_base: bool) -> list[Hardware]:
    """The GPUs for rent that a run fits into, and whose number formats it takes."""
    run = RunConfig.model_validate_json(config)
    gpus = [gpu for gpu in SPACES.values() if gpu.gpu and gpu.computes_in(run.mixed_precision)]
    return [hardware for hardware in gpus if _situation(run, resolution, needs_base, hardware).fits]


def _changed(config: RunConfig, resolution: int, change: Saving) -> tuple[RunConfig, int]:
    """A run with a change: its configuration and the size of its pictures."""
    size_px = max(known for known in SIZES_PX if known <= max(SIZES_PX[0], resolution * change.share))
    return change.applied(config), size_px


def _in_words(config: RunConfig, resolution: int, saving: Saving) -> Change:
    """A change as the app offers it."""
    settings = dict(saving.settings)
    level = settings.get("base_model_precision")
    texts = {
        "gradient_checkpointing": "compute parts again (gradient checkpointing)",
        "train_batch_size": f"{settings.get('train_batch_size')} image at a time, collected to steps",
        "optimizer": "an optimizer in 8 bit",
        "base_model_precision": f"the model in {PRECISIONS[level][0] if level else ''}",
        "enable_group_offload": "parts of the model in main memory (slow)",
    }
    words = [text for name, text in texts.items() if name in settings]
    if saving.share != 1:
        _, settings["resolution"] = _changed(config, resolution, saving)
        words.append(f"pictures of {settings['resolution']} px")
    label = " and ".join(words) or "text encoders in fewer bits"
    return Change(label[0].upper() + label[1:], settings, is_single=len(words) < 2)
