"""What a subject's training teaches, forgets and costs, method by method, on subjects whose truth is known.

    python -m benchmarks.learning --out docs

Trains every combination of method, subject and seed by the real `train` command, draws held-out scenes with
the base model and with the trained adapter, and writes `learning.md` (the table), `learning.json` and
`learning.png` (a grid). Runs and their figures are kept in `--home`, so that it goes on where it was stopped;
`--report` only writes what is there. Rows that `learning.json` in `--out` has from earlier stay in the table.
Columns:

- gap closed: how far CLIP-I (mean cosine between generated images and held-out photos, over pairs in
  different scenes, so that the scene itself earns nothing) came from the base model's value towards the
  ceiling, which is the same among held-out photos.
- scene: share of images whose scene is the one asked for, as the CLIP sees it.
- leak: what the bare class prompt gained in CLIP-I, as a share of what the subject's prompt gained.
- copying: mean cosine of each image with the training photo nearest to it; held-out photos have the first
  row's value.
- drift: 1 - mean cosine between images of the class prompt and the base model's, at the same seeds.
- seconds: of the fastest run, start and saving included; other work on the machine slows the others.
"""

import argparse
import json
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from dreamspace.config import instance_prompt
from dreamspace.evaluation.clip import Clip
from dreamspace.files import read_json, write_json
from dreamspace.mini import MODEL_FOLDER
from dreamspace.mini.renders import training_sceneries
from dreamspace.mini.scenes import SCENES
from dreamspace.mini.subjects import HELD_OUT_SCENES, PHOTO_SCENES, SUBJECTS, subject_photos, write_photos
from dreamspace.mini.world import all_sceneries, render

IMAGE_SEEDS = (0, 1, 2, 3)
NUM_CLASS_IMAGES = 24
LABEL_PX = 190

GENERATED = ("--class-images", str(NUM_CLASS_IMAGES))
DRAWN = ("--class-photos", "CLASS_PHOTOS")
MASKS = ("--masks", "MASKS")
CAPTIONS = ("--captions",)
ROLLOUT = (
    *("--set", "scheduled_sampling_max_step_offset=10", "--set", "scheduled_sampling_probability=1"),
    *("--set", "scheduled_sampling_ramp_steps=100"),
)
EMA = ("--set", "use_ema=true", "--set", "ema_decay=0.98")
MIN_SNR = ("--set", "snr_gamma=5")

METHODS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "look-alike word": (),
    "plain class word": (),
    "image-free prior": ("--prior", "image-free"),
    "class images drawn by mini, their noise": ("--prior", "noise", *GENERATED),
    "class images of the world, their noise": ("--prior", "noise", *DRAWN),
    "class images drawn by mini, base's prediction": ("--prior", "base", *GENERATED),
    "class images of the world, base's prediction": ("--prior", "base", *DRAWN),
    "short captions": CAPTIONS,
    "masks": MASKS,
    "rollout": ROLLOUT,
    "rollout, SimpleTuner's target": (*ROLLOUT, "--set", "scheduled_sampling_target=original_noise"),
    "EMA": EMA,
    "Min-SNR": MIN_SNR,
    "base's prediction + masks": (*GENERATED, *MASKS),
    "base's prediction + masks + captions": (*GENERATED, *MASKS, *CAPTIONS),
    "base's prediction + EMA": (*GENERATED, *EMA),
    "base's prediction + rollout": (*GENERATED, *ROLLOUT),
    "image-free + masks": ("--prior", "image-free", *MASKS),
}
"""Options of `train` by method; words in capitals stand for folders of this benchmark."""

TOKEN = "sks"
OTHER_WORDS = {
    "look-alike word": {"biscuit": "brown", "tinker": "orange"},
    "plain class word": {"biscuit": "", "tinker": ""},
}
"""By method and subject, the word before the class word instead of the rare token.

A look-alike is the first that `lookalikes` names for the subject's photos.
"""


@dataclass(frozen=True)
class Figures:
    """What one adapter does; see the module's docstring. `clip_i` values are means of cosines."""

    clip_i: float
    class_clip_i: float
    scene: float
    copying: float
    drift: float


@dataclass(frozen=True)
class Row:
    """One run: its figures, and those of the base model and of the held-out photos themselves."""

    method: str
    subject: str
    seed: int
    num_steps: int
    seconds: float
    base_clip_i: float
    base_class_clip_i: float
    ceiling: float
    figures: Figures


