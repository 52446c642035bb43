"""The settings of a LyCORIS adapter: the object of `lycoris_config`, under LyCORIS' own names."""

from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

LycorisAlgo = Literal[
    "lora", "locon", "loha", "lokr", "ia3", "dylora", "glora", "full", "diag-oft", "boft", "tlora"
]

BYPASSING_ALGOS = frozenset({"lora", "locon", "loha", "lokr", "glora"})
"""Those that add to what a layer gives, without reading its weights."""

ALGOS_WITH = {
    "dropout": frozenset({"tlora"}),
    "rank_dropout": frozenset({"lora", "locon", "loha", "lokr", "full", "diag-oft"}),
    "dora_wd": frozenset({"lora", "locon", "loha", "lokr"}),
    "use_scalar": frozenset({"lora", "locon", "loha", "lokr", "glora"}),
}
"""The algorithms in which an option does something; LyCORIS takes it for the others and says nothing."""

ALGOS_WITH_PAST_WEIGHTS = ALGOS_WITH | {
    "dropout": BYPASSING_ALGOS,
    "rank_dropout": BYPASSING_ALGOS - {"lokr"},
}
"""The same on quantised weights, where a layer's adapter works on its inputs alone."""

TLORA_KEYS = ("tlora_min_rank", "tlora_alpha")
"""SimpleTuner's names of what tells when tlora's ranks are active; a file of ours holds them too."""

MODULE_KEYS = frozenset(
    {
        *("algo", "dim", "alpha", "factor", "block_size", "use_tucker", "use_scalar"),
        *("full_matrix", "decompose_both", "constraint", "rescaled"),
        *("weight_decompose", "wd_on_out", "bypass_mode"),
    }
)
"""What `module_algo_map` and `name_algo_map` may say of a module."""

WHOLE_ADAPTER_KEYS = frozenset({"dropout", "rank_dropout", "module_dropout"})
"""What they may not say: LyCORIS stops at these there."""


class IdleOption(NamedTuple):
    """An option that does nothing.

    Attributes:
        path: its key, and those of the objects around it.
        algos: the algorithms that it is set for.
        having: those in which it does something.
    """

    path: tuple[str, ...]
    algos: set[str]
    having: frozenset[str]


