"""The tables of SimpleTuner's names: complete for ours, and no name in two places."""

from dreamspace.config import DatasetConfig, RunConfig
from dreamspace.config.dialects import DATASET_DIALECT, RUN_DIALECT
from dreamspace.config.simpletuner_keys import (
    DATASET_FALLBACKS,
    IGNORED_DATASET_KEYS,
    IGNORED_RUN_KEYS,
    KNOWN_DATASET_KEYS,
    KNOWN_RUN_KEYS,
    RUN_ALIASES,
    SHARED_RUN_KEYS,
    TRANSLATED_RUN_KEYS,
)
from dreamspace.simpletuner.optimizers import EXPORTED, THEIR_OPTIMIZERS

OURS_ALONE = {
    "lr_restart_step",
    "auto_fit",
    "class_word",
    "debiased_estimation",
    "evaluate_checkpoints",
    "evaluation_prompts",
    "held_out_photos",
    "lr_step_rules",
    "masked_background_weight",
    "masked_loss_normalization",
    "masked_prior_weight",
    "num_class_images",
    "num_evaluation_seeds",
    "num_token_vectors",
    "pretrained_similarity_model_name_or_path",
    "prior_loss_weight",
    "scheduled_sampling_target",
    "stratified_timesteps",
    "timestep_sampling",
    "timestep_shift",
    "token",
    "token_initializer",
    "token_lr",
    "validation_preview_model",
    "validation_prompts",
}
"""Settings that SimpleTuner has no key for."""


def test_every_setting_of_ours_is_shared_or_ours_alone() -> None:
    """Whoever adds a setting says here whether SimpleTuner has it, and so whether it is exported."""
    assert set(RunConfig.model_fields) == SHARED_RUN_KEYS | OURS_ALONE
    assert set(DatasetConfig.model_fields) - KNOWN_DATASET_KEYS == {"regularisation_target"}


def test_no_name_is_in_two_tables() -> None:
    tables = (SHARED_RUN_KEYS, TRANSLATED_RUN_KEYS, frozenset(IGNORED_RUN_KEYS))
    assert sum(map(len, tables)) == len(KNOWN_RUN_KEYS) > 350
    assert not set(IGNORED_DATASET_KEYS) & set(DatasetConfig.model_fields)
    assert set(RUN_ALIASES.values()) <= SHARED_RUN_KEYS
    assert set(DATASET_FALLBACKS) <= set(DatasetConfig.model_fields)


def test_both_tables_are_told_apart_from_unknown_keys() -> None:
    assert RUN_DIALECT.later_keys == KNOWN_RUN_KEYS - SHARED_RUN_KEYS
    assert DATASET_DIALECT.later_keys == set(IGNORED_DATASET_KEYS)
    assert not (RUN_DIALECT.later_keys & OURS_ALONE)


def test_every_consequence_is_one_sentence() -> None:
    for consequence in {*IGNORED_RUN_KEYS.values(), *IGNORED_DATASET_KEYS.values()}:
        assert consequence.endswith("."), consequence
        assert consequence.count(". ") == 0, consequence


def test_every_optimizer_goes_there_and_back() -> None:
    ours = set(RunConfig.model_json_schema()["properties"]["optimizer"]["enum"])
    assert set(EXPORTED) == ours
    assert {name: THEIR_OPTIMIZERS[theirs].ours for name, theirs in EXPORTED.items()} == {
        name: name for name in ours
    }
    assert {theirs.ours for theirs in THEIR_OPTIMIZERS.values()} == ours
