"""What people get wrong before a run: each a change to a recipe that works, or to the files that it names.

`MISTAKES` holds (name, overrides, what to do to the folder, words of the refusal). In overrides `{here}` is the folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny
from PIL import Image

HEADER = "image,question,answer,box,patient_id,split\n"
ROWS = (
    'a.png,Is there a nodule?,yes,"[4, 4, 8, 8]",p1,align\n'
    "b.png,Is there a nodule?,no,,p2,align\n"
    'c.png,Is there an effusion?,yes,"[2, 2, 9, 9]",p3,test\n'
    "d.png,Is there an effusion?,no,,p4,test\n"
)
Change = Callable[[Path, pytest.MonkeyPatch], Any]


class Mistake(NamedTuple):
    name: str
    overrides: list[str]
    change: Change
    words: str


def working(here: Path) -> Path:
    """A recipe that runs: a table of four questions, and a copy of the embedded model."""
    from clinalign.models.guard import source_of

    for number, name in enumerate("abcd"):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(here / f"{name}.png")
    (here / "q.csv").write_text(HEADER + ROWS)
    shutil.copytree(source_of("embedded"), here / "model")
    (here / "r.yaml").write_text(
        f"model: {here}/model\ndata: {{source: table, path: {here}/q.csv}}\n"
        f"align: {{max_steps: 1, batch: 2, cache: {here}/cache, lora: {{r: 2, alpha: 4}}}}\n"
    )
    return here / "r.yaml"


def nothing(here: Path, patch: pytest.MonkeyPatch) -> None:
    pass


def rows(text: str, header: str = HEADER) -> Change:
    return lambda here, patch: (here / "q.csv").write_text(header + text)


def content(name: str, data: bytes) -> Change:
    return lambda here, patch: (here / name).write_bytes(data)


def without(*names: str) -> Change:
    return lambda here, patch: [(here / name).unlink() for name in names if (here / name).exists()]


def settings(name: str, **values: Any) -> Change:
    """Values put into a JSON file of the folder."""

    def change(here: Path, patch: pytest.MonkeyPatch) -> None:
        known = json.loads((here / name).read_text())
        (here / name).write_text(json.dumps(known | values))

    return change


def pickled(here: Path, patch: pytest.MonkeyPatch) -> None:
    for path in (here / "model").glob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))


def cut(here: Path, patch: pytest.MonkeyPatch) -> None:
    path = here / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def fewer_weights(here: Path, patch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    path = here / "model" / "model.safetensors"
    kept = load_file(path)
    kept.pop(sorted(name for name in kept if "layers.0" in name)[0])
    save_file(kept, path, metadata={"format": "pt"})


def index(shard: str) -> Change:
    """The weights in shards, of which the index names one that is not there."""

    def change(here: Path, patch: pytest.MonkeyPatch) -> None:
        (here / "model" / "model.safetensors").unlink()
        (here / "model" / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": {"x": shard}})
        )

    return change


def no_template(here: Path, patch: pytest.MonkeyPatch) -> None:
    for name in ("chat_template.jinja", "chat_template.json"):
        (here / "model" / name).unlink(missing_ok=True)
    for name in ("tokenizer_config.json", "processor_config.json"):
        path = here / "model" / name
        if path.is_file():
            known = json.loads(path.read_text())
            known.pop("chat_template", None)
            path.write_text(json.dumps(known))


def family(name: str) -> Change:
    return lambda here, patch: tiny.save(tiny.tiny(name), here / "other")


def unknown_family(here: Path, patch: pytest.MonkeyPatch) -> None:
    from clinalign.models.families import FAMILIES

    patch.delitem(FAMILIES, "llava")


def full_disk(here: Path, patch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    patch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1 << 20))


def small_memory(here: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("clinalign.preflight.model.device_memory", lambda name: 1 << 20)


def four_processes(here: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("WORLD_SIZE", "4")


def two_processes_of_nobody(here: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("WORLD_SIZE", "2")
    patch.delenv("MASTER_ADDR", raising=False)


def no_tracker(here: Path, patch: pytest.MonkeyPatch) -> None:
    import sys

    patch.setitem(sys.modules, "wandb", None)


DEAD = "http://127.0.0.1:9/v1"
LLM = f"pair.llm={{base_url: '{DEAD}', model: m, retries: 0"
JUDGE = f"evaluate.llm={{base_url: '{DEAD}', model: m, retries: 0"
MISSING_SPLIT = ROWS.replace("test", "align")

MISTAKES = [
    Mistake("unknown key", ["align.learnrate=1"], nothing, "unknown key"),
    Mistake("bad value", ["align.beta=-1"], nothing, "align.beta"),
    Mistake("bad method", ["align.method=ppo"], nothing, "align.method"),
    Mistake("bad device word", ["device=gpu"], nothing, "device"),
    Mistake("label of the method", ["compare={firempo: {}}"], nothing, "rename it"),
    Mistake("judge without endpoint", ["evaluate.judge=llm"], nothing, "evaluate.llm.base_url"),
    Mistake("editor without endpoint", ["pair.editor=llm"], nothing, "pair.llm.base_url"),
    Mistake("replay without replies", ["pair={editor: replay, llm: {model: m}}"], nothing, "set pair.replay"),
    Mistake("dataset pairs over rounds", ["pair.editor=dataset", "rounds=2"], nothing, "set rounds to 1"),
    Mistake("no model folder", ["model={here}/none"], nothing, "no such model folder"),
    Mistake("folder without config", ["model={here}"], nothing, "config.json is missing"),
    Mistake("broken config", [], content("model/config.json", b"{"), "not a model configuration"),
    Mistake("other family", [], settings("model/config.json", model_type="qwen2_audio"), "is not supported"),
    Mistake("pickled weights", [], pickled, "pickled weights"),
    Mistake("weights cut short", [], cut, "cannot load the weights"),
    Mistake("no weights", [], without("model/model.safetensors"), "cannot load the weights"),
    Mistake("a weight is missing", [], fewer_weights, "weights are missing"),
    Mistake("shard not there", [], index("model-00001-of-00002.safetensors"), "cannot load the weights"),
    Mistake("shard outside", [], index("../x.safetensors"), "outside the folder"),
    Mistake("no image processor", [], without("model/preprocessor_config.json", "model/processor_config.json"),
            "ships no image processor"),
    Mistake("processor not there", ["processor={here}/none"], nothing, "no such model folder"),
    Mistake("no chat template", [], no_template, "no chat template"),
    Mistake("broken chat template", [], content("model/chat_template.jinja", b"{% if %}"), "chat template"),
    Mistake("no GPU", ["device=cuda:7"], nothing, "use auto or cpu"),
    Mistake("4 bit on a CPU", ["quantize=4bit"], nothing, "quantize"),
    Mistake("float16", ["dtype=float16"], nothing, "small gradients vanish"),
    Mistake("all weights in bfloat16", ["align.tune=full", "dtype=bfloat16"], nothing, "align.bf16=true"),
    Mistake("all weights in a system compared", ["compare={x: {tune: full}}", "dtype=bfloat16"], nothing,
            "compare.x.tune"),
    Mistake("all weights without a cache", ["align.tune=full", "align.cache=off"], nothing, "set a folder"),
    Mistake("all weights over rounds", ["align.tune=full", "rounds=2"], nothing, "reference=previous"),
    Mistake("no table", ["data.path={here}/none.csv"], nothing, "none.csv: not there"),
    Mistake("no data set folder", ["data={source: slake, path: /none}"], nothing, "/none: not there"),
    Mistake("folder of another data set", ["data={source: slake, path: '{here}'}"], nothing, "train"),
    Mistake("no image folder", ["data.images={here}/none"], nothing, "data.images"),
    Mistake("no key file", ["data.key_file={here}/none"], nothing, "data.key_file"),
    Mistake("another format", ["data.path={here}/r.yaml"], nothing, "a table is .csv"),
    Mistake("empty table", [], content("q.csv", b""), "is empty"),
    Mistake("header alone", [], rows(""), "no rows"),
    Mistake("not UTF-8", [], content("q.csv", "image,question,answer\na.png,q,schön\n".encode("latin-1")), "UTF-8"),
    Mistake("no answer column", [], rows("a.png,q,yes\n", "image,question,reply\n"), "no column 'answer'"),
    Mistake("columns of ours unknown", ["data.columns={quesion: q}"], nothing, "did you mean 'question'"),
    Mistake("no image is there", [], without("a.png", "b.png", "c.png", "d.png"), "a.png"),
    Mistake("no image opens", [], lambda here, patch: [(here / f"{n}.png").write_bytes(b"x") for n in "abcd"],
            "unreadable_image"),
    Mistake("boxes outside", [], rows(ROWS.replace("[4, 4, 8, 8]", "[90, 0, 9, 9]").replace("[2, 2, 9, 9]", "[1]")
                                      .replace("b.png", "x.png").replace("d.png", "y.png")), "no usable row"),
    Mistake("an empty image cell", [], rows(ROWS.replace("b.png", "")), "set data.empty_image to text"),
    Mistake("findings that are no columns", ["data.findings=[edema]"], nothing, "no column 'edema'"),
    Mistake("a template without a place", ["data={findings: [a], template: 'Is it?', source: table, path: x}"], nothing,
            "template needs a place"),
    Mistake("a patient in two splits", [], rows(ROWS.replace("p3", "p1")), "keep every patient in one split"),
    Mistake("no test split", [], rows(MISSING_SPLIT), "no example has split 'test'"),
    Mistake("no align split", [], rows(ROWS.replace("align", "test")), "no example has split 'align'"),
    Mistake("evaluates no split", ["evaluate.split=tset"], nothing, "no example has split 'tset'"),
    Mistake("shares of zero", ["data.original_splits=false", "data.splits={align: 0}"], nothing, "every share is 0"),
    Mistake("strict with a bad row", ["strict=true"], rows(ROWS + "x.png,Is it?,no,,p9,align\n"), "strict=true"),
    Mistake("dataset pairs without rejected", ["pair.editor=dataset"], nothing, "rejected"),
    Mistake("shuffled with one patient", ["evaluate.ablations=[shuffled]"], rows(ROWS.replace("p4", "p3")),
            "needs two patients"),
    Mistake("editor unreachable", ["pair.editor=llm", f"{LLM}}}"], nothing, "cannot be reached"),
    Mistake("editor's key", ["pair.editor=llm", f"{LLM}, api_key_env: NO_SUCH_KEY}}"], nothing, "$NO_SUCH_KEY is not"),
    Mistake("editor's address", ["pair={editor: llm, llm: {base_url: 'localhost', model: m}}"], nothing,
            "give http://host:port/v1"),
    Mistake("replies not there", ["pair={editor: replay, replay: '{here}/none', llm: {model: m}}"], nothing,
            "recorded replies"),
    Mistake("replies damaged", ["pair={editor: replay, replay: '{here}/r.jsonl', llm: {model: m}}"],
            content("r.jsonl", b"{\n"), "not a recorded reply"),
    Mistake("judge unreachable", ["evaluate.judge=llm", f"{JUDGE}}}"], nothing, "cannot be reached"),
    Mistake("judge's replies not there", ["evaluate={judge: llm, replay: '{here}/none', llm: {model: m}}"], nothing,
            "recorded replies"),
    Mistake("decisions not there", ["pair.decisions={here}/none.jsonl"], nothing, "decisions.jsonl"),
    Mistake("decisions damaged", ["pair.decisions={here}/d.jsonl"], content("d.jsonl", b"{}\n"), "pair"),
    Mistake("segmenter not there", ["corrupt.segmenter={here}/none"], nothing, "no segmenter here"),
    Mistake("segmenter of another kind", ["corrupt.segmenter={here}/model"], nothing, "is no segmenter"),
    Mistake("teacher not there", ["align.distill={teacher: '{here}/none'}"], nothing, "cannot load the teacher"),
    Mistake("teacher of another kind", ["align.distill={teacher: '{here}/model'}"], nothing, "is no teacher"),
    Mistake("a projector in bfloat16", ["align.train=[language, projector]", "dtype=bfloat16"], nothing,
            "projector in bfloat16 round small updates away"),
    Mistake("a tower unpacked", ["compare={x: {train: [tower]}}", "unpacked=true"], nothing,
            "compare.x.train: projector or tower needs the packed forward"),
    Mistake("a reinforced projector", ["align={train: [projector], reinforce: {}}"], nothing,
            "reinforcement trains the language model alone"),
    Mistake("layers that are not there", ["align.distill={layers: [99]}"], nothing, "has layers 0 to"),
    Mistake("distillation unpacked", ["align.distill={}", "unpacked=true"], nothing, "unpacked=false"),
    Mistake("grounding of an unknown family", ["evaluate.grounding=true", "unpacked=true"], unknown_family,
            "attention is not measured"),
    Mistake("decoder of an unknown family", ["evaluate.decoder=vcd", "unpacked=true"], unknown_family,
            "needs a family that is known"),
    Mistake("decoder of another family", ["evaluate.decoder=damro", "model={here}/other"], family("qwen2_5_vl"),
            "does not work with family"),
    Mistake("decoder without calibration", ["evaluate.decoder=cai"], nothing, "no calibration"),
    Mistake("calibration not there", ["evaluate.decoder={name: cai, calibration: '{here}/none'}"], nothing,
            "decoding.cai.calibrate"),
    Mistake("flipped preference, no corruption", ["corrupt.kind=none"], nothing, "corrupt.kind=noise"),
    Mistake("mDPO, no corruption", ["align.method=dpo", "compare={m: {method: mdpo}}", "corrupt.kind=none"], nothing,
            "compare.m.method"),
    Mistake("tracker not installed", ["align.report_to=[wandb]"], no_tracker, "wandb is not installed"),
    Mistake("more processes than pairs", [], four_processes, "4 processes"),
    Mistake("processes without a launcher", [], two_processes_of_nobody, "no launcher started this"),
    Mistake("disk full", [], full_disk, "free some space"),
    Mistake("too little memory", [], small_memory, "take a smaller model"),
]  # fmt: skip
