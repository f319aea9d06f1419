"""The table of methods: what it says of a method is computed, not written down."""

from __future__ import annotations

import methods
import pytest

from clinalign.objectives import METHODS, PUBLISHED


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("dpo", "yes"), ("firempo", "yes"), ("tdpo2", "yes"), ("vdpo", "yes"), ("povid", "yes"),
        ("ic_vco_single", "no: anchor"),
        ("mdpo", "no: anchor, visual"), ("ipo", "no: rank"), ("svco", "no: rank, visual"), ("lpoi", "no: visual"),
        ("kto", "no: chosen, rejected"), ("simpo", ""), ("sft", ""),
    ],
)  # fmt: skip
def test_partition_functions_cancel_where_two_texts_meet_under_one_image(name: str, found: str) -> None:
    assert methods.cancels(name) == found


def test_a_row_names_passes_and_views() -> None:
    assert methods.described("dpo")[5:7] == ["yes", "2, twice"]
    assert methods.described("simpo")[5:7] == ["no", "2"]
    assert (
        methods.described("lpoi")[6] == "2 + steps, twice" and "steps between: chosen" in methods.described("lpoi")[3]
    )
    assert methods.described("ic_vco")[6] == "8, twice" and methods.described("kto")[6] == "3, twice"


def test_every_loss_has_a_row_of_as_many_cells_as_the_head() -> None:
    columns = methods.HEAD.splitlines()[-1].count("|")
    for name in methods.everything():
        assert methods.row(name, set(), set(), set(), {}).count(" | ") == columns - 2, name
    assert set(PUBLISHED) <= methods.everything() <= set(METHODS)
