"""Presets: a configuration each, with the hardware that it is meant for."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamspace.config.run import RunConfig, parse_run_config
from dreamspace.files import parse_json, read_json
from dreamspace.suggest import nearest

PRESETS_DIR = Path(__file__).resolve().parents[2] / "presets"


@dataclass(frozen=True)
class Preset:
    """A configuration by name.

    Attributes:
        description: what it is good for, in a sentence for the user.
        hardware: what it needs, in a sentence for the user.
        resolution: edge of the training images in px; it belongs to the dataset.
    """

    name: str
    description: str
    hardware: str
    resolution: int
    config: RunConfig


def list_presets() -> list[str]:
    """The names of all presets: mini first, then by family and the size of the GPU."""
    names = [path.stem for path in PRESETS_DIR.glob("*.json")]
    return sorted(
        names, key=lambda name: (name != "mini", [_number_or_word(part) for part in name.split("-")])
    )


def _number_or_word(part: str) -> tuple[int, str]:
    digits = part.removesuffix("gb")
    return (int(digits), "") if digits.isdigit() else (0, part)


def load_preset(name: str) -> Preset:
    """A preset by its name.

    Raises:
        ValueError: if there is none of this name (the nearest is named), or its config is wrong.
    """
    names = list_presets()
    if name not in names:
        raise ValueError(
            f"There is no preset '{name}'.{nearest(name, names)} The presets are: {', '.join(names)}."
        )
    path = PRESETS_DIR / f"{name}.json"
    preset = read_json(path)
    return Preset(
        name=name,
        description=preset["description"],
        hardware=preset["hardware"],
        resolution=preset["resolution"],
        config=parse_run_config(preset["config"], source=path.name),
    )


def apply_settings(config: RunConfig, settings: Iterable[str]) -> RunConfig:
    """A copy of `config` with settings such as "max_train_steps=200" changed; the last of a key wins.

    Args:
        settings: "key=value"; a value is JSON (400, true, null, ["a", "b"]) or else a bare text.

    Raises:
        ValueError: if there is no "=", or a key or value is wrong.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key.strip(" -"):
            raise ValueError(
                f"--set takes key=value, got '{setting}'. Write for example max_train_steps=200."
            )
        changes[key.strip(" -")] = _json_or_text(value.strip())
    values = config.model_dump()
    other_family = changes.get("model_family", config.model_family) != config.model_family
    if other_family or "model_flavour" in changes:
        del values["pretrained_model_name_or_path"]  # it is of the former one; the flavour names another
    return parse_run_config({**values, **changes}, source="--set")


def _json_or_text(text: str) -> Any:
    try:
        return parse_json(text, Path("--set"))
    except ValueError:
        return text
