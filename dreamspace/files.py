"""Files that appear whole or not at all."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_JSON_DEPTH = 50
"""Far deeper than any file of ours."""


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on failure it is removed.

    The temporary name keeps the suffix, because Pillow and safetensors choose the format by it. It is of
    this call alone: two threads may write the same file, and the later one's stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.tmp{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        # safetensors 0.8 lets only the owner read what it writes: until its issue 782 is closed.
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: as `read_text` and `parse_json`.
    """
    return parse_json(read_text(path), path)


def read_text(path: Path) -> str:
    """Read a text in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: if the file is missing, may not be read, holds something else or nothing; the sentence
            names it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}. Check the path.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}. Check the path.") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8. Save it as such.") from None
    if not text.strip():
        raise ValueError(f"{path} is empty. Write it again, or name another file.")
    return text


def parse_json(text: str, path: Path) -> Any:
    """The value of a JSON text.

    Args:
        path: of the file that holds it, for the errors.

    Raises:
        ValueError: if it is cut off or no JSON, or nested deeper than anything of ours; the sentence names
            the file and, where there is one, line and column.
    """
    too_deep = f"{path} nests lists and objects more than {MAX_JSON_DEPTH} deep. Is it the right file?"
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        end = " The file is cut off there." if not text[error.pos :].strip() else ""
        raise ValueError(
            f"{path} is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}.{end} "
            "Mend it there."
        ) from None
    except RecursionError:
        raise ValueError(too_deep) from None
    except ValueError as error:  # a number of more digits than Python reads
        raise ValueError(f"{path} is not valid JSON: {error}. Mend it.") from None
    # Whoever handles a value that deep would fail at it, each in a way of its own.
    if _depth(value) > MAX_JSON_DEPTH:
        raise ValueError(too_deep)
    return value


def _depth(value: Any) -> int:
    """How deep lists and objects lie in one another; 0 for anything else."""
    depth, level = 0, [value]
    while level := [inner for inner in level if isinstance(inner, list | dict)]:
        depth += 1
        level = [v for inner in level for v in (inner.values() if isinstance(inner, dict) else inner)]
    return depth
