"""The choices of step 5 as rows of a table: what each is, and what a run with it takes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

from dreamspace.config import Preset, RunConfig, parse_run_config
from dreamspace.config.families import FLAVOURS
from dreamspace.config.lycoris import LycorisConfig
from dreamspace.config.precision import WHOLE_AGAIN, Precision, package_of, unsupported
from dreamspace.ui.model_words import FAMILIES, MINI, MODELS, PRECISIONS, ModelWords, model_title

FULL_RATE_SHARE = 0.1
"""All weights are trained at this share of an adapter's learning rate."""


@dataclass(frozen=True)
class Change:
    """A change of the settings that would make a run fit; a single one where one is enough."""

    label: str
    settings: Mapping[str, Any]
    is_single: bool = True


@dataclass(frozen=True)
class Need:
    """What a run takes.

    Attributes:
        capacity_bytes: the memory of the device that it was reckoned for.
        fits: whether it fits into this machine.
        is_slow: whether it fits, and takes so long that it is told for a machine that can be rented.
        seconds, dollars, place: how long and for how much, and where: here, or on what can be rented.
        change: what would make it fit here, where it does not.
    """

    memory_bytes: float
    capacity_bytes: float
    fits: bool
    seconds: float | None
    dollars: float | None
    place: str
    is_slow: bool = False
    change: Change | None = None

    @property
    def is_for_here(self) -> bool:
        """Whether this machine is the place for it."""
        return self.fits and not self.is_slow

    @property
    def percent(self) -> float:
        """The share of the memory that it takes, at most 100."""
        return min(100.0, 100 * self.memory_bytes / self.capacity_bytes)


Forecast = Callable[[RunConfig, int | None], Need | None]
"""From a configuration and a size of picture (None: as it is chosen) to what a run takes; None: not known."""


@dataclass(frozen=True)
class Option:
    """A row.

    Attributes:
        choice: what a click on it sets; settings by name.
        impossible: why it cannot be chosen, or "".
    """

    title: str
    text: str
    choice: Mapping[str, Any]
    is_chosen: bool
    need: Need | None
    terms: str = ""
    impossible: str = ""

    @property
    def fixed_choice(self) -> dict[str, Any]:
        """The choice with the change that makes it fit."""
        change = self.need.change if self.need else None
        return {**self.choice, **(change.settings if change else {})}


@dataclass(frozen=True)
class Family:
    """Models of a family."""

    title: str
    text: str
    options: tuple[Option, ...]

    @property
    def is_chosen(self) -> bool:
        """Whether one of them is."""
        return any(option.is_chosen for option in self.options)


def preset_options(presets: Iterable[Preset], chosen: str, forecast: Forecast) -> list[Option]:
    """A row for each preset; those that fit this machine first."""
    options = [
        Option(
            title=preset_title(preset),
            text=preset.description,
            choice={"preset": preset.name},
            is_chosen=preset.name == chosen,
            need=forecast(preset.config, preset.resolution),
            terms=preset.hardware,
        )
        for preset in _different(presets, chosen)
    ]
    return sorted(options, key=lambda option: option.need is None or not option.need.is_for_here)


def _different(presets: Iterable[Preset], chosen: str) -> Iterable[Preset]:
    """Presets without those that say the same as one for a smaller GPU; the chosen one takes its place."""
    kept: dict[tuple[str, int], Preset] = {}
    for preset in presets:
        said = (preset.config.model_dump_json(), preset.resolution)
        if said not in kept or preset.name == chosen:
            kept[said] = preset
    return kept.values()


def preset_title(preset: Preset) -> str:
    """A preset's name in words: "SDXL base, 24 GB" for sdxl-24gb."""
    model = model_title(preset.config.pretrained_model_name_or_path)
    size = preset.name.rpartition("-")[2]
    return f"{model}, {size.removesuffix('gb')} GB" if size.endswith("gb") else model


