"""Types of transformers by the generic family, on tiny models: packed or unpacked as they must be, and right."""

from __future__ import annotations

from pathlib import Path

import families
import pytest
import torch
from tiny_types import build
from tiny_types.sizes import NOT_DECODERS
from transformers.models.auto import image_processing_auto, processing_auto

from clinalign.decoding import decode
from clinalign.decoding.options import DECODERS
from clinalign.errors import RowError, UsageError
from clinalign.models import own, proof
from clinalign.models.head import Readout
from clinalign.models.processors import of_transformers

NAMED = {
    "llava": "packed",
    "llava_next": "packed",
    "llava_onevision": "packed",
    "qwen2_vl": "packed",
    "qwen2_5_vl": "packed",
    "qwen3_vl": "packed",
    "qwen3_5": "unpacked",
    "gemma3": "packed",
    "gemma4": "unpacked",
    "paligemma": "unpacked",
    "smolvlm": "packed",
    "idefics3": "packed",
    "internvl": "packed",
    "mistral3": "packed",
    "glm4v": "packed",
}
WHY = {"qwen3_5": "linear attention", "gemma4": "per_layer_inputs", "paligemma": "look both ways"}


@pytest.mark.parametrize("kind", NAMED)
def test_a_named_type_works(kind: str) -> None:
    """Packed = separate, two images, text alone, padding, generate, an adapter, saved and loaded."""
    row = families.examine(kind)
    assert row["verdict"] == NAMED[kind], row["reason"]
    assert row["gap"] < 1e-4 and WHY.get(kind, "") in row["reason"]


def test_scaled_and_capped_logits_are_the_models_own() -> None:
    """Granite divides its logits, Cohere multiplies them, Gemma 4 caps them."""
    found = {kind: build(kind) for kind in ("granite_docling", "cohere_compass", "gemma4")}
    assert all(proof.settle(vlm).gap < 1e-4 for vlm in found.values())
    assert [vlm.readout for vlm in found.values()] == [Readout(0.25), Readout(0.25), Readout(1.0, 5.0)]


def test_a_last_layer_of_another_form_computes_all_its_columns() -> None:
    """Cohere's last layer does not rotate its keys: computing chosen columns as usual would be wrong."""
    vlm = build("aya_vision")
    assert proof.settle(vlm).packed and not vlm.column_subset


OFTEN = ("llava", "llava_next", "qwen3_vl", "gemma3", "hunyuan_vl")
"""With positions of one axis and of three, tiles, windows, deeper features; the other packed types are slow tests."""
PACKED = (*OFTEN, *(kind for kind, verdict in NAMED.items() if verdict == "packed" and kind not in OFTEN))


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in OFTEN else [pytest.mark.slow]) for kind in PACKED]
)
def test_every_decoder_runs_or_says_what_it_lacks(kind: str) -> None:
    vlm = build(kind)
    proof.settle(vlm)
    prompts = [("Where is the nodule?", [families._picture(1)])]
    plain = vlm.generate(prompts, max_new_tokens=4)
    assert decode(vlm, prompts, "greedy", max_new_tokens=4) == plain
    for name in DECODERS:
        try:
            assert len(decode(vlm, prompts, name, max_new_tokens=4)[0].token_ids) > 0
        except UsageError as error:
            assert kind in str(error) and len(str(error)) > 30 or "calibration" in str(error)


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
