"""What the benchmarks measure, at a tiny shape."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SMALL = """
import functools
from benchmarks.full_size import print_full_size
from benchmarks.random_models import random_sdxl
small = functools.partial(random_sdxl, (32, 32, 64), (1, 1, 1), 64, 32)
print_full_size(small, edge=8, batch_sizes=(1,), levels=("no_change", "int8-quanto"), rounds=1)
"""


def test_full_size_table_has_a_row_for_each_precision() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", SMALL], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in finished.stdout.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["no_change", "1"], ["int8-quanto", "1"]]
    assert all(float(row[2]) > 0 for row in rows)


def test_estimated_memory_is_within_a_quarter_of_what_a_run_takes() -> None:
    command = [sys.executable, "-m", "benchmarks.memory", "--only", "flux tiny, batch 2"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    (row,) = (line for line in finished.stdout.splitlines() if line.startswith("| flux"))
    _, estimated, measured, ratio = (cell.strip() for cell in row.split("|")[1:-1])
    assert float(ratio) == pytest.approx(float(estimated) / float(measured), abs=0.01)
    assert 0.75 < float(ratio) < 1.25
