"""SimpleTuner's optimizers: which of ours stands for each, and the numbers that each has of its own."""

from typing import NamedTuple


class TheirOptimizer(NamedTuple):
    """An optimizer of SimpleTuner.

    Its numbers are those it runs with there, where adam_beta1 and its like are read under DeepSpeed alone.

    Attributes:
        ours: the optimizer of ours that stands for it.
        note: how ours differs; "" where it is the same.
    """

    ours: str
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 1e-2
    note: str = ""

    @property
    def numbers(self) -> dict[str, float]:
        """Its numbers under our keys."""
        return {
            "adam_beta1": self.beta1,
            "adam_beta2": self.beta2,
            "adam_epsilon": self.epsilon,
            "adam_weight_decay": self.weight_decay,
        }


_EIGHT_BIT = "bnb-adamw8bit, which keeps its state in 8 bits,"
_LION = "lion, which keeps its state in 32 bits,"
_FREE = "adamw_schedulefree, without Kahan summation,"
_NONE = "adamw, the nearest of ours,"

THEIR_OPTIMIZERS: dict[str, TheirOptimizer] = {
    "torch-adamw": TheirOptimizer("adamw"),
    "bnb-adamw": TheirOptimizer("adamw", epsilon=1e-6),
    "bnb-adamw-paged": TheirOptimizer("adamw", epsilon=1e-6),
    "optimi-adamw": TheirOptimizer("adamw", beta2=0.99, epsilon=1e-6, weight_decay=0.0),
    "optimi-stableadamw": TheirOptimizer("adamw", beta2=0.99, epsilon=1e-6, note=_NONE),
    "adamw_bf16": TheirOptimizer("adamw_bf16", epsilon=1e-6),
    "bnb-adamw8bit": TheirOptimizer("bnb-adamw8bit", epsilon=1e-6),
    "bnb-adamw8bit-paged": TheirOptimizer("bnb-adamw8bit", epsilon=1e-6),
    "ao-adamw8bit": TheirOptimizer("bnb-adamw8bit", epsilon=1e-6, note=_EIGHT_BIT),
    "ao-adamw4bit": TheirOptimizer("bnb-adamw8bit", epsilon=1e-6, note=_EIGHT_BIT),
    "ao-adamfp8": TheirOptimizer("bnb-adamw8bit", epsilon=1e-6, note=_EIGHT_BIT),
    "ao-adamwfp8": TheirOptimizer("bnb-adamw8bit", epsilon=1e-6, note=_EIGHT_BIT),
    "optimi-lion": TheirOptimizer("lion", beta2=0.99, weight_decay=0.0),
    "bnb-lion": TheirOptimizer("lion", beta2=0.99, weight_decay=0.0),
    "bnb-lion-paged": TheirOptimizer("lion", beta2=0.99, weight_decay=0.0),
    "bnb-lion8bit": TheirOptimizer("lion", beta2=0.99, weight_decay=0.0, note=_LION),
    "bnb-lion8bit-paged": TheirOptimizer("lion", beta2=0.99, weight_decay=0.0, note=_LION),
    "torch-adafactor": TheirOptimizer("adafactor", weight_decay=0.0),
    "adafactor": TheirOptimizer("adafactor", weight_decay=0.0),
    "prodigy": TheirOptimizer(
        "prodigy", beta2=0.99, weight_decay=0.0, note="prodigy as its authors wrote it, not schedule-free,"
    ),
    "adamw_schedulefree": TheirOptimizer("adamw_schedulefree", note=_FREE),
    "adamw_schedulefree+aggressive": TheirOptimizer(
        "adamw_schedulefree", epsilon=1e-6, weight_decay=1e-3, note=_FREE
    ),
    "adamw_schedulefree+no_kahan": TheirOptimizer("adamw_schedulefree", epsilon=1e-6, weight_decay=1e-3),
    "adamw8bit": TheirOptimizer("bnb-adamw8bit", epsilon=1e-6),
    **{
        name: TheirOptimizer("adamw", note=_NONE)
        for name in (
            "bnb-adagrad", "bnb-adagrad8bit", "bnb-adam", "bnb-adam8bit", "bnb-ademamix",
            "bnb-ademamix-paged", "bnb-ademamix8bit", "bnb-ademamix8bit-paged", "dadaptation", "muon",
            "optimi-adam", "optimi-adan", "optimi-radam", "optimi-ranger", "optimi-sgd", "soap",
            "torch-adadelta", "torch-adagrad", "torch-adam", "torch-adamax", "torch-asgd", "torch-nadam",
            "torch-radam", "torch-rmsprop", "torch-sgd", "torch-sparseadam",
        )
    },
}  # fmt: skip

NUMBERS = {"eps": "adam_epsilon", "weight_decay": "adam_weight_decay"}
"""The names in SimpleTuner's optimizer_config, and ours."""

REFUSED = frozenset({"adafactor", "adamw8bit", "dadaptation"})
"""Names that SimpleTuner took once and refuses now."""

EXPORTED = {
    "adamw": "torch-adamw",
    "adamw_bf16": "adamw_bf16",
    "bnb-adamw8bit": "bnb-adamw8bit",
    "lion": "bnb-lion",
    "adafactor": "torch-adafactor",
    "prodigy": "prodigy",
    "adamw_schedulefree": "adamw_schedulefree+no_kahan",
}
"""The optimizer of SimpleTuner that each of ours is written as."""
