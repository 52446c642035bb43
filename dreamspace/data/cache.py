"""Latents and prompt embeddings, computed once and kept on disk as safetensors, keyed by content."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamspace.data.geometry import pictures_at_once
from dreamspace.data.samples import Sample
from dreamspace.files import replace_file


class TensorCache:
    """A folder of safetensors files, each a dict of tensors under a key; only ever a saving of time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The tensors under this key; `None` if there are none, or their file was damaged by a power cut."""
        try:
            return load_file(self.path(key))
        except (FileNotFoundError, SafetensorError):
            return None

    def save(self, key: str, tensors: dict[str, Tensor]) -> None:
        with replace_file(self.path(key)) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def latents_key(sample: Sample, vae_fingerprint: str) -> str:
    """All that decides a sample's latents: photo, geometry and VAE."""
    geometry = sample.geometry
    return f"{sample.content_id}:{geometry.resized_size}:{geometry.crop}:{geometry.size}:{vae_fingerprint}"


def pixels_of(picture: Image.Image) -> Tensor:
    """An RGB picture as (3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(127.5).sub(1)


def cache_latents(
    cache: TensorCache,
    samples: Iterable[Sample],
    vae_fingerprint: str,
    encode: Callable[[Tensor], Tensor],
    on_progress: Callable[[int, int], None],
) -> list[Tensor]:
    """Latents (C, h, w) fp32 of each sample, in order; what is not cached yet is encoded in batches.

    Args:
        encode: pixels (B, 3, H, W) in [-1, 1] to latents (B, C, h, w); called only if some are missing, so
            that the VAE is not loaded in vain.
        on_progress: called with the number of samples encoded so far and the number that need it.
    """
    samples = list(samples)
    keys = [latents_key(sample, vae_fingerprint) for sample in samples]
    latents = {
        key: stored["latents"] for key in dict.fromkeys(keys) if (stored := cache.load(key)) is not None
    }
    missing = {key: sample for key, sample in zip(keys, samples, strict=True) if key not in latents}
    by_size: dict[tuple[int, int], list[str]] = {}
    for key, sample in missing.items():
        by_size.setdefault(sample.geometry.size, []).append(key)
    for same_size in by_size.values():
        batch_size = pictures_at_once(*missing[same_size[0]].geometry.size)
        for start in range(0, len(same_size), batch_size):
            batch = same_size[start : start + batch_size]
            encoded = encode(torch.stack([pixels_of(missing[key].picture()) for key in batch])).float().cpu()
            for key, row in zip(batch, encoded, strict=True):
                latents[key] = row.clone()
                cache.save(key, {"latents": latents[key]})
            on_progress(sum(key in latents for key in missing), len(missing))
    return [latents[key] for key in keys]


def cache_prompts(
    cache: TensorCache,
    prompts: Iterable[str],
    text_fingerprint: str,
    encode: Callable[[str], dict[str, Tensor]],
) -> dict[str, dict[str, Tensor]]:
    """Conditioning of each prompt; what is not cached yet is encoded.

    Args:
        encode: a prompt to its conditioning, called only for one that is missing, so that the text encoders
            are not loaded in vain.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for prompt in dict.fromkeys(prompts):
        key = f"{text_fingerprint}:{prompt}"
        conditioning = cache.load(key)
        if conditioning is None:
            conditioning = encode(prompt)
            cache.save(key, conditioning)
        found[prompt] = conditioning
    return found
