"""What there is to train on."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dreamspace.estimate.hardware import (
    SPACES,
    container_memory,
    hardware_named,
    parse_nvidia_smi,
    peak_flops,
    this_machine,
)


def test_the_gpu_is_what_nvidia_smi_lists_first() -> None:
    answer = "NVIDIA L40S, 46068, 45000\nNVIDIA L40S, 46068, 10\n"
    assert parse_nvidia_smi(answer) == ("NVIDIA L40S", 46068 << 20, 45000 << 20)
    assert parse_nvidia_smi("") is None
    assert parse_nvidia_smi("No devices were found\n") is None


@pytest.mark.parametrize(("visible", "gpu"), [(None, "zero"), ("1,0", "one"), ("GPU-1f", "one")])
def test_the_gpu_is_the_one_that_cuda_sees_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, gpu: str
) -> None:
    program = tmp_path / "nvidia-smi"
    answer = 'case "$*" in *--id=1* | *--id=GPU-1f*) echo "one, 10, 5";; *) echo "zero, 9, 4";; esac'
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert this_machine().gpu == gpu


def test_a_gpu_is_known_by_the_longest_match_of_its_name() -> None:
    assert peak_flops("NVIDIA L40S") == SPACES["l40sx1"].peak_flops
    assert peak_flops("NVIDIA L4") == SPACES["l4x1"].peak_flops
    assert peak_flops("NVIDIA A100-SXM4-80GB") == SPACES["a100-large"].peak_flops
    assert peak_flops("Something new") == min(peak_flops(name) for name in ("RTX 3060", "RTX 4060"))


def test_a_container_has_what_it_is_allowed(tmp_path: Path) -> None:
    assert container_memory(100, 60, tmp_path) == (100, 60)
    (tmp_path / "memory.current").write_text("25\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert container_memory(100, 60, tmp_path) == (100, 60)
    (tmp_path / "memory.max").write_text("40\n")
    assert container_memory(100, 60, tmp_path) == (40, 15)


def test_this_machine_has_memory() -> None:
    here = this_machine()
    assert hardware_named("here").name == here.name == "here"
    assert 0 < here.free_bytes <= here.memory_bytes
    assert here.usd_per_hour is None


def test_unknown_hardware_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"^There is no hardware 'l4'\..*Known: here, cpu-basic"):
        hardware_named("l4")


def test_a_gpu_without_bf16_is_not_offered_for_it() -> None:
    named = {name: replace(SPACES["l4x1"], gpu=name) for name in ("Tesla T4", "NVIDIA GeForce RTX 2080 Ti")}
    for gpu in (SPACES["t4-small"], *named.values()):
        assert not gpu.computes_in("bf16")
        assert gpu.computes_in("fp16")
    assert all(gpu.computes_in("bf16") for name, gpu in SPACES.items() if not name.startswith("t4"))
