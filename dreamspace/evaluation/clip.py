"""CLIP embeddings through open_clip: of pictures and of prompts, in one space."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from dreamspace.config import is_hub_id
from dreamspace.estimate.out_of_memory import is_out_of_memory
from dreamspace.mini import MODEL_FOLDER
from dreamspace.models.source import damaged_model, first_line, hub_snapshot
from dreamspace.suggest import nearest

BATCH_SIZE = 32
USUAL_CLIP = "ViT-L-14-336/openai"

TRANSFORMERS_NAMES = {
    "openai/clip-vit-base-patch32": "ViT-B-32/openai",
    "openai/clip-vit-base-patch16": "ViT-B-16/openai",
    "openai/clip-vit-large-patch14": "ViT-L-14/openai",
    "openai/clip-vit-large-patch14-336": USUAL_CLIP,
}
"""What open_clip calls models that are best known by their id for transformers."""

_CONFIG, _WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


class Clip:
    """A CLIP model; embeddings are unit vectors.

    Args:
        source: mini's own folder, or any other in open_clip's layout; an open_clip name, with the tag of its
            weights ("ViT-L-14/openai") or a file of them ("ViT-L-14:FILE.safetensors"); or a Hub id.

    Raises:
        ValueError: if there is no such model, it cannot be had, is damaged, or only a pickle.
    """

    def __init__(
        self, source: Path | str = MODEL_FOLDER / "clip", device: torch.device | str = "cpu"
    ) -> None:
        self.name = "mini's own CLIP" if Path(source) == MODEL_FOLDER / "clip" else str(source)
        with _quiet():
            self.model, self.preprocess, self.tokenizer = _load(str(source))
        self.model.eval().requires_grad_(False)
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        """Move the model."""
        self.model.to(device)
        self.device = device

    @torch.no_grad()
    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(N, D) unit vectors."""
        pixels = torch.stack([self.preprocess(picture) for picture in pictures])
        embeddings = [
            self.model.encode_image(batch.to(self.device), normalize=True)
            for batch in pixels.split(BATCH_SIZE)
        ]
        return torch.cat(embeddings).float().cpu()

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """(N, D) unit vectors."""
        return (
            self.model.encode_text(self.tokenizer(list(prompts)).to(self.device), normalize=True)
            .float()
            .cpu()
        )

    def choose(self, pictures: Tensor, prompts: Sequence[str]) -> list[int]:
        """For each picture, embedded as (N, D), the index of the prompt nearest to it (zero-shot)."""
        return (pictures @ self.embed_prompts(prompts).T).argmax(dim=1).tolist()


def own_clip(folder: Path) -> Path | None:
    """The CLIP that a base model's folder brings along, as mini's does."""
    return folder / "clip" if (folder / "clip").is_dir() else None


def clip_of(folder: Path, name: str | None, device: torch.device | str = "cpu") -> Clip:
    """The CLIP that judges images of a base model: the one that is named, its own, or else the usual one.

    Args:
        folder: the base model's.

    Raises:
        ValueError: if it cannot be had.
    """
    return Clip(name or own_clip(folder) or USUAL_CLIP, device)


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs each step of loading to the root logger."""
    previous = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(previous)


def _load(source: str) -> tuple[Any, Any, Any]:
    """Model, preprocessing of pictures, and tokenizer."""
    source = TRANSFORMERS_NAMES.get(source, source)
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _from_folder(folder)
    architecture, _, file = source.partition(":")
    if file:
        return _named(architecture, Path(file).expanduser(), {})
    architecture, _, tag = source.partition("/")
    if architecture in open_clip.list_models():
        return _tagged(architecture, tag)
    if is_hub_id(source):
        return _from_folder(hub_snapshot(source, [_CONFIG, _WEIGHTS, "*.json", "*.txt", "*.model"]))
    raise ValueError(
        f"There is no CLIP '{source}'.{nearest(architecture, open_clip.list_models())} Give an open_clip "
        f"name such as '{USUAL_CLIP}', a Hub id, a folder, or NAME:FILE.safetensors."
    )


def _from_folder(folder: Path) -> tuple[Any, Any, Any]:
    missing = [name for name in (_CONFIG, _WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"The CLIP in {folder} holds no {missing[0]}, and pickles are not loaded. Give a folder in "
            "open_clip's layout with safetensors."
        )
    return _opened(f"The CLIP in {folder}", f"local-dir:{folder}")


def _tagged(architecture: str, tag: str) -> tuple[Any, Any, Any]:
    """A model of open_clip's list, whose weights the Hub holds as safetensors."""
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    tag = tag or (tags[0] if tags else "")
    if tag not in tags:
        raise ValueError(
            f"open_clip has no weights '{tag}' for {architecture}.{nearest(tag, tags)} "
            f"Known: {', '.join(tags) or 'none'}."
        )
    published = open_clip.get_pretrained_cfg(architecture, tag)
    hub_id = str(published.get("hf_hub", "")).rpartition("/")[0]
    if not hub_id:
        raise ValueError(
            f"open_clip's weights {architecture}/{tag} are published as a pickle alone, which is not loaded. "
            "Choose others."
        )
    return _named(architecture, hub_snapshot(hub_id, [_WEIGHTS]) / _WEIGHTS, published)


def _named(architecture: str, weights: Path, published: dict[str, Any]) -> tuple[Any, Any, Any]:
    """A model by its name and file; `published` is what open_clip notes of its weights."""
    if architecture not in open_clip.list_models():
        raise ValueError(
            f"open_clip knows no model '{architecture}'.{nearest(architecture, open_clip.list_models())}"
        )
    if weights.suffix != ".safetensors" or not weights.is_file():
        raise ValueError(f"There is no file {weights} with a CLIP's weights as safetensors. Check the path.")
    options = {
        f"image_{name}": published[name]
        for name in ("mean", "std", "interpolation", "resize_mode")
        if published.get(name) is not None
    }
    options |= {"pretrained": str(weights), "force_quick_gelu": bool(published.get("quick_gelu"))}
    return _opened(f"The CLIP {architecture} of {weights}", architecture, **options)


def _opened(what: str, name: str, **options: Any) -> tuple[Any, Any, Any]:
    """What open_clip makes of a name; `what` begins the sentence that says why it cannot."""
    try:
        return *open_clip.create_model_from_pretrained(name, **options), open_clip.get_tokenizer(name)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError):  # Tokenizers of some architectures are on the Hub alone.
            raise ValueError(
                f"{what} cannot be loaded: {first_line(error)}. Check the network, or name a CLIP that is on "
                "this machine as a whole."
            ) from error
        raise damaged_model(what, error) from error
