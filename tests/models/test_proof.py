"""The proof at load: a family that is wrong is caught here, not by its user, and what cannot be packed is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny_types import build
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.models import VLM, load_vlm, proof
from clinalign.models.families import FAMILIES, Family

PROMPTS = [("Where is the nodule?", [tiny.image(1)]), ("Is there an effusion?", [])]


@pytest.mark.parametrize("name", tiny.EVERY_FAMILY)
def test_the_families_here_are_packed(name: str) -> None:
    found = proof.settle(vlm := tiny.tiny(name))
    assert found.packed and found.gap < 1e-5 and not vlm.unpacked


def test_nothing_is_left_behind() -> None:
    vlm = tiny.tiny("qwen3_vl")
    before = vlm.fingerprint()
    proof.settle(vlm)
    assert vlm.fingerprint() == before and not vlm.trainable() and vlm.model.model.rope_deltas is None
    assert not any(p.grad is not None for p in vlm.model.parameters())


def _shifted(family: Family) -> Family:
    return replace(family, positions=lambda *given: family.positions(*given) + 1)


def _stretched(family: Family) -> Family:
    """One place too many behind the first token."""

    def positions(*given: Any) -> Tensor:
        found = family.positions(*given).clone()
        found[:, 1:] += 1
        return found

    return replace(family, positions=positions)


def _mask_ignored(family: Family) -> Family:
    return replace(family, masks=lambda config, mask, *_: torch.ones_like(mask))


def _image_dropped(family: Family) -> Family:
    return replace(family, place=lambda embeddings, where, features: (embeddings, {}))


def _images_exchanged(family: Family) -> Family:
    return replace(family, encode=lambda model, processor, images: family.encode(model, processor, images)[::-1])


WRONG = (_shifted, _stretched, _mask_ignored, _image_dropped, _images_exchanged)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "generic mistral3", "generic glm4v"])
def test_a_wrong_family_is_caught_and_falls_back_to_its_own_forward(
    name: str, wrong: Callable[[Family], Family]
) -> None:
    """Of one axis of positions and of three, written down here and by what transformers tells."""
    generic = name.removeprefix("generic ")
    vlm, right = (build(generic) if name != generic else tiny.tiny(name) for _ in range(2))
    broken = VLM(vlm.model, vlm.processor, family=wrong(vlm.family))
    found = proof.settle(broken)
    assert not found.packed and broken.unpacked and found.gap < 1e-4
    assert "own forward" in found.reason or "packed forward fails" in found.reason
    line = found.line("x")
    assert line.startswith("x: unpacked") and found.reason in line and "a pass of its own" in line and "\n" not in line
    assert broken.generate(PROMPTS, max_new_tokens=6) == right.generate(PROMPTS, max_new_tokens=6)


def test_deeper_features_left_out_are_caught() -> None:
    vlm = tiny.tiny("qwen3_vl")
    right = FAMILIES["qwen3_vl"]
    wrong = replace(right, place=lambda *given: (right.place(*given)[0], {}))
    broken = VLM(vlm.model, vlm.processor, family=wrong)
    found = proof.settle(broken)
    assert not found.packed and "log-probabilities differ" in found.reason


def test_a_model_that_does_not_see_its_image_is_said_to_be_blind() -> None:
    vlm = tiny.tiny("llava")
    with torch.no_grad():
        vlm.model.model.multi_modal_projector.linear_2.weight.zero_()
    found = proof.settle(vlm)
    assert found.packed and not found.uses_image and "did not change with the image" in found.line("x")
    assert proof.settle(tiny.tiny("llava")).uses_image


def test_an_own_forward_that_looks_ahead_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer's tokens told to be an image's, which see each other."""
    vlm = tiny.tiny("gemma3")
    inputs = proof.own.inputs
    monkeypatch.setattr(
        proof.own, "inputs", lambda *given: {**(g := inputs(*given)), "token_type_ids": torch.ones_like(g["input_ids"])}
    )
    with pytest.raises(UsageError, match="see those behind them"):
        proof.settle(vlm)


def test_proved_once_for_a_folder_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tiny.save(tiny.tiny_llava(), tmp_path / "model"))
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(proof, "_proved", {})
    monkeypatch.setitem(FAMILIES, "llava", _stretched(FAMILIES["llava"]))
    calls: list[VLM] = []
    settle = proof.settle
    monkeypatch.setattr(proof, "settle", lambda vlm: (calls.append(vlm), settle(vlm))[1])
    first = load_vlm(folder)
    (kept,) = (tmp_path / "cache" / "proofs").iterdir()
    proof._proved.clear()  # another process
    second = load_vlm(folder)
    assert len(calls) == 1 and first.unpacked and second.unpacked and second.proof == first.proof
    said = capsys.readouterr().err
    assert said.count(f"{folder}: unpacked") == 1 and "other positions" in said
    kept.write_text("{", encoding="utf-8")
    proof._proved.clear()
    load_vlm(folder)
    assert len(calls) == 2
    load_vlm(folder, dtype="bfloat16")
    assert len(calls) == 3


def test_what_is_asked_for_is_not_proved_away(tmp_path: Path) -> None:
    folder = str(tiny.save(tiny.tiny_llava(), tmp_path / "model"))
    vlm = load_vlm(folder, unpacked=True)
    assert vlm.unpacked and vlm.family.known
    assert vlm.proof is not None and "unpacked=true asks for it" in vlm.proof.line("x")
