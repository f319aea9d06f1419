"""Phantoms that every test of evaluation may use."""

import pytest
from standins import World

from clinalign.data.phantom.dataset import split_patients, write_phantoms


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("phantoms")
    examples = write_phantoms(folder, split="test", patients=split_patients("test", 100), px=32, per_case=2)
    return World(folder, examples)
