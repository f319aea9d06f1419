"""The tasks for lmms-eval without the runner: what their files name exists and gives what the house itself measures."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from clinalign.errors import UsageError
from clinalign.evaluation.metrics import patient
from clinalign.imaging.images import read_image
from clinalign.measuring import lmms
from clinalign.measuring.lmms import models
from clinalign.measuring.lmms.tasks import utils
from clinalign.records import Example
from clinalign.storage import write_table

TASKS = Path(lmms.__file__).parent / "tasks"


class Loader(yaml.SafeLoader):
    """The runner's `!function utils.x`, as a name."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def config(name):
    own = yaml.load((TASKS / f"{name}.yaml").read_text(), Loader)
    return yaml.load((TASKS / own.pop("include")).read_text(), Loader) | own


@pytest.fixture
def table(world, monkeypatch):
    path = world.folder / "examples.parquet"
    write_table(path, world.examples, Example)
    monkeypatch.setenv("CLINALIGN_DATA", str(world.folder))
    return path


@pytest.mark.parametrize("name", ["clinalign_vqa", "clinalign_ablations"])
def test_every_function_that_a_task_names_exists(name):
    given = config(name)
    named = [v for v in given.values() if isinstance(v, str) and v.startswith("utils.")]
    named += [metric["aggregation"] for metric in given["metric_list"]]
    assert len(named) > 6 and all(callable(getattr(utils, n.removeprefix("utils."))) for n in named)
    assert given["task"] == name and given["output_type"] == "generate_until"
    assert (TASKS / given["dataset_kwargs"]["data_files"]["test"]).is_file()
    assert models.AVAILABLE_MODELS == {}


def answered(docs, speak, results):
    return [results(doc, [speak(doc)]) for doc in docs]


def aggregate(name, records):
    found = {}
    for metric in config(name)["metric_list"]:
        values = [record[metric["metric"]] for record in records]
        found[metric["metric"]] = getattr(utils, metric["aggregation"].removeprefix("utils."))(values)
    return found


def test_vqa_numbers_are_those_of_the_house(world, table):
    docs = utils.documents(("clean",))
    assert [doc["id"] for doc in docs] == [f"{e.id}/clean" for e in world.examples]
    right = aggregate("clinalign_vqa", answered(docs, lambda d: utils.example_of(d).full, utils.vqa_results))
    assert right["clinalign_accuracy"] == right["clinalign_balanced_accuracy"] == 1.0
    yes = aggregate("clinalign_vqa", answered(docs, lambda d: "Yes.", utils.vqa_results))
    assert yes["clinalign_yes_rate"] == 1.0 and yes["clinalign_balanced_accuracy"] == pytest.approx(0.5)
    silent = aggregate("clinalign_vqa", answered(docs, lambda d: "", utils.vqa_results))
    assert silent["clinalign_unanswered"] == 1.0 and np.isnan(silent["clinalign_accuracy"])


def test_ablation_names_a_model_that_ignores_the_image(world, table):
    docs = utils.documents(("clean", *utils.ABLATIONS))
    assert len(docs) == 5 * len(world.examples)
    prior = aggregate("clinalign_ablations", answered(docs, lambda d: "Yes." if len(d["question"]) % 2 else "No.",
                                                     utils.ablation_results))  # fmt: skip
    assert prior["clinalign_changed_shuffled"] == 0.0 and prior["clinalign_ignores_image"] == 1.0

    def look(doc):
        shown = utils.doc_to_visual(doc)
        return world.truth(doc["question"], [np.asarray(image) for image in shown])

    looks = aggregate("clinalign_ablations", answered(docs, look, utils.ablation_results))
    assert looks["clinalign_changed_shuffled"] > 0.5 and looks["clinalign_ignores_image"] == 0.0
    assert looks["clinalign_ablation_p"] > 0.99


def test_images_under_every_condition(world, table):
    by_condition = {
        doc["condition"]: doc for doc in utils.documents(("clean", *utils.ABLATIONS))[:: len(world.examples)]
    }
    clean = read_image(world.folder / world.examples[0].images[0])
    shown = {c: [np.asarray(i) for i in utils.doc_to_visual(doc)] for c, doc in by_condition.items()}
    assert np.array_equal(shown["clean"][0], clean) and shown["no_image"] == []
    assert not shown["blank"][0].any() and shown["noise"][0].shape == clean.shape
    donor = utils.example_of(by_condition["shuffled"], "donor")
    assert patient(donor) != patient(world.examples[0])
    assert np.array_equal(shown["shuffled"][0], read_image(world.folder / donor.images[0]))


def test_prompt_pieces_of_a_model_go_around_the_question(table):
    doc = utils.documents(("clean",))[0]
    assert utils.doc_to_text(doc, {"pre_prompt": "<", "post_prompt": ">"}) == f"<{doc['question']}>"


def test_what_is_missing_is_said_in_one_line(monkeypatch, table):
    monkeypatch.setenv("CLINALIGN_SPLIT", "dev")
    with pytest.raises(UsageError, match="no example has split 'dev'; set CLINALIGN_SPLIT"):
        utils.documents(("clean",))
    monkeypatch.delenv("CLINALIGN_DATA")
    with pytest.raises(UsageError, match="CLINALIGN_DATA is not set"):
        utils.documents(("clean",))
