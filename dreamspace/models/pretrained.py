"""Models in transformers' layout, beside the one that is trained: found or downloaded, and loaded."""

from pathlib import Path
from typing import Any

import httpx2
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from safetensors import SafetensorError

from dreamspace.config import is_hub_id
from dreamspace.files import read_json

_FILE_PATTERNS = (
    *("*.json", "*.txt", "*.jinja", "*.model"),
    *("model.safetensors", "model-?????-of-?????.safetensors"),
)


def pretrained_folder(name: str, advice: str) -> Path:
    """The local folder of a model in transformers' layout, with weights as safetensors.

    Args:
        name: a folder, or a Hub id, which is downloaded if it is not cached.
        advice: the last sentence of every error: what else can be done.

    Raises:
        ValueError: if there is no such model, it cannot be reached, or it has no such weights.
    """
    folder = Path(name).expanduser()
    if not name or not folder.is_dir():
        if not is_hub_id(name):
            raise ValueError(
                f"There is no model '{name}'. Give an existing folder, or a Hub id such as 'owner/name', "
                f"with --model FOLDER_OR_ID. {advice}"
            )
        folder = _downloaded(name, advice)
    for wanted, pattern in (("config.json", "config.json"), ("weights as safetensors", "*.safetensors")):
        if not any(folder.glob(pattern)):
            raise ValueError(
                f"The model {name} has no {wanted}. Give another folder or Hub id with --model. {advice}"
            )
    return folder


def model_type(folder: Path) -> str:
    """The kind of a model in transformers' words, such as "clipseg"; "unknown" where its files do not say.

    Raises:
        ValueError: if its config.json cannot be read.
    """
    return read_json(folder / "config.json").get("model_type", "unknown")


def load_pretrained(
    model_class: Any,
    processor_class: Any,
    folder: Path,
    device: torch.device | str,
    advice: str,
    dtype: torch.dtype | str = torch.float32,
) -> tuple[Any, Any]:
    """A model ready to predict and its processor, from a local folder and without code of its own.

    Args:
        advice: the last sentence of every error: what else can be done.
        dtype: of the weights; "auto" keeps that of the files.

    Raises:
        ValueError: if the files are damaged, or are not those of such a model.
    """
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = processor_class.from_pretrained(folder, **local)
        model, report = model_class.from_pretrained(
            folder, use_safetensors=True, dtype=dtype, output_loading_info=True, **local
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"The model in {folder} cannot be loaded: {reason}. {advice}") from error
    if report["missing_keys"]:
        # transformers would fill them with random numbers and go on.
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"The model in {folder} lacks {len(missing)} of its weights, such as {missing[0]}: it is "
            f"damaged, or made for other code than transformers' own. {advice}"
        )
    return model.eval().requires_grad_(False).to(device), processor


def _downloaded(hub_id: str, advice: str) -> Path:
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(_FILE_PATTERNS)))
    except GatedRepoError:
        reason = "it is gated, so accept its terms on its page"
    except RepositoryNotFoundError:
        reason = "the Hub has none of that name, or it is private"
    except (OSError, httpx2.TransportError) as error:
        reason = f"the Hub cannot be reached ({type(error).__name__})"
    raise ValueError(
        f"The model {hub_id} is not on this machine and cannot be downloaded: {reason}. Give a folder or "
        "another Hub id with --model FOLDER_OR_ID; a gated or private model needs HF_TOKEN set, or "
        f"`hf auth login`. {advice}"
    )
