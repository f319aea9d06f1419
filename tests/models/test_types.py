"""Types of transformers by the generic family, on tiny models: packed or unpacked as they must be, and right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from neutral import NEUTRAL
from tiny_types import build, sizes
from tiny_types.sizes import NOT_DECODERS
from transformers.models.auto import image_processing_auto, processing_auto

from clinalign.decoding import check, decode
from clinalign.decoding.cai import calibrate
from clinalign.decoding.options import DECODERS
from clinalign.errors import RowError, UsageError
from clinalign.folder import load_model, load_shapes_of
from clinalign.models import own, proof
from clinalign.models.head import Readout
from clinalign.models.processors import of_transformers
from clinalign.preflight.model import _sightless, decoder_findings
from clinalign.recipe import load_recipe

NAMED = {
    "llava": "packed",
    "llava_next": "packed",
    "llava_onevision": "packed",
    "qwen2_vl": "packed",
    "qwen2_5_vl": "packed",
    "qwen3_vl": "packed",
    "qwen3_5": "unpacked",
    "gemma3": "packed",
    "gemma4": "packed",
    "paligemma": "unpacked",
    "smolvlm": "packed",
    "idefics3": "packed",
    "internvl": "packed",
    "mistral3": "packed",
    "glm4v": "packed",
}
WHY = {"qwen3_5": "linear attention", "paligemma": "look both ways"}
ALIKE = ("llava", "qwen2_5_vl", "idefics3", "internvl")
"""In `test_vlm.py` under their own functions, and three of them packed as another one here is (llava_next, qwen2_vl,
smolvlm): slow tests."""


def often(kinds: Iterable[str], wanted: Callable[[str], bool]) -> list[Any]:
    """Types to try, those that are not wanted in the slow tests alone."""
    return [pytest.param(kind, marks=[] if wanted(kind) else [pytest.mark.slow]) for kind in kinds]


@pytest.mark.parametrize("kind", often(NAMED, lambda kind: kind not in ALIKE))
def test_a_named_type_works(kind: str) -> None:
    """Packed = separate, two images, text alone, padding, generate, an adapter, saved and loaded."""
    row = families.examine(kind)
    assert row["verdict"] == NAMED[kind], row["reason"]
    assert row["gap"] < 1e-4 and WHY.get(kind, "") in row["reason"]


def test_the_larger_gemma_4_is_packed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image's tokens see each other there, in layers with a window alone, and no layer has embeddings of its own."""
    settings = {"text_config.use_bidirectional_attention": "vision", "text_config.hidden_size_per_layer_input": 0}
    monkeypatch.setitem(sizes.CONFIG, "gemma4", sizes.CONFIG.get("gemma4", {}) | settings)
    row = families.examine("gemma4")
    assert row["verdict"] == "packed" and row["gap"] < 1e-4, row["reason"]


@pytest.mark.slow
def test_gemma_4_with_shared_keys_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers 3 and 4 have the keys of 1 and 2; its own forward goes through them with the last tokens alone."""
    layers = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
    settings = {f"text_config.{name}": value for name, value in (layers | {"num_kv_shared_layers": 2}).items()}
    monkeypatch.setitem(sizes.CONFIG, "gemma4", sizes.CONFIG.get("gemma4", {}) | settings)
    found = proof.settle(vlm := build("gemma4"))
    assert found.packed and found.gap < 1e-4 and not vlm.unpacked


def test_scaled_and_capped_logits_are_the_models_own() -> None:
    """Granite divides its logits, Cohere multiplies them, Gemma 4 caps them."""
    found = {kind: build(kind) for kind in ("granite_docling", "cohere_compass", "gemma4")}
    assert all(proof.settle(vlm).gap < 1e-4 for vlm in found.values())
    assert [vlm.readout for vlm in found.values()] == [Readout(0.25), Readout(0.25), Readout(1.0, 5.0)]


def test_a_last_layer_of_another_form_computes_all_its_columns() -> None:
    """Cohere's last layer does not rotate its keys: computing chosen columns as usual would be wrong."""
    vlm = build("aya_vision")
    assert proof.settle(vlm).packed and not vlm.column_subset


OFTEN = ("llava_next", "qwen2_vl", "gemma3", "glm4v")
"""Tiles, rows and columns as positions, windows, another rotation; the others are slow tests."""
PACKED = (*OFTEN, *(kind for kind, verdict in NAMED.items() if verdict == "packed" and kind not in OFTEN))
NO_GRID = {
    "damro": "class token",
    "second": "its tower's patches become image tokens is not known",
}
TILED = NO_GRID | {"second": "several grids and ends of rows"}
WINDOWS = {"imccd": "more than one way", "med_vcd": "layers with a window"}
LACKS = {
    **dict.fromkeys(("llava_next", "llava_onevision", "internvl", "idefics3", "smolvlm", "mistral3"), TILED),
    "llava": {"second": NO_GRID["second"]},
    "gemma3": TILED | WINDOWS,
    "gemma4": NO_GRID | WINDOWS,
    "glm4v": NO_GRID | {"imccd": "do not turn positions as its decoder's rotation says"},
}
"""What the generic family of a type lacks, by decoder."""


