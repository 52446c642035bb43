"""What a reader of a configuration found: kept apart by how much it matters."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "trap", "differs", "ignored", "hint"]

TITLES: dict[Level, str] = {
    "error": "Cannot be done as it is written",
    "trap": "Traps, where the file does not do what it seems to say",
    "differs": "Differs from SimpleTuner",
    "ignored": "Left out",
    "hint": "Worth knowing",
}


@dataclass(frozen=True)
class Finding:
    """One thing to know about a pair of files.

    Attributes:
        source: the file, and in it the dataset: "config.json" or "multidatabackend.json, dataset 'x'".
        key: the key that it is about; None for the whole of it.
        message: one sentence that says what to do, or what follows.
    """

    level: Level
    source: str
    key: str | None
    message: str


def report(findings: Iterable[Finding]) -> str:
    """The findings as lines, those that matter most first; "" where there are none."""
    findings = list(findings)
    lines = []
    for level, title in TITLES.items():
        of_level = [finding for finding in findings if finding.level == level]
        if of_level:
            lines += [f"{title}:", *(f"  {_line(finding)}" for finding in of_level)]
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    place = f"{finding.source}, {finding.key}" if finding.key else finding.source
    return f"{place}: {finding.message}"
