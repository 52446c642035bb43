"""What SimpleTuner's files may say that Dreamspace spells otherwise or does not support yet."""

from dreamspace.config.parsing import Dialect
from dreamspace.config.simpletuner_keys import (
    IGNORED_DATASET_KEYS,
    IGNORED_RUN_KEYS,
    TRANSLATED_RUN_KEYS,
)

RUN_DIALECT = Dialect(
    later_keys=TRANSLATED_RUN_KEYS.union(IGNORED_RUN_KEYS),
    later_values={},
)

DATASET_DIALECT = Dialect(
    aliases={"disable": "disabled", "is_regularization_data": "is_regularisation_data"},
    later_keys=frozenset(IGNORED_DATASET_KEYS),
    later_values={
        "type": frozenset({"aws", "csv", "memory", "webshart"}),
        "dataset_type": frozenset({"audio", "caption", "video"}),
        "caption_strategy": frozenset({"csv", "parquet"}),
    },
)
