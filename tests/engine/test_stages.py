from __future__ import annotations

import typing

from bssl_tf.engine.stages import STAGES
from bssl_tf.settings import PretrainConfig


def test_direct_stages_last_as_long_as_progressive_ones() -> None:
    for epochs in (1, 7):
        assert {sum(stage.epochs for stage in stages(epochs)) for stages in STAGES.values()} == {2 * epochs}
    assert [stage.binary_weights for stage in STAGES["direct"](3)] == [True]


def test_the_stages_are_those_that_settings_take() -> None:
    hint = typing.get_type_hints(PretrainConfig)["stages"]
    assert set(typing.get_args(hint)) == set(STAGES)
