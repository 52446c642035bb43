"""The README is true: its commands run, in order, as they are written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder that looks like the checkout to the commands, so that what they write stays out of it."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("dreamspace", "presets"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "DREAMSPACE_HOME": str(folder / "workspace")}
    finished = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=1500
    )
    assert finished.returncode == 0, f"{shlex.join(command)}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


def test_shell_commands_and_python_snippet_run_as_written(folder):
    block = re.search(r"<!-- Every line.*?-->\n```bash\n(.*?)```", README, re.DOTALL).group(1)
    commands = [shlex.split(line) for line in block.splitlines()]
    assert len(commands) >= 6
    for command in commands:
        assert command[0] == "python"
        printed = run([sys.executable, *command[1:]], folder)
        assert printed.strip()
    snippet = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    run([sys.executable, "-c", snippet.rstrip() + ".save('snippet.png')"], folder)
    assert (folder / "snippet.png").stat().st_size > 1000
    assert (folder / "workspace" / "images" / "0.png").exists()
    assert len(list((folder / "workspace" / "priors" / "cats").glob("*.png"))) == 8


def test_long_commands_of_the_readme_exist_and_take_their_options():
    commands = set(re.findall(r"python -m ((?:benchmarks\.|dreamspace\.mini )[a-z_]+)([^`#\n]*)", README))
    assert {module for module, _ in commands} >= {"dreamspace.mini build", "benchmarks.learning"}
    for module, options in commands:
        finished = subprocess.run(
            [sys.executable, "-m", *module.split(), "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for option in re.findall(r"--[a-z-]+", options):
            assert option in finished.stdout, (module, option)


def test_every_command_of_the_shell_is_in_the_readme():
    from dreamspace.cli import build_parser

    commands = next(action.choices for action in build_parser()._actions if action.choices)
    for command in commands:
        assert re.search(rf"`{command}[ `]", README), command


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert targets >= {"app", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_pictures_of_the_readme_exist():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path


def test_space_header_is_complete():
    header = dict(line.split(": ", 1) for line in README.split("---")[1].strip().splitlines())
    assert header["sdk"] == "docker"
    assert header["app_port"] == "7860"
    assert "EXPOSE 7860" in (ROOT / "Dockerfile").read_text()
    assert len(header["short_description"]) <= 60
