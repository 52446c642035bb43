"""The estimate of a run's memory against what the run takes: peak RSS net of imports, on the CPU.

    python -m benchmarks.memory               all rows, as a table
    python -m benchmarks.memory --only NAME   these alone, with the peak of each stage

Base models are random: a flavour's own architecture from `flavours.json`, narrower and with fewer layers,
saved as a folder in the numbers that it is trained in, and trained by the `train` job as any other: two
steps, validation images before and after, a checkpoint, the proof. The estimate is what `estimate` says of
this folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from transformers import CLIPTokenizer, T5Tokenizer

from benchmarks.profiles import FLAVOURS_FILE
from dreamspace.config import RunConfig, save_datasets, subject_datasets
from dreamspace.estimate.memory import MemoryEstimate, estimate_memory
from dreamspace.jobs.events import EventWriter
from dreamspace.mini import MODEL_FOLDER
from dreamspace.mini.subjects import draw_subject
from dreamspace.models.profile import model_profile
from dreamspace.training.probe import import_for
from dreamspace.training.run import train

STATUS_FILE, CLEAR_FILE = Path("/proc/self/status"), Path("/proc/self/clear_refs")
QUICK: dict[str, Any] = {
    "max_train_steps": 2,
    "train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0.1,
    "validation_step_interval": 2,
    "validation_num_inference_steps": 2,
    "validation_prompts": ["a dog", "a cat", "a house"],
    "evaluation_type": "none",
    "evaluate_checkpoints": False,
    "mixed_precision": "no",
}
MODELS = {
    "sd1x": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd3": "stabilityai/stable-diffusion-3.5-medium",
    "flux": "black-forest-labs/FLUX.1-dev",
}


@dataclass(frozen=True)
class Row:
    """A run to measure.

    Attributes:
        scale: of the widths: 1 for tiny models, 3 for mid-size ones.
    """

    name: str
    family: str
    scale: int
    size_px: int
    settings: dict[str, Any] = field(default_factory=dict)


HALF = {"mixed_precision": "bf16"}
CHECKPOINTING = {"gradient_checkpointing": True}
ROWS = (
    Row("sd1x tiny, batch 4", "sd1x", 1, 256, {"train_batch_size": 4}),
    Row("sd1x", "sd1x", 3, 256),
    Row("sd1x, all weights", "sd1x", 3, 256, {"model_type": "full", "learning_rate": 1e-3}),
    Row("sd1x, bf16, checkpointing, batch 4", "sd1x", 3, 256, HALF | CHECKPOINTING | {"train_batch_size": 4}),
    Row("sdxl tiny, batch 2", "sdxl", 1, 256, {"train_batch_size": 2}),
    Row("sdxl, checkpointing", "sdxl", 3, 512, CHECKPOINTING),
    Row("sdxl, int8-quanto", "sdxl", 3, 256, HALF | {"base_model_precision": "int8-quanto"}),
    Row("sd3 tiny, batch 4", "sd3", 1, 256, {"train_batch_size": 4}),
    Row("sd3, bf16, EMA, rank 64", "sd3", 3, 256, HALF | {"use_ema": True, "lora_rank": 64}),
    Row("flux tiny, batch 2", "flux", 1, 256, {"train_batch_size": 2}),
    Row("flux, bf16", "flux", 3, 256, HALF),
    Row("flux, nf4-bnb", "flux", 3, 512, HALF | {"base_model_precision": "nf4-bnb"}),
)


def shapes(family: str, scale: int) -> dict[str, dict[str, Any]]:
    """What each part's config says of its size instead."""
    clip = {"hidden_size": 256, "intermediate_size": 1024, "projection_dim": 256}
    clip |= {"num_hidden_layers": 4 * scale, "num_attention_heads": 8}
    wide_clip = clip | {"hidden_size": 512, "intermediate_size": 2048, "projection_dim": 512}
    t5 = {"d_model": 512 * scale, "d_ff": 1024 * scale, "num_heads": 8 * scale, "num_layers": 4}
    vae = {"block_out_channels": [32 * scale, 64 * scale, 64 * scale, 64 * scale]}
    if family == "sd1x":
        widths = [64 * scale, 128 * scale, 256 * scale, 256 * scale]
        unet = {"block_out_channels": widths, "cross_attention_dim": 256}
        return {"text_encoder": clip, "vae": vae, "unet": unet}
    if family == "sdxl":
        unet = {
            "block_out_channels": [64 * scale, 128 * scale, 256 * scale],
            "attention_head_dim": [scale, 2 * scale, 4 * scale],
            "transformer_layers_per_block": [1, 2, 4],
            "cross_attention_dim": 256 + 512,
            "projection_class_embeddings_input_dim": 512 + 6 * 256,
        }
        return {"text_encoder": clip, "text_encoder_2": wide_clip, "vae": vae, "unet": unet}
    width = 384 * scale
    if family == "sd3":
        transformer = {
            "num_layers": 6,
            "num_attention_heads": width // 64,
            "joint_attention_dim": t5["d_model"],
            "caption_projection_dim": width,
            "pooled_projection_dim": 256 + 512,
            "dual_attention_layers": [0, 1, 2],
            "pos_embed_max_size": 96,
        }
        second_clip = wide_clip | {"hidden_size": 256}
        encoders = {"text_encoder": clip, "text_encoder_2": second_clip, "text_encoder_3": t5}
        return {**encoders, "vae": vae, "transformer": transformer}
    transformer = {
        "num_layers": 2,
        "num_single_layers": 4,
        "num_attention_heads": width // 128,
        "joint_attention_dim": t5["d_model"],
        "pooled_projection_dim": 256,
    }
    return {"text_encoder": clip, "text_encoder_2": t5, "vae": vae, "transformer": transformer}


