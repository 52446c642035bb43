"""SimpleTuner's files as they are written: JSON with comments, keys with dashes, numbers as texts."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dreamspace.config.findings import Finding, Level
from dreamspace.config.parsing import error_sentence, shown
from dreamspace.files import parse_json, read_text
from dreamspace.suggest import nearest

Model = TypeVar("Model", bound=BaseModel)

Find = Callable[[str], Path | None]
"""From the name of a file, as it is written in another, to the file; None where there is none."""

# A text comes first, so that what looks like a comment in it survives.
_TEXT_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|#[^\n]*|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TEXT_OR_LAST_COMMA = re.compile(r'"(?:\\.|[^"\\\n])*"|,(?=\s*[}\]])')


def read_lenient_json(path: Path) -> Any:
    """Read JSON that may hold comments (#, // and /* */) and a comma after the last entry.

    Raises:
        ValueError: as `dreamspace.files.read_json`.
    """
    text = read_text(path)
    # Blanks of the same length keep lines and columns true.
    text = _TEXT_OR_COMMENT.sub(_blank_unless_text, text)
    text = _TEXT_OR_LAST_COMMA.sub(_blank_unless_text, text)
    return parse_json(text, path)


def finder(folder: Path, is_upload: bool) -> Find:
    """How the files are found that a config.json in `folder` names.

    Args:
        is_upload: what comes from a browser opens nothing but what lies beside it, whatever path it names.
    """

    def find(name: str) -> Path | None:
        here = [Path(name), folder / name, folder.parent / name]
        paths = [folder / Path(name).name] if is_upload else here
        return next((path for path in paths if path.is_file()), None)

    return find


def _blank_unless_text(match: re.Match[str]) -> str:
    found = match[0]
    return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)


@dataclass
class Notes:
    """Findings about one file, or one entry of it.

    Attributes:
        source: where it is, for the findings.
    """

    source: str
    findings: list[Finding] = field(default_factory=list)

    def say(self, level: Level, key: str | None, message: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(level, self.source, key, message))


@dataclass
class Draft(Notes):
    """A file, or an entry of one, on its way from SimpleTuner's words to ours.

    Attributes:
        given: what is written and not yet dealt with, without dashes; null and empty texts count as absent.
        empty: the keys with an empty text.
        settings: what will be ours.
    """

    given: dict[str, Any] = field(default_factory=dict)
    empty: frozenset[str] = frozenset()
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Any, source: str, aliases: Mapping[str, str]) -> "Draft":
        """A draft of a JSON object.

        Raises:
            ValueError: if it is none, or says two things under one name.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{source}: a JSON object with settings is expected, got {shown(values)}.")
        given: dict[str, Any] = {}
        for written, value in values.items():
            key = written.strip().lstrip("-")
            key = aliases.get(key, key)
            if given.get(key, value) != value:
                raise ValueError(f"{source}: the key '{key}' is given twice. Keep one of the two.")
            given[key] = value
        empty = frozenset(key for key, value in given.items() if value == "")
        given = {key: value for key, value in given.items() if value not in (None, "")}
        return cls(source, given=given, empty=empty)

    def take(self, key: str, default: Any = None) -> Any:
        """Take a key out of what is given."""
        return self.given.pop(key, default)

    def write(self, key: str, value: Any, message: str) -> None:
        """Write a setting that differs from what is given, or from our own default, and say why."""
        self.settings[key] = value
        self.say("differs", key, message)

    def take_rest(self, ours: Iterable[str], ignored: Mapping[str, str]) -> None:
        """Keep the keys that are ours as well; list everything else."""
        ours = frozenset(ours)
        for key, value in self.given.items():
            if key in ours:
                self.settings.setdefault(key, value)
            elif key in ignored:
                self.say("ignored", key, f"{shown(value)} is left out. {ignored[key]}")
            else:
                hint = nearest(key, [*ours, *ignored])
                self.say("ignored", key, f"{shown(value)} is left out: nobody knows this key.{hint}")
        self.given.clear()

    def finish(self, model: type[Model]) -> Model | None:
        """The settings as a model; a value that it refuses is left out with a finding.

        None if the settings contradict each other, or a required one is missing; the finding says which.
        """
        settings = dict(self.settings)
        while True:
            try:
                return model.model_validate(settings)
            except ValidationError as invalid:
                error = invalid.errors()[0]
                key = str(error["loc"][0]) if error["loc"] else None
                if key not in settings:
                    self.say("error", key, error_sentence(error))
                    return None
                self.say("error", key, f"{error_sentence(error)} It is left out.")
                del settings[key]


def is_true(value: Any) -> bool:
    """Whether a switch is on, as SimpleTuner reads it."""
    return value is True or str(value).strip().lower() in ("1", "true", "yes", "y", "on")


def number(value: Any, default: float) -> float:
    """A number that may be written as a text; `default` where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return default
