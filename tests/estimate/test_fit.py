"""Whether a run fits, and the cheapest change that makes it fit."""

from dataclasses import replace

import pytest

from dreamspace.config import RunConfig
from dreamspace.estimate.fit import Situation, cheapest_change, next_change, possible_changes
from dreamspace.estimate.hardware import SPACES
from dreamspace.estimate.profiles import known_profile

CONFIG = RunConfig(
    pretrained_model_name_or_path="stable-diffusion-v1-5/stable-diffusion-v1-5",
    mixed_precision="bf16",
    train_batch_size=4,
)


def on(gigabytes: float, config: RunConfig = CONFIG, edge_px: int = 512) -> Situation:
    hardware = replace(SPACES["l4x1"], memory_bytes=round(gigabytes * 1e9), free_bytes=round(gigabytes * 1e9))
    return Situation(config, known_profile(config), (edge_px, edge_px), hardware)


def after(change, situation: Situation) -> float:
    edges = tuple(round(edge * change.share) for edge in situation.size_px)
    return replace(situation, config=change.applied(situation.config), size_px=edges).memory.peak / 1e9


def test_the_changes_are_tried_in_the_order_of_what_they_cost() -> None:
    assert [change.sentence for change in possible_changes(CONFIG, None, "cuda")] == [
        "Set gradient_checkpointing to true.",
        "Set train_batch_size to 2 and gradient_accumulation_steps to 2: each step learns from the same 4 "
        "images.",
        "Set train_batch_size to 1 and gradient_accumulation_steps to 4: each step learns from the same 4 "
        "images.",
        "Set optimizer to 'bnb-adamw8bit'.",
        "Set base_model_precision to 'int8-quanto'.",
        "Set base_model_precision to 'int8-torchao'.",
        "Set base_model_precision to 'nf4-bnb'.",
        "Lower the datasets' resolution to 75 %.",
        "Lower the datasets' resolution to 50 %.",
        "Set enable_group_offload to true, with gradient_checkpointing: it fits, and is slow.",
    ]


def test_changes_that_do_not_go_with_the_run_are_left_out() -> None:
    full = CONFIG.model_copy(update={"model_type": "full", "gradient_checkpointing": True})
    settings = [change.settings for change in possible_changes(full, None, "mps")]
    assert settings == [
        {"train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"train_batch_size": 1, "gradient_accumulation_steps": 4},
        {},
        {},
    ]
    dora = CONFIG.model_copy(update={"use_dora": True})
    levels = [change.settings.get("base_model_precision") for change in possible_changes(dora, None, "cuda")]
    assert [level for level in levels if level] == ["int8-torchao", "nf4-bnb"]


def test_the_first_change_that_is_enough_is_named() -> None:
    plain = on(1).memory.peak / 1e9
    checkpointing = next(change for change in possible_changes(CONFIG, None, "cuda"))
    needed = after(checkpointing, on(1))
    assert needed < plain
    assert on(plain / 0.9).fits
    assert not on(plain * 0.9).fits
    found = cheapest_change(on(needed / 0.94))
    assert found.settings == {"gradient_checkpointing": True}


def test_where_no_single_change_is_enough_few_are_taken_together() -> None:
    singles = [after(change, on(1)) for change in possible_changes(CONFIG, on(1).profile, "cuda")]
    situation = on(min(singles) * 0.9)
    found = cheapest_change(situation)
    assert len(found.settings) + (found.share != 1) >= 2
    assert after(found, situation) <= 0.95 * situation.hardware.free_bytes / 1e9


def test_blocks_are_not_put_where_the_machine_itself_has_no_room() -> None:
    config = RunConfig(
        pretrained_model_name_or_path="black-forest-labs/FLUX.1-dev",
        model_family="flux",
        mixed_precision="bf16",
        gradient_checkpointing=True,
        enable_group_offload=True,
    )

    def fits(space: str) -> bool:
        return Situation(config, known_profile(config), (512, 512), SPACES[space]).fits

    assert not fits("a10g-small"), "24 GB of blocks in 15 GB"
    assert fits("a10g-large")


def test_where_nothing_is_enough_nothing_is_named() -> None:
    assert cheapest_change(on(0.5)) is None
    assert on(0.5).surely_too_large


def test_when_memory_runs_out_the_next_change_saves_a_tenth_at_least() -> None:
    situation = on(1000)
    found = next_change(CONFIG, situation, "cuda")
    assert after(found, situation) < 0.9 * situation.memory.peak / 1e9
    assert next_change(CONFIG, None, "cuda").settings == {"gradient_checkpointing": True}
    tight = CONFIG.model_copy(
        update={"gradient_checkpointing": True, "train_batch_size": 1, "gradient_accumulation_steps": 4}
    )
    kept = next_change(tight, None, "cuda", keeps_optimizer=True)
    assert "base_model_precision" in kept.settings
    with pytest.raises(ValueError, match="auto_fit"):
        found.applied(CONFIG.model_copy(update={"model_type": "full", "base_model_precision": "nf4-bnb"}))
