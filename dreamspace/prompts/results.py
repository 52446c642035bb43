"""The files of the jobs `tokens` and `lookalikes`, and their tables. Free of torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamspace.files import read_json

TOKENS_NAME, TOKENS_SHEET_NAME = "tokens.json", "tokens.png"
LOOKALIKES_NAME, LOOKALIKES_SHEET_NAME = "lookalikes.json", "lookalikes.png"


def tokens_table(report: dict[str, Any]) -> str:
    """The ranked tokens of a `tokens.json` and the words asked for, a line each with its reason."""
    lines = [("token", "meaning", "drift", "alike", "why")]
    for row in report["tokens"]:
        meaning = "yes" if row["has_meaning"] else "no" if row["is_one_piece"] else "-"
        look = row["look"] or {}
        seen = [f"{look[name]['mean']:.2f}" if look else "" for name in ("drift", "agreement")]
        lines.append((row["word"], meaning, *seen, row["reason"]))
    return f"{_aligned(lines)}\n\n{tokens_advice(report)}"


def tokens_advice(report: dict[str, Any]) -> str:
    """What to make of a `tokens.json`, in a sentence or two."""
    found = [row for row in report["tokens"] if not row["is_checked"]]
    drawn = [row for row in found if row["look"] is not None]
    if not drawn:
        return "By what the text encoders say alone. What the model draws of the best shows more."
    plain = [row["word"] for row in drawn if not row["has_meaning"]]
    if plain:
        return f"Drawn like the plain class: {', '.join(plain)}. Take one of these."
    return (
        f"All {len(drawn)} tokens that were drawn give {report['class_word']} a look of its own, which "
        "training must first undo. Look at the pictures, and take the one that looks most like your subject."
    )


def lookalikes_table(report: dict[str, Any]) -> str:
    """The names of a `lookalikes.json`, a line each with its numbers, and what is recommended."""
    lines = [("name", "CLIP", "pictures", "why")]
    lines += [
        (
            row["name"] or f"({report['class_word']} alone)",
            _number(row["clip"]),
            _number(row["likeness"]),
            row["reason"],
        )
        for row in report["names"]
    ]
    photos = _number(report["photos_likeness"])
    return f"{_aligned(lines)}\n\nThe photos among themselves: {photos}.\n{report['advice']}"


def read_report(path: Path) -> dict[str, Any] | None:
    """A report of one of the jobs; None where it is not there yet."""
    return read_json(path) if path.is_file() else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
