"""Names in a run's folder, which both sides of the process border know."""

from pathlib import Path

from dreamspace.config import RunConfig

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
"""The file of an adapter in its folder, as diffusers names it."""

LYCORIS_PREFIX = "lycoris_"
"""Begins the name of every weight in a LyCORIS file."""

FULL_WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
"""The file of a whole denoiser in its subfolder, as diffusers names it."""

EMBEDS_NAME = "learned_embeds.safetensors"
"""The file of a learned token, as diffusers names it, beside an adapter's or alone."""

EMA_FOLDER = "ema"
"""In a checkpoint, the folder of the adapter with the moving average of its weights."""

AVERAGED = "adapter-ema"
"""In a run, the folder of the moving average of its adapter, beside the adapter."""

PROBE_FILE = "probe.json"
"""What a probe measured, in its job's folder."""

HELD_OUT_FILE = "held_out.json"
"""In a run, which photos it never learned from, by their content; it stays on this machine."""


def step_name(step: int) -> str:
    """The name of what belongs to a step: "step-000200"."""
    return f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """The step that a folder named by `step_name` belongs to."""
    return int(folder.name.removeprefix("step-"))


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step lies; the folder is there whole or not at all."""
    return run_dir / "checkpoints" / step_name(step)


def weights_file(folder: Path) -> Path | None:
    """The file that holds what was trained: an adapter's, a whole denoiser's, or else a learned token's."""
    candidates = (folder / WEIGHTS_NAME, *folder.glob(f"*/{FULL_WEIGHTS_NAME}"), folder / EMBEDS_NAME)
    found = [path for path in candidates if path.is_file()]
    return found[0] if found else None


def token_beside(folder: Path) -> Path | None:
    """The file of a token that was learned beside other weights; None without one, or where it is all."""
    file = folder / EMBEDS_NAME
    return file if file.is_file() and file != weights_file(folder) else None


def adapter_folder(run_dir: Path, step: int | None = None, ema: bool = False) -> Path:
    """Where the adapter of a checkpoint lies, or the finished one; or the moving average of its weights."""
    if step is None:
        return run_dir / (AVERAGED if ema else "adapter")
    return checkpoint_folder(run_dir, step) / EMA_FOLDER if ema else checkpoint_folder(run_dir, step)


def trained_folder(run_dir: Path, config: RunConfig, step: int | None = None, ema: bool = False) -> Path:
    """The folder with what a run trained, of a checkpoint or finished, or with the average of its weights.

    Raises:
        ValueError: if there is none; the sentence names the checkpoints that there are.
    """
    if ema and not config.use_ema:
        raise ValueError(f"The run in {run_dir} has no moving average: its use_ema is false. Leave it out.")
    folder = adapter_folder(run_dir, step, ema)
    if weights_file(folder) is None:
        raise ValueError(_what_is_missing(run_dir, step, ema, config))
    return folder


def _what_is_missing(run_dir: Path, step: int | None, ema: bool, config: RunConfig) -> str:
    all_steps = sorted(map(step_of, (run_dir / "checkpoints").glob("step-*")))
    steps = [found for found in all_steps if weights_file(adapter_folder(run_dir, found, ema)) is not None]
    hint = f"Its checkpoints are: {', '.join(map(str, steps)) or 'none yet'}."
    if step is not None:
        what = f"moving average at step {step}" if ema else f"checkpoint at step {step}"
        return f"The run in {run_dir} has no {what}. {hint}"
    what = "moving average" if ema else "model" if config.model_type == "full" else "adapter"
    if config.max_train_steps in all_steps:
        return f"The run in {run_dir} has ended without a proven {what}. Take a checkpoint. {hint}"
    return (
        f"The run in {run_dir} has no finished {what}. Train it to its end, or give one of its checkpoints."
    )


def weights_name(step: int | None = None, ema: bool = False) -> str:
    """What the weights of a checkpoint, or the finished ones, are called in an address: "step-000200-ema"."""
    if step is None:
        return AVERAGED if ema else "adapter"
    return f"{step_name(step)}-{EMA_FOLDER}" if ema else step_name(step)


def merged_folder(run_dir: Path, what: str) -> Path:
    """Where the app keeps the whole model with the weights of `what`, a `weights_name`, merged into it."""
    return run_dir / "merged" / what


def unfinished(folder: Path) -> Path:
    """Where a folder is written that is to appear whole or not at all."""
    return folder.with_name(f".{folder.name}.new")


EVALUATION_FILE = "evaluation.json"
"""In a run, what its checkpoints score, and which one is recommended."""

REPORT_FILE = "evaluation.html"
"""In a run, the same for people: one file with its images in it."""

EVALUATION_FOLDER = "evaluation"
"""In a run, the images that its checkpoints were judged by, a folder for each."""
