"""Whether the verdict is right, on runs of mini whose truth the renderer knows.

    python -m benchmarks.verdict --out docs
    python -m benchmarks.verdict --out docs --only comet-plain    the others as they stand there

Trains runs of several subjects by the real command, some far too long or too fast, evaluates them, and asks
of every checkpoint what its images truly show (`benchmarks.truth`, which the verdict never sees): the
subject's colours, pattern and class in the scene that was asked for, less what the bare class word shows of
the subject. The regret of a choice is how far its truth is below the best checkpoint's. `verdict.json` and
`verdict.md` hold the regret of the recommended checkpoint, of the last one, and of one at random. Runs are
kept in `--home`.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.truth import AttributeReader, accuracy, read_truth, trained_reader
from dreamspace.files import read_json, write_json
from dreamspace.mini.scenes import SCENES
from dreamspace.mini.subjects import SUBJECTS

LEAK_PENALTY = 0.5

PRIOR = ("--class-images", "24")
FAST = ("--set", "learning_rate=0.004")
AVERAGED = ("--set", "use_ema=true")

RUNS: dict[str, tuple[str, int, int, tuple[str, ...]]] = {
    "biscuit-plain": ("biscuit", 800, 100, ()),
    "tinker-hot": ("tinker", 400, 50, ("--set", "learning_rate=0.003")),
    "marmalade-prior": ("marmalade", 800, 100, PRIOR),
    "sunset-plain": ("sunset", 600, 100, ()),
    "biscuit-hot": ("biscuit", 400, 80, FAST),
    "tinker-prior": ("tinker", 500, 100, PRIOR),
    "marmalade-hot": ("marmalade", 400, 80, FAST),
    "comet-plain": ("comet", 400, 100, ()),
    "sunset-averaged": ("sunset", 400, 100, AVERAGED),
    "comet-hot-averaged": ("comet", 400, 100, (*FAST, *AVERAGED)),
    "marmalade-averaged": ("marmalade", 400, 100, AVERAGED),
    "biscuit-slow": ("biscuit", 300, 75, ("--set", "learning_rate=0.0003")),
}
"""Subject, steps, steps from checkpoint to checkpoint, and options of `train`."""


@dataclass(frozen=True)
class Regret:
    """How far the truth of each choice is below the best checkpoint's."""

    run: str
    best: str
    recommended: str
    of_recommended: float
    of_last: float
    of_random: float


def evaluated(home: Path, name: str) -> Path:
    """The folder of a run, trained and evaluated unless it is so already."""
    subject, num_steps, interval, options = RUNS[name]
    run_dir, photos = home / "runs" / name, home / "photos" / subject
    environment = {**os.environ, "DREAMSPACE_HOME": str(home)}

    def command(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dreamspace", *arguments], env=environment, check=True)

    if not (run_dir / "adapter").exists():
        module = [sys.executable, "-m", "dreamspace.mini", "photos", subject, "--out", str(photos)]
        subprocess.run(module, env=environment, check=True)
        settings = {
            "max_train_steps": num_steps,
            "checkpoint_step_interval": interval,
            "validation_disable": "true",
            "eval_loss_disable": "true",
        }
        command(
            *("train", "--preset", "mini", "--photos", str(photos), "--run", str(run_dir)),
            *("--class-word", SUBJECTS[subject].class_word, "--token", "sks", *options),
            *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
        )
    if not (run_dir / "evaluation.json").exists():
        command("evaluate", str(run_dir))
    return run_dir


def truths(reader: AttributeReader, run_dir: Path, outcome: dict[str, Any], subject: str) -> dict[str, float]:
    """By folder name, the truth of each checkpoint."""
    base = _shown(reader, run_dir, outcome, subject, "base")
    found = {}
    for each in outcome["candidates"]:
        obeyed, in_class = _shown(reader, run_dir, outcome, subject, each["folder"])
        found[each["folder"]] = obeyed * (1 - LEAK_PENALTY * max(0.0, in_class - base[1]))
    return found


def _shown(
    reader: AttributeReader, run_dir: Path, outcome: dict[str, Any], subject: str, folder: str
) -> tuple[float, float]:
    """How much of the subject is shown in the scenes that were asked for, and by its class word alone."""

    def pictures(prompt: str) -> list[Image.Image]:
        index = outcome["all_prompts"].index(prompt)
        names = [f"{index}-{seed}.jpg" for seed in range(len(outcome["seeds"]))]
        return [Image.open(run_dir / "evaluation" / folder / name) for name in names]

    obeyed = []
    for prompt in outcome["prompts"]:
        scene = next(name for name, (words, _) in SCENES.items() if prompt.endswith(words))
        drawn = pictures(prompt)
        seen = read_truth(reader, drawn, subject, [scene] * len(drawn))
        obeyed += [each.subject * each.scene for each in seen]
    of_class = pictures(outcome["leak_prompts"]["class"])
    in_class = [each.subject for each in read_truth(reader, of_class, subject, ["studio"] * len(of_class))]
    return float(np.mean(obeyed)), float(np.mean(in_class))


def regret(reader: AttributeReader, run_dir: Path, subject: str) -> Regret:
    """Of a run's verdict."""
    outcome = read_json(run_dir / "evaluation.json")
    found = truths(reader, run_dir, outcome, subject)
    best = max(found, key=found.get)
    return Regret(
        run_dir.name,
        best,
        outcome["best"],
        found[best] - found[outcome["best"]],
        found[best] - found[[name for name in found if not name.endswith("-ema")][-1]],
        found[best] - float(np.mean(list(found.values()))),
    )


def table(rows: list[Regret]) -> str:
    """The regrets as Markdown, and their means."""
    lines = [
        "| run | truly best | recommended | regret | of the last | of one at random |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        steps = [name.removeprefix("step-").lstrip("0") for name in (row.best, row.recommended)]
        regrets = f"{row.of_recommended:.3f} | {row.of_last:.3f} | {row.of_random:.3f}"
        lines.append(f"| {row.run} | {' | '.join(steps)} | {regrets} |")
    means = [
        float(np.mean([getattr(row, name) for row in rows]))
        for name in ("of_recommended", "of_last", "of_random")
    ]
    lines.append(f"| **mean** | | | **{means[0]:.3f}** | {means[1]:.3f} | {means[2]:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=Path("workspace/verdict"), help="of runs and the reader")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="runs to do")
    options = parser.parse_args()
    reader = trained_reader(options.home)
    kept = read_json(options.out / "verdict.json") if (options.out / "verdict.json").exists() else []
    done = {row["run"]: Regret(**row) for row in kept}
    for name in options.only:
        done[name] = regret(reader, evaluated(options.home, name), RUNS[name][0])
        print(done[name], flush=True)
    rows = [done[name] for name in RUNS if name in done]
    write_json(options.out / "verdict.json", [asdict(row) for row in rows])
    (options.out / "verdict.md").write_text(table(rows) + "\n")
    print(table(rows))
    print({name: round(value, 3) for name, value in accuracy(reader).items()})


if __name__ == "__main__":
    main()
