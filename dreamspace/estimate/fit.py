"""Whether a run fits into memory, and the cheapest change that makes it fit where it does not."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dreamspace.config import RunConfig, parse_run_config
from dreamspace.estimate.hardware import Hardware
from dreamspace.estimate.memory import MemoryEstimate, estimate_memory
from dreamspace.estimate.profiles import ModelProfile
from dreamspace.estimate.weights import offloaded_bytes, precision_key

USABLE = 0.95
"""Of the memory that is free: the rest is the estimate's own error and what else wakes up meanwhile."""

SURELY = 0.7
"""So much of an estimate is certain; where not even that is there, a run is refused."""

HOST_BYTES = 4_000_000_000
"""That a training takes of the machine's own memory, with the app and the system beside it."""

HALVES = (3 / 4, 1 / 2)
"""Shares of the resolution that are tried."""


@dataclass(frozen=True)
class Situation:
    """A run, what it trains on, and where.

    Attributes:
        size_px: (width, height) of the largest training pictures.
    """

    config: RunConfig
    profile: ModelProfile
    size_px: tuple[int, int]
    hardware: Hardware
    has_base_predictions: bool = False

    @property
    def memory(self) -> MemoryEstimate:
        return estimate_memory(
            self.config,
            self.profile,
            self.size_px,
            self.hardware.device,
            has_base_predictions=self.has_base_predictions,
        )

    @property
    def fits(self) -> bool:
        return self.memory.peak <= USABLE * self.hardware.free_bytes and self._host_holds_the_rest

    @property
    def _host_holds_the_rest(self) -> bool:
        """Whether the machine's own memory holds the blocks that group offloading keeps there."""
        if not self.config.enable_group_offload or self.hardware.device == "cpu":
            return True
        return offloaded_bytes(self.config, self.profile) + HOST_BYTES <= self.hardware.host_bytes

    @property
    def surely_too_large(self) -> bool:
        """Whether no machine with this much memory, in use or not, holds it."""
        return SURELY * self.memory.peak > self.hardware.memory_bytes


@dataclass(frozen=True)
class Change:
    """Settings that save memory.

    Attributes:
        settings: of the run's config.
        share: of the datasets' resolution; 1 leaves it as it is.
        sentence: what to do, for the user.
    """

    settings: dict[str, Any]
    sentence: str
    share: float = 1.0

    def applied(self, config: RunConfig) -> RunConfig:
        """A changed copy.

        Raises:
            ValueError: if the settings do not go with the others.
        """
        return parse_run_config({**config.model_dump(), **self.settings}, source="auto_fit")

    def and_then(self, other: "Change") -> "Change":
        """Both; the second one's word is the last."""
        kept = [self.sentence] if self.settings.keys() - other.settings.keys() or self.share != 1 else []
        return Change(
            {**self.settings, **other.settings},
            " ".join([*kept, other.sentence]),
            min(self.share, other.share),
        )


def possible_changes(config: RunConfig, profile: ModelProfile | None, device: str) -> list[Change]:
    """The changes that go with a run's other settings, the cheapest first: those that cost no quality.

    Args:
        profile: of the base model; None where it is not known.
    """
    found = []
    for change in _changes(config, profile, device):
        try:
            changed = change.applied(config)
        except ValueError:
            continue
        if changed != config or change.share != 1:
            found.append(change)
    return found


def _changes(config: RunConfig, profile: ModelProfile | None, device: str) -> Iterator[Change]:
    if not config.gradient_checkpointing:
        yield Change({"gradient_checkpointing": True}, "Set gradient_checkpointing to true.")
    rows = config.train_batch_size * config.gradient_accumulation_steps
    for batch_size in range(config.train_batch_size - 1, 0, -1):
        if rows % batch_size == 0:
            settings = {"train_batch_size": batch_size, "gradient_accumulation_steps": rows // batch_size}
            yield Change(
                settings,
                f"Set train_batch_size to {batch_size} and gradient_accumulation_steps to "
                f"{rows // batch_size}: each step learns from the same {rows} images.",
            )
    if config.optimizer in ("adamw", "adamw_bf16") and device != "mps":
        yield Change({"optimizer": "bnb-adamw8bit"}, "Set optimizer to 'bnb-adamw8bit'.")
    for level in ("int8-quanto", "int8-torchao", "nf4-bnb"):
        settings = _quantised(config, profile, level)
        if settings:
            keys = " and ".join(settings)
            yield Change(settings, f"Set {keys} to '{level}'.")
    for share in HALVES:
        yield Change({}, f"Lower the datasets' resolution to {round(share * 100)} %.", share)
    if device != "cpu" and config.model_type == "lora":
        settings = {"enable_group_offload": True, "gradient_checkpointing": True}
        also = "" if config.gradient_checkpointing else ", with gradient_checkpointing"
        yield Change(settings, f"Set enable_group_offload to true{also}: it fits, and is slow.")


MANY_WEIGHTS = 500_000_000
"""Text encoders of fewer are not worth quantising."""


def _quantised(config: RunConfig, profile: ModelProfile | None, level: str) -> dict[str, str]:
    """The settings that put a base model and its large text encoders to a level, unless one is as low."""
    lower = {"no_change": 0, "int8-quanto": 1, "int8-torchao": 1, "nf4-bnb": 2}
    settings = {}
    if config.model_type == "lora" and lower.get(config.base_model_precision, 3) < lower[level]:
        settings["base_model_precision"] = level
    names = [] if profile is None else profile.text_encoders
    for name in names:
        key = precision_key(name)
        current = config.model_dump()[key]
        if profile.parts[name].total >= MANY_WEIGHTS and lower.get(current, 3) < lower[level]:
            settings[key] = level
    return settings


def cheapest_change(situation: Situation) -> Change | None:
    """What makes a run fit: the first single change that does, else as few of them as do, else None."""
    changes = possible_changes(situation.config, situation.profile, situation.hardware.device)
    for change in changes:
        if _after(situation, change).fits:
            return change
    taken: list[Change] = []
    for change in changes:
        if _after(situation, *taken, change).memory.peak < _after(situation, *taken).memory.peak:
            taken.append(change)
        if _after(situation, *taken).fits:
            break
    else:
        return None
    for change in list(reversed(taken[:-1])):  # The dearest that can be spared goes first.
        others = [other for other in taken if other is not change]
        if _after(situation, *others).fits:
            taken = others
    together = taken[0]
    for change in taken[1:]:
        together = together.and_then(change)
    return together


def next_change(
    config: RunConfig, situation: Situation | None, device: str, keeps_optimizer: bool = False
) -> Change | None:
    """What to try when memory ran out although it was expected to do: the cheapest change that saves a tenth.

    Args:
        situation: None where the base model's profile is not known: the cheapest change of all is taken.
    """
    changes = possible_changes(config, situation and situation.profile, device)
    if keeps_optimizer:
        changes = [change for change in changes if "optimizer" not in change.settings]
    if situation is None:
        return next(iter(changes), None)
    peak = situation.memory.peak
    return next((change for change in changes if _after(situation, change).memory.peak < 0.9 * peak), None)


def _after(situation: Situation, *changes: Change) -> Situation:
    """The situation with these changes; one that does not go with the others is left out."""
    config, share = situation.config, 1.0
    for change in changes:
        try:
            config = change.applied(config)
        except ValueError:
            continue
        share = min(share, change.share)
    multiple = situation.profile.multiple_px
    width, height = (max(multiple, round(edge * share / multiple) * multiple) for edge in situation.size_px)
    return Situation(
        config, situation.profile, (width, height), situation.hardware, situation.has_base_predictions
    )
