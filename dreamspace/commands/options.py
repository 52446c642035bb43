"""Types of options that commands share."""

import argparse
from pathlib import Path


def given_path(text: str) -> Path:
    """A path as it is given; an empty one is refused, which Python takes for the current folder."""
    return Path(given_name(text))


def given_name(text: str) -> str:
    """A name that may be a path, as it is given, and not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty, name a folder or a file")
    return text
