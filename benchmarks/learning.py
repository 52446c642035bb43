"""What a subject's training teaches and what it costs, on sample subjects whose truth is known.

    python -m benchmarks.learning --out docs

Trains every combination of subject, seed and prior by the real `train` command, draws held-out scenes
with the base model and with each checkpoint, and writes `learning.md` (the table), `learning.json` and
`learning.png` (a grid). Columns:

- CLIP-I: mean cosine between generated images and held-out photos, whole images on both sides, over pairs in
  different scenes, so that the scene itself earns nothing. The ceiling is the same among held-out photos.
- gap closed: how far CLIP-I came from the base model's value towards the ceiling.
- scene: share of images whose scene is the one asked for, as the CLIP sees it.
- seconds: of the fastest run, previews and validation included; other work on the machine slows the others.
- leak: what the bare class prompt gained in CLIP-I, as a share of what the subject's prompt gained.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from dreamspace.evaluation.clip import Clip
from dreamspace.files import write_json
from dreamspace.mini import MODEL_FOLDER
from dreamspace.mini.scenes import SCENES
from dreamspace.mini.subjects import HELD_OUT_SCENES, SUBJECTS, subject_photos, write_photos
from dreamspace.run_folder import checkpoint_folder

CHECKPOINTS = (100, 200, 400)
IMAGE_SEEDS = (0, 1, 2, 3)
NUM_CLASS_IMAGES = 24


@dataclass(frozen=True)
class Row:
    """One checkpoint's figures; step 0 is the base model."""

    subject: str
    seed: int
    prior: bool
    step: int
    clip_i: float
    ceiling: float
    class_clip_i: float
    scene: float
    seconds: float


def train(subject: str, seed: int, prior: bool, home: Path) -> float:
    """Train by the real command; returns its seconds, previews and validation included."""
    run_dir = home / "runs" / run_name(subject, seed, prior)
    if (run_dir / "seconds.txt").exists():
        return float((run_dir / "seconds.txt").read_text())
    command = [
        *(sys.executable, "-m", "dreamspace", "train", "--preset", "mini", "--run", str(run_dir)),
        *("--photos", str(home / "photos" / subject), "--class-word", SUBJECTS[subject].class_word),
        *("--token", "sks", "--class-images", str(NUM_CLASS_IMAGES if prior else 0), "--set", f"seed={seed}"),
    ]
    started = time.perf_counter()
    subprocess.run(command, env={**os.environ, "DREAMSPACE_HOME": str(home)}, check=True)
    seconds = time.perf_counter() - started
    (run_dir / "seconds.txt").write_text(str(seconds))
    return seconds


def run_name(subject: str, seed: int, prior: bool) -> str:
    return f"{subject}-{seed}-{'prior' if prior else 'plain'}"


def draw(pipeline: StableDiffusionPipeline, prompt: str) -> list[Image.Image]:
    """The prompt in each held-out scene with each image seed, scene by scene."""
    prompts = [f"{prompt} {SCENES[scene][0]}" for scene in HELD_OUT_SCENES for _ in IMAGE_SEEDS]
    generators = [torch.Generator().manual_seed(seed) for _ in HELD_OUT_SCENES for seed in IMAGE_SEEDS]
    settings = {"num_inference_steps": 20, "guidance_scale": 5.0, "width": 128, "height": 128}
    return pipeline(prompts, generator=generators, **settings).images


def similarity(first: Tensor, first_scenes: list[str], second: Tensor, second_scenes: list[str]) -> float:
    """Mean cosine over all pairs in different scenes; (N, D) and (M, D) unit vectors."""
    cosines = first @ second.T
    different = torch.tensor([[a != b for b in second_scenes] for a in first_scenes])
    return cosines[different].mean().item()


