"""What can be trained on: the hardware of Hugging Face Spaces with its price, and this machine."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from dreamspace.estimate.memory import DeviceKind
from dreamspace.suggest import nearest

PRICES_DATE = "2026-11"
"""Of the table, from https://huggingface.co/docs/hub/spaces-gpus; a price may have changed since."""

CPU_FLOPS = 5e10
"""Of one CPU core in fp32: what mini's steps reach, which are measured (see `speed`)."""


@dataclass(frozen=True)
class Hardware:
    """Something to train on.

    Attributes:
        device: what torch calls it.
        gpu: the name of its GPU; empty without one.
        memory_bytes: of the GPU; without one that of the machine.
        host_bytes: of the machine.
        peak_flops: dense bf16 of the GPU (fp16 where it has no bf16), fp32 of all CPU cores.
        usd_per_hour: None for this machine.
        free_bytes: of `memory_bytes`, what is not in use now; all of it for what can be rented.
    """

    name: str
    device: DeviceKind
    gpu: str
    memory_bytes: int
    host_bytes: int
    peak_flops: float
    usd_per_hour: float | None
    free_bytes: int

    def computes_in(self, mixed_precision: str) -> bool:
        """Whether it has the number format, and does not emulate it at a fraction of its speed."""
        return mixed_precision != "bf16" or not any(name in self.gpu for name in WITHOUT_BF16)


WITHOUT_BF16 = ("T4", "V100", "P100", "RTX 20", "GTX")
"""In the names of GPUs that are older than bf16 (compute capability below 8)."""

PEAK_FLOPS = {
    "T4": 65e12,
    "L4": 121e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "RTX 3060": 51e12,
    "RTX 3070": 81e12,
    "RTX 3080": 119e12,
    "RTX 3090": 142e12,
    "RTX 4060": 60e12,
    "RTX 4070": 117e12,
    "RTX 4080": 195e12,
    "RTX 4090": 330e12,
    "RTX 5070": 123e12,
    "RTX 5080": 225e12,
    "RTX 5090": 419e12,
    "RTX PRO 6000": 503e12,
}
"""Dense 16-bit tensor throughput by the maker's data sheets, with fp16 accumulation on consumer cards."""


def _space(name: str, gpu: str, gpu_gb: int, cores: int, host_gb: int, usd_per_hour: float) -> Hardware:
    gb = 1_000_000_000
    memory = gpu_gb * gb if gpu else host_gb * gb
    return Hardware(
        name=name,
        device="cuda" if gpu else "cpu",
        gpu=gpu,
        memory_bytes=memory,
        host_bytes=host_gb * gb,
        peak_flops=PEAK_FLOPS[gpu] if gpu else cores * CPU_FLOPS,
        usd_per_hour=usd_per_hour,
        free_bytes=memory,
    )


SPACES: dict[str, Hardware] = {
    space.name: space
    for space in (
        _space("cpu-basic", "", 0, 2, 16, 0.0),
        _space("cpu-upgrade", "", 0, 8, 32, 0.03),
        _space("t4-small", "T4", 16, 4, 15, 0.40),
        _space("t4-medium", "T4", 16, 8, 30, 0.60),
        _space("l4x1", "L4", 24, 8, 30, 0.80),
        _space("a10g-small", "A10G", 24, 4, 15, 1.00),
        _space("a10g-large", "A10G", 24, 12, 46, 1.50),
        _space("l40sx1", "L40S", 48, 8, 62, 1.80),
        _space("a100-large", "A100", 80, 12, 142, 2.50),
        _space("h200", "H200", 141, 23, 256, 5.00),
    )
}
"""By the names that the Hub has for them; those with one GPU, since the app trains on one."""


def hardware_named(name: str) -> Hardware:
    """This machine as 'here', or what can be rented.

    Raises:
        ValueError: if there is no such hardware.
    """
    if name == "here":
        return this_machine()
    if name not in SPACES:
        known = ["here", *SPACES]
        raise ValueError(f"There is no hardware '{name}'.{nearest(name, known)} Known: {', '.join(known)}.")
    return SPACES[name]


def this_machine() -> Hardware:
    """The machine that this runs on; its GPU by nvidia-smi, so that torch is not needed."""
    memory = psutil.virtual_memory()
    total, available = container_memory(memory.total, memory.available)
    gpu = _gpu()
    if gpu is None:
        cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 1
        return Hardware("here", "cpu", "", total, total, cores * CPU_FLOPS, None, available)
    name, gpu_total, gpu_free = gpu
    return Hardware("here", "cuda", name, gpu_total, total, peak_flops(name), None, gpu_free)


def peak_flops(gpu: str) -> float:
    """Of a GPU by its full name; that of a small card where it is not known."""
    found = [flops for short, flops in PEAK_FLOPS.items() if short.lower() in gpu.lower()]
    return max(found, default=min(PEAK_FLOPS.values()))


def container_memory(total: int, available: int, root: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Total and available bytes, where a container allows less than the machine has."""
    try:
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
    except OSError:
        return total, available
    if limit == "max":
        return total, available
    return min(total, int(limit)), min(available, max(0, int(limit) - used))


def _nvidia_smi() -> str:
    query = "--query-gpu=name,memory.total,memory.free"
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    try:
        return subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader,nounits", *([f"--id={first}"] if first else [])],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _gpu() -> tuple[str, int, int] | None:
    """Name, total and free bytes of the first GPU, or of the first that CUDA is told to see."""
    return parse_nvidia_smi(_nvidia_smi())


def parse_nvidia_smi(answer: str) -> tuple[str, int, int] | None:
    """Of the first line, with MiB as its unit; None where it lists no GPU."""
    fields = [field.strip() for field in answer.strip().partition("\n")[0].split(",")]
    if len(fields) != 3 or not fields[1].isdigit():
        return None
    return fields[0], int(fields[1]) << 20, int(fields[2]) << 20
