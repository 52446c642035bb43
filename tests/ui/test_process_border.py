"""The app's process stays light: it never imports what trains."""

import json
import subprocess
import sys
from pathlib import Path

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "peft", "open_clip", "torchvision"}

SCRIPT = """
import json, sys
from pathlib import Path
from fastapi.testclient import TestClient
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui.server import create_app
from tests.ui.recorded import record_run

workspace = Workspace(Path(sys.argv[1]))
record_run(workspace)
with TestClient(create_app(workspace), base_url="http://127.0.0.1") as client:
    paths = ("/", "/config", "/health", "/media/samples/biscuit/snow.webp")
    answers = [client.get(path).status_code for path in paths]
print(json.dumps({"answers": answers, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def test_the_app_serves_its_page_without_torch(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True, timeout=300
    )
    outcome = json.loads(process.stdout.splitlines()[-1])
    assert outcome["answers"] == [200, 200, 200, 200]
    assert "gradio" in outcome["modules"]
    assert HEAVY.isdisjoint(outcome["modules"])
