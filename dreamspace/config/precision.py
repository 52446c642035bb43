"""The precision levels of frozen weights, and what a device can do; nothing here loads torch."""

from typing import Literal, get_args

Precision = Literal[
    "no_change",
    "int8-quanto",
    "int4-quanto",
    "int2-quanto",
    "fp8-quanto",
    "fp8-torchao",
    "int8-torchao",
    "int4-torchao",
    "nf4-bnb",
]

QUANTISED: tuple[Precision, ...] = get_args(Precision)[1:]
"""The levels that change something."""

WHOLE_AGAIN: tuple[Precision, ...] = ("int8-torchao", "fp8-torchao", "nf4-bnb")
"""Those whose weights PEFT makes whole again, as DoRA needs them."""

PACKAGES = {"quanto": "optimum-quanto", "torchao": "torchao", "bnb": "bitsandbytes"}
"""By the end of a level's name: the package that quantises."""

FP8_CAPABILITY = (8, 9)


def package_of(precision: Precision) -> str:
    """The package that a level needs."""
    return PACKAGES[precision.rpartition("-")[2]]


def unsupported(precision: Precision, device: str, capability: tuple[int, int] | None) -> str | None:
    """Why a device cannot do a level, to follow its name in a sentence; None where it can.

    Args:
        device: "cuda", "cpu" or "mps".
        capability: the compute capability of a CUDA device, such as (8, 6).
    """
    if device == "mps" and not precision.endswith("quanto"):
        return "is not for Apple's MPS, where quanto's levels of whole numbers are"
    if not precision.startswith("fp8") or device == "cpu":
        return None
    if capability is None:
        return "has 8-bit floating point numbers, which this device has not"
    if capability < FP8_CAPABILITY:
        needed, found = (".".join(map(str, version)) for version in (FP8_CAPABILITY, capability))
        return f"needs a GPU of compute capability {needed} or newer, and this one has {found}"
    return None


def alternative(precision: Precision, device: str) -> str:
    """The level that is nearest to one that a device cannot do."""
    whole_numbers = precision.replace("fp8", "int8").replace("nf4", "int4")
    return f"{whole_numbers.partition('-')[0]}-quanto" if device == "mps" else whole_numbers
