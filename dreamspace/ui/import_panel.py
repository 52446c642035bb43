"""Taking over the settings of a pair of SimpleTuner's files."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from dreamspace.config import prior_of, subject_dataset
from dreamspace.config.findings import TITLES, Finding
from dreamspace.simpletuner.importing import ImportedPair, import_simpletuner
from dreamspace.simpletuner.reading import read_lenient_json
from dreamspace.ui.choices_panels import resized
from dreamspace.ui.framing import SIZES_PX
from dreamspace.ui.guide import Guide
from dreamspace.ui.library import edge_px
from dreamspace.ui.new_training import check_base_model
from dreamspace.ui.page import Page, render
from dreamspace.ui.photos_step import forget_uploads
from dreamspace.ui.settings_form import SHELL_ONLY

MAX_FILE_BYTES = 1_000_000

_MODEL_KEYS = ("model_family", "model_flavour", "pretrained_model_name_or_path")


@dataclass(frozen=True)
class ImportPanel:
    """The panel while it is built."""

    files: gr.File
    report: gr.HTML


def build(guide: Guide) -> ImportPanel:
    """Build the panel; `wire` connects it, once the fields are there."""
    with gr.Accordion(
        "Take settings from SimpleTuner", open=False, elem_id="simpletuner", elem_classes="ds-card"
    ):
        guide.html(lambda page: render("import_intro.html"))
        files = gr.File(
            file_count="multiple", file_types=[".json"], show_label=False, height=150,
            elem_id="simpletuner-upload", elem_classes="ds-drop",
        )  # fmt: skip
        report = guide.html(None, elem_id="simpletuner-report")
    return ImportPanel(files, report)


def wire(
    guide: Guide,
    panel: ImportPanel,
    prior: Component,
    fields: Sequence[Component],
    values: Callable[[Mapping[str, Any]], list[Any]],
) -> None:
    """Connect the panel.

    Args:
        prior: the field of the prior.
        fields: of the step, which `values` makes contents for, from settings.
    """

    def take(page: Page, clicked: dict[str, Any], files: list[str] | None) -> tuple[Any, ...]:
        paths = [Path(file) for file in files or []]
        try:
            pair = read_upload(paths)
        finally:
            forget_uploads(paths)
        settings, findings = taken(pair)
        kept_prior = prior_of(pair.datasets) if settings else gr.skip()
        view = resized(page, settings.get("resolution"))
        return view, None, report_of(pair, findings, bool(settings)), kept_prior, *values(settings)

    outputs = [panel.files, panel.report, prior, *fields]
    guide.link(panel.files.upload, take, [panel.files], outputs, fills_sizes=True, busy=panel.files)


def read_upload(paths: Sequence[Path]) -> ImportedPair:
    """The pair among some uploaded files, told apart by what they hold; they may name the others.

    Raises:
        ValueError: if there are not the two, or one cannot be read.
    """
    with tempfile.TemporaryDirectory() as made:
        files = []
        for path in paths:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ValueError(f"{path.name} is larger than any settings are. Choose the JSON files.")
            files.append(Path(shutil.copy(path, Path(made) / path.name)))
        held = {file: read_lenient_json(file) for file in files}
        datasets = [file for file, content in held.items() if isinstance(content, list)]
        configs = [file for file in files if file not in datasets]
        named = [file for file in configs if file.name == "config.json"]
        config = (named or configs)[:1]
        if len(datasets) != 1 or not config:
            raise ValueError(
                "Choose both files together: config.json with the settings, and multidatabackend.json with "
                "the list of datasets; lycoris_config.json may come with them."
            )
        return import_simpletuner(config[0], datasets[0], is_upload=True)


def taken(pair: ImportedPair) -> tuple[dict[str, Any], list[Finding]]:
    """The settings that the fields are filled with, and what there is to know about it all.

    None are taken of a pair that cannot be trained. The base model is left out where it is a folder: what
    comes from a browser opens none of this machine.
    """
    findings = list(pair.findings)
    if pair.config is None:
        return {}, findings
    settings = pair.config.model_dump()
    model = pair.config.pretrained_model_name_or_path
    try:
        check_base_model(model)
    except ValueError:
        for key in _MODEL_KEYS:
            del settings[key]
        message = f"'{model}' is no Hub id, and is left out: the model that is chosen above stays."
        findings.append(Finding("differs", "config.json", _MODEL_KEYS[-1], message))
    for key in SHELL_ONLY:
        if settings.pop(key, None) is not None:
            message = "a browser names no file of this machine: it is left out."
            findings.append(Finding("ignored", "config.json", key, message))
    subject = subject_dataset(pair.datasets)
    edge = edge_px(subject)
    size = min(SIZES_PX, key=lambda known: abs(known - edge))
    if size != edge:
        message = f"pictures of {size} px are trained, the nearest size to {edge} px."
        findings.append(Finding("differs", "multidatabackend.json", "resolution", message))
    if subject.instance_prompts:
        message = f"the subject is called '{subject.instance_prompts[0]}' there: name it in step 1."
        findings.append(Finding("hint", "multidatabackend.json", "instance_prompt", message))
    return {**settings, "resolution": size}, findings


def report_of(pair: ImportedPair, findings: Sequence[Finding], is_taken: bool) -> str:
    """What was found, the most important first, as HTML."""
    groups = [
        (level, title, [finding for finding in findings if finding.level == level])
        for level, title in TITLES.items()
    ]
    shown = [group for group in groups if group[2]]
    return str(render("simpletuner_report.html", groups=shown, is_taken=is_taken, num=len(findings)))
