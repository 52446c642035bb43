"""A base model at hand: its family, its files, and conditioning of prompts from the cache."""

import gc
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dreamspace.config import RunConfig
from dreamspace.data.cache import TensorCache, cache_prompts
from dreamspace.files import read_json
from dreamspace.models import PIPELINES, load_family
from dreamspace.models.family import Conditioning, Family
from dreamspace.models.source import INDEX_FILE, fingerprint, model_folder, no_part

WEIGHT_DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""By a run's mixed_precision: how the base model's frozen weights are kept."""


@dataclass(frozen=True)
class BaseModel:
    """A base model by name; its parts are loaded when they are asked for, and not kept.

    Attributes:
        dtype: of the weights of denoiser and text encoders; the VAE that encodes is always fp32.
    """

    name: str
    family: Family
    folder: Path
    device: torch.device
    cache: Path
    dtype: torch.dtype = torch.float32

    @property
    def multiple_px(self) -> int:
        """Width and height of the model's pictures are multiples of this."""
        return self.family.multiple_px(self.folder)

    @property
    def native_resolution_px(self) -> int:
        """The resolution that the model was trained for."""
        return self.family.native_resolution_px(self.folder)

    @cached_property
    def text_fingerprint(self) -> str:
        """Tells prompt embeddings of this model, at this precision, from others."""
        parts = [fingerprint(self.folder / part) for part in self._present(self.family.text_parts)]
        return ":".join([*parts, *([] if self.dtype == torch.float32 else [str(self.dtype)])])

    @cached_property
    def vae_fingerprint(self) -> str:
        """Tells latents of this model from others."""
        return "pixels" if self.family.vae_part is None else fingerprint(self.folder / self.family.vae_part)

    @cached_property
    def fingerprint(self) -> str:
        """Tells images of this model from others."""
        denoiser = fingerprint(self.folder / self.family.denoiser_part)
        return f"{self.text_fingerprint}:{denoiser}:{self.vae_fingerprint}"

    def load_denoiser(self) -> nn.Module:
        """The denoiser on its device, frozen."""
        return self._load_part(self.family.denoiser_part, self.dtype)

    def load_vae(self, dtype: torch.dtype = torch.float32) -> nn.Module | None:
        """The autoencoder on its device, frozen; None for a model of pixels."""
        return None if self.family.vae_part is None else self._load_part(self.family.vae_part, dtype)

    def noise_scheduler(self) -> Any:
        """diffusers' training scheduler with the base model's own noise schedule."""
        return self.family.scheduler_class.from_pretrained(self.folder, subfolder="scheduler")

    def pipeline(self, denoiser: nn.Module, vae: nn.Module | None) -> Any:
        """The stock pipeline without text encoders, which samples from cached conditioning."""
        given = {self.family.denoiser_part: denoiser}
        if self.family.vae_part is not None:
            given[self.family.vae_part] = vae
        pipeline = self._stock_pipeline({"scheduler", *given}, **given)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def encode_prompts(
        self, prompts: Iterable[str], cache_dir: Path | None = None
    ) -> dict[str, Conditioning]:
        """Conditioning of each prompt, on the CPU.

        The text encoders are loaded only if a prompt is not cached yet, and leave memory again.

        Args:
            cache_dir: where it is cached; None takes the workspace's cache.
        """

        @torch.no_grad()
        def encode(missing: list[str]) -> list[Conditioning]:
            rows = self.family.encode_prompts(self.load_text_encoders(), missing)
            return [{name: tensor.cpu().clone() for name, tensor in row.items()} for row in rows]

        cache = TensorCache(cache_dir or self.cache / "prompts")
        conditioning = cache_prompts(cache, prompts, self.text_fingerprint, encode)
        gc.collect()
        return conditioning

    def load_text_encoders(self) -> Any:
        """The stock pipeline with the text parts alone, on their device and frozen."""
        names = self._present(self.family.text_parts)
        pipeline = self._stock_pipeline(set(names), dtype=self.dtype)
        for name in names:
            part = getattr(pipeline, name)
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        return pipeline.to(self.device)

    def _load_part(self, name: str, dtype: torch.dtype) -> nn.Module:
        part = getattr(self._stock_pipeline({name}, dtype=dtype), name)
        return part.requires_grad_(False).eval().to(self.device)

    @cached_property
    def _parts(self) -> dict[str, list[str | None]]:
        """Library and class of every part that the model's index lists."""
        index = read_json(self.folder / INDEX_FILE)
        return {name: entry for name, entry in index.items() if isinstance(entry, list)}

    def _present(self, names: Iterable[str]) -> list[str]:
        """Those of the parts that the model has; which may be absent is its index' to say."""
        return [name for name in names if self._parts.get(name, [None])[0] is not None]

    def _stock_pipeline(self, names: set[str], **options: Any) -> Any:
        """The family's pipeline from the model's folder, with these parts and no others.

        Raises:
            ValueError: if a part is missing.
        """
        for name in names - options.keys():
            if not (self.folder / name).is_dir():
                raise no_part(self.folder / name)
        pipeline_class = self.family.pipeline_class
        if "requires_safety_checker" in inspect.signature(pipeline_class).parameters:
            options["requires_safety_checker"] = False
        absent = dict.fromkeys(self._parts.keys() - names)
        return pipeline_class.from_pretrained(self.folder, use_safetensors=True, **absent, **options)


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def open_model(
    config: RunConfig,
    cache: Path,
    device: torch.device | None = None,
) -> BaseModel:
    """Find a run's base model; nothing is loaded yet.

    Args:
        config: its `pretrained_model_name_or_path` is "mini", a folder, or a Hub id.
        cache: the workspace's cache folder.
        device: the GPU where there is one, if not given.

    Raises:
        ValueError: if there is no such model, or it is of another family.
    """
    name = config.pretrained_model_name_or_path
    folder = model_folder(name)
    _check_family(config.model_family, name, folder)
    family, dtype = load_family(config, folder), WEIGHT_DTYPES[config.mixed_precision]
    return BaseModel(name, family, folder, device or best_device(), cache, dtype)


def _check_family(family: str, name: str, folder: Path) -> None:
    """Whether the model in a folder is of this family, by the pipeline that its index names."""
    pipeline = str(read_json(folder / INDEX_FILE).get("_class_name"))
    families = PIPELINES.get(pipeline, ())
    if family not in families:
        advice = f"Set model_family to {' or '.join(families)}." if families else "Choose another model."
        raise ValueError(f"The model {name} is a {pipeline}, which is not of family '{family}'. {advice}")
