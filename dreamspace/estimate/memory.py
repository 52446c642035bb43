"""How much memory each stage of a run takes, by its configuration and the profile of its base model."""

from dataclasses import dataclass
from typing import Literal

from dreamspace.config import RunConfig
from dreamspace.data.geometry import pictures_at_once
from dreamspace.estimate.profiles import Format, ModelProfile, PartProfile
from dreamspace.estimate.weights import (
    OPTIMIZER_BYTES,
    bytes_of_part,
    num_trained,
    number_format,
    precision_key,
)
from dreamspace.jobs.new_run import num_prompts

DeviceKind = Literal["cuda", "mps", "cpu"]
StageName = Literal[
    "encoding prompts", "drawing class images", "encoding photos", "training", "validating", "saving"
]

T5_PARTS = {"sd3": "text_encoder_3", "flux": "text_encoder_2", "deepfloyd": "text_encoder"}
T5_SHARE_IN_FP32 = 0.21
"""Of the weights of T5-XXL: the second layer of each feed-forward network."""

FIXED_BYTES: dict[DeviceKind, int] = {"cuda": 700_000_000, "mps": 500_000_000, "cpu": 60_000_000}
"""What the device's runtime takes, such as CUDA's context, and what libraries set up when first used."""

SLACK: dict[DeviceKind, tuple[float, float]] = {"cuda": (0.08, 0.08), "mps": (0.1, 0.1), "cpu": (0.0, 0.5)}
"""The share of what lies there, and of what comes and goes, that is held besides.

An allocator has blocks that fit nothing at the moment. On the CPU weights are mapped from their files as they
are, and layers copy what they compute on into a layout of their own: benchmarks/memory.py shows half as much
again.
"""

RESTING = ("weights", "text encoders", "adapter", "optimizer", "moving average", "gradients")
"""Parts of a training that lie there; the others come and go."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory in bytes: of the GPU, or net of imports of the process that trains on the CPU.

    Attributes:
        parts: of the training, by name: they add up to its peak.
        peaks: of each stage. The largest decides.
    """

    parts: dict[str, int]
    peaks: dict[StageName, int]

    @property
    def peak(self) -> int:
        return max(self.peaks.values())

    @property
    def largest_stage(self) -> StageName:
        return max(self.peaks, key=lambda stage: self.peaks[stage])


def estimate_memory(
    config: RunConfig,
    profile: ModelProfile,
    size_px: tuple[int, int],
    device: DeviceKind = "cuda",
    *,
    has_base_predictions: bool = False,
) -> MemoryEstimate:
    """Memory of each part and stage of a run.

    Args:
        size_px: (width, height) of the largest training pictures.
        has_base_predictions: whether rows have the base model's prediction as their target.
    """
    run = _Run(config, profile, device, size_px)
    of_resting, of_passing = (1 + share for share in SLACK[device])
    parts = {
        name: value * (of_resting if name in RESTING else of_passing)
        for name, value in run.training(has_base_predictions).items()
    }
    at_rest = sum(parts[name] for name in RESTING if name != "gradients")
    peaks: dict[StageName, float] = {
        "encoding prompts": of_resting * run.text_encoders(),
        # Measured on the CPU without what else passes: so large blocks are made and given back one by one.
        "encoding photos": of_resting * (run.vae_bytes(4) + run.encoding()),
        "training": sum(parts.values()),
        "validating": at_rest + of_passing * run.drawing(),
        "saving": at_rest + of_passing * run.proving(),
    }
    if config.validation_disable:
        del peaks["validating"]
    if config.num_class_images > 0:
        peaks["drawing class images"] = of_resting * run.base_bytes() + of_passing * run.class_images()
    if device == "cpu":
        # A file is written from a copy in memory, and a process keeps much of what it has once taken.
        written = at_rest + parts["gradients"] + run.written()
        peaks["saving"] = max(written, *(peaks[stage] for stage in ("training", "saving")))
    peaks["saving"] += of_resting * run.proven_again()
    fixed = FIXED_BYTES[device]
    return MemoryEstimate(
        {name: round(value) for name, value in parts.items()} | {"runtime": fixed},
        {stage: round(value) + fixed for stage, value in peaks.items()},
    )


