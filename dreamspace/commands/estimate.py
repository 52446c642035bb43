"""`estimate`: whether a run fits, how long it takes, and what it costs."""

import argparse
import json
from dataclasses import asdict, replace
from typing import Any

from dreamspace.commands.options import given_path
from dreamspace.commands.probe import probe
from dreamspace.config import (
    DatasetConfig,
    Prior,
    RunConfig,
    apply_settings,
    load_preset,
    prior_of,
    read_datasets,
)
from dreamspace.config.dataset import MAX_EDGE_PX
from dreamspace.data.geometry import dataset_edge_px
from dreamspace.data.held_out import num_trained
from dreamspace.data.photos import photo_files
from dreamspace.estimate.fit import Change, Situation, cheapest_change
from dreamspace.estimate.hardware import PRICES_DATE, SPACES, Hardware, hardware_named
from dreamspace.estimate.memory import StageName
from dreamspace.estimate.profiles import ModelProfile, known_profile
from dreamspace.estimate.speed import TimeEstimate, estimate_time, expected_speed, prior_share
from dreamspace.jobs.workspace import Workspace

USUAL_PHOTOS = 12
"""Where no photos are named."""

PROBED_STAGES: tuple[StageName, ...] = ("encoding prompts", "encoding photos", "training")
"""Those that a probe goes through."""


def add_estimate_options(estimate: argparse.ArgumentParser) -> None:
    estimate.add_argument("--config", type=given_path, help="config.json of the run")
    estimate.add_argument("--datasets", type=given_path, help="multidatabackend.json, the list of datasets")
    estimate.add_argument("--preset", help="a configuration by name")
    estimate.add_argument("--photos", type=given_path, help="folder with photos of the subject")
    estimate.add_argument(
        "--resolution", type=int, metavar="PX", help="edge of the training pictures, where no datasets say it"
    )
    estimate.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        dest="settings",
        help="change a setting; may be repeated",
    )
    estimate.add_argument(
        "--hardware", default="here", metavar="NAME", help=f"here, or one of Spaces': {', '.join(SPACES)}"
    )
    estimate.add_argument(
        "--probe", action="store_true", help="take two real steps here, and say what they took"
    )
    estimate.add_argument("--json", action="store_true", help="print JSON")


def run_estimate(options: argparse.Namespace) -> int:
    """Print memory, time and cost of a run; with a probe what its first steps took."""
    hardware = hardware_named(options.hardware)
    if options.probe and hardware.name != "here":
        raise ValueError(
            f"--probe runs on this machine, so it says nothing of {hardware.name}. Leave out --hardware."
        )
    config, prior, share, resolution = _asked(options)
    profile = profile_of(config)
    edge = resolution if resolution is not None else profile.native_resolution_px
    edge = max(profile.multiple_px, round(edge / profile.multiple_px) * profile.multiple_px)
    situation = Situation(config, profile, (edge, edge), hardware, prior in ("base", "image-free"))
    change = None if situation.fits else cheapest_change(situation)
    times = {
        place.name: (place, estimate_time(config, prior, share, _speed(situation, place)))
        for place in (hardware, *SPACES.values())
        if (options.probe and place is hardware)
        or (place.computes_in(config.mixed_precision) and replace(situation, hardware=place).fits)
    }
    if not options.json:
        print("\n".join([*_memory_lines(situation, change), *_time_lines(times)]), flush=True)
    status, probed = _probe(options, situation, prior) if options.probe else (0, None)
    if options.json:
        print(json.dumps(_as_json(situation, change, times) | {"probe": probed}, indent=2))
    elif probed is not None:
        print("\n".join(_probe_lines(situation, times["here"][1], probed)))
    return status


def _probe(options: argparse.Namespace, situation: Situation, prior: Prior) -> tuple[int, dict[str, Any]]:
    """The exit status of two real steps of the run that is asked about, and what they took."""
    has_files = options.config and options.datasets and options.resolution is None
    datasets = read_datasets(options.datasets) if has_files else None
    return probe(situation.config, prior, situation.size_px[0], datasets, options.photos)


def _probe_lines(situation: Situation, time: TimeEstimate, probed: dict[str, Any]) -> list[str]:
    if "failed" in probed:
        return [f"Probe: {probed['failed']}"]
    width_px, height_px = probed["size_px"]
    expected = max(situation.memory.peaks[stage] for stage in PROBED_STAGES)
    return [
        f"Probe of two steps of {probed['num_rows']} rows of {width_px} x {height_px} px:",
        f"  {'peak':<18} {_gb(probed['peak_bytes'])}, estimated{_gb(expected)}",
        f"  {'until the steps':<18} {_gb(probed['encoding_bytes'])}",
        f"  {'a step':<18} {probed['seconds_per_step']:7.2g} s,  estimated{time.seconds_per_step:8.2g} s",
    ]


