"""What a base model's files on this machine say, as far as they are here; without torch and the network."""

import math
from functools import cache
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open

from dreamspace.config import is_hub_id
from dreamspace.mini import MODEL_FOLDER

INDEX_FILE = "model_index.json"


def local_file(name: str, path: str) -> Path | None:
    """A file of a base model, by its path in the model's folder; None where it is not on this machine."""
    if is_hub_id(name):
        cached = try_to_load_from_cache(name, path)
        return Path(cached) if isinstance(cached, str) else None
    file = (MODEL_FOLDER if name == "mini" else Path(name).expanduser()) / path
    return file if file.is_file() else None


def merged_size_bytes(name: str) -> int | None:
    """What a base model with an adapter merged into it takes; None where it is not on this machine."""
    index = local_file(name, INDEX_FILE)
    return None if index is None else full_size_bytes(index.parent)


@cache
def full_size_bytes(folder: Path) -> int:
    """What the weights in a model's folder take in 32 bits, as they are merged and written."""
    return sum(map(_file_size_bytes, sorted(folder.rglob("*.safetensors"))))


def _file_size_bytes(file: Path) -> int:
    with safe_open(file, framework="numpy") as weights:
        return 4 * sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