class LycorisPreset(BaseModel):
    """Which modules are adapted, and which of them otherwise than the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_module: list[str] | None = Field(
        None, description="Classes whose layers are adapted; null takes what the family's LoRA adapts."
    )
    target_name: list[str] | None = Field(
        None, description="Names of layers that are adapted, with * in them."
    )
    module_algo_map: dict[str, dict[str, Any]] = Field(
        {}, description="By class: an algorithm and settings of its own."
    )
    name_algo_map: dict[str, dict[str, Any]] = Field(
        {}, description="By a layer's name: an algorithm and settings of its own."
    )

    @field_validator("module_algo_map", "name_algo_map")
    @classmethod
    def _check_keys(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, settings in value.items():
            misplaced = settings.keys() & WHOLE_ADAPTER_KEYS
            if misplaced:
                raise ValueError(
                    f"takes no '{min(misplaced)}' for '{name}': LyCORIS has it for the whole adapter alone. "
                    "Remove it, or set it in lycoris_config itself."
                )
            unknown = settings.keys() - MODULE_KEYS
            if unknown:
                raise ValueError(f"has no key '{min(unknown)}' for '{name}'. Remove it.")
            if settings.get("algo", "lokr") not in get_args(LycorisAlgo):
                raise ValueError(f"knows no algo '{settings['algo']}' for '{name}'. Choose another.")
            for key, given in settings.items():
                if key != "algo" and not isinstance(given, int | float):
                    raise ValueError(f"needs a number or true or false as {key} for '{name}', got '{given}'.")
        return value


class LycorisConfig(BaseModel):
    """What LyCORIS builds. Numbers stay what they are: a multiplier of 0.5 is not cut to 0."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    algo: LycorisAlgo = Field("lokr", description="The algorithm.")
    multiplier: float = Field(1.0, gt=0, description="Scales the whole adapter, in training too.")
    linear_dim: int = Field(
        16,
        ge=1,
        description="The rank; from half the larger edge of lokr's second matrix on, that one is full.",
    )
    linear_alpha: float = Field(16.0, gt=0, description="The adapter is scaled by alpha / rank.")
    conv_dim: int | None = Field(None, ge=1, description="The rank of convolutions; null takes linear_dim.")
    conv_alpha: float | None = Field(None, gt=0, description="Their alpha; null takes linear_alpha.")
    factor: int = Field(-1, description="lokr's factor; -1 finds one near the square root.")
    full_matrix: bool = Field(False, description="lokr with full matrices, which have no rank.")
    decompose_both: bool = Field(False, description="lokr with both of its matrices decomposed.")
    use_tucker: bool = Field(False, description="Tucker decomposition of convolutions.")
    use_scalar: bool = Field(
        False,
        description="A trained scalar, so that no matrix starts at zero: in lora, locon, loha, lokr, glora.",
    )
    dora_wd: bool = Field(
        False, description="Weight decomposition as in DoRA: in lora, locon, loha and lokr."
    )
    wd_on_output: bool = Field(True, description="Decompose along a layer's outputs.")
    block_size: int = Field(4, ge=1, description="dylora's ranks in a block; a divisor of linear_dim.")
    constraint: float = Field(0.0, ge=0, description="The bound of an orthogonal algorithm; 0 is none.")
    rescaled: bool = Field(False, description="A trained rescaling for orthogonal algorithms.")
    tlora_min_rank: int = Field(1, ge=1, description="tlora's ranks that are active at the most noise.")
    tlora_alpha: float = Field(
        1.0, gt=0, description="How tlora's active ranks grow as the noise falls; 1 is a straight line."
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="The share of the adapter's outputs that is dropped: in tlora, and on quantised weights "
        "in lora, locon, loha, lokr and glora.",
    )
    rank_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="The share of ranks, or rows, that is dropped: in lora, locon, loha, lokr, full and "
        "diag-oft, and on quantised weights in lora, locon, loha and glora.",
    )
    module_dropout: float = Field(0.0, ge=0, lt=1, description="The share of layers that is dropped.")
    apply_preset: LycorisPreset = Field(LycorisPreset(), description="Which modules are adapted.")

    @model_validator(mode="after")
    def _check_ranks(self) -> "LycorisConfig":
        if self.algo == "tlora" and self.tlora_min_rank > self.linear_dim:
            raise ValueError(
                f"needs a tlora_min_rank of at most linear_dim {self.linear_dim}, got {self.tlora_min_rank}. "
                "Change one of them."
            )
        return self

    @model_validator(mode="after")
    def _check_blocks(self) -> "LycorisConfig":
        if self.algo == "dylora" and self.linear_dim % self.block_size:
            raise ValueError(
                f"needs a linear_dim that block_size {self.block_size} divides for dylora, got "
                f"{self.linear_dim}. Change one of them."
            )
        return self

    @property
    def _modules(self) -> list[dict[str, Any]]:
        """What the maps say of classes and layers."""
        maps = (self.apply_preset.module_algo_map, self.apply_preset.name_algo_map)
        return [settings for by_name in maps for settings in by_name.values()]

    @property
    def algos(self) -> set[str]:
        """All algorithms that adapt some layer."""
        return {self.algo, *(settings.get("algo", self.algo) for settings in self._modules)}

    @property
    def decomposes(self) -> bool:
        """Whether the weights of some layer are decomposed as in DoRA."""
        return self.dora_wd or any(settings.get("weight_decompose") for settings in self._modules)

    def idle_options(self, is_quantised: bool) -> list[IdleOption]:
        """The options that are set and do nothing in any of the layers that they are set for.

        Args:
            is_quantised: whether the weights beneath the adapter are.
        """
        algos_with = ALGOS_WITH_PAST_WEIGHTS if is_quantised else ALGOS_WITH
        found = [
            IdleOption((option,), self.algos, having)
            for option, having in algos_with.items()
            if getattr(self, option) and not self.algos & having
        ]
        for name_of_map in ("module_algo_map", "name_algo_map"):
            for name, settings in getattr(self.apply_preset, name_of_map).items():
                algo = settings.get("algo", self.algo)
                for option, here in (("use_scalar", "use_scalar"), ("dora_wd", "weight_decompose")):
                    if settings.get(here) and algo not in algos_with[option]:
                        path = ("apply_preset", name_of_map, name, here)
                        found.append(IdleOption(path, {algo}, algos_with[option]))
        return found

    @property
    def trains_past_weights(self) -> bool:
        """Whether every layer's adapter works without reading the base model's weights.

        It is then the same adapter on quantised weights as on whole ones; boft and ia3, which could be put
        behind a layer too, would there act on its bias as well.
        """
        return self.algos <= BYPASSING_ALGOS and not self.decomposes
