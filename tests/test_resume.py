"""The resume matrix: killed in a stage, one thing changed, resumed, a run is what it would be from nothing.

One kill a stage and change; `benchmarks/faults.py` has the rest.
"""

import random

import pytest
from resuming import CHANGES, STAGES, Cases


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return Cases(tmp_path_factory.mktemp("resume"))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["", *CHANGES])
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_was_killed_and_changed_is_the_run_from_nothing(stage: str, what: str, cases: Cases) -> None:
    found = cases.tried(f"{stage}-{what}".replace(":", "-"), stage, what, random.Random(f"{stage} {what}"))
    assert not found["differs"], f"{found['changed']}: {found['log']}"
    assert (found["lost"], found["doubled"]) == (0, 0)
