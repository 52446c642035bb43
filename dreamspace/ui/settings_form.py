"""The expert settings: a field for each setting of `RunConfig`, with the setting's own sentence as help."""

import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import gradio as gr
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dreamspace.config import RunConfig, parse_run_config
from dreamspace.config.prompt_library import LIBRARIES
from dreamspace.config.run import SECTIONS
from dreamspace.files import parse_json

# Asked for elsewhere on the page.
ELSEWHERE = ("token", "class_word", "max_train_steps", "num_class_images", "prior_loss_weight")

# A browser names no file of this machine.
SHELL_ONLY = ("init_lora", "webhook_config")

_SUGGESTED: dict[str, list[tuple[str, str]]] = {
    "validation_prompt_library": [("none", ""), *((name, name) for name in LIBRARIES)],
}
"""The values of a text of which a browser chooses one: the others are files of this machine."""

_ACRONYMS = {"lora": "LoRA", "lr": "LR", "snr": "SNR", "ema": "EMA", "reflexflow": "ReflexFlow"}
_SHORTER = {"pretrained model name or path": "base model", "scheduled sampling": "rollout"}


def expert_settings() -> dict[str, list[str]]:
    """The names of the expert settings, by the title of their section; not those without a choice."""
    groups = {}
    for section in SECTIONS:
        names = [
            name
            for name, field in section.model_fields.items()
            if name not in (*ELSEWHERE, *SHELL_ONLY) and len(choices_of(field)) != 1
        ]
        if names:
            groups[section.__doc__.rstrip(".")] = names
    return groups


def build_field(name: str, config: RunConfig) -> gr.components.Component:
    """The component for one setting, with its value in `config`."""
    field = RunConfig.model_fields[name]
    kinds = _kinds(field)
    texts = {
        "label": label_of(name),
        "info": field.description,
        "value": shown_value(name, config),
        "elem_id": f"setting-{name}",
    }
    if name in _SUGGESTED:
        given = [(texts["value"], texts["value"])] if texts["value"] not in ("", *LIBRARIES) else []
        return gr.Dropdown([*_SUGGESTED[name], *given], **texts)
    if choices_of(field):
        return gr.Dropdown(list(choices_of(field)), **texts)
    if bool in kinds and type(None) in kinds:
        return gr.Dropdown([("automatic", ""), ("on", True), ("off", False)], **texts)
    if bool in kinds:
        return gr.Checkbox(**texts)
    if float in kinds or int in kinds:
        # A text field where nothing is a value: a number field makes 0 of it.
        if type(None) in kinds:
            return gr.Textbox(placeholder="empty", **texts)
        return gr.Number(precision=None if float in kinds else 0, **texts)
    if _is_object(kinds):
        return gr.Textbox(lines=3, placeholder="empty", **texts)
    if list in {get_origin(kind) for kind in kinds}:
        return gr.Textbox(lines=3, **{**texts, "info": f"{field.description} One a line."})
    return gr.Textbox(**texts)


def shown_value(name: str, config: RunConfig) -> Any:
    """The value of a setting as its component shows it."""
    return as_shown(getattr(config, name))


def as_shown(value: Any) -> Any:
    """A setting's value as a component shows it."""
    if isinstance(value, list):
        return "\n".join(value)
    if isinstance(value, BaseModel):
        return value.model_dump_json(exclude_defaults=True, indent=2)
    if isinstance(value, dict):
        return json.dumps(value, indent=2)
    return "" if value is None else value


def changed_config(base: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """`base` with what the fields of the form hold.

    Args:
        values: by setting, as the components give them.

    Raises:
        ValueError: one sentence for the first setting that is wrong.
    """
    settings = base.model_dump()
    for name, value in values.items():
        kinds = _kinds(RunConfig.model_fields[name])
        if any(get_origin(kind) is list for kind in kinds):
            value = [line.strip() for line in value.splitlines() if line.strip()]
        elif value == "" and type(None) in kinds:
            value = None
        elif _is_object(kinds):
            value = parse_json(value, Path(label_of(name)))
        elif isinstance(value, float) and value.is_integer() and float not in kinds:
            value = int(value)
        settings[name] = value
    return parse_run_config(settings, source="Settings")


def _is_object(kinds: tuple[Any, ...]) -> bool:
    """Whether a setting is an object with settings of its own."""
    return any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)


def label_of(name: str) -> str:
    """A setting's name in words, such as "LoRA rank"."""
    words = name.replace("_", " ")
    for long, short in _SHORTER.items():
        words = words.replace(long, short)
    label = " ".join(_ACRONYMS.get(word, word) for word in words.split())
    return label[0].upper() + label[1:]


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The values of a setting that is a choice; empty for any other."""
    return next((get_args(kind) for kind in _kinds(field) if get_origin(kind) is Literal), ())


def _kinds(field: FieldInfo) -> tuple[Any, ...]:
    """The types that a setting may have, without their annotations."""
    annotation = field.annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(_bare(kind) for kind in get_args(annotation))
    return (_bare(annotation),)


def _bare(kind: Any) -> Any:
    return kind.__origin__ if hasattr(kind, "__metadata__") else kind
