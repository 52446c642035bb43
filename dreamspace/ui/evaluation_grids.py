"""The images of an evaluation in tables: by checkpoint, by strength, and what should not show the subject."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamspace.evaluation.plots import Outcome, recommended_candidate
from dreamspace.run_folder import EVALUATION_FOLDER


@dataclass(frozen=True)
class Grid:
    """Images in a table.

    Attributes:
        columns: prompts.
        rows: with each its name, whether it is what is recommended, and the paths of its images in the run,
            None where there is none.
    """

    columns: list[str]
    rows: list[tuple[str, bool, list[str | None]]]


@dataclass(frozen=True)
class Grids:
    """The tables of an evaluation, all at its first seed.

    Attributes:
        every: every checkpoint by prompt.
        strengths: the recommended one by strength; without columns where none was drawn.
        leaks: the base model and the recommended checkpoint, by prompts that should not show the subject.
    """

    every: Grid
    strengths: Grid
    leaks: Grid


def image_path(folder: str, name: str) -> str:
    """Where in a run an image of an evaluation lies."""
    return f"{EVALUATION_FOLDER}/{folder}/{name}.jpg"


def evaluation_grids(run_dir: Path, outcome: Outcome) -> Grids:
    """What an evaluation drew, as far as it lies in the run."""
    best = recommended_candidate(outcome)
    prompts, leaks = outcome["prompts"], list(outcome["leak_prompts"].values())

    def there(folder: str, name: str) -> str | None:
        path = image_path(folder, name)
        return path if (run_dir / path).is_file() else None

    def row(name: str, folder: str, asked: Sequence[str]) -> tuple[str, bool, list[str | None]]:
        images = [there(folder, f"{outcome['all_prompts'].index(prompt)}-0") for prompt in asked]
        return name, folder == best["folder"], images

    checkpoints = [row(each["name"], each["folder"], prompts) for each in outcome["candidates"]]
    drawn = [index for index in range(len(prompts)) if there(best["folder"], f"strength-1-{index}")]
    strengths = [
        (
            f"strength {strength:g}",
            strength == 1,
            [there(best["folder"], f"strength-{strength:g}-{index}") for index in drawn],
        )
        for strength in outcome["strengths"]
    ]
    before_and_after = [row("before", "base", leaks), row(best["name"], best["folder"], leaks)]
    return Grids(
        Grid(prompts, [row("before", "base", prompts), *checkpoints]),
        Grid([prompts[index] for index in drawn], strengths),
        Grid([prompt or "no prompt" for prompt in leaks], before_and_after),
    )
