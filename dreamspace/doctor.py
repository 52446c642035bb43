"""What this machine has, and what will work on it."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from dreamspace.config.precision import QUANTISED, package_of, unsupported
from dreamspace.jobs.workspace import Workspace
from dreamspace.mini import MODEL_FOLDER

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "open_clip_torch",
    "gradio",
    "huggingface_hub",
)
MEMORY_FOR_MINI_GB = 4
DISK_FOR_MINI_GB = 1


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it works, and a sentence."""

    name: str
    works: bool
    text: str


def examine() -> list[Finding]:
    """Look at the machine; takes a few seconds, because torch is asked in a process of its own."""
    return [
        Finding(
            "python", sys.version_info >= (3, 11), f"{platform.python_version()}, 3.11 or newer is needed"
        ),
        *(_package(name) for name in PACKAGES),
        _memory(),
        _disk(),
        *_device(),
        _mini(),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "missing; run 'make setup'")


def _memory() -> Finding:
    total = psutil.virtual_memory().total / 1e9
    text = f"{total:.0f} GB, {os.cpu_count()} cores; mini needs {MEMORY_FOR_MINI_GB} GB"
    return Finding("memory", total >= MEMORY_FOR_MINI_GB, text)


def _disk() -> Finding:
    root = Workspace().root
    free = shutil.disk_usage(root).free / 1e9
    return Finding("disk", free >= DISK_FOR_MINI_GB, f"{free:.0f} GB free in the workspace {root}")


def _device() -> list[Finding]:
    """Asked in another process: importing torch takes seconds and memory that the caller may need."""
    question = (
        "import json, torch\n"
        "kind, capability = 'cpu', None\n"
        "text = 'no GPU: mini trains in minutes; for SD 1.x and larger, rent one'\n"
        "if torch.cuda.is_available():\n"
        "    p = torch.cuda.get_device_properties(0)\n"
        "    memory = f'{p.total_memory / 1e9:.0f} GB, compute capability {p.major}.{p.minor}'\n"
        "    kind, capability = 'cuda', (p.major, p.minor)\n"
        "    text = f'{p.name}, {memory}: trains large models'\n"
        "    text += '' if p.major >= 8 else ', in fp16: it has no bf16'\n"
        "elif torch.backends.mps.is_available():\n"
        "    kind, text = 'mps', 'Apple GPU (MPS): trains small models in fp32 and bf16; '\n"
        "    text += 'not in fp16, not with bnb-adamw8bit and lion'\n"
        "print(json.dumps([kind, capability, text]))\n"
    )
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False)
    if answer.returncode:
        reason = answer.stderr.strip().rpartition("\n")[2] or f"exit status {answer.returncode}"
        return [Finding("device", False, f"torch does not start: {reason}")]
    kind, capability, text = json.loads(answer.stdout)
    return [Finding("device", True, text), _precision(kind, capability and tuple(capability))]


def _precision(device: str, capability: tuple[int, int] | None) -> Finding:
    """The levels of precision that a base model can be kept in."""
    absent = {package for package in map(package_of, QUANTISED) if not _package(package).works}
    installed = [precision for precision in QUANTISED if package_of(precision) not in absent]
    works = [precision for precision in installed if unsupported(precision, device, capability) is None]
    sentences = [
        ", ".join(["no_change", *works]),
        *(f"not {precision}, on this device" for precision in installed if precision not in works),
        *(f"{package} is missing; run 'make setup'" for package in sorted(absent)),
    ]
    return Finding("precision", not absent, "; ".join(sentences))


def _mini() -> Finding:
    weights: list[Path] = sorted(MODEL_FOLDER.rglob("*.safetensors"))
    if not weights:
        return Finding(
            "mini",
            False,
            "its weights are missing; run 'python -m dreamspace.mini build --out dreamspace/mini/model'",
        )
    size = sum(path.stat().st_size for path in weights) / 1e6
    return Finding("mini", True, f"the embedded model is there, {size:.0f} MB in {len(weights)} files")
