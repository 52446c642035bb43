"""config.json: what is accepted, and the one sentence for what is not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dreamspace.config import DatasetConfig, RunConfig, is_hub_id, parse_run_config
from dreamspace.config.dialects import DATASET_DIALECT, RUN_DIALECT
from dreamspace.config.run import SECTIONS


@pytest.mark.parametrize("model", [RunConfig, DatasetConfig])
def test_every_field_is_described_in_one_sentence(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        assert field.description.count(". ") == 0, name


@pytest.mark.parametrize("model", [RunConfig, DatasetConfig])
def test_fields_whose_default_is_none_say_what_it_does(model: type[BaseModel]) -> None:
    nullable = [name for name, field in model.model_fields.items() if field.default is None]
    assert nullable
    for name in nullable:
        assert "null" in model.model_fields[name].description, name


def test_what_is_supported_is_not_listed_as_missing() -> None:
    for model, dialect in ((RunConfig, RUN_DIALECT), (DatasetConfig, DATASET_DIALECT)):
        assert not dialect.later_keys & set(model.model_fields)
        assert set(dialect.later_values) <= set(model.model_fields)
        assert set(dialect.aliases.values()) <= set(model.model_fields)


def test_saved_config_loads_as_the_same(tmp_path: Path) -> None:
    config = parse_run_config({"lora_alpha": 8, "token": "sks", "validation_prompts": ["a", "b"]})
    config.save(tmp_path / "config.json")
    assert RunConfig.load(tmp_path / "config.json") == config
    written = json.loads((tmp_path / "config.json").read_text())
    assert set(written) == set(RunConfig.model_fields), "the record holds the defaults too"


def test_leading_dashes_are_read() -> None:
    config = parse_run_config({"--lora_rank": 4, "-seed": 7, "max_train_steps": 9})
    assert (config.lora_rank, config.seed, config.max_train_steps) == (4, 7, 9)


def test_config_is_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 1


def test_empty_words_are_none_and_spaces_go() -> None:
    config = parse_run_config({"token": "  ", "class_word": " dog ", "validation_prompt": ""})
    assert (config.token, config.class_word, config.validation_prompt) == (None, "dog", None)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (256, "256"),
        ("128", "128"),
        ("96x64", "96x64"),
        (" 512, 96x64,512 ", "512,96x64"),
        ("", None),
        (None, None),
    ],
)
def test_validation_resolution_takes_sizes(given: Any, kept: str | None) -> None:
    assert parse_run_config({"validation_resolution": given}).validation_resolution == kept


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("lora_rnk", "lora_rank"), ("--learning_rat", "learning_rate"), ("max_steps", "max_train_steps")],
)
def test_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^config: there is no key '{key.strip('-')}'\. Did you mean '{nearest}'\?$"
    ):
        parse_run_config({key: 1})


def test_unknown_key_that_resembles_nothing_is_to_be_removed() -> None:
    with pytest.raises(ValueError, match=r"^config: there is no key 'qqqq'\. Remove it\.$"):
        parse_run_config({"qqqq": 1})


def test_simpletuner_key_that_is_not_ours_is_told_apart() -> None:
    for key in ("report_to", "--offset_noise", "num_train_epochs"):
        with pytest.raises(
            ValueError, match=rf"SimpleTuner's '{key.strip('-')}' is not read here\. .*import"
        ):
            parse_run_config({key: True})


@pytest.mark.parametrize("key", ["resolution", "repeats", "--instance_prompt", "regularisation_target"])
def test_key_of_a_dataset_is_told_apart(key: str) -> None:
    with pytest.raises(
        ValueError,
        match=rf"^config: '{key.strip('-')}' is a key of a dataset\. Set it there, in the multidata",
    ):
        parse_run_config({key: 1})


def test_settings_stand_in_sections_in_the_order_of_the_file() -> None:
    names = [name for section in SECTIONS for name in section.model_fields]
    assert names == list(RunConfig.model_fields)
    assert SECTIONS[0].__doc__ == "Model."


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_train_steps": 0}, "config: max_train_steps must be at least 1, got 0."),
        ({"checkpoint_step_interval": 0}, "config: checkpoint_step_interval must be at least 1, got 0."),
        ({"learning_rate": 0}, "config: learning_rate must be above 0, got 0."),
        ({"learning_rate": "fast"}, 'config: learning_rate must be a number, got "fast".'),
        ({"learning_rate": float("nan")}, "config: learning_rate must be a finite number, got NaN."),
        ({"lora_dropout": 1}, "config: lora_dropout must be below 1, got 1."),
        ({"seed": 2**32}, "config: seed must be at most 4294967295, got 4294967296."),
        ({"lora_rank": 1.5}, "config: lora_rank must be a whole number, got 1.5."),
        ({"lora_rank": "many"}, 'config: lora_rank must be a whole number, got "many".'),
        ({"lora_rank": None}, "config: lora_rank must be a whole number, got null."),
        (
            {"validation_disable": "perhaps"},
            'config: validation_disable must be true or false, got "perhaps".',
        ),
        ({"token": ["sks"]}, 'config: token must be a text, got ["sks"].'),
        ({"validation_prompts": "a dog"}, 'config: validation_prompts must be a list, got "a dog".'),
        (
            {"validation_prompts": [""]},
            'config: validation_prompts.0 must be a text that is not empty, got "".',
        ),
        (
            {"pretrained_model_name_or_path": ""},
            'config: pretrained_model_name_or_path must be a text that is not empty, got "".',
        ),
        ({"mixed_precision": "fp8"}, "config: mixed_precision must be 'no', 'fp16' or 'bf16', got \"fp8\"."),
        (
            {"validation_resolution": "128,"},
            "config: validation_resolution must be sizes in px with commas between them, such as '128' or "
            "'512,96x64', got '128,'.",
        ),
        (
            {"validation_preview": True, "validation_disable": True},
            "config: validation_preview shows validation images as they come into focus, and "
            "validation_disable draws none. Set one of the two to false.",
        ),
        (
            {"lr_scheduler": "cosine", "lr_warmup_steps": 400},
            "config: lr_warmup_steps must be below max_train_steps (400), got 400. "
            "Shorten the warm-up or train longer.",
        ),
        ({"seed": 1, "--seed": 2}, "config: the key 'seed' is given twice. Keep one of the two."),
        (
            {"lr_scheduler": "piecewise_constant"},
            "config: lr_scheduler 'piecewise_constant' needs lr_step_rules, such as '1:100,0.1'.",
        ),
        (
            {"lr_step_rules": "1:100"},
            "config: lr_step_rules must be factor:until_step pairs and a last factor, such as '1:100,0.1', "
            "got '1:100'.",
        ),
        (
            {"snr_gamma": 5, "debiased_estimation": True},
            "config: snr_gamma and debiased_estimation are two weightings of the same timesteps. Keep one.",
        ),
        (
            {"masked_background_weight": 0.1, "masked_prior_weight": 0.5},
            "config: masked_background_weight and masked_prior_weight pull the background to two targets, "
            "the photo's own and the base model's. Set one of them to 0.",
        ),
        (
            {"lora_type": "lycoris", "lycoris_config": {"algo": "lora", "dropout": 0.1}},
            "config: At base_model_precision 'no_change', lycoris_config.dropout does something with tlora, "
            "and nothing with lora. Remove it, or choose another algo.",
        ),
        (
            {
                "lora_type": "lycoris",
                "lycoris_config": {"rank_dropout": 0.1},
                "base_model_precision": "int8-quanto",
            },
            "config: At base_model_precision 'int8-quanto', lycoris_config.rank_dropout does something with "
            "glora, locon, loha, lora, and nothing with lokr. Remove it, or choose another algo.",
        ),
        (
            {
                "lora_type": "lycoris",
                "lycoris_config": {
                    "apply_preset": {"name_algo_map": {"*.to_q": {"algo": "boft", "weight_decompose": True}}}
                },
            },
            "config: At base_model_precision 'no_change', "
            "lycoris_config.apply_preset.name_algo_map.*.to_q.weight_decompose does something with locon, "
            "loha, lokr, lora, and nothing with boft. Remove it, or choose another algo.",
        ),
        (
            {"lycoris_config": {"apply_preset": {"module_algo_map": {"Attention": {"module_dropout": 0.1}}}}},
            "config: lycoris_config.apply_preset.module_algo_map takes no 'module_dropout' for 'Attention': "
            "LyCORIS has it for the whole adapter alone. Remove it, or set it in lycoris_config itself.",
        ),
        ({"snr_gamma": 0}, "config: snr_gamma must be above 0, got 0."),
        ({"masked_prior_weight": 1.5}, "config: masked_prior_weight must be at most 1, got 1.5."),
        (
            {"optimizer": "sgd"},
            "config: optimizer must be 'adamw', 'adamw_bf16', 'bnb-adamw8bit', 'lion', 'adafactor', "
            "'prodigy' or 'adamw_schedulefree', got \"sgd\".",
        ),
    ],
)
def test_wrong_value_is_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the sentence is compared whole
        parse_run_config(settings)
    assert str(caught.value) == sentence


def test_long_value_is_shortened_in_the_sentence() -> None:
    with pytest.raises(ValueError, match=r"got \"x+\.\.\.\.$") as caught:
        parse_run_config({"seed": "x" * 10_000})
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/name", True),
        ("stable-diffusion-v1-5/stable-diffusion-v1.5", True),
        ("mini", False),
        ("a/b/c", False),
        ("./a", False),
        ("../a", False),
        ("/a", False),
        ("~/a", False),
        ("a/", False),
        ("models/sd", False),
    ],
)
def test_hub_id_is_an_owner_and_a_name_that_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: bool
) -> None:
    (tmp_path / "models" / "sd").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert is_hub_id(name) is expected


@pytest.mark.parametrize("rules", ["1:100,0.1", "1:10,5e-1:300,0.01", "0.5", ""])
def test_step_rules_are_pairs_and_a_last_factor(rules: str) -> None:
    assert parse_run_config({"lr_step_rules": rules}).lr_step_rules == (rules or None)


def test_warm_up_may_be_as_long_as_the_run_where_it_has_no_effect() -> None:
    config = parse_run_config({"lr_scheduler": "constant", "lr_warmup_steps": 400, "max_train_steps": 400})
    assert config.lr_warmup_steps == 400


def test_load_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(ValueError, match="no file"):
        RunConfig.load(path)
    path.write_text('{"seed": 1,')
    with pytest.raises(ValueError, match="line 1, column"):
        RunConfig.load(path)
    path.write_text("[1]")
    with pytest.raises(
        ValueError, match=r"^config\.json: a JSON object with settings is expected, got \[1\]\.$"
    ):
        RunConfig.load(path)
    path.write_text('{"sed": 1}')
    with pytest.raises(ValueError, match=r"^config\.json: there is no key 'sed'\. Did you mean 'seed'\?$"):
        RunConfig.load(path)


def test_config_and_photos_load_neither_torch_nor_gradio() -> None:
    code = (
        "import sys, dreamspace.config, dreamspace.data.photos, dreamspace.data.geometry\n"
        "print([name for name in ('torch', 'gradio', 'diffusers', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
