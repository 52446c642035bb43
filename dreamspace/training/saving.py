"""What a checkpoint holds, the adapters at the end, and the room that both need on the disk."""

import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from dreamspace.files import read_json, write_json
from dreamspace.models.adapters import Adapter
from dreamspace.run_folder import EMA_FOLDER, weights_file
from dreamspace.training.checkpoints import has_optimizer, load_optimizer, save_optimizer, save_tensors
from dreamspace.training.ema import MovingAverage
from dreamspace.training.optimizers import averages_weights, put_in_place, usable_weights

Weights = Literal["base", "trained", "ema"]

TRAINED_FILE = "trained.safetensors"
"""The weights as they are trained, where the adapter file holds their average, or another form of them."""


@dataclass
class TrainingState:
    """All that changes while a run trains, and what of it goes into a checkpoint.

    Attributes:
        optimizer_name: as the configuration has it.
        ema: None where there is none, as in all processes but the first.
        digest: tells what is trained on, so that a resumed run notices a change.
    """

    adapter: Adapter
    optimizer: torch.optim.Optimizer
    optimizer_name: str
    ema: MovingAverage | None
    accelerator: Accelerator
    digest: str

    def in_place(self, weights: Weights) -> AbstractContextManager[None]:
        """The weights to draw and save with; those that are trained are back in place afterwards."""
        if weights == "ema":
            assert self.ema is not None
            return self.ema.in_place()
        return usable_weights(self.optimizer, self.adapter.parameters)

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter with the weights that are in place."""
        self.adapter.save(folder)

    def save(self, step: int, folder: Path) -> None:
        """Write a checkpoint into an empty folder."""
        with self.in_place("trained"):
            self.save_adapter(folder)
        if averages_weights(self.optimizer) or not self.adapter.is_saved_exactly:
            self._save_exactly(folder)
        save_optimizer(self.optimizer, folder)
        if self.ema is not None:
            (folder / EMA_FOLDER).mkdir()
            with self.in_place("ema"):
                self.save_adapter(folder / EMA_FOLDER)
                if not self.adapter.is_saved_exactly:
                    self._save_exactly(folder / EMA_FOLDER)
        scaler = self.accelerator.scaler
        state = {
            "step": step,
            "digest": self.digest,
            "optimizer": self.optimizer_name,
            "grad_scaler": scaler and scaler.state_dict(),
        }
        write_json(folder / "state.json", state)

    def load(self, folder: Path) -> dict[str, Any]:
        """Restore a checkpoint bit-exactly; returns its `state.json`.

        Where the optimizer's state was pruned the optimizer stays as it is.

        Raises:
            ValueError: if it is of another adapter or optimizer.
        """
        state = read_json(folder / "state.json")
        if state["optimizer"] != self.optimizer_name:
            raise ValueError(
                f"{folder.name} was trained with optimizer '{state['optimizer']}', and now it is "
                f"'{self.optimizer_name}'. Set it back, or start a new run from the adapter."
            )
        self._load_weights(folder)
        if has_optimizer(folder):
            load_optimizer(self.optimizer, folder)
        for group, own in zip(self.optimizer.param_groups, self.adapter.parameter_groups, strict=True):
            group["learning_rate_factor"] = own.learning_rate_factor
        if self.ema is not None:
            self._load_ema(folder)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["grad_scaler"])
        return state

    def _load_ema(self, folder: Path) -> None:
        if weights_file(folder / EMA_FOLDER) is None:
            raise ValueError(
                f"{folder.name} holds no moving average. Set use_ema to false, or start a new run."
            )
        with self.ema.in_place():
            self._load_weights(folder / EMA_FOLDER)
            self.ema.take_over()

    def _save_exactly(self, folder: Path) -> None:
        """Write the weights as they are, where the adapter's file holds something else."""
        trained = {f"{index:05d}": weight for index, weight in enumerate(self.adapter.parameters)}
        save_tensors(trained, folder / TRAINED_FILE)

    def _load_weights(self, folder: Path) -> None:
        """Restore the weights of a checkpoint or of the average in it.

        Raises:
            ValueError: if they are of another adapter.
        """
        if not (folder / TRAINED_FILE).exists():
            self.adapter.load(weights_file(folder))
            return
        trained = [weight for _, weight in sorted(load_file(folder / TRAINED_FILE).items())]
        if [weight.shape for weight in trained] != [weight.shape for weight in self.adapter.parameters]:
            raise ValueError(
                f"{folder.name} was trained with another adapter than config.json says. Set it back, or "
                "start a new run."
            )
        put_in_place(self.adapter.parameters, trained)

    def check_disk(self, folder: Path) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises:
            ValueError: with what is free and what a checkpoint needs.
        """
        # Weights and AdamW's two moments, and the adapter once more at the end; an average is one and one.
        # What is not saved exactly is written once more beside it.
        num_copies = 4 if self.ema is None else 6
        if averages_weights(self.optimizer) or not self.adapter.is_saved_exactly:
            num_copies += 1 if self.ema is None else 2
        needed = num_copies * sum(weight.numel() * 4 for weight in self.adapter.parameters) + 10_000_000
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise ValueError(
                f"The disk has {free / 1e6:.0f} MB free and a checkpoint needs {needed / 1e6:.0f} MB. "
                "Free some space and resume; earlier checkpoints are kept."
            )