def save_model(folder: Path, family: str, scale: int, is_half: bool) -> None:
    """A random model of the family in diffusers' layout, in 16 bit or in 32."""
    flavours = json.loads(FLAVOURS_FILE.read_text())
    model = flavours["models"][MODELS[family]]
    is_flow = family in ("sd3", "flux")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler() if is_flow else diffusers.DDPMScheduler()
    scheduler.save_pretrained(folder / "scheduler")
    index = {"_class_name": model["pipeline"], "scheduler": ["diffusers", type(scheduler).__name__]}
    torch.manual_seed(0)
    for name, (library, class_name, config_name) in model["parts"].items():
        config = flavours["configs"][config_name] | shapes(family, scale)[name]
        if library == "transformers":
            tokenizer = t5_tokenizer() if "T5" in class_name else mini_tokenizer()
            place = name.replace("text_encoder", "tokenizer")
            tokenizer.save_pretrained(folder / place)
            index[place] = ["transformers", type(tokenizer).__name__]
            module_class = getattr(transformers, class_name)
            marks = {f"{mark}_token_id": getattr(tokenizer, f"{mark}_token_id") for mark in ("eos", "pad")}
            part = module_class(
                module_class.config_class.from_dict(config | marks | {"vocab_size": len(tokenizer)})
            )
        else:
            part = getattr(diffusers, class_name).from_config(config)
        part.to(torch.bfloat16 if is_half else torch.float32).save_pretrained(folder / name)
        index[name] = [library, class_name]
    (folder / "model_index.json").write_text(json.dumps(index))


def mini_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(MODEL_FOLDER / "tokenizer")


def t5_tokenizer() -> T5Tokenizer:
    """A token for each letter and sign."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *map(chr, range(33, 127))]
    return T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0)


class Stages(EventWriter):
    """Notes the peak of the process's resident memory in each stage, in bytes."""

    def __init__(self, job_dir: Path) -> None:
        super().__init__(job_dir)
        self.peaks: dict[str, int] = {}
        self.stage = "imports"

    def write(self, kind: str, **fields: Any) -> None:
        if kind == "stage":
            self.end_stage(" ".join(fields["message"].split()[:2]))
        super().write(kind, **fields)

    def end_stage(self, following: str) -> None:
        (line,) = (line for line in STATUS_FILE.read_text().splitlines() if line.startswith("VmHWM"))
        peak = int(line.split()[1]) * 1024
        self.peaks[self.stage] = max(peak, self.peaks.get(self.stage, 0))
        self.stage = following
        CLEAR_FILE.write_text("5")  # The kernel's word for: from here on.


def measure_here(run_dir: Path) -> dict[str, int]:
    """Train the run in this process; its peaks by stage, net of imports."""
    config, events = RunConfig.load(run_dir / "config.json"), Stages(run_dir)
    import_for(config, run_dir / "cache")
    events.end_stage("preparing")
    train(run_dir, {}, events)
    events.end_stage("end")
    imports = events.peaks.pop("imports")
    return {stage: peak - imports for stage, peak in events.peaks.items()}


def measured(row: Row, work: Path) -> tuple[MemoryEstimate, dict[str, int]]:
    """The estimate of a row, and its peaks by stage in a process of its own."""
    is_half = row.settings.get("mixed_precision") == "bf16"
    model = work / f"{row.family}-{row.scale}-{16 if is_half else 32}"
    if not model.exists():
        save_model(model, row.family, row.scale, is_half)
    run_dir = work / row.name.replace(" ", "-")
    (run_dir / "photos").mkdir(parents=True)
    for seed, scene in enumerate(("beach", "meadow", "snow", "desert")):
        draw_subject("biscuit", scene, seed, row.size_px)[0].save(run_dir / "photos" / f"{seed}.png")
    settings = QUICK | {"validation_resolution": str(row.size_px)} | row.settings
    config = RunConfig(model_family=row.family, pretrained_model_name_or_path=str(model), **settings)
    config.save(run_dir / "config.json")
    datasets = subject_datasets(run_dir / "photos", "a photo of a sks dog", row.size_px)
    save_datasets(datasets, run_dir / "multidatabackend.json")
    estimate = estimate_memory(config, model_profile(config, model), (row.size_px, row.size_px), "cpu")
    command = [sys.executable, "-m", "benchmarks.memory", "--measure", str(run_dir)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return estimate, json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", metavar="NAME", default=[])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure_here(options.measure)))
        return
    print("| run | estimated MB | measured MB | ratio |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as work:
        for row in ROWS:
            if options.only and row.name not in options.only:
                continue
            estimate, peaks = measured(row, Path(work))
            peak = max(peaks.values())
            print(
                f"| {row.name}, {row.size_px} px | {estimate.peak / 1e6:.0f} | {peak / 1e6:.0f} "
                f"| {estimate.peak / peak:.2f} |",
                flush=True,
            )
            if options.only:
                for found in (estimate.parts, estimate.peaks, peaks):
                    print({name: round(value / 1e6) for name, value in found.items()})


if __name__ == "__main__":
    main()
