"""What happens when memory is short: a real allocation fails, in a process of its own with a limit."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import command_environment, draw_photos

from dreamspace.config import RunConfig, save_datasets, subject_datasets
from dreamspace.files import write_json
from dreamspace.jobs.events import read_events

LIMITED = """
import resource, sys
import dreamspace.training.run
from dreamspace import worker
vm = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
limit = vm + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(worker.main([sys.argv[1]]))
"""

BATCH_SIZE = 64
LIMIT_BYTES = 700_000_000
"""Of address space besides the imports: less than mini takes at that batch."""


def trained_in_little_memory(run_dir: Path) -> list:
    # What is freed is given back at once, so that the next attempt has it.
    environment = command_environment() | {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run(
        [sys.executable, "-c", LIMITED, str(run_dir), str(LIMIT_BYTES)],
        env=environment,
        capture_output=True,
        check=False,
    )
    return read_events(run_dir / "events.jsonl")[0]


def too_large_run(tmp_path: Path, kind: str, auto_fit: bool = False) -> Path:
    """The folder of a job that runs a training which the limit is too low for."""
    photos = draw_photos(tmp_path / "photos", 4)
    run_dir = tmp_path / "runs" / "run"
    run_dir.mkdir(parents=True)
    datasets = subject_datasets(photos, "a photo of a sks dog", 128)
    repeated = [dataset.model_copy(update={"repeats": BATCH_SIZE // 4 - 1}) for dataset in datasets]
    save_datasets(repeated, run_dir / "multidatabackend.json")
    config = RunConfig(
        train_batch_size=BATCH_SIZE,
        max_train_steps=2,
        validation_disable=True,
        learning_rate=0.05,
        auto_fit=auto_fit,
    )
    config.save(run_dir / "config.json")
    write_json(run_dir / "job.json", {"kind": kind, "arguments": {}, "created": 0})
    return run_dir


def test_probe_that_runs_out_of_memory_says_so(tmp_path: Path) -> None:
    last = trained_in_little_memory(too_large_run(tmp_path, "probe"))[-1]
    assert (last["kind"], last["error"]) == ("failed", "OutOfMemoryError")
    assert last["message"] == "Memory ran out in the probe, so this run does not fit here as it is."


@pytest.mark.parametrize("auto_fit", [False, True])
def test_at_out_of_memory_the_cheapest_change_is_named_or_made(tmp_path: Path, auto_fit: bool) -> None:
    run_dir = too_large_run(tmp_path, "train", auto_fit)
    events = trained_in_little_memory(run_dir)
    last = events[-1]
    if not auto_fit:
        assert (last["kind"], last["error"]) == ("failed", "OutOfMemoryError")
        assert last["message"] == "Memory ran out. Set gradient_checkpointing to true."
        return
    assert last["kind"] == "done", last
    hints = [event["hint"] for event in events if event["kind"] == "warning"]
    assert "auto_fit did this: Set gradient_checkpointing to true." in hints
    config = RunConfig.load(run_dir / "config.json")
    assert config.gradient_checkpointing
    assert config.train_batch_size * config.gradient_accumulation_steps == BATCH_SIZE
    assert [event["step"] for event in events if event["kind"] == "loss"][-1] == 2
