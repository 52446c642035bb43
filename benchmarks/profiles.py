"""The profiles of the flavours that Dreamspace knows, from their models' configs: no weights are needed.

    python -m benchmarks.profiles              measures what profiles.json lacks, and writes it
    python -m benchmarks.profiles --again ID   measures these again
    python -m benchmarks.profiles --counts     parameters of each part, to compare with what is published

`flavours.json` holds what their config.json files say of the architecture; its `sources` name, of denoisers
whose own file was not at hand, where it was read instead, and the parameters that are published. A flavour
whose configs were found nowhere has no profile. Models of the same parts share one.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from dreamspace.config import RunConfig
from dreamspace.estimate.profiles import PROFILES_FILE
from dreamspace.mini import MODEL_FOLDER

FLAVOURS_FILE = Path(__file__).with_name("flavours.json")


def write_folder(folder: Path, model: dict[str, Any], configs: dict[str, Any]) -> None:
    """A model folder that holds configs and no weights."""
    index = {"_class_name": model["pipeline"], "scheduler": ["diffusers", "Scheduler"]}
    index |= model.get("index", {})
    for name, (library, class_name, config) in model["parts"].items():
        index[name] = [library, class_name]
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(configs[config]))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(model.get("scheduler", {})))
    (folder / "model_index.json").write_text(json.dumps(index))


def measured(name: str, flavours: dict[str, Any]) -> dict[str, Any]:
    from dreamspace.models.profile import model_profile

    if name == "mini":
        return model_profile(RunConfig(), MODEL_FOLDER).to_json()
    model = flavours["models"][name]
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), model, flavours["configs"])
        config = RunConfig(model_family=model["family"], pretrained_model_name_or_path=folder)
        return model_profile(config, Path(folder)).to_json()


def alike(name: str, other: str, models: dict[str, Any]) -> bool:
    """Whether another model has the same parts."""
    found = [(models[one]["family"], models[one]["parts"]) for one in (name, other) if one in models]
    return name != other and len(found) == 2 and found[0] == found[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--again", nargs="*", default=[], metavar="ID")
    parser.add_argument("--counts", action="store_true")
    options = parser.parse_args()
    flavours = json.loads(FLAVOURS_FILE.read_text())
    stored = json.loads(PROFILES_FILE.read_text()) if PROFILES_FILE.exists() else {}
    if options.counts:
        for name, profile in stored.items():
            counts = {
                part: (of["linear"] + of["convolution"] + of["rest"]) / 1e6
                for part, of in profile["parts"].items()
            }
            print(name, {part: f"{millions:.1f} M" for part, millions in counts.items()})
        return
    for name in ("mini", *flavours["models"]):
        if name in stored and name not in options.again:
            continue
        twin = next((other for other in stored if alike(name, other, flavours["models"])), None)
        stored[name] = stored[twin] if twin and name not in options.again else measured(name, flavours)
        print(name, flush=True)
        PROFILES_FILE.write_text(json.dumps(dict(sorted(stored.items())), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
