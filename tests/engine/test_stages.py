from __future__ import annotations

import typing

from bssl_tf.engine.stages import STAGES, Plan, stage_ends
from bssl_tf.settings import PretrainConfig


def test_direct_stages_last_as_long_as_progressive_ones() -> None:
    for epochs in (1, 7):
        assert {sum(stage.epochs for stage in stages(epochs)) for stages in STAGES.values()} == {2 * epochs}
    assert [stage.binary_weights for stage in STAGES["direct"](3)] == [True]


def test_the_stages_are_those_that_settings_take() -> None:
    hint = typing.get_type_hints(PretrainConfig)["stages"]
    assert set(typing.get_args(hint)) == set(STAGES)


def test_a_longer_plan_moves_the_ends_of_stages_that_are_not_over() -> None:
    def ends(step: int) -> list[int]:
        plans = [Plan(0, STAGES["progressive"](2)), Plan(step, STAGES["progressive"](5))]
        return stage_ends(plans, 10)[-1]

    # In the first stage, at its end, in the second one, at its end.
    assert [ends(step) for step in (0, 19, 20, 21, 40)] == [[50, 100], [50, 100], [20, 70], [20, 70], [20, 70]]