def profile_of(config: RunConfig) -> ModelProfile:
    """The profile of a run's base model: that which comes with Dreamspace, else measured here, once.

    Raises:
        ValueError: if there is no such model.
    """
    found = known_profile(config)
    if found is None:
        from dreamspace.models.profile import measured_profile  # loads torch

        found = measured_profile(config, Workspace().root / "cache")
    return found


def _speed(situation: Situation, hardware: Hardware) -> Any:
    return expected_speed(situation.config, situation.profile, situation.size_px, hardware)


def _asked(options: argparse.Namespace) -> tuple[RunConfig, Prior, float, int | None]:
    """The run that is asked about: its config, prior, share of rows that keep it, and resolution."""
    if bool(options.config) == bool(options.preset):
        raise ValueError("Give --config F or --preset NAME: that is the run to be estimated.")
    resolution = options.resolution
    if resolution is not None and not 1 <= resolution <= MAX_EDGE_PX:
        raise ValueError(f"--resolution must be 1 to {MAX_EDGE_PX} px, got {resolution}.")
    num_photos = len(photo_files(options.photos)) if options.photos else USUAL_PHOTOS
    if options.preset:
        preset = load_preset(options.preset)
        config = apply_settings(preset.config, options.settings or [])
        prior: Prior = "base" if config.num_class_images else "none"
        return (
            config,
            prior,
            prior_share(prior, num_trained(num_photos, config.held_out_photos), config.num_class_images),
            (resolution or preset.resolution),
        )
    config = apply_settings(RunConfig.load(options.config), options.settings or [])
    if options.datasets is None:
        return config, "none", 0.0, resolution
    datasets = read_datasets(options.datasets)
    prior = prior_of(datasets)
    share = prior_share(prior, num_trained(num_photos, config.held_out_photos), config.num_class_images)
    return config, prior, share, resolution or largest_edge_px(datasets)


def largest_edge_px(datasets: list[DatasetConfig]) -> int | None:
    """The edge of the largest training pictures; None where no dataset is trained on."""
    return max((dataset_edge_px(d, 1) for d in datasets if d.is_trained), default=None)


def _memory_lines(situation: Situation, change: Change | None) -> list[str]:
    memory, hardware = situation.memory, situation.hardware
    name = "this machine" if hardware.name == "here" else hardware.name
    place = f"{hardware.gpu} of {name}" if hardware.gpu else name
    lines = [f"Memory of the training at {situation.size_px[0]} px on {place}:"]
    lines += [f"  {name:<18} {_gb(value)}" for name, value in memory.parts.items() if value]
    lines += ["Largest at each stage:"]
    lines += [f"  {stage:<18} {_gb(value)}" for stage, value in memory.peaks.items()]
    lines += [f"  {'there is':<18} {_gb(hardware.free_bytes)} free of {_gb(hardware.memory_bytes).strip()}"]
    if not hardware.computes_in(situation.config.mixed_precision):
        lines += [f"{hardware.gpu} has no bf16 of its own, and is slow by it. Set mixed_precision to 'fp16'."]
    if situation.fits:
        return [*lines, "It fits."]
    if change is None:
        return [*lines, "It does not fit, and nothing that is known makes it fit. Choose a smaller model."]
    return [*lines, f"It does not fit. {change.sentence}"]


def _time_lines(times: dict[str, tuple[Hardware, TimeEstimate]]) -> list[str]:
    if not times:
        return ["It fits into no GPU that Spaces rents."]
    lines = [f"Time, and cost by Spaces' prices of {PRICES_DATE}, where it fits:"]
    for name, (hardware, time) in times.items():
        cost = time.cost_usd(hardware)
        money = "" if cost is None else f"  ${cost:.2f}"
        steps = f"{time.num_steps} steps of {_duration(time.seconds_per_step)}"
        images = f"{time.num_images} images of {_duration(time.seconds_per_image)}"
        lines.append(f"  {name:<12} {_duration(time.seconds):>8}  {steps}, {images}{money}")
    return lines


def _as_json(
    situation: Situation, change: Change | None, times: dict[str, tuple[Hardware, TimeEstimate]]
) -> dict[str, Any]:
    memory = situation.memory
    return {
        "model": situation.config.pretrained_model_name_or_path,
        "size_px": situation.size_px,
        "hardware": asdict(situation.hardware),
        "parts_bytes": memory.parts,
        "peaks_bytes": memory.peaks,
        "fits": situation.fits,
        "cheapest_change": None if change is None else asdict(change),
        "prices_date": PRICES_DATE,
        "time": {
            name: asdict(time) | {"cost_usd": time.cost_usd(place)} for name, (place, time) in times.items()
        },
    }


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:7.2f} GB"


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
