"""config.json: the typed description of a run, under SimpleTuner's names wherever it has one."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import field_validator, model_validator

from dreamspace.config.dataset import DatasetConfig
from dreamspace.config.dialects import RUN_DIALECT
from dreamspace.config.evaluation_settings import EvaluationSettings
from dreamspace.config.families import FLAVOURS, flavour_model
from dreamspace.config.lycoris import BYPASSING_ALGOS, LycorisConfig
from dreamspace.config.parsing import parse_settings
from dreamspace.config.precision import WHOLE_AGAIN, package_of
from dreamspace.config.sections import (
    AdapterSettings,
    CheckpointSettings,
    DataSettings,
    EmaSettings,
    LearningSettings,
    LossSettings,
    ModelSettings,
    NoiseSettings,
    OptimizerSettings,
    PrecisionSettings,
    RolloutSettings,
    Section,
    TextSettings,
    WordSettings,
)
from dreamspace.config.validation import ValidationSettings
from dreamspace.files import read_json, write_json

BITSANDBYTES_OPTIMIZERS = ("bnb-adamw8bit", "lion")


# Pydantic takes the fields of the last base first: the model's settings stand at the top of a config.json.
class RunConfig(
    WordSettings,
    EvaluationSettings,
    ValidationSettings,
    CheckpointSettings,
    EmaSettings,
    RolloutSettings,
    NoiseSettings,
    LossSettings,
    DataSettings,
    PrecisionSettings,
    OptimizerSettings,
    LearningSettings,
    TextSettings,
    AdapterSettings,
    ModelSettings,
):
    """Everything about a run but its datasets. Immutable; `apply_settings` makes a changed copy."""

    @model_validator(mode="before")
    @classmethod
    def _name_model_of_flavour(cls, values: Any) -> Any:
        """Where a family or flavour is given and no model, the model is the flavour's."""
        if not isinstance(values, Mapping) or values.get("pretrained_model_name_or_path") is not None:
            return values
        family, flavour = values.get("model_family", "sd1x"), values.get("model_flavour")
        if not {"model_family", "model_flavour"} & values.keys() or family not in FLAVOURS:
            return values
        flavour = flavour if flavour is None else str(flavour)  # "1.5" is a number to JSON
        return {**values, "pretrained_model_name_or_path": flavour_model(family, flavour)}

    @field_validator("lr_step_rules")
    @classmethod
    def _nothing_is_none(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("lr_step_rules")
    @classmethod
    def _check_step_rules(cls, value: str | None) -> str | None:
        number = r"\d+(\.\d+)?(e-?\d+)?"
        if value is not None and not re.fullmatch(rf"({number}:\d+,)*{number}", value):
            raise ValueError(
                f"must be factor:until_step pairs and a last factor, such as '1:100,0.1', got '{value}'."
            )
        return value

    @model_validator(mode="after")
    def _check_schedule(self) -> "RunConfig":
        if self.lr_warmup_steps >= self.max_train_steps and self.lr_scheduler != "constant":
            raise ValueError(
                f"lr_warmup_steps must be below max_train_steps ({self.max_train_steps}), "
                f"got {self.lr_warmup_steps}. Shorten the warm-up or train longer."
            )
        if self.lr_restart_step >= self.max_train_steps:
            raise ValueError(
                f"lr_restart_step must be below max_train_steps ({self.max_train_steps}), "
                f"got {self.lr_restart_step}. Set it to 0 where no run is continued."
            )
        if self.lr_scheduler == "piecewise_constant" and self.lr_step_rules is None:
            raise ValueError("lr_scheduler 'piecewise_constant' needs lr_step_rules, such as '1:100,0.1'.")
        if self.snr_gamma is not None and self.debiased_estimation:
            raise ValueError(
                "snr_gamma and debiased_estimation are two weightings of the same timesteps. Keep one."
            )
        if self.masked_background_weight > 0 and self.masked_prior_weight > 0:
            raise ValueError(
                "masked_background_weight and masked_prior_weight pull the background to two targets, the "
                "photo's own and the base model's. Set one of them to 0."
            )
        return self

    @model_validator(mode="after")
    def _check_adapter(self) -> "RunConfig":
        is_lora = self.model_type == "lora"
        is_standard, is_lycoris = is_lora and self.lora_type == "standard", self.lora_type == "lycoris"
        if self.use_dora and not is_standard:
            raise ValueError(
                "use_dora is for model_type 'lora' with lora_type 'standard'. Set it to false; LyCORIS has "
                "dora_wd in its lycoris_config."
            )
        if self.validation_lycoris_strength != 1 and (not is_lora or self.lora_type == "standard"):
            raise ValueError("validation_lycoris_strength is for lora_type 'lycoris'. Set it to 1.")
        if self.init_lora is not None and not is_lora:
            raise ValueError(
                f"init_lora begins with an adapter, and model_type '{self.model_type}' trains none. Set it "
                "to null, or name the model to begin with by pretrained_model_name_or_path."
            )
        if self.lora_dropout and is_lora and self.lora_type in ("loha", "lokr"):
            raise ValueError(f"lora_type '{self.lora_type}' takes no lora_dropout. Set it to 0.")
        algos = self.lycoris_config.algos if self.lycoris_config else set()
        if is_lora and is_lycoris and "dylora" in algos and self.gradient_checkpointing:
            raise ValueError(
                "LyCORIS' dylora draws another rank when gradient_checkpointing computes a layer again. Set "
                "gradient_checkpointing to false, or choose another algo."
            )
        return self

    @model_validator(mode="after")
    def _check_lycoris(self) -> "RunConfig":
        if self.model_type != "lora" or self.lora_type != "lycoris" or self.lycoris_config is None:
            return self
        precision = self.base_model_precision
        idle = next(iter(self.lycoris_config.idle_options(precision != "no_change")), None)
        if idle is not None:
            path = ".".join(("lycoris_config", *idle.path))
            raise ValueError(
                f"At base_model_precision '{precision}', {path} does something with "
                f"{', '.join(sorted(idle.having))}, and nothing with {', '.join(sorted(idle.algos))}. Remove "
                "it, or choose another algo."
            )
        return self

    @model_validator(mode="after")
    def _check_text(self) -> "RunConfig":
        if self.train_text_encoder and (self.model_type != "lora" or self.lora_type != "standard"):
            raise ValueError(
                "train_text_encoder is for model_type 'lora' with lora_type 'standard'. Set it to false."
            )
        if self.num_token_vectors == 0:
            if self.model_type == "textual_inversion":
                raise ValueError(
                    "model_type 'textual_inversion' learns a word of num_token_vectors vectors, and that is "
                    "0. Set it to 1 or more."
                )
            return self
        if not re.fullmatch(r"<[a-z0-9_-]+>", self.token or ""):
            shown = "none" if self.token is None else f"'{self.token}'"
            raise ValueError(
                "num_token_vectors learns a new word, which is written with angle brackets and small "
                f"letters, and the token is {shown}. Choose one such as '<sks>', and use it in captions."
            )
        if self.token_initializer is None and self.class_word is None:
            raise ValueError("A learned token begins as another word. Set token_initializer or class_word.")
        return self

    @model_validator(mode="after")
    def _check_precision(self) -> "RunConfig":
        precision, remedy = self.base_model_precision, "set base_model_precision to 'no_change'"
        if precision == "no_change":
            return self
        if self.model_type == "full":
            raise ValueError(
                f"base_model_precision '{precision}' is for weights that stay as they are, and model_type "
                f"'full' trains them. Train a 'lora', or {remedy}."
            )
        if self.model_type == "lora" and self.lora_type == "lycoris":
            if not (self.lycoris_config or LycorisConfig()).trains_past_weights:
                algos = ", ".join(sorted(BYPASSING_ALGOS))
                raise ValueError(
                    f"On weights in base_model_precision '{precision}', LyCORIS trains {algos}, without "
                    f"dora_wd. Change lycoris_config, or {remedy}."
                )
        elif precision == "nf4-bnb" and self.lora_type in ("loha", "lokr"):
            raise ValueError(
                f"PEFT's {self.lora_type} cannot be put on weights in base_model_precision 'nf4-bnb'. Take "
                f"lora_type 'lycoris' with that algo, or {remedy}."
            )
        elif self.use_dora and precision not in WHOLE_AGAIN:
            raise ValueError(
                f"PEFT's use_dora cannot read weights in base_model_precision '{precision}'. Set it to "
                f"false, or base_model_precision to 'no_change', {', '.join(map(repr, WHOLE_AGAIN))}."
            )
        return self

    @model_validator(mode="after")
    def _check_memory(self) -> "RunConfig":
        if self.enable_group_offload and self.model_type == "full":
            raise ValueError(
                "enable_group_offload is for weights that stay as they are, and model_type 'full' trains "
                "them. Train a 'lora', or set enable_group_offload to false."
            )
        if self.enable_group_offload and not self.gradient_checkpointing:
            raise ValueError(
                "enable_group_offload needs gradient_checkpointing: without it, all weights stay on the GPU "
                "until the backward pass has used them. Set gradient_checkpointing to true."
            )
        if self.dynamo_backend != "no" and (
            self.gradient_checkpointing or self.base_model_precision != "no_change"
        ):
            raise ValueError(
                f"dynamo_backend '{self.dynamo_backend}' compiles the denoiser whole, without "
                "gradient_checkpointing and at base_model_precision 'no_change'. Set these so, or "
                "dynamo_backend to 'no'."
            )
        return self

    @property
    def packages(self) -> set[str]:
        """The packages that its levels of precision and its optimizer are of, and no other setting needs."""
        levels = (
            self.base_model_precision,
            self.text_encoder_1_precision,
            self.text_encoder_2_precision,
            self.text_encoder_3_precision,
            self.text_encoder_4_precision,
        )
        of_optimizer = {"bitsandbytes"} if self.optimizer in BITSANDBYTES_OPTIMIZERS else set()
        return {package_of(level) for level in levels if level != "no_change"} | of_optimizer

    @classmethod
    def load(cls, path: Path) -> "RunConfig":
        """Read a config.json.

        Raises:
            ValueError: if the file is missing or no JSON, or a setting is wrong.
        """
        return parse_run_config(read_json(path), source=Path(path).name)

    def save(self, path: Path) -> None:
        """Write all settings, defaults too: the file is the record of what was trained."""
        write_json(path, self.model_dump(mode="json"))


SECTIONS: tuple[type[Section], ...] = RunConfig.__bases__[::-1]
"""The settings by subject; the docstring of each section is its title in the app."""


_DIALECT = replace(RUN_DIALECT, dataset_keys=frozenset(DatasetConfig.model_fields))


def is_hub_id(model: str) -> bool:
    """Whether a base model's name is an id on the Hub: of the form 'owner/name', and no folder here."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model, re.ASCII)) and not Path(model).is_dir()


def parse_run_config(values: Mapping[str, Any], *, source: str = "config") -> RunConfig:
    """Validate the settings of a config.json; keys may carry leading dashes.

    Args:
        source: where the settings come from; an error begins with it.

    Raises:
        ValueError: one sentence for the first thing that is wrong; an unknown key names the nearest one.
    """
    return parse_settings(RunConfig, values, _DIALECT, source=source)
