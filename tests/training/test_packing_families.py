"""The packed step of the families that the other tests of this room leave out: packed = separate passes."""

from __future__ import annotations

from dataclasses import replace

import naive
import packing
import pytest
import tiny
from test_packing import WEIGHTS, check, gradient, mixed, policy, steps

from clinalign.models import VLM
from clinalign.models.families import FAMILIES

OTHERS = [family for family in tiny.EVERY_FAMILY if family not in tiny.FAMILIES]


@pytest.fixture(scope="module", params=OTHERS)
def vlm(request: pytest.FixtureRequest) -> VLM:
    return policy(request.param)


def test_every_family_is_tested() -> None:
    assert set(tiny.EVERY_FAMILY) == set(FAMILIES)


def test_packed_equals_separate_passes_in_value_and_gradient(vlm: VLM) -> None:
    """One image, two images, text alone with an insertion, no corrupted twin: four pairs in one padded batch."""
    samples = mixed(vlm)
    known = [naive.passes(vlm, sample, packing.read(vlm)) for sample in samples]
    for name in ("firempo", "dpo", "rrpo_authors"):
        for padding in ("right", "left"):
            check(vlm, samples, known, name, WEIGHTS, padding=padding)


def test_the_loss_changes_when_the_image_changes(vlm: VLM) -> None:
    samples = mixed(vlm)[:1]
    other = [replace(samples[0], images=["2"])]
    a, b = (steps(vlm, s, "dpo").loss(range(1))[0] for s in (samples, other))
    assert abs(a.item() - b.item()) > 1e-4


def test_the_window_is_shorter_than_the_sequence_and_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma: neither one mask for all layers nor an image read in one direction gives the model's own numbers."""
    vlm = policy("gemma3")
    samples = mixed(vlm)[:1]
    assert samples[0].size() > vlm.language_model.config.sliding_window
    right = steps(vlm, samples, "firempo").loss(range(1))[0]
    masks = FAMILIES["gemma3"].masks

    def no_window(*given):
        return dict.fromkeys(("full_attention", "sliding_attention"), masks(*given)["full_attention"])

    def one_way(*given):
        return masks(*given[:-1], None)

    for wrong in (no_window, one_way):
        monkeypatch.setattr(vlm, "family", replace(FAMILIES["gemma3"], masks=wrong))
        loss = steps(vlm, samples, "firempo").loss(range(1))[0]
        assert abs(loss.item() - right.item()) > 1e-3
        assert (gradient(vlm, loss) - gradient(vlm, right, retain=True)).norm() > 1e-3
