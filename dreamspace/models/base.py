"""A base model at hand: its family, its files, and conditioning of prompts from the cache."""

import gc
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from dreamspace.data.cache import TensorCache, cache_prompts
from dreamspace.models import FAMILIES
from dreamspace.models.family import Conditioning, Family
from dreamspace.models.source import fingerprint, model_folder
from dreamspace.suggest import nearest


@dataclass(frozen=True)
class BaseModel:
    """A base model by name; its parts are loaded when they are asked for, and not kept."""

    name: str
    family: Family
    folder: Path
    device: torch.device
    cache: Path

    @cached_property
    def text_fingerprint(self) -> str:
        return ":".join(fingerprint(self.folder / part) for part in self.family.text_parts)

    def encode_prompts(
        self, prompts: Iterable[str], cache_dir: Path | None = None
    ) -> dict[str, Conditioning]:
        """Conditioning of each prompt, on the CPU.

        The text encoders are loaded only if a prompt is not cached yet, and leave memory again.

        Args:
            cache_dir: where it is cached; None takes the workspace's cache.
        """

        def encode(missing: list[str]) -> list[Conditioning]:
            return self.family.encode_prompts(
                self.family.load_text_encoders(self.folder, self.device), missing
            )

        cache = TensorCache(cache_dir or self.cache / "prompts")
        conditioning = cache_prompts(cache, prompts, self.text_fingerprint, encode)
        gc.collect()
        return conditioning


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def open_model(name: str, family: str, cache: Path, device: torch.device | None = None) -> BaseModel:
    """Find a base model; nothing is loaded yet.

    Args:
        name: "mini", a folder, or a Hub id.
        cache: the workspace's cache folder.
        device: the GPU where there is one, if not given.

    Raises:
        ValueError: if there is no such model or family.
    """
    if family not in FAMILIES:
        raise ValueError(
            f"There is no model family '{family}'.{nearest(family, FAMILIES)} Known: {', '.join(FAMILIES)}."
        )
    device = device or best_device()
    family_of_model = FAMILIES[family]
    return BaseModel(name, family_of_model, model_folder(name, family_of_model.parts), device, cache)
