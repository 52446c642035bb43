"""CLIP embeddings through open_clip: of pictures and of prompts, in one space."""

import logging
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import open_clip
import torch
from PIL import Image
from torch import Tensor

from dreamspace.mini import MODEL_FOLDER

BATCH_SIZE = 32


@contextmanager
def _quiet():
    """open_clip logs each step of loading to the root logger."""
    previous = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(previous)


class Clip:
    """A CLIP model; embeddings are unit vectors.

    Args:
        source: a folder in open_clip's layout, or mini's own.
    """

    def __init__(self, source: Path = MODEL_FOLDER / "clip", device: torch.device | str = "cpu") -> None:
        name = f"local-dir:{Path(source)}"
        with _quiet():
            self.model, self.preprocess = open_clip.create_model_from_pretrained(name, device=device)
            self.tokenizer = open_clip.get_tokenizer(name)
        self.model.eval()
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
