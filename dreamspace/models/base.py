"""A base model at hand: its family, its files, and conditioning of prompts from the cache."""

import gc
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from safetensors import SafetensorError
from torch import nn

from dreamspace.config import RunConfig
from dreamspace.config.families import FamilyName
from dreamspace.config.precision import Precision, alternative, unsupported
from dreamspace.data.cache import TensorCache, cache_prompts
from dreamspace.estimate.out_of_memory import is_out_of_memory
from dreamspace.models import PIPELINES, load_family
from dreamspace.models.device import best_device, usual_precision
from dreamspace.models.family import Conditioning, Family, PromptVariantFamily
from dreamspace.models.offloading import offload_blocks
from dreamspace.models.precision import quantise
from dreamspace.models.source import (
    INDEX_FILE,
    UNUSED_PARTS,
    damaged_model,
    fingerprint,
    model_folder,
    model_index,
    no_part,
)

CPU = torch.device("cpu")

WEIGHT_DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""By a run's mixed_precision: how the base model's frozen weights are kept."""


@dataclass(frozen=True)
class BaseModel:
    """A base model by name; its parts are loaded when they are asked for, and not kept.

    Attributes:
        dtype: of the weights of the text encoders; the VAE that encodes is always fp32.
        denoiser_dtype: of the denoiser's; fp32 where it is trained whole.
        precisions: by part, the level of those that are quantised.
        quantize_via: where they are.
        has_zero_snr: whether its pipelines draw from pure noise on, as `rescale_betas_zero_snr` trains it.
        offloads: whether the denoiser's blocks lie on the CPU and visit the device one by one.
    """

    name: str
    family: Family
    folder: Path
    device: torch.device
    cache: Path
    dtype: torch.dtype = torch.float32
    denoiser_dtype: torch.dtype = torch.float32
    precisions: dict[str, Precision] = field(default_factory=dict)
    quantize_via: Literal["cpu", "accelerator"] = "accelerator"
    has_zero_snr: bool = False
    offloads: bool = False

    @property
    def multiple_px(self) -> int:
        """Width and height of the model's pictures are multiples of this."""
        return self.family.multiple_px(self.folder)

    @property
    def native_resolution_px(self) -> int:
        """The resolution that the model was trained for."""
        return self.family.native_resolution_px(self.folder)

    @property
    def clip_parts(self) -> list[str]:
        """The text encoders that a stock pipeline loads a LoRA into."""
        loadable = self.family.pipeline_class._lora_loadable_modules
        parts = [part for part in self._present(self.family.text_parts) if part in loadable]
        return [part for part in parts if self._parts[part][1].startswith("CLIPText")]

    @cached_property
    def text_fingerprint(self) -> str:
        """Tells prompt embeddings of this family and model, at this precision, from others."""
        parts = [self._part_fingerprint(part) for part in self._present(self.family.text_parts)]
        variant = [self.family.prompt_variant] if isinstance(self.family, PromptVariantFamily) else []
        precision = [] if self.dtype == torch.float32 else [str(self.dtype)]
        return ":".join([self.family.name, *parts, *variant, *precision])

    @cached_property
    def vae_fingerprint(self) -> str:
        """Tells latents of this model from others."""
        return "pixels" if self.family.vae_part is None else fingerprint(self.folder / self.family.vae_part)

    @cached_property
    def fingerprint(self) -> str:
        """Tells images of this model from others."""
        denoiser = self._part_fingerprint(self.family.denoiser_part)
        return f"{self.text_fingerprint}:{denoiser}:{self.vae_fingerprint}"

    def _part_fingerprint(self, name: str) -> str:
        """Tells a part from others, and from itself at another level of precision."""
        digest, precision = fingerprint(self.folder / name), self.precisions.get(name)
        return digest if precision is None else f"{digest}@{precision}"

    def load_denoiser(self) -> nn.Module:
        """The denoiser on its device, frozen."""
        return self._load_part(self.family.denoiser_part, self.denoiser_dtype)

    def load_vae(self, dtype: torch.dtype = torch.float32) -> nn.Module | None:
        """The autoencoder on its device, frozen; None for a model of pixels.

        Args:
            dtype: fp32 to encode, `denoiser_dtype` to draw with the denoiser.
        """
        return None if self.family.vae_part is None else self._load_part(self.family.vae_part, dtype)

    def noise_scheduler(self) -> Any:
        """diffusers' training scheduler with the base model's own noise schedule."""
        if not (self.folder / "scheduler").is_dir():
            raise no_part(self.folder / "scheduler")
        try:
            return self.family.scheduler_class.from_pretrained(self.folder, subfolder="scheduler")
        except OSError as error:
            raise damaged_model(f"The scheduler of the model in {self.folder}", error) from error

    def pipeline(self, denoiser: nn.Module, vae: nn.Module | None, with_text: bool = False) -> Any:
        """The stock pipeline, which samples from cached conditioning.

        Args:
            with_text: with its text parts, on their device, which an adapter may change.
        """
        given = {self.family.denoiser_part: denoiser}
        if self.family.vae_part is not None:
            given[self.family.vae_part] = vae
        # An upscaler has a scheduler more, for the noise on the picture that it is given.
        schedulers = {name for name in self._parts if name.endswith("scheduler")}
        if with_text:
            text = self.load_text_encoders()
            given |= {name: text.components[name] for name in self._present(self.family.text_parts)}
        pipeline = self._rescheduled(self._stock_pipeline({*schedulers, *given}, **given))
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def whole_pipeline(self) -> Any:
        """The stock pipeline with all of its parts but those that judge images, on the CPU."""
        return self._rescheduled(self._stock_pipeline(set(self._present(self._parts.keys() - UNUSED_PARTS))))

    def _rescheduled(self, pipeline: Any) -> Any:
        """The pipeline with the noise schedule that the model is trained by (arXiv:2305.08891)."""
        if self.has_zero_snr and self.family.scheduler_class is DDPMScheduler:
            # The model's own sampler may be of a kind that cannot begin there.
            pipeline.scheduler = DDIMScheduler.from_config(
                pipeline.scheduler.config,
                rescale_betas_zero_snr=True,
                timestep_spacing="trailing",
                clip_sample=False,
            )
        return pipeline

    def encode_prompts(
        self, prompts: Iterable[str], cache_dir: Path | None = None
    ) -> dict[str, Conditioning]:
        """Conditioning of each prompt, on the CPU.

        The text encoders are loaded only if a prompt is not cached yet, and leave memory again. Each prompt
        is encoded alone: in a batch its last bits would depend on the prompts beside it.

        Args:
            cache_dir: where it is cached; None takes the workspace's cache.
        """
        text_encoders = cache(self.load_text_encoders)

        @torch.no_grad()
        def encode(prompt: str) -> Conditioning:
            (row,) = self.family.encode_prompts(text_encoders(), [prompt])
            return {name: tensor.cpu().clone() for name, tensor in row.items()}

        tensors = TensorCache(cache_dir or self.cache / "prompts")
        conditioning = cache_prompts(tensors, prompts, self.text_fingerprint, encode)
        gc.collect()
        return conditioning

    def load_text_encoders(self) -> Any:
        """The stock pipeline with the text parts alone, on their device and frozen."""
        names = self._present(self.family.text_parts)
        pipeline = self._stock_pipeline(set(names), dtype=self.dtype)
        for name in names:
            part = getattr(pipeline, name)
            if isinstance(part, nn.Module):
                self._prepared(name, part, self.dtype)
        return pipeline

    def _load_part(self, name: str, dtype: torch.dtype) -> nn.Module:
        part = getattr(self._stock_pipeline({name}, dtype=dtype), name)
        return self._prepared(name, part, dtype)

    def _prepared(self, name: str, part: nn.Module, dtype: torch.dtype) -> nn.Module:
        """A part on its device, frozen, and quantised or offloaded where it is to be.

        Raises:
            ValueError: if its files lack some of its weights.
        """
        missing = [weight for weight, tensor in part.named_parameters() if tensor.is_meta]
        if missing:
            raise ValueError(
                f"The {name} of the model in {self.folder} lacks {len(missing)} of its weights, such as "
                f"{missing[0]}. Download it again, or choose another model."
            )
        is_offloaded = self.offloads and name == self.family.denoiser_part
        if name in self.precisions:
            start = CPU if self.quantize_via == "cpu" else self.device
            quantise(part, self.precisions[name], dtype, start, CPU if is_offloaded else self.device)
        part = part.requires_grad_(False).eval()
        if not is_offloaded:
            return part.to(self.device)
        offload_blocks(part, self.device)
        return part

    @cached_property
    def _parts(self) -> dict[str, list[str | None]]:
        """Library and class of every part that the model's index lists."""
        index = model_index(self.folder)
        return {name: entry for name, entry in index.items() if isinstance(entry, list)}

    def _present(self, names: Iterable[str]) -> list[str]:
        """Those of the parts that the model has; which may be absent is its index' to say."""
        return [name for name in names if self._parts.get(name, [None])[0] is not None]

    def _stock_pipeline(self, names: set[str], **options: Any) -> Any:
        """The family's pipeline from the model's folder, with these parts and no others.

        Raises:
            ValueError: if a part is missing or damaged.
        """
        for name in names - options.keys():
            if not (self.folder / name).is_dir():
                raise no_part(self.folder / name)
        pipeline_class = self.family.pipeline_class
        if "requires_safety_checker" in inspect.signature(pipeline_class).parameters:
            options["requires_safety_checker"] = False
        absent = dict.fromkeys(self._parts.keys() - names)
        try:
            return pipeline_class.from_pretrained(self.folder, use_safetensors=True, **absent, **options)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            parts = ", ".join(sorted(names - options.keys())) or INDEX_FILE
            raise damaged_model(f"The model in {self.folder} ({parts})", error) from error