class Bench:
    """The subjects, the judge and the folders of one benchmark."""

    def __init__(self, home: Path, num_steps: int) -> None:
        self.home, self.num_steps, self.clip = home, num_steps, Clip()

    def photos(self, subject: str) -> Path:
        """The folder of a subject's photos, each with its caption and its mask in `masks-<subject>`."""
        folder, masks = self.home / "photos" / subject, self.home / "photos" / f"masks-{subject}"
        if not masks.exists():
            class_word = SUBJECTS[subject].class_word
            for path, scene in zip(write_photos(subject, folder), PHOTO_SCENES, strict=True):
                path.with_suffix(".txt").write_text(f"a photo of a {TOKEN} {class_word} {SCENES[scene][0]}\n")
            self.run("mask", str(folder), "--out", str(masks), "--subject-text", class_word)
        return folder

    def class_photos(self, class_word: str) -> Path:
        """A folder of class photos that the world draws: its "real" ones."""
        folder = self.home / "class-photos" / class_word
        if not folder.exists():
            folder.mkdir(parents=True)
            sceneries = training_sceneries(len(all_sceneries()) // 2)
            chosen = [scenery for scenery in sceneries if scenery.class_word == class_word]
            for index, scenery in enumerate(chosen[:NUM_CLASS_IMAGES]):
                render(scenery, 5_000_000 + index).image.save(folder / f"{index:02d}.png")
        return folder

    def run(self, *arguments: str) -> None:
        """A command of Dreamspace's own."""
        command = [sys.executable, "-m", "dreamspace", *arguments]
        subprocess.run(command, env={**os.environ, "DREAMSPACE_HOME": str(self.home)}, check=True)

    def run_dir(self, method: str, subject: str, seed: int) -> Path:
        """The folder of one combination's run."""
        name = "".join(letter if letter.isalnum() else "-" for letter in method)
        return self.home / "runs" / f"{subject}-{seed}-{self.num_steps}-{name}"

    def train(self, method: str, subject: str, seed: int) -> float:
        """Train by the real command; returns its seconds."""
        run_dir = self.run_dir(method, subject, seed)
        if not (run_dir / "seconds.txt").exists():
            photos, class_word = self.photos(subject), SUBJECTS[subject].class_word
            folders = {
                "MASKS": str(photos.with_name(f"masks-{subject}")),
                "CLASS_PHOTOS": str(self.class_photos(class_word)),
            }
            options = [folders.get(option, option) for option in METHODS[method]]
            token = word_of(method, subject)
            settings = (f"seed={seed}", f"max_train_steps={self.num_steps}", "validation_disable=true")
            started = time.perf_counter()
            self.run(
                *("train", "--preset", "mini", "--run", str(run_dir), "--photos", str(photos)),
                *("--class-word", class_word, *(("--token", token) if token else ()), *options),
                *(word for setting in settings for word in ("--set", setting)),
            )
            (run_dir / "seconds.txt").write_text(str(time.perf_counter() - started))
        return float((run_dir / "seconds.txt").read_text())

    def row(self, method: str, subject: str, seed: int) -> Row:
        """Train and measure one combination, or read what was measured before."""
        run_dir, seconds = self.run_dir(method, subject, seed), self.train(method, subject, seed)
        base = self.base(subject)
        if not (run_dir / "figures.json").exists():
            pipeline = stock_pipeline()
            averaged = run_dir / "adapter-ema"
            pipeline.load_lora_weights(averaged if averaged.exists() else run_dir / "adapter")
            figures, shown = self.measure(
                pipeline, subject, word_of(method, subject), base["class_embedding"]
            )
            shown.save(run_dir / "figures.png")
            write_json(run_dir / "figures.json", asdict(figures))
        figures = Figures(**read_json(run_dir / "figures.json"))
        return Row(
            method,
            subject,
            seed,
            self.num_steps,
            seconds,
            base["figures"]["clip_i"],
            base["figures"]["class_clip_i"],
            base["ceiling"],
            figures,
        )

    def base(self, subject: str) -> dict:
        """The base model's figures for a subject, the ceiling, and its class images as the CLIP sees them."""
        path = self.home / f"base-{subject}.json"
        if not path.exists():
            figures, shown = self.measure(stock_pipeline(), subject, TOKEN, None)
            shown.save(path.with_suffix(".png"))
            held_out, scenes = self.embedded_photos(subject, held_out=True), list(HELD_OUT_SCENES)
            drawn = draw(stock_pipeline(), f"a photo of a {SUBJECTS[subject].class_word}")
            values = {
                "figures": asdict(figures),
                "ceiling": similarity(held_out, scenes, held_out, scenes),
                "copying": nearest(held_out, self.embedded_photos(subject, held_out=False)),
                "class_embedding": self.clip.embed_pictures(drawn).tolist(),
            }
            write_json(path, values)
        return read_json(path)

    def embedded_photos(self, subject: str, *, held_out: bool) -> Tensor:
        """(N, D): the subject's photos as the CLIP sees them."""
        return self.clip.embed_pictures([image for image, _ in subject_photos(subject, held_out=held_out)])

    def measure(
        self,
        pipeline: StableDiffusionPipeline,
        subject: str,
        token: str,
        base_class: list[list[float]] | None,
    ) -> tuple[Figures, Image.Image]:
        """The figures of a pipeline, and a strip of pictures: the subject in each scene, two of the class.

        Args:
            token: the word before the class word that stands for the subject; may be empty.
            base_class: the base model's class images, embedded; None for the base model itself.
        """
        class_word = SUBJECTS[subject].class_word
        scenes = [scene for scene in HELD_OUT_SCENES for _ in IMAGE_SEEDS]
        images = draw(pipeline, instance_prompt(token, class_word))
        of_class = draw(pipeline, f"a photo of a {class_word}")
        embedded, embedded_class = self.clip.embed_pictures(images), self.clip.embed_pictures(of_class)
        asked = [f"a photo of a {class_word} {words}" for words, _ in SCENES.values()]
        chosen = [list(SCENES)[index] for index in self.clip.choose(embedded, asked)]
        held_out = self.embedded_photos(subject, held_out=True)
        before = embedded_class if base_class is None else torch.tensor(base_class)
        figures = Figures(
            clip_i=similarity(embedded, scenes, held_out, list(HELD_OUT_SCENES)),
            class_clip_i=similarity(embedded_class, scenes, held_out, list(HELD_OUT_SCENES)),
            scene=float(np.mean([a == b for a, b in zip(chosen, scenes, strict=True)])),
            copying=nearest(embedded, self.embedded_photos(subject, held_out=False)),
            drift=1 - (embedded_class * before).sum(dim=1).mean().item(),
        )
        every = slice(None, None, len(IMAGE_SEEDS))
        shown = [*images[every], *of_class[every][:2]]
        return figures, Image.fromarray(np.concatenate([np.asarray(image) for image in shown], axis=1))


def word_of(method: str, subject: str) -> str:
    """The word before the class word that stands for the subject; may be empty."""
    return OTHER_WORDS.get(method, {}).get(subject, TOKEN)


def stock_pipeline() -> StableDiffusionPipeline:
    """mini as diffusers itself loads it."""
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


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


def nearest(images: Tensor, photos: Tensor) -> float:
    """Mean over the images of the cosine with the nearest photo; (N, D) and (M, D) unit vectors."""
    return (images @ photos.T).amax(dim=1).mean().item()


def table(rows: list[Row], held_out_copying: float) -> str:
    """A line for each method, averaged over subjects and seeds, as Markdown."""
    subjects = list(dict.fromkeys(row.subject for row in rows))
    by_subject = "".join(f" {subject} |" for subject in subjects)
    lines = [
        f"| method | runs | gap closed |{by_subject} scene | leak | copying | drift | seconds |",
        "| --- " * (8 + len(subjects)) + "|",
        f"| held-out photos | | 100% |{' 100% |' * len(subjects)} | | {held_out_copying:.2f} | | |",
    ]
    for method in METHODS:
        chosen = [row for row in rows if row.method == method]
        if not chosen:
            continue
        figures = [row.figures for row in chosen]
        gain = np.mean([row.figures.clip_i - row.base_clip_i for row in chosen])
        class_gain = np.mean([row.figures.class_clip_i - row.base_class_clip_i for row in chosen])
        cells = [
            gap_closed(chosen),
            *(gap_closed([row for row in chosen if row.subject == subject]) for subject in subjects),
            f"{np.mean([found.scene for found in figures]):.0%}",
            f"{class_gain / gain:.0%}",
            f"{np.mean([found.copying for found in figures]):.2f}",
            f"{np.mean([found.drift for found in figures]):.3f}",
            f"{min(row.seconds for row in chosen):.0f}",
        ]
        lines.append(f"| {method} | {len(chosen)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gap_closed(rows: list[Row]) -> str:
    """The share of the way to the ceiling that these runs went."""
    gain = sum(row.figures.clip_i - row.base_clip_i for row in rows)
    return f"{gain / sum(row.ceiling - row.base_clip_i for row in rows):.0%}"


def earlier_rows(path: Path, measured: list[Row]) -> list[Row]:
    """The rows of an earlier table that were not measured again."""
    if not path.exists():
        return []
    rows = [Row(**{**row, "figures": Figures(**row["figures"])}) for row in read_json(path)]
    known = {(row.method, row.subject, row.seed, row.num_steps) for row in measured}
    return [row for row in rows if (row.method, row.subject, row.seed, row.num_steps) not in known]


def write_grid(bench: Bench, rows: list[Row], path: Path) -> None:
    """Held-out photos, the base model, and each method at the first seed, with the subjects side by side.

    Lines of an earlier picture whose methods were not measured again stay in it.
    """
    subjects = list(dict.fromkeys(row.subject for row in rows))
    seed = min(row.seed for row in rows)
    before = [Image.open(bench.home / f"base-{subject}.png") for subject in subjects]
    lines = earlier_lines(path) | {
        "held-out photos": labelled("held-out photos", [held_out_strip(subject) for subject in subjects]),
        "before": labelled("before", before),
    }
    for method in dict.fromkeys(row.method for row in rows):
        strips = [bench.run_dir(method, subject, seed) / "figures.png" for subject in subjects]
        if all(strip.exists() for strip in strips):
            lines[method] = labelled(method, [Image.open(strip) for strip in strips])
    names = [name for name in ("held-out photos", "before", *METHODS) if name in lines]
    described = PngInfo()
    described.add_text("lines", json.dumps(names))
    grid = Image.fromarray(np.concatenate([lines[name] for name in names]))
    grid.save(path, pnginfo=described)


def labelled(name: str, pictures: list[Image.Image]) -> np.ndarray:
    """A line of the grid: its name and its pictures side by side."""
    label = Image.new("RGB", (LABEL_PX, pictures[0].height), "white")
    ImageDraw.Draw(label).text((8, 8), textwrap.fill(name, 20), "black", font_size=16)
    return np.concatenate([np.asarray(picture) for picture in (label, *pictures)], axis=1)


def earlier_lines(path: Path) -> dict[str, np.ndarray]:
    """The lines of a grid that was written before, by their names, which it holds."""
    if not path.exists():
        return {}
    with Image.open(path) as grid:
        names = json.loads(grid.text["lines"])
        return dict(zip(names, np.split(np.asarray(grid.convert("RGB")), len(names)), strict=True))


def held_out_strip(subject: str) -> Image.Image:
    """The held-out photos of a subject, and two that are learned from."""
    photos = [image for image, _ in subject_photos(subject, held_out=True) + subject_photos(subject)[:2]]
    tiles = [np.asarray(image.resize((128, 128))) for image in photos]
    return Image.fromarray(np.concatenate(tiles, axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--home", type=Path, default=Path("workspace/learning"), help="runs are kept here")
    parser.add_argument("--subjects", nargs="+", default=["biscuit", "tinker"], choices=SUBJECTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--steps", type=int, default=200, help="of each run")
    parser.add_argument("--report", action="store_true", help="leave out what has not been trained yet")
    options = parser.parse_args()
    bench, rows = Bench(options.home.resolve(), options.steps), []
    for method in options.methods:
        for seed in options.seeds:
            for subject in options.subjects:
                is_there = (bench.run_dir(method, subject, seed) / "figures.json").exists()
                if is_there or not options.report:
                    rows.append(bench.row(method, subject, seed))
                    print(rows[-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    write_grid(bench, rows, options.out / "learning.png")
    rows += earlier_rows(options.out / "learning.json", rows)
    copying = float(np.mean([bench.base(subject)["copying"] for subject in options.subjects]))
    (options.out / "learning.md").write_text(table(rows, copying) + "\n")
    write_json(options.out / "learning.json", [asdict(row) for row in rows])
    print(table(rows, copying))


if __name__ == "__main__":
    main()