def measure(
    pipeline, clip: Clip, subject: str, held_out: Tensor
) -> tuple[dict[str, float], list[Image.Image]]:
    """CLIP-I of the subject's and of the bare class prompt, and the share of right scenes."""
    class_word = SUBJECTS[subject].class_word
    scenes = [scene for scene in HELD_OUT_SCENES for _ in IMAGE_SEEDS]
    images = draw(pipeline, f"a photo of a sks {class_word}")
    of_class = draw(pipeline, f"a photo of a {class_word}")
    embedded, class_embedded = clip.embed_pictures(images), clip.embed_pictures(of_class)
    asked = [f"a photo of a {class_word} {words}" for words, _ in SCENES.values()]
    chosen = [list(SCENES)[index] for index in clip.choose(embedded, asked)]
    photo_scenes = list(HELD_OUT_SCENES)
    figures = {
        "clip_i": similarity(embedded, scenes, held_out, photo_scenes),
        "ceiling": similarity(held_out, photo_scenes, held_out, photo_scenes),
        "class_clip_i": similarity(class_embedded, scenes, held_out, photo_scenes),
        "scene": float(np.mean([a == b for a, b in zip(chosen, scenes, strict=True)])),
    }
    shown = [images[place * len(IMAGE_SEEDS)] for place in range(len(HELD_OUT_SCENES))]
    return figures, [*shown, *of_class[: 2 * len(IMAGE_SEEDS) : len(IMAGE_SEEDS)]]


def table(rows: list[Row]) -> str:
    """The rows, averaged over subjects and seeds, as Markdown."""
    base = {(row.subject, row.seed, row.prior): row for row in rows if row.step == 0}
    lines = [
        "| prior | steps | CLIP-I | ceiling | gap closed | scene | leak | seconds (fastest) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for prior in (False, True):
        for step in (0, *CHECKPOINTS):
            chosen = [row for row in rows if row.prior == prior and row.step == step]
            before = [base[row.subject, row.seed, row.prior] for row in chosen]
            mean = {
                name: np.mean([getattr(row, name) for row in chosen])
                for name in ("clip_i", "ceiling", "scene")
            }
            gain = np.mean([row.clip_i - start.clip_i for row, start in zip(chosen, before, strict=True)])
            gap = np.mean([row.ceiling - start.clip_i for row, start in zip(chosen, before, strict=True)])
            class_gain = np.mean(
                [row.class_clip_i - start.class_clip_i for row, start in zip(chosen, before, strict=True)]
            )
            leak = f"{class_gain / gain:.0%}" if step else "-"
            seconds = f"{min(row.seconds for row in chosen):.0f}" if step == CHECKPOINTS[-1] else "-"
            cells = (
                f"{mean['clip_i']:.3f}",
                f"{mean['ceiling']:.3f}",
                f"{gain / gap:.0%}",
                f"{mean['scene']:.0%}",
            )
            lines.append(
                f"| {'yes' if prior else 'no'} | {step} | {' | '.join(cells)} | {leak} | {seconds} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--home", type=Path, default=Path("workspace/learning"), help="runs are kept here")
    parser.add_argument("--subjects", nargs="+", default=["biscuit", "tinker"], choices=SUBJECTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    options = parser.parse_args()
    home, clip, rows, grid = options.home.resolve(), Clip(), [], []
    for subject in options.subjects:
        write_photos(subject, home / "photos" / subject)
        photos = [image for image, _ in subject_photos(subject, held_out=True)]
        held_out = clip.embed_pictures(photos)
        pictures = subject_photos(subject)[:2]
        grid.append(
            [
                *(image.resize((128, 128)) for image in photos),
                *(image.resize((128, 128)) for image, _ in pictures),
            ]
        )
        for seed in options.seeds:
            for prior in (False, True):
                seconds = train(subject, seed, prior, home)
                pipeline = StableDiffusionPipeline.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
                pipeline.set_progress_bar_config(disable=True)
                for step in (0, *CHECKPOINTS):
                    if step:
                        run_dir = home / "runs" / run_name(subject, seed, prior)
                        pipeline.unload_lora_weights()
                        pipeline.load_lora_weights(checkpoint_folder(run_dir, step))
                    figures, images = measure(pipeline, clip, subject, held_out)
                    rows.append(Row(subject, seed, prior, step, seconds=seconds, **figures))
                    if seed == options.seeds[0] and prior:
                        grid.append(images)
                    print(rows[-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "learning.md").write_text(table(rows) + "\n")
    write_json(options.out / "learning.json", [asdict(row) for row in rows])
    pixels = [np.concatenate([np.asarray(image) for image in row], axis=1) for row in grid]
    Image.fromarray(np.concatenate(pixels)).save(options.out / "learning.png")
    print(table(rows))


if __name__ == "__main__":
    main()
