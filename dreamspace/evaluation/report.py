"""The report of an evaluation: one HTML file with everything in it."""

import base64
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from dreamspace.evaluation.leaks import leak_table
from dreamspace.evaluation.plots import MEASURES, Outcome, steps_plot, verdict_plot
from dreamspace.files import replace_file
from dreamspace.run_folder import EVALUATION_FOLDER, REPORT_FILE


def write_report(out: Path, outcome: Outcome) -> Path:
    """Write the report of an outcome whose images lie in `out`; returns its path.

    Raises:
        ValueError: if it may not be written there.
    """
    prompts, first = outcome["all_prompts"], 0
    shown = [prompts.index(prompt) for prompt in outcome["prompts"]]
    rows = [("the base model", "base"), *((each["name"], each["folder"]) for each in outcome["candidates"])]

    def images(folder: str, names: list[str]) -> list[str]:
        return [_inlined(out / EVALUATION_FOLDER / folder / name) for name in names]

    report = _template().render(
        outcome=outcome,
        best=next(each for each in outcome["candidates"] if each["folder"] == outcome["best"]),
        measures=MEASURES,
        verdict_plot=verdict_plot(outcome),
        steps_plot=steps_plot(outcome),
        grid=[(name, images(folder, [f"{index}-{first}.jpg" for index in shown])) for name, folder in rows],
        leaks=leak_table(outcome),
        leak_grid=[
            (
                name,
                images(folder, [f"{prompts.index(p)}-{first}.jpg" for p in outcome["leak_prompts"].values()]),
            )
            for name, folder in rows
            if folder in ("base", outcome["best"])
        ],
        strength_grid=[
            (
                f"{strength:g}",
                images(outcome["best"], [f"strength-{strength:g}-{index}.jpg" for index in range(3)]),
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


def _inlined(path: Path) -> str:
    """An image as a data URL; "" where there is none."""
    if not path.exists():
        return ""
    return Markup(f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}")
