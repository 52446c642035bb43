"""Tiny autoencoders for previews: the model's own, a folder's, or one of the Hub."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors import SafetensorError

from dreamspace.config import is_hub_id
from dreamspace.config.families import PREVIEW_MODELS
from dreamspace.models.base import BaseModel
from dreamspace.models.source import part_config

_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
_ETAG_SECONDS = 5.0


def load_tiny_vae(model: BaseModel, name: str | None = None) -> AutoencoderTiny | None:
    """A tiny decoder for a model's latents, on its device; None where none is known for them.

    Args:
        name: a folder or a Hub id; None takes the subfolder `tiny_vae` of the model, else the family's.

    Raises:
        ValueError: if it cannot be had, or does not fit the model; a reason, without a full stop.
    """
    if model.family.vae_part is None:
        return None
    own = model.folder / "tiny_vae"
    if name is None and own.is_dir():
        return _loaded(own, str(own), model.device)
    known = PREVIEW_MODELS.get(model.family.name)
    if name is None and known is None:
        return None
    if known is None:
        raise ValueError(f"no tiny decoder of diffusers reads latents of family '{model.family.name}'")
    name = name or known
    tiny = _loaded(_folder(name), name, model.device)
    channels = part_config(model.folder, model.family.vae_part)["latent_channels"]
    if tiny.config.latent_channels != channels:
        raise ValueError(
            f"{name} decodes latents of {tiny.config.latent_channels} channels, and this model's have "
            f"{channels}"
        )
    return tiny


def _folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not is_hub_id(name):
        raise ValueError(f"there is no folder '{name}', and it is no Hub id such as 'madebyollin/taesd'")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES), local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES), etag_timeout=_ETAG_SECONDS))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{name} is not on this machine and cannot be downloaded ({type(error).__name__})"
        ) from None


def _loaded(folder: Path, name: str, device: torch.device) -> AutoencoderTiny:
    if not (folder / _FILES[1]).is_file():
        raise ValueError(f"{name} holds no {_FILES[1]}")
    try:
        tiny = AutoencoderTiny.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"{name} cannot be loaded: {reason}") from None
    return tiny.requires_grad_(False).eval().to(device)
