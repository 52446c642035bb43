import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from dreamspace import __version__
from tests.ui.app_process import ROOT, App


def run_app(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "app.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_taken_port_is_one_sentence_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome = run_app("--port", str(port), "--workspace", str(tmp_path))
    assert outcome.returncode == 2
    assert outcome.stdout == ""
    assert outcome.stderr == (
        f"dreamspace: The address 127.0.0.1:{port} cannot be used: address already in use. "
        f"Is Dreamspace running already? Choose another port with --port {port + 1}.\n"
    )
    assert (tmp_path / "runs" / "mine").is_dir()


def test_a_workspace_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    outcome = run_app("--port", "0", "--workspace", str(tmp_path / "file"))
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"dreamspace: The workspace {tmp_path / 'file'} cannot be used: ")
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize("port", ["-1", "70000"])
def test_an_impossible_port_is_one_sentence(port: str) -> None:
    outcome = run_app("--port", port)
    assert (outcome.returncode, outcome.stderr.count("\n")) == (2, 1)
    assert f"--port must be 0 to 65535, got {port}" in outcome.stderr


def test_the_app_says_where_it_is_and_that_it_is_well_and_refuses_strangers(
    start_app: Callable[..., App],
) -> None:
    app = start_app()
    with urlopen(f"{app.url}/health", timeout=30) as answer:
        assert json.load(answer) == {"status": "ok", "version": __version__}
    for headers, status in (
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Content-Length": "5000000"}, 413),
    ):
        with pytest.raises(HTTPError) as refusal:
            urlopen(Request(f"{app.url}/gradio_api/queue/join", b"{}", headers), timeout=30)
        assert refusal.value.code == status
    app.kill()
    assert app.output == []
