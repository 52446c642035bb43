"""DINOv2 embeddings (arXiv:2304.07193), which see an individual where CLIP sees a class."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel

from dreamspace.config import is_hub_id
from dreamspace.estimate.out_of_memory import is_out_of_memory
from dreamspace.models.source import damaged_model, hub_snapshot

BATCH_SIZE = 16
USUAL_DINO = "facebook/dinov2-base"
_FILES = ["config.json", "preprocessor_config.json", "model.safetensors"]


class Dino:
    """A DINOv2 model; embeddings are the class token's, as unit vectors.

    Args:
        source: a Hub id, or a folder in transformers' layout.

    Raises:
        ValueError: if there is no such model, it cannot be had, or is damaged.
    """

    def __init__(self, source: str = USUAL_DINO, device: torch.device | str = "cpu") -> None:
        self.name = source
        folder = Path(source).expanduser()
        if not folder.is_dir():
            if not is_hub_id(source):
                raise ValueError(
                    f"There is no DINOv2 '{source}'. Give a folder, or a Hub id such as '{USUAL_DINO}'."
                )
            folder = hub_snapshot(source, _FILES)
        try:
            self.preprocess = AutoImageProcessor.from_pretrained(folder)
            self.model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, SafetensorError) as error:
            if is_out_of_memory(error):
                raise
            raise damaged_model(f"The DINOv2 in {folder}", error) from error
        self.model.eval().requires_grad_(False)
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        """Move the model."""
        self.model.to(device)
        self.device = device

    @torch.no_grad()
    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(N, D) unit vectors."""
        rows = []
        for start in range(0, len(pictures), BATCH_SIZE):
            batch = list(pictures[start : start + BATCH_SIZE])
            pixels = self.preprocess(images=batch, return_tensors="pt")["pixel_values"]
            rows.append(self.model(pixels.to(self.device)).last_hidden_state[:, 0])
        return torch.nn.functional.normalize(torch.cat(rows).float(), dim=1).cpu()