def model_families(config: RunConfig, forecast: Callable[[str], Need | None]) -> tuple[Option, list[Family]]:
    """The embedded model, and all others by family.

    Args:
        forecast: what a run takes on a model by family and flavour; "mini" for the embedded one.
    """

    def option(name: str, words: ModelWords, model: str) -> Option:
        is_chosen = config.pretrained_model_name_or_path == model
        return Option(words.title, words.text, {"model": name}, is_chosen, forecast(name), terms=words.terms)

    families = []
    for family, (title, text) in FAMILIES.items():
        names = [name for name in MODELS if name.partition("/")[0] == family]
        options = (option(name, MODELS[name], FLAVOURS[family][name.partition("/")[2]]) for name in names)
        families.append(Family(title, text, tuple(options)))
    return option("mini", MINI, "mini"), families


def adapter_options(config: RunConfig, adapter_rate: float, forecast: Forecast) -> list[Option]:
    """What can be trained: three kinds of adapter, or the whole model.

    Args:
        adapter_rate: the learning rate that an adapter goes back to from the whole model.
    """
    is_full = config.model_type == "full"
    adapter = {"model_type": "lora", "lora_type": "standard", "use_dora": False}
    if is_full:
        adapter["learning_rate"] = adapter_rate
    whole_again = config.base_model_precision in ("no_change", *WHOLE_AGAIN)
    lycoris = config.lycoris_config or LycorisConfig()
    full_rate = config.learning_rate if is_full else FULL_RATE_SHARE * config.learning_rate
    unquantised = {"base_model_precision": "no_change"}
    kinds = [
        ("LoRA", "The usual choice: small, quick, and every program loads it.", adapter),
        (
            "DoRA",
            "A LoRA that trains sizes apart from directions: slower, sometimes finer. Not for ComfyUI.",
            adapter | {"use_dora": True} | ({} if whole_again else unquantised),
        ),
        (
            "LoKr",
            "LyCORIS' smallest, and what the guide takes for regularisation. For programs that load LyCORIS.",
            adapter | {"lora_type": "lycoris"} | ({} if lycoris.algo == "lokr" else {"lycoris_config": None}),
        ),
        (
            "Whole model",
            "All weights learn: it can hold the most, needs the most, and forgets the most.",
            adapter | unquantised | {"model_type": "full", "learning_rate": full_rate},
        ),
    ]
    chosen = {
        "LoRA": not is_full and config.lora_type == "standard" and not config.use_dora,
        "DoRA": not is_full and config.use_dora,
        "LoKr": not is_full and config.lora_type == "lycoris" and lycoris.algo == "lokr",
        "Whole model": is_full,
    }
    return [_option(config, title, text, choice, chosen[title], forecast) for title, text, choice in kinds]


def precision_options(
    config: RunConfig, device: str, capability: tuple[int, int] | None, forecast: Forecast
) -> list[Option]:
    """The levels of precision; one that the device or the training cannot have says why.

    Args:
        device, capability: as in `dreamspace.config.precision.unsupported`.
    """
    options = []
    for level, (title, text) in PRECISIONS.items():
        choice = {"base_model_precision": level}
        is_chosen = config.base_model_precision == level
        reason = _why_not(level, device, capability)
        if config.model_type == "full" and level != "no_change":
            reason = "is for weights that stay as they are, and the whole model is trained"
        options.append(
            _option(config, title, text, choice, is_chosen, forecast, f"It {reason}." if reason else "")
        )
    return options


def _why_not(level: Precision, device: str, capability: tuple[int, int] | None) -> str | None:
    if level == "no_change":
        return None
    package = package_of(level)
    try:
        version(package)
    except PackageNotFoundError:
        return f"needs the package {package}, which is not installed"
    return unsupported(level, device, capability)


def _option(
    config: RunConfig,
    title: str,
    text: str,
    choice: dict[str, Any],
    is_chosen: bool,
    forecast: Forecast,
    impossible: str = "",
) -> Option:
    """A row for some changed settings; settings that contradict each other make it impossible."""
    need = None
    if not impossible:
        try:
            need = forecast(parse_run_config({**config.model_dump(), **choice}), None)
        except ValueError as error:
            impossible = str(error).removeprefix("config: ")
    return Option(title, text, choice, is_chosen, need, impossible=impossible)


assert set(PRECISIONS) == set(get_args(Precision))
