"""Where a base model's files are: the embedded one, a folder, or the Hub."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from dreamspace.config import is_hub_id
from dreamspace.files import read_json
from dreamspace.mini import MODEL_FOLDER
from dreamspace.suggest import nearest

# Of each part's weights the plain ones, whole or in shards: variants have a word more, as in model.fp16.
_PART_PATTERNS = (
    *("*.json", "*.txt", "*.model", "*.jinja"),
    *("*model.safetensors", "*model-?????-of-?????.safetensors"),
)

UNUSED_PARTS = frozenset({"safety_checker", "feature_extractor", "image_encoder", "watermarker"})
"""What nothing here needs."""

_END_BYTES = 1 << 20

INDEX_FILE = "model_index.json"


def model_folder(name: str, part: str = "") -> Path:
    """The local folder of a base model in diffusers' layout.

    Args:
        name: "mini" for the embedded model, a folder, or a Hub id, which is downloaded if it is not cached.
        part: download only the parts whose names begin so, such as "tokenizer".

    Raises:
        ValueError: if there is no such model, or it cannot be reached.
    """
    if name == "mini":
        return MODEL_FOLDER
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / INDEX_FILE).is_file():
            raise ValueError(
                f"{name} is not a model folder: it holds no {INDEX_FILE}. "
                "Give a folder in diffusers' layout, a Hub id, or 'mini'."
            )
        return folder
    if is_hub_id(name):
        return _downloaded(name, part)
    raise ValueError(
        f"There is no model '{name}'.{nearest(name, ['mini'])} "
        "Give 'mini', an existing folder, or a Hub id such as 'owner/name'."
    )


@cache
def _downloaded(hub_id: str, beginning: str = "") -> Path:
    """The parts of a model that its index names and that begin so, but for those that nothing here needs."""
    folder = hub_snapshot(hub_id, [INDEX_FILE])
    if not (folder / INDEX_FILE).is_file():
        raise ValueError(
            f"{hub_id} is not a model in diffusers' layout: it holds no {INDEX_FILE}. Give another one."
        )
    parts = {*model_index(folder), "tiny_vae"}.difference(UNUSED_PARTS)
    wanted = sorted(part for part in parts if part.startswith(beginning))
    patterns = [f"{part}/{pattern}" for part in wanted for pattern in _PART_PATTERNS]
    return hub_snapshot(hub_id, [INDEX_FILE, *patterns])


def hub_snapshot(hub_id: str, patterns: list[str]) -> Path:
    """The folder of a model's files on the Hub that match one of the patterns, downloaded if not cached.

    Raises:
        ValueError: if there is no such model, it is gated, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except GatedRepoError:
        raise ValueError(
            f"The model {hub_id} is gated. Accept its terms on its page, then run `hf auth login`, "
            "or set HF_TOKEN for the command."
        ) from None
    except RepositoryNotFoundError:
        raise ValueError(
            f"The Hub has no model {hub_id}, or it is private. Check the id; for a private model run "
            "`hf auth login`, or set HF_TOKEN for the command."
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"The model {hub_id} could not be downloaded ({type(error).__name__}). "
            "Check the network and your Hub token, or give a local folder."
        ) from None


def model_index(folder: Path) -> dict[str, Any]:
    """The model_index.json of a model folder: its pipeline's class, and library and class of each part.

    Raises:
        ValueError: if it is damaged, or names no pipeline.
    """
    index = read_json(folder / INDEX_FILE)
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise ValueError(
            f"The {INDEX_FILE} of {folder} names no pipeline in its '_class_name'. Download the model again, "
            "or choose another one."
        )
    return index


def damaged_model(what: str, error: Exception) -> ValueError:
    """The error of a model that is there and cannot be loaded, with the first line of the cause."""
    return ValueError(
        f"{what} cannot be loaded: {first_line(error)}. It is damaged or incomplete: download it again, or "
        "choose another model."
    )


def first_line(error: Exception) -> str:
    """What an error says first, without the full stop or colon at its end."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


def fingerprint(folder: Path) -> str:
    """16 hex digits that tell a part's weights from others, without reading gigabytes.

    Hashes each file's name, size and both ends (1 MiB each): safetensors keep their header at the start. What
    config.json notes of its own making is left out, so that models from two places share a VAE.

    Raises:
        ValueError: if the model has no such part.
    """
    if not folder.is_dir():
        raise no_part(folder)
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name == "config.json":
            described = {key: value for key, value in read_json(path).items() if not key.startswith("_")}
            digest.update(json.dumps(described, sort_keys=True).encode())
        elif path.is_file() and not path.name.startswith("."):
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}:".encode())
            with path.open("rb") as file:
                digest.update(file.read(_END_BYTES))
                file.seek(max(_END_BYTES, size - _END_BYTES))
                digest.update(file.read())
    return digest.hexdigest()[:16]


def part_config(folder: Path, part: str) -> dict:
    """The config.json of a part (`unet`, `vae`, ...) of a model folder.

    Raises:
        ValueError: if the model has no such part.
    """
    path = folder / part / "config.json"
    if not path.is_file():
        raise no_part(folder / part)
    return read_json(path)


def no_part(folder: Path) -> ValueError:
    """The error of a model that has no part in this folder."""
    return ValueError(
        f"The model in {folder.parent} has no part '{folder.name}'. "
        "Check model_family, or download the model again."
    )
