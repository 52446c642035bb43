"""From what a user wrote to a validated model, with one clear sentence for the first thing that is wrong."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dreamspace.suggest import nearest

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Dialect:
    """How SimpleTuner's files differ from what a model takes.

    Attributes:
        aliases: other spellings of our keys.
        dataset_keys: keys of a dataset, which are none of the model's.
        later_keys: keys that SimpleTuner has and Dreamspace says otherwise, or not at all.
        later_values: for each of our keys, the values of SimpleTuner that are not supported yet.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    dataset_keys: frozenset[str] = frozenset()
    later_keys: frozenset[str] = frozenset()
    later_values: Mapping[str, frozenset[Any]] = field(default_factory=dict)


def parse_settings(model: type[Model], values: Any, dialect: Dialect, *, source: str) -> Model:
    """Validate `values` (a JSON object; keys may carry leading dashes) as `model`.

    Args:
        source: where the values come from; the error begins with it.

    Raises:
        ValueError: one sentence for the first thing that is wrong: the key, what was given, what is allowed.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{source}: a JSON object with settings is expected, got {shown(values)}.")
    settings = {}
    for written, value in values.items():
        key = written.lstrip("-")
        key = dialect.aliases.get(key, key)
        if key in settings:
            raise ValueError(f"{source}: the key '{key}' is given twice. Keep one of the two.")
        _check_key(key, value, model, dialect, source)
        settings[key] = value
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise ValueError(f"{source}: {error_sentence(error.errors()[0])}") from None


def _check_key(key: str, value: Any, model: type[BaseModel], dialect: Dialect, source: str) -> None:
    if key in dialect.dataset_keys:
        raise ValueError(
            f"{source}: '{key}' is a key of a dataset. Set it there, in the multidatabackend.json that goes "
            "with --config and --datasets."
        )
    if key in dialect.later_keys:
        raise ValueError(
            f"{source}: SimpleTuner's '{key}' is not read here. Remove it, or take the pair over by "
            "import-simpletuner, which says what follows."
        )
    if key not in model.model_fields:
        hint = nearest(key, [*model.model_fields, *dialect.aliases]) or " Remove it."
        raise ValueError(f"{source}: there is no key '{key}'.{hint}")
    if isinstance(value, str) and value in dialect.later_values.get(key, ()):
        default = model.model_fields[key].default
        raise ValueError(
            f"{source}: {key} {shown(value)} is not supported yet. Use {shown(default)} for now."
        )


def error_sentence(error: Mapping[str, Any]) -> str:
    """The sentence for an error of pydantic: the key, what is allowed, what was given."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":  # raised by a validator of ours, a sentence already
        message = str(error["ctx"]["error"])
        return f"{key} {message}" if key else message
    if error["type"] == "extra_forbidden":
        return f"there is no key '{key}'. Remove it."
    if error["type"] == "missing":
        return f"the key '{key}' is missing. Add it."
    return f"{key} must be {_allowed(error)}, got {shown(error['input'])}."


def _allowed(error: Mapping[str, Any]) -> str:
    bounds = error.get("ctx", {})
    match error["type"]:
        case "greater_than":
            return f"above {bounds['gt']:.10g}"
        case "greater_than_equal":
            return f"at least {bounds['ge']:.10g}"
        case "less_than":
            return f"below {bounds['lt']:.10g}"
        case "less_than_equal":
            return f"at most {bounds['le']:.10g}"
        case "literal_error":
            return bounds["expected"]
        case "string_too_short":
            return "a text that is not empty"
        case "string_too_long":
            return f"a text of at most {bounds['max_length']} characters"
        case "finite_number":
            return "a finite number"
    kind = error["type"].split("_")[0]
    kinds = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "a text",
             "list": "a list", "model": "an object", "path": "a path"}  # fmt: skip
    return kinds[kind]


def shown(value: Any) -> str:
    """A value as JSON, as the user wrote it, cut to 80 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
