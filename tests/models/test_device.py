"""What each device can do, asked for devices that are not here."""

import pytest

from dreamspace.config import RunConfig
from dreamspace.config.precision import QUANTISED, alternative, unsupported
from dreamspace.models.device import device_type, runs_ahead
from dreamspace.training.optimizers import check_optimizer, is_fused


def test_nvidias_gpu_computes_before_apples_and_both_before_the_cpu() -> None:
    found = [device_type(*there) for there in ((True, True), (True, False), (False, True), (False, False))]
    assert found == ["cuda", "cuda", "mps", "cpu"]


def test_mps_keeps_a_base_in_quantos_whole_numbers_alone() -> None:
    works = [precision for precision in QUANTISED if unsupported(precision, "mps", None) is None]
    assert works == ["int8-quanto", "int4-quanto", "int2-quanto"]
    for precision in QUANTISED:
        assert unsupported(alternative(precision, "mps"), "mps", None) is None
    assert alternative("nf4-bnb", "mps") == "int4-quanto"
    assert alternative("fp8-torchao", "cuda") == "int8-torchao"


def test_optimizers_of_bitsandbytes_are_refused_on_mps_and_nowhere_else() -> None:
    for name in ("bnb-adamw8bit", "lion"):
        config = RunConfig(optimizer=name)
        with pytest.raises(ValueError, match="does not run on Apple's MPS"):
            check_optimizer(config, "mps")
        check_optimizer(config, "cuda")
    check_optimizer(RunConfig(optimizer="adamw"), "mps")


def test_mps_is_given_no_fused_step_and_is_waited_for() -> None:
    assert [is_fused(device) for device in ("cuda", "cpu", "mps")] == [True, True, False]
    assert [runs_ahead(device) for device in ("cuda", "cpu", "mps")] == [True, False, False]