@dataclass(frozen=True)
class _Run:
    config: RunConfig
    profile: ModelProfile
    device: DeviceKind
    size_px: tuple[int, int]

    @property
    def format(self) -> Format:
        return number_format(self.config)

    @property
    def weight_bytes(self) -> int:
        """Of a frozen weight."""
        return 4 if self.format == "fp32" else 2

    @property
    def is_full(self) -> bool:
        return self.config.model_type == "full"

    @property
    def trains_text(self) -> bool:
        """Whether the text encoders stay in memory, and are there once more while the result is proven.

        What little is trained of them, and what they keep for it, is left out.
        """
        return self.config.train_text_encoder or self.config.num_token_vectors > 0

    @property
    def has_guidance(self) -> bool:
        """Whether validation images are drawn with and without their prompts."""
        return self.config.validation_guidance > 1

    @property
    def validation_sizes_px(self) -> list[tuple[int, int]]:
        """Of validation images."""
        return self.config.validation_sizes_px or [self.size_px]

    @property
    def denoiser(self) -> PartProfile:
        return self.profile.parts[self.profile.denoiser]

    def denoiser_bytes(self) -> float:
        """On the device: all of it, or what is not offloaded and the two blocks that visit."""
        if self.is_full:
            return (self.denoiser.total + self.denoiser.buffers) * 4
        precision = self.config.base_model_precision
        everything = bytes_of_part(self.denoiser, precision, self.weight_bytes)
        if self.device == "cpu" and precision != "no_change":
            # The file that they are made from stays mapped, because what is not quantised lies there.
            everything += self.denoiser.total * self.weight_bytes
        if not self.config.enable_group_offload or self.device == "cpu":
            return everything
        share = (self.denoiser.total - self.denoiser.in_blocks + 2 * self.denoiser.largest_block) / (
            self.denoiser.total
        )
        return everything * min(1.0, share)

    def base_bytes(self) -> float:
        """Of the denoiser and the VAE that it draws with."""
        return self.denoiser_bytes() + self.vae_bytes(4 if self.is_full else self.weight_bytes)

    def vae_bytes(self, bytes_per_weight: int) -> float:
        """Of its weights."""
        return self.profile.parts[self.profile.vae].total * bytes_per_weight if self.profile.vae else 0

    def training(self, has_base_predictions: bool) -> dict[str, float]:
        """Each part of a training at its peak."""
        config, profile = self.config, self.profile
        trained = num_trained(config, profile)
        adapter = 0 if self.is_full else trained * (2 if config.optimizer == "adamw_bf16" else 4)
        base = self.denoiser.total * 4 if self.is_full and has_base_predictions else 0
        averages = config.use_ema and (config.ema_device == "accelerator" or self.device == "cpu")
        passes = max(self._passes(), self._base_prediction() if has_base_predictions else 0)
        gradients = trained * 4
        return {
            "weights": self.base_bytes() + base,
            "text encoders": self.text_encoders() if self.trains_text else 0,
            "adapter": adapter,
            "optimizer": trained * OPTIMIZER_BYTES[config.optimizer],
            "moving average": trained * 4 if averages else 0,
            "gradients": gradients,
            "activations": max(0, passes - gradients),
        }

    def _passes(self) -> float:
        """Activations and gradients, at the moment when they are most together."""
        config = self.config
        peak = self.profile.at(
            *self.size_px,
            lambda size: size.training_bytes(
                "full" if self.is_full else "lora",
                self.format,
                config.gradient_checkpointing,
                config.train_batch_size,
            ),
        )
        if config.base_model_precision != "no_change":
            peak += (
                2 * self.denoiser.largest_layer * self.weight_bytes
            )  # made whole while it is computed with
        return peak

    def _base_prediction(self) -> float:
        return self.config.train_batch_size * self._forward_bytes(self.size_px)

    def _forward_bytes(self, size_px: tuple[int, int]) -> float:
        number_format: Format = "fp32" if self.is_full else self.format
        return self.profile.at(*size_px, lambda size: size.forward_bytes[number_format])

    def text_encoders(self) -> float:
        """All of them, loaded together."""
        levels = self.config.model_dump()
        return self._kept_in_fp32() + sum(
            bytes_of_part(self.profile.parts[name], levels[precision_key(name)], self.weight_bytes)
            for name in self.profile.text_encoders
        )

    def _kept_in_fp32(self) -> float:
        """What a T5 takes more in fp16, where transformers leaves one of its layers in fp32 and whole."""
        name = T5_PARTS.get(self.profile.family)
        if self.config.mixed_precision != "fp16" or name not in self.profile.parts:
            return 0
        part, level = self.profile.parts[name], self.config.model_dump()[precision_key(name)]
        return T5_SHARE_IN_FP32 * (4 * part.total - bytes_of_part(part, level, self.weight_bytes))

    def encoding(self) -> float:
        """Activations of the VAE, which encodes in fp32."""
        if self.profile.vae is None:
            return 0
        of_one = self.profile.at(*self.size_px, lambda size: size.encode_bytes)
        return pictures_at_once(*self.size_px) * of_one

    def drawing(self) -> float:
        """Activations of a batch of validation images: the denoiser's, or then the VAE's."""
        num_images = num_prompts(self.config) * self.config.num_validation_images
        return max(
            min(num_images, pictures_at_once(*size_px)) * self._drawing(size_px, self.has_guidance)
            for size_px in self.validation_sizes_px
        )

    def class_images(self) -> float:
        """The same of class images, which have the size that the model was made for."""
        edge = self.profile.native_resolution_px
        return pictures_at_once(edge, edge) * self._drawing((edge, edge), has_guidance=True)

    def _drawing(self, size_px: tuple[int, int], has_guidance: bool) -> float:
        """Of one image."""
        passes = 2 if has_guidance else 1  # with and without the prompt, in one batch
        # SDXL's autoencoder is no good in fp16, and its pipeline has it decode in fp32 then.
        is_upcast = self.config.mixed_precision == "fp16" and self.profile.family == "sdxl"
        number_format: Format = "fp32" if self.is_full or is_upcast else self.format
        decoding = self.profile.at(*size_px, lambda size: size.decode_bytes[number_format])
        return max(passes * self._forward_bytes(size_px), decoding)

    def written(self) -> float:
        """Of what is trained, as it is written to a file."""
        return 4 * num_trained(self.config, self.profile)

    def proven_again(self) -> float:
        """Weights of a second base model, which takes the saved adapter at the end of a run."""
        return self.denoiser_bytes() + (self.text_encoders() if self.trains_text else 0)

    def proving(self) -> float:
        """Activations of the one image that it draws."""
        return max(self._drawing(size_px, self.has_guidance) for size_px in self.validation_sizes_px)
