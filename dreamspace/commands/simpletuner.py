"""`python -m dreamspace import-simpletuner` and `export-simpletuner`: the way in and out of its two files."""

import argparse
import dataclasses
import json
from pathlib import Path

from dreamspace.commands.options import given_path
from dreamspace.config import RunConfig, read_datasets, save_datasets
from dreamspace.config.findings import Finding, report
from dreamspace.jobs.new_run import writable_folder
from dreamspace.simpletuner.exporting import export_simpletuner
from dreamspace.simpletuner.importing import import_simpletuner


def add_import_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=given_path, metavar="CONFIG", help="SimpleTuner's config.json")
    command.add_argument("datasets", type=given_path, metavar="DATASETS", help="its multidatabackend.json")
    command.add_argument("--out", type=given_path, metavar="DIR", help="folder of our pair; else only report")
    command.add_argument("--json", action="store_true", help="print JSON")


def run_import(options: argparse.Namespace) -> int:
    """Print what there is to know about a pair of SimpleTuner's and, with --out, write ours.

    Raises:
        ValueError: if something cannot be done as it is written; the files are there all the same, unless
            the pair cannot be trained at all.
    """
    pair = import_simpletuner(options.config, options.datasets)
    files: list[Path] = []
    if options.out is not None and pair.config is not None:
        out_dir = _empty_place(options.out)
        files = [out_dir / "config.json", out_dir / "multidatabackend.json"]
        pair.config.save(files[0])
        save_datasets(pair.datasets, files[1])
    _print(pair.findings, files, as_json=options.json)
    if pair.config is None:
        errors = [f for f in pair.findings if f.level == "error" and f.source == options.config.name]
        said = " ".join(f"{error.key}: {error.message}" if error.key else error.message for error in errors)
        raise ValueError(f"nothing is written, because the pair cannot be trained here. {said}")
    num_errors = sum(finding.level == "error" for finding in pair.findings)
    if num_errors:
        raise ValueError(
            f"{num_errors} of the points above cannot be done as they are written. Mend them in the pair"
            + (", or go on with the files as they are." if files else ".")
        )
    return 0


def add_export_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_dir", type=given_path, metavar="RUN_DIR", help="a run, or its two files")
    command.add_argument("--out", type=given_path, metavar="DIR", required=True, help="folder of their pair")
    command.add_argument("--json", action="store_true", help="print JSON")


def run_export(options: argparse.Namespace) -> int:
    """Write a run's two files for SimpleTuner, and print what cannot be said there."""
    config = RunConfig.load(options.run_dir / "config.json")
    datasets = read_datasets(options.run_dir / "multidatabackend.json")
    out_dir = _empty_place(options.out)
    findings = export_simpletuner(config, datasets, out_dir)
    _print(findings, sorted(out_dir.glob("*.json")), as_json=options.json)
    return 0


def _empty_place(folder: Path) -> Path:
    """The folder, made if it is missing, unless it holds a pair already."""
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} holds a config.json already. Name another folder by --out.")
    return writable_folder(folder)


def _print(findings: list[Finding], files: list[Path], *, as_json: bool) -> None:
    if as_json:
        listed = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"findings": listed, "files": [str(file) for file in files]}, indent=2))
        return
    print(report(findings) or "Nothing differs.")
    for file in files:
        print(f"Wrote {file}")
