"""The report of an evaluation: one HTML file with its images in it."""

import base64
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from dreamspace.evaluation.leaks import leak_table
from dreamspace.evaluation.plots import MEASURES, Outcome, recommended_candidate, steps_plot, verdict_plot
from dreamspace.files import replace_file
from dreamspace.run_folder import EVALUATION_FOLDER, REPORT_FILE

MAX_IMAGE_BYTES = 40_000_000
"""With more, a browser takes long to open the report, which then shows one seed."""


def write_report(out: Path, outcome: Outcome) -> Path:
    """Write the report of an outcome whose images lie in `out`; returns its path.

    Raises:
        ValueError: if it may not be written there.
    """
    prompts, folder = outcome["all_prompts"], out / EVALUATION_FOLDER
    rows = [("the base model", "base"), *((each["name"], each["folder"]) for each in outcome["candidates"])]
    num_seeds = _num_seeds([folder / name for _, name in rows], outcome)

    def images(name: str, asked: Iterable[str]) -> list[list[Markup]]:
        indices = [prompts.index(prompt) for prompt in asked]
        return _inlined(
            [folder / name / f"{index}-{seed}.jpg" for seed in range(num_seeds)] for index in indices
        )

    report = _template().render(
        outcome=outcome,
        best=recommended_candidate(outcome),
        measures=MEASURES,
        verdict_plot=verdict_plot(outcome),
        steps_plot=steps_plot(outcome),
        shown_seeds=outcome["seeds"][:num_seeds],
        grid=[(title, images(name, outcome["prompts"])) for title, name in rows],
        leaks=leak_table(outcome),
        leak_grid=[
            (title, images(name, outcome["leak_prompts"].values()))
            for title, name in rows
            if name in ("base", outcome["best"])
        ],
        strength_grid=[
            (
                f"{strength:g}",
                _inlined(
                    [folder / outcome["best"] / f"strength-{strength:g}-{index}.jpg"] for index in range(3)
                ),
            )
            for strength in outcome["strengths"]
        ],
    )
    path = out / REPORT_FILE
    try:
        with replace_file(path) as temporary:
            temporary.write_text(report, encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"The report {path} cannot be written: {error.strerror}. Make room for it there and evaluate "
            "again: what was drawn and scored is kept."
        ) from None
    return path


@cache
def _template():
    folder = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True)
    return environment.get_template("report.html")


def _num_seeds(folders: list[Path], outcome: Outcome) -> int:
    """Of how many seeds the report shows images: of all, or of one where the file would be too large."""
    num_bytes = sum(path.stat().st_size for folder in folders for path in folder.glob("[0-9]*.jpg"))
    return len(outcome["seeds"]) if num_bytes <= MAX_IMAGE_BYTES else 1


def _inlined(cells: Iterable[list[Path]]) -> list[list[Markup]]:
    """The images of each cell as data URLs, as far as there are any."""
    return [
        [
            Markup(f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}")
            for path in cell
            if path.exists()
        ]
        for cell in cells
    ]