@pytest.mark.parametrize("kind", often(PACKED, OFTEN.__contains__))
def test_every_decoder_runs_or_says_what_it_lacks(kind: str, tmp_path: Path) -> None:
    """At its neutral setting it is greedy, at its default a batch padded on the left is its rows one by one; what does
    not run is refused before a token is drawn."""
    vlm = build(kind)
    proof.settle(vlm)
    pictures = [families._picture(i) for i in range(10)]
    prompts = [("Where is the nodule?", pictures[1:2]), ("Is there an effusion on the left?", pictures[2:3])]
    plain = [answer.token_ids for answer in vlm.generate(prompts, max_new_tokens=4)]
    calibrate(vlm, pictures, ["Where?"] * 10, share=0.5, batch_size=10).save(tmp_path / "cai.safetensors")
    refused = {}
    for name, options in DECODERS.items():
        more = {"calibration": str(tmp_path / "cai.safetensors")} if name == "cai" else {}
        try:
            check(vlm, options(**more))
        except UsageError as error:
            refused[name] = str(error)
            continue
        neutral = options(**more, **NEUTRAL.get(name, [{}])[0])
        assert [a.token_ids for a in decode(vlm, prompts, neutral, max_new_tokens=4)] == plain, name
        together, alone = (decode(vlm, prompts, options(**more), max_new_tokens=2, batch_size=n) for n in (2, 1))
        assert together == alone and all(answer.token_ids for answer in together), name
    expected = LACKS.get(kind, NO_GRID)
    assert set(refused) == set(expected)
    for name, text in refused.items():
        assert f"decoder '{name}' does not work with family '{kind}'" in text and expected[name] in text


def test_what_a_type_lacks_shows_when_it_is_loaded_and_not_in_the_middle_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its weights it is not known whether such a model is packed: preflight says so, loading decides."""
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))
    vlm = build("llava_next")
    vlm.model.save_pretrained(tmp_path / "model")
    vlm.processor.save_pretrained(tmp_path / "model")
    overrides = [f"model={tmp_path / 'model'}", "evaluate.grounding=true", "evaluate.decoder=m3id"]
    recipe = load_recipe("phantom", overrides)
    shapes = load_shapes_of(recipe)
    assert [f.verdict for f in decoder_findings(recipe, shapes)] == ["warning"] and not _sightless(recipe, shapes)
    assert load_model(recipe).family.known
    with pytest.raises(UsageError, match="decoder 'damro' does not work with family 'llava_next'"):
        load_model(load_recipe("phantom", [overrides[0], "evaluate.decoder=damro"]))
    with pytest.raises(UsageError, match="resized_pixels, but the size at which a llava_next model sees"):
        load_shapes_of(load_recipe("phantom", [overrides[0], "boxes=resized_pixels"]))


def test_more_images_than_a_model_takes_cost_the_row() -> None:
    vlm = build("paligemma")
    proof.settle(vlm)
    picture = families._picture(1)
    with pytest.raises(RowError, match="takes 1 image a question, this one has 2"):
        vlm.prompt_text("?", 2)
    assert vlm.generate([("?", [picture])], max_new_tokens=2)


@pytest.mark.parametrize("kind", ["qwen3_vl", "llava_next", "smolvlm", "mistral3"])
def test_processors_are_the_same_where_torchvision_looks_installed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Image processors are their PIL form by name, videos are left out, torchvision is not asked for."""
    vlm = build(kind)
    vlm.model.config.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    found = []
    for installed in (False, True):
        for module in (image_processing_auto, processing_auto):
            monkeypatch.setattr(module, "is_torchvision_available", lambda there=installed: there, raising=False)
        processor = of_transformers(str(tmp_path), str(tmp_path), kind)
        assert type(processor.image_processor).__name__.endswith("Pil")
        found.append(own.processed(processor, vlm.prompt_text("Where?", 1), [families._picture(1)]))
    without, beside = found
    assert without.keys() == beside.keys() and all(torch.equal(without[name], beside[name]) for name in without)


def test_the_table_counts_what_the_rows_say(tmp_path: Path) -> None:
    rows = [families.examine(kind) for kind in ("llava", "lfm2_vl")]
    found = families.summary(rows)
    counts = {name: found[name] for name in ("types", "work", "packed", "unpacked", "refused", "wrong")}
    assert counts == {"types": 2, "work": 1, "packed": 1, "unpacked": 0, "refused": 1, "wrong": 0}
    page = tmp_path / "page.md"
    page.write_text(f"before\n{families.BEGIN}\nold\n{families.END}\nafter\n", encoding="utf-8")
    families.write_table(page, rows, found)
    text = page.read_text(encoding="utf-8")
    assert "| `llava` | packed |" in text and "needs torchvision" in text and "old" not in text
    assert text.startswith("before\n") and text.endswith("\nafter\n")


def test_every_type_is_tried_or_named_as_no_decoder() -> None:
    assert set(NOT_DECODERS) < set(families.TYPES) and set(NAMED) < set(families.TYPES) - set(NOT_DECODERS)
