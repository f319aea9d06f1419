"""The table of suites: who is asked, with which weights, and that chains can be learnt at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import suites
import torch

from clinalign.data.phantom.dataset import split_patients
from clinalign.data.phantom.suites import write_suite
from clinalign.errors import UsageError
from clinalign.evaluation.suites import s_chain
from clinalign.models import load_vlm
from clinalign.recipe import Recipe
from clinalign.storage import write_json
from clinalign.training.encode import truth_pairs


def adapter(folder: Path, seed: int, below: Path | None = None) -> Path:
    """An adapter of the embedded model, or of it with the one below merged, that changes what it says."""
    vlm = load_vlm("embedded", adapter=below)
    if below is not None:
        vlm.merge_adapter()
    vlm.attach_lora(r=2, alpha=2, seed=seed)
    stream = torch.Generator().manual_seed(seed)
    for weight in vlm.trainable().values():
        weight.data.copy_(0.05 * torch.randn(weight.shape, generator=stream))
    folder.mkdir(parents=True)
    vlm.save_adapter(folder)
    vlm.close()
    return folder


def run_folder(folder: Path, **recipe: object) -> Path:
    """A run folder with no more than its recipe."""
    folder.mkdir()
    write_json(
        folder / "run.json", {"recipe": Recipe.model_validate({"name": "a run", **recipe}).model_dump(mode="json")}
    )
    return folder


def test_a_runs_system_is_asked_with_its_warm_up_below_it(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", model="embedded", data={"source": "phantom"}, warmup={"method": "sft"})
    warmed = adapter(run / "warmup" / "adapter", 1)
    own = adapter(run / "adapter", 2, below=warmed)
    system = suites.systems_of("embedded", [run], [])["firempo"].load()
    with pytest.raises(UsageError, match="trained on other weights"):
        load_vlm("embedded", adapter=own)
    alone, both = load_vlm("embedded", adapter=warmed), load_vlm("embedded", adapter=warmed)
    both.merge_adapter()
    both.load_adapter(own)
    rows = [vlm.forward_hidden("Is there a nodule?", []) for vlm in (system, alone, both)]
    torch.testing.assert_close(rows[0], rows[2])
    assert (rows[0] - rows[1]).abs().max() > 0.01
    for vlm in (system, alone, both):
        vlm.close()


def test_systems_are_those_that_runs_trained_whatever_trained_them(tmp_path: Path) -> None:
    """`clinalign distill` leaves a system under compare and no adapter of the method of interest."""
    common = {"model": "embedded", "data": {"source": "phantom"}}
    distilled = run_folder(tmp_path / "one", **common, compare={"medalign": {"method": "sft", "distill": {}}})
    again = run_folder(tmp_path / "two", **common, compare={"keep": {"method": "keep"}, "medalign": {"distill": {}}})
    for folder in (
        distilled / "compare" / "medalign",
        again,
        again / "compare" / "keep",
        again / "compare" / "medalign",
    ):
        (folder / "adapter").mkdir(parents=True)
    found = suites.systems_of("embedded", [distilled, again], ["vcd"])
    assert list(found) == ["base", "base (vcd)", "medalign", "firempo", "keep", "medalign (two)"]
    assert found["medalign"].run == distilled and found["medalign (two)"].run == again
    assert list(suites.systems_of("embedded", [again], [], ["keep"])) == ["base", "keep"]
    with pytest.raises(UsageError, match="none of dpo is trained"):
        suites.systems_of("embedded", [again], [], ["dpo"])
    other = run_folder(tmp_path / "other", model="embedded2", data={"source": "phantom"})
    with pytest.raises(UsageError, match="a run of 'embedded2'"):
        suites.systems_of("embedded", [other], [])


def test_marks_of_chains_are_words_that_the_base_never_learnt_so_their_vectors_train(tmp_path: Path) -> None:
    """The base's vectors of tokens it never read lie in one heap; an adapter leaves them there, and no chain could be
    read. Whatever teaching trains has to hold them."""
    vlm = load_vlm("embedded")
    before = vlm.head.weight.detach().clone()
    marks = sorted({i for t in ("Step", "Final answer", "Extensive-Disease") for i in vlm.tokenizer(t)["input_ids"]})
    alike = torch.nn.functional.cosine_similarity(before[marks], before[vlm.pad_id][None])
    heap = [i for i, near in zip(marks, alike, strict=True) if near > 0.8]
    assert len(heap) >= 5, "the base knows these words by now; an adapter could learn chains, and be cheaper"
    vlm.close()
    taught = load_vlm("embedded", adapter=suites.teach("embedded", tmp_path, tmp_path / "taught", 2))
    moved = (taught.head.weight.detach() - before).abs().amax(1)
    assert (moved[heap] > 1e-4).all()
    taught.close()


def test_lessons_are_the_suites_own_prompts_with_the_rest_of_the_right_chain(tmp_path: Path) -> None:
    items = write_suite("s_chain", tmp_path, split="align", patients=split_patients("align", 24), px=32)
    asked = {(q.example.id, q.condition): q for q in suites.questions("s_chain", items, tmp_path)}
    taught = suites.lessons(items, tmp_path)
    assert len(taught) == 2 * len(items) == len({one.id for one in taught})
    seen = set()
    for one in taught:
        name, _, condition = one.id.rpartition("-")
        question = asked[name, condition]
        assert one.question == question.prompt
        chain = s_chain.parse(f"{question.given}{one.full}")
        assert chain == s_chain.parse(str(question.example.full)) and not chain.problems
        seen.add(condition)
    assert seen == {"clean", *(f"step_given_{k}" for k in s_chain.STEPS)}
    vlm = load_vlm("embedded")
    for pair in truth_pairs(taught, vlm.tokenizer, vlm.eos_ids[0]):
        assert len(pair.chosen_token_ids) <= 320 and pair.chosen_token_ids[-1] in vlm.eos_ids
        assert vlm.tokenizer.decode(pair.chosen_token_ids[:-1]) == pair.chosen
    vlm.close()


def test_no_patient_is_taught_and_asked(tmp_path: Path) -> None:
    taught = set(split_patients("align", 4 * 300))
    assert not taught & set(split_patients("test", suites.PATIENTS["s_chain"])) and len(taught) == 1200


def test_answers_that_were_given_are_not_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = write_suite("causal", tmp_path, split="test", patients=split_patients("test", 2), px=32)
    kept = tmp_path / "kept"
    first = suites.ask("base", suites.System("embedded"), "causal", items, tmp_path, kept)
    monkeypatch.setattr(suites, "evaluate_suites", lambda *_, **__: pytest.fail("asked again"))
    assert suites.ask("base", suites.System("embedded"), "causal", items, tmp_path, kept) == first
    with pytest.raises(pytest.fail.Exception, match="asked again"):
        suites.ask("base (vcd)", suites.System("embedded", "vcd"), "causal", items, tmp_path, kept)
    (tmp_path / items[0].images[0]).write_bytes((tmp_path / items[-1].images[0]).read_bytes())  # another picture
    with pytest.raises(pytest.fail.Exception, match="asked again"):
        suites.ask("base", suites.System("embedded"), "causal", items, tmp_path, kept)
