"""The reference cache: the same numbers as a second forward, shared by methods, refused where it does not belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import packing
import pytest
import tiny
import torch

from clinalign.errors import UsageError
from clinalign.models import VLM
from clinalign.models.features import Features
from clinalign.objectives import METHODS, LossCoefficients
from clinalign.storage import cache_folder
from clinalign.storage.tensors import read_tensors, write_tensors
from clinalign.training.batches import plan_for
from clinalign.training.encode import Sample
from clinalign.training.reference import Reference
from clinalign.training.step import PackedSteps

WEIGHTS = LossCoefficients(beta=0.5, alpha=0.3, gamma=0.7, lam=0.4)


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def vlm(request: pytest.FixtureRequest) -> VLM:
    model = tiny.tiny(request.param)
    model.attach_lora(r=4, alpha=8, dropout=0.0)
    tiny.perturb(model)
    return model


@pytest.fixture
def llava() -> VLM:
    return tiny.tiny_llava()


def some(vlm: VLM) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        packing.sample(vlm, 0, rng),
        packing.sample(vlm, 1, rng, images=2, fork=0, tails=(5, 2)),
        packing.sample(vlm, 2, rng, images=0, spans=(0, 2)),
    ]


def stored(reference: Reference) -> list[dict[str, torch.Tensor]]:
    return [reference.store.get(key) for key in sorted(reference.store.keys())]


@packing.EVERY_METHOD
def test_cached_equals_computed_now_for_every_method(vlm: VLM, every: bool, tmp_path: Path) -> None:
    """One folder serves all of them; after the first pass over the methods nothing is computed again."""
    samples, features = some(vlm), Features(vlm, packing.read(vlm))
    caches = [Reference(vlm, features, tmp_path) for _ in range(2)]
    for round_, cache in enumerate(caches):
        for name in packing.methods_to_try(WEIGHTS, every):
            usable = packing.usable(samples, METHODS[name])
            now = PackedSteps(vlm, usable, METHODS[name], WEIGHTS, features)
            cached = PackedSteps(vlm, usable, METHODS[name], WEIGHTS, features, cache)
            losses = [steps.loss(range(len(usable)))[0] for steps in (now, cached)]
            assert losses[0].item() == pytest.approx(losses[1].item(), abs=5e-6)
            grads = [
                torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(vlm.trainable().values()))])
                for loss in losses
            ]
            assert (grads[0] - grads[1]).norm() <= 1e-5 * grads[0].norm()
        assert (cache.computed > 0) == (round_ == 0)
        cache.store.flush()
    assert len(stored(caches[0])) == 3


def test_only_log_probs_and_hidden_states_are_kept_never_logits(llava: VLM, tmp_path: Path) -> None:
    samples, features = some(llava), Features(llava, packing.read(llava))
    reference = Reference(llava, features, tmp_path)
    assert reference.fill(samples, plan_for(METHODS["mask_dpo"], WEIGHTS)) == 3
    assert all(set(record) == {"chosen", "rejected"} for record in stored(reference))
    assert reference.fill(samples, plan_for(METHODS["firempo"], WEIGHTS)) == 2  # the third has neither
    values = stored(reference)
    assert {tuple(sorted(v)) for v in values} >= {
        ("chosen", "corrupt_chosen", "corrupt_rejected", "index", "rejected", "states")
    }
    assert all(v["states"].shape == (len(v["index"]), 32) for v in values if "states" in v)
    assert not any(len(llava.tokenizer) in tensor.shape for v in values for tensor in v.values())


def test_fill_is_done_once_and_a_smaller_need_is_met_by_a_larger_one(llava: VLM, tmp_path: Path) -> None:
    samples, features = some(llava), Features(llava, packing.read(llava))
    reference = Reference(llava, features, tmp_path)
    large, small = (plan_for(METHODS[name], WEIGHTS) for name in ("rrpo_authors", "rrpo"))
    assert reference.fill(samples, large, batch_size=2) == 3
    assert reference.fill(samples, small) == reference.fill(samples, large) == 0
    assert reference.fill(samples, plan_for(METHODS["firempo"], WEIGHTS)) == 2  # the text-only one has all it needs
    assert reference.fill(samples, large) == 0  # what was there is still there


@pytest.mark.parametrize("what", ["image", "prompt", "answer", "weights", "processor"])
def test_anything_that_changes_the_numbers_changes_the_key(what: str, tmp_path: Path) -> None:
    vlm = tiny.tiny_llava()
    samples, plan = some(vlm)[:1], plan_for(METHODS["firempo"], WEIGHTS)
    Reference(vlm, Features(vlm, packing.read(vlm)), tmp_path).fill(samples, plan)
    read = packing.read(vlm)
    if what == "image":
        read = lambda key: 255 - packing.read(vlm)(key)  # noqa: E731
    elif what == "prompt":
        samples[0].prompt = samples[0].prompt[:-1]
    elif what == "answer":
        samples[0].answers["rejected"][-2] += 1
    elif what == "weights":
        with torch.no_grad():
            vlm.language_model.layers[0].mlp.up_proj.weight[0, 0] += 1
    else:
        vlm.processor.image_processor.image_mean = [0.5, 0.5, 0.5]
    assert Reference(vlm, Features(vlm, read), tmp_path).fill(samples, plan) == 1


def test_the_adapter_does_not_change_the_key(llava: VLM, tmp_path: Path) -> None:
    samples, plan = some(llava), plan_for(METHODS["firempo"], WEIGHTS)
    Reference(llava, Features(llava, packing.read(llava)), tmp_path).fill(samples, plan)
    llava.attach_lora(r=2, alpha=4)
    tiny.perturb(llava)
    again = Reference(llava, Features(llava, packing.read(llava)), tmp_path)
    assert again.fill(samples, plan) == 0 and again.verify(samples, plan) == 3


def test_wrong_values_are_refused_with_the_record_and_the_remedy(llava: VLM, tmp_path: Path) -> None:
    samples, plan = some(llava), plan_for(METHODS["firempo"], WEIGHTS)
    reference = Reference(llava, Features(llava, packing.read(llava)), tmp_path)
    assert reference.verify(samples, plan) == 0
    reference.fill(samples, plan)
    assert reference.verify(samples, plan, count=2) == 2
    key = sorted(reference.store.keys())[0]
    values = reference.store.get(key)
    reference.store.put({key: values | {"rejected": values["rejected"] - 0.01}})
    with pytest.raises(UsageError, match=r"cached 'rejected' of record 'pair\d' is off by 0.01.*delete"):
        reference.verify(samples, plan, count=3)


@pytest.mark.parametrize("what", ["cut in half", "another processor"])
def test_a_file_that_does_not_belong_is_one_line_and_made_anew(
    llava: VLM, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    samples, plan = some(llava), plan_for(METHODS["firempo"], WEIGHTS)
    reference = Reference(llava, Features(llava, packing.read(llava)), tmp_path)
    reference.fill(samples, plan)
    expected = stored(reference)
    [path] = reference.folder.glob("*.safetensors")
    if what == "cut in half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        tensors, facts = read_tensors(path, "a shard", "")
        write_tensors(path, tensors, {"made_with": facts["made_with"] | {"processor": "0"}})
    again = Reference(llava, Features(llava, packing.read(llava)), tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if str(path) in line]
    assert len(said) == 1 and "made anew" in said[0]
    assert ("made with other processor" in said[0]) == (what == "another processor")
    assert again.fill(samples, plan) == 3 and len(list(again.folder.glob("*.safetensors"))) == 1
    for record, before in zip(stored(again), expected, strict=True):
        assert all(torch.equal(record[name], before[name]) for name in before)


def test_training_all_weights_needs_the_cache_first(llava: VLM, tmp_path: Path) -> None:
    samples, features = some(llava), Features(llava, packing.read(llava))
    llava.unfreeze_language_model()
    with pytest.raises(UsageError, match="fill the reference cache before step one"):
        PackedSteps(llava, samples, METHODS["dpo"], WEIGHTS, features).loss([0])


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CLINALIGN_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "clinalign"
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path and cache_folder("/elsewhere") == Path("/elsewhere")
    assert cache_folder("off") is None
