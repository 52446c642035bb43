"""Files of trained weights: whether one is whole, and fits a model."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from dreamspace.run_folder import FULL_WEIGHTS_NAME


def check_weights(file: Path) -> None:
    """Whether a file of weights is whole and holds numbers.

    Of a whole denoiser only the header is read, which shows a file that was cut off.

    Raises:
        ValueError: if it is damaged, holds nothing, or something that is no number.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            read = [] if file.name == FULL_WEIGHTS_NAME else names
            broken = next((name for name in read if not opened.get_tensor(name).isfinite().all()), None)
    except SafetensorError:
        raise ValueError(
            f"The weights in {file} are cut off, or it is no safetensors file. Take another checkpoint, or "
            "train again."
        ) from None
    if not names:
        raise ValueError(f"The file {file} holds no weights. Take another one.")
    if broken is not None:
        raise ValueError(
            f"The weights in {file} are no numbers, such as those of {broken}: they ran away while they were "
            "trained. Take an earlier checkpoint, or train at a lower learning_rate."
        )


def fits(file: Path, denoiser: nn.Module, part: str) -> bool:
    """Whether every layer of an adapter in diffusers' form is one of a denoiser, and whole.

    Its loaders leave out what they do not know, and fill up what is missing.

    Args:
        part: the pipeline's name of the denoiser.
    """
    with safe_open(file, framework="pt") as opened:
        names = [name.removeprefix(f"{part}.") for name in opened.keys() if name.startswith(f"{part}.")]  # noqa: SIM118
    halves: dict[str, set[str]] = {"A": set(), "B": set()}
    for name in names:
        layer, _, half = name.partition(".lora_")
        halves.get(half[:1], set()).add(layer)
    layers = {name for name, _ in denoiser.named_modules()}
    return halves["A"] == halves["B"] and halves["A"] <= layers