def base_config(name: str, settings: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration of a base model by itself: in 16 bits on a GPU, unless the settings say otherwise.

    Raises:
        ValueError: if there is no such model, or a setting is wrong.
    """
    usual = {"mixed_precision": usual_precision(best_device())}
    given = {"pretrained_model_name_or_path": name, "model_family": family_of(name), **(settings or {})}
    return RunConfig(**usual | given)


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
        ValueError: if there is no such model, it is of another family, or the device cannot do a precision.
    """
    name = config.pretrained_model_name_or_path
    folder = model_folder(name)
    _check_family(config.model_family, name, folder)
    family, device = load_family(config, folder), device or best_device()
    return BaseModel(
        name,
        family,
        folder,
        device,
        cache,
        WEIGHT_DTYPES[config.mixed_precision],
        torch.float32 if config.model_type == "full" else WEIGHT_DTYPES[config.mixed_precision],
        _precisions(config, family, device),
        config.quantize_via,
        config.rescale_betas_zero_snr,
        config.enable_group_offload,
    )


def _precisions(config: RunConfig, family: Family, device: torch.device) -> dict[str, Precision]:
    """By part, the level of those that are quantised.

    Raises:
        ValueError: if the device cannot do it.
    """
    levels: dict[str, tuple[str, Precision]] = {
        family.denoiser_part: ("base_model_precision", config.base_model_precision),
        "text_encoder": ("text_encoder_1_precision", config.text_encoder_1_precision),
        "text_encoder_2": ("text_encoder_2_precision", config.text_encoder_2_precision),
        "text_encoder_3": ("text_encoder_3_precision", config.text_encoder_3_precision),
        "text_encoder_4": ("text_encoder_4_precision", config.text_encoder_4_precision),
    }
    quantised = {part: level for part, level in levels.items() if level[1] != "no_change"}
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    for key, precision in quantised.values():
        reason = unsupported(precision, device.type, capability)
        if reason is not None:
            other = alternative(precision, device.type)
            raise ValueError(f"{key} '{precision}' {reason}. Set it to '{other}' or 'no_change'.")
    return {part: precision for part, (_, precision) in quantised.items()}


def family_of(name: str) -> FamilyName:
    """The family of a base model, by its index.

    Args:
        name: "mini", a folder, or a Hub id.

    Raises:
        ValueError: if there is no such model, or it is of no family that is known.
    """
    pipeline = _pipeline_of(model_folder(name))
    if pipeline not in PIPELINES:
        raise ValueError(f"The model {name} is a {pipeline}, which no model_family reads. Choose another.")
    return PIPELINES[pipeline][0]


def _pipeline_of(folder: Path) -> str:
    """The pipeline that a model's index names."""
    return model_index(folder)["_class_name"]


def _check_family(family: str, name: str, folder: Path) -> None:
    """Whether the model in a folder is of this family, by the pipeline that its index names."""
    pipeline = _pipeline_of(folder)
    families = PIPELINES.get(pipeline, ())
    if family not in families:
        advice = f"Set model_family to {' or '.join(families)}." if families else "Choose another model."
        raise ValueError(f"The model {name} is a {pipeline}, which is not of family '{family}'. {advice}")
