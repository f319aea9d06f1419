"""Training end to end on a tiny model: what is written, what is refused, and that interruptions do not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from clinalign.errors import UsageError
from clinalign.imaging.images import write_png
from clinalign.models import VLM, load_vlm
from clinalign.records import Pair
from clinalign.storage import Quarantine
from clinalign.storage.tensors import read_tensors, write_tensors
from clinalign.training import loop, train
from clinalign.training.metrics import TIMING_FIELDS, read_metrics
from clinalign.training.options import TrainOptions

SIDES = [("left", "right"), ("right", "left"), ("upper", "lower"), ("lower", "upper"), ("large", "normal")]
REPORTED = {
    "step", "epoch", "lr", "loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins",
    "rewards/accuracies", "logps/chosen", "logps/rejected", "loss/rank", "loss/visual", "loss/kl",
    "visual/accuracies", "visual/margins",
    "kl/forward", "kl/reverse", *TIMING_FIELDS,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.tiny_llava(), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("run")
    for i in range(10):
        clean = tiny.image(i)
        write_png(where / f"images/{i}.png", clean)
        clean[8:24, 8:24] = 255 - clean[8:24, 8:24]
        write_png(where / f"corrupted/{i}.png", clean)
    return where


def make(vlm: VLM, i: int, **changes: Any) -> Pair:
    """A pair that differs in one word; every third has no corrupted image."""
    good, bad = SIDES[i % len(SIDES)]
    texts = [f"There is a nodule in the {word} lung." for word in (good, bad)]
    ids = [vlm.tokenizer(text, add_special_tokens=False)["input_ids"] + vlm.eos_ids[:1] for text in texts]
    spans = [[[25, 25 + len(word)]] for word in (good, bad)]
    values = dict(
        id=f"p{i}", example_id=f"e{i}", round=0, images=[f"images/{i}.png"], prompt="Where is the nodule?",
        chosen=texts[0], rejected=texts[1], chosen_spans=spans[0], rejected_spans=spans[1], own="rejected",
        chosen_token_ids=ids[0], rejected_token_ids=ids[1], was_correct=False, edit_kind="side", editor="rule",
        corrupted_images=[f"corrupted/{i}.png"] if i % 3 else None,
    )  # fmt: skip
    return Pair(**(values | changes))


def settings(tmp_path: Path, **values: Any) -> TrainOptions:
    common = dict(
        lr=2e-2, batch=4, max_steps=6, checkpoint_every=2, log_every=3, cache=str(tmp_path / "cache"),
        lora={"r": 4, "alpha": 8, "dropout": 0.1},
    )  # fmt: skip
    return TrainOptions(**(common | values))


def run(base: Path, folder: Path, out: Path, options: TrainOptions, **more: Any) -> Any:
    vlm = load_vlm(str(base))
    return train(vlm, [make(vlm, i) for i in range(10)], folder, options, out, **({"label": "firempo"} | more))


def stable(path: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in TIMING_FIELDS} for row in read_metrics(path)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def trained(base: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    out = tmp_path_factory.mktemp("trained")
    return run(base, folder, out, settings(out)), out


def test_writes_adapter_card_metrics_and_no_checkpoint(trained: tuple[Any, Path], base: Path) -> None:
    result, out = trained
    assert result.steps == 6 and result.adapter == out / "adapter" and result.metrics == out / "metrics.jsonl"
    assert not (out / "checkpoint.safetensors").exists()
    names = weights(result.adapter).keys()
    assert names and all("language_model" in name for name in names)  # `all-linear` would reach the vision tower
    text = (result.adapter / "README.md").read_text()
    assert "method | firempo" in text and "Not a medical device" in text and "with a corrupted image | 6" in text
    vlm = load_vlm(str(base), adapter=result.adapter)
    assert max(float(v.detach().abs().max()) for n, v in vlm.trainable().items() if "lora_B" in n) > 0


def test_rows_have_trl_names_terms_at_weight_and_start_at_log_two(trained: tuple[Any, Path]) -> None:
    rows = read_metrics(trained[0].metrics)
    assert len(rows) == 6 and rows[0].keys() == REPORTED
    first = rows[0]
    assert first["loss/kl"] == pytest.approx(0, abs=1e-6) and first["rewards/margins"] == pytest.approx(0, abs=0.2)
    for row in rows:
        assert row["loss"] == pytest.approx(row["loss/rank"] + row["loss/visual"] + row["loss/kl"], rel=1e-5)


def test_the_loss_falls(trained: tuple[Any, Path]) -> None:
    rows = read_metrics(trained[0].metrics)
    assert rows[-1]["loss/rank"] < rows[0]["loss/rank"] and rows[-1]["rewards/margins"] > 0


def test_same_seed_same_numbers_other_model_seed_other_adapter(
    trained: tuple[Any, Path], base: Path, folder: Path, tmp_path: Path
) -> None:
    result, _ = trained
    again = run(base, folder, tmp_path / "a", settings(tmp_path))
    assert stable(again.metrics) == stable(result.metrics)
    mine, theirs = weights(again.adapter), weights(result.adapter)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    other = run(base, folder, tmp_path / "b", settings(tmp_path, seed_model=5))
    assert not all(torch.equal(weights(other.adapter)[name], theirs[name]) for name in theirs)


def test_interrupted_run_goes_on_to_the_same_adapter(
    trained: tuple[Any, Path], base: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients, calls = loop._gradients, []

    def interrupted(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return gradients(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_gradients", interrupted)
        run(base, folder, tmp_path, settings(tmp_path))
    assert (tmp_path / "checkpoint.safetensors").is_file() and not (tmp_path / "adapter").exists()
    result = run(base, folder, tmp_path, settings(tmp_path))
    assert stable(result.metrics) == stable(trained[0].metrics)
    theirs = weights(trained[0].adapter)
    assert all(torch.equal(value, theirs[name]) for name, value in weights(result.adapter).items())
    before = result.adapter.stat().st_mtime_ns
    assert run(base, folder, tmp_path, settings(tmp_path)).steps == 6
    assert result.adapter.stat().st_mtime_ns == before  # finished: nothing was done again


def test_micro_batches_cache_and_no_cache_give_the_same_loss(base: Path, folder: Path, tmp_path: Path) -> None:
    lora = {"r": 4, "alpha": 8, "dropout": 0.0}
    one = run(base, folder, tmp_path / "a", settings(tmp_path, lora=lora, micro_batch=1, max_steps=3))
    four = run(base, folder, tmp_path / "b", settings(tmp_path, lora=lora, cache="off", max_steps=3))
    checkpointed = settings(tmp_path, lora=lora, gradient_checkpointing=True, max_steps=3)
    again = run(base, folder, tmp_path / "c", checkpointed)
    for other in (four, again):
        for a, b in zip(read_metrics(one.metrics), read_metrics(other.metrics), strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


def test_full_fine_tuning_saves_weights_that_load(base: Path, folder: Path, tmp_path: Path) -> None:
    options = settings(tmp_path, tune="full", lr=1e-3, max_steps=8)
    vlm = load_vlm(str(base))
    trained_on = [make(vlm, i) for i in range(4)]  # one batch, so the last margin is of pairs that were trained on
    result = train(vlm, trained_on, folder, options, tmp_path / "out", label="x")
    names = load_file(result.adapter / "language_model.safetensors").keys()
    assert any("lm_head" in name for name in names) and not any(
        "vision" in name or "projector" in name for name in names
    )
    assert read_metrics(result.metrics)[-1]["rewards/margins"] > 0
    tuned, plain = load_vlm(str(base), adapter=result.adapter), load_vlm(str(base))
    assert not torch.equal(tuned.head.weight, plain.head.weight)
    assert torch.equal(tuned.model.model.multi_modal_projector.linear_1.weight, plain.model.model.multi_modal_projector.linear_1.weight)  # fmt: skip # noqa: E501
    pairs = [make(tuned, i) for i in range(4)]
    with pytest.raises(UsageError, match="reference=previous"):
        train(tuned, pairs, folder, options, tmp_path / "next", label="x")
    again = train(tuned, pairs, folder, options, tmp_path / "next", label="x", reference="previous")
    assert read_metrics(again.metrics)[0]["kl/forward"] == pytest.approx(0, abs=1e-5)


def test_second_round_against_base_or_previous(
    trained: tuple[Any, Path], base: Path, folder: Path, tmp_path: Path
) -> None:
    """Going on with an adapter: the previous policy is its own reference (KL 0 at first), the base is not."""
    kl = {}
    for reference in ("base", "previous"):
        vlm = load_vlm(str(base), adapter=trained[0].adapter)
        options = settings(tmp_path, max_steps=1, lora={"r": 4, "alpha": 8, "dropout": 0.0})
        for value in vlm.peft.modules():
            if isinstance(value, torch.nn.Dropout):
                value.p = 0.0
        pairs = [make(vlm, i) for i in range(4)]
        result = train(vlm, pairs, folder, options, tmp_path / reference, label="x", reference=reference)
        kl[reference] = read_metrics(result.metrics)[0]["kl/forward"]
    assert kl["previous"] == pytest.approx(0, abs=1e-5) and kl["base"] > 1e-3


def test_micro_batches_do_not_change_the_numbers_under_dropout(base: Path, folder: Path, tmp_path: Path) -> None:
    """At step 1 the policy is the reference: margins are rounding noise around 0, whose sign the accuracies count."""
    lora = {"r": 4, "alpha": 8, "dropout": 0.3}
    found = {}
    for size in (1, 2, 0):
        options = settings(tmp_path, micro_batch=size, max_steps=3, lr=1e-3, lora=lora)
        found[size] = stable(run(base, folder, tmp_path / str(size), options).metrics)
        for kind in ("rewards", "visual"):
            margins = [row[f"{kind}/margins"] for row in found[size]]
            assert margins[0] == pytest.approx(0, abs=1e-6) and min(map(abs, margins[1:])) > 1e-4
            del found[size][0][f"{kind}/accuracies"]
    for size in (1, 2):
        for mine, whole in zip(found[size], found[0], strict=True):
            assert mine == pytest.approx(whole, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        "dpo",
        "sft",
        "rrpo_authors",
        "mask_dpo",
        "v1",
        "d1",
        "keep",
        "keep_gated",
        "counterfactual_keep",
        "simpo",
        "tdpo2",
    ],
)
def test_methods_train(base: Path, folder: Path, tmp_path: Path, method: str) -> None:
    result = run(base, folder, tmp_path, settings(tmp_path, method=method, max_steps=3, batch=2))
    rows = read_metrics(result.metrics)
    assert len(rows) == 3 and rows[0].keys() >= {"loss", "grad_norm", "rewards/accuracies"}
    assert (rows[0]["rewards/accuracies"] is None) == (method in ("sft", "keep", "counterfactual_keep"))


BAD: dict[str, Any] = {
    "image_token_in_answer": lambda vlm, pair: {"chosen_token_ids": [vlm.image_token_id, *pair.chosen_token_ids]},
    "empty_answer": lambda vlm, pair: {"rejected_token_ids": []},
    "span_mismatch": lambda vlm, pair: {"chosen_spans": [[5, 500]]},
    "too_long": lambda vlm, pair: {"chosen_token_ids": pair.chosen_token_ids * 200},
    "missing_image": lambda vlm, pair: {"images": ["images/none.png"], "corrupted_images": None},
    "other_size": lambda vlm, pair: {"corrupted_images": ["corrupted/1.png", "corrupted/2.png"]},
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_pairs_are_named_before_the_first_step(base: Path, folder: Path, tmp_path: Path, reason: str) -> None:
    vlm = load_vlm(str(base))
    pairs = [make(vlm, i) for i in range(4)]
    bad = make(vlm, 2, **BAD[reason](vlm, pairs[2]))
    with pytest.raises(UsageError, match=f"pair 'p2' \\(row 3\\).*{reason}"):
        train(vlm, [*pairs[:2], bad], folder, settings(tmp_path), tmp_path / "a", label="x")
    assert not (tmp_path / "a" / "metrics.jsonl").exists()
    quarantine = Quarantine(tmp_path / "quarantine.jsonl")
    options = settings(tmp_path, max_steps=1, method="mask_dpo")
    train(vlm, [*pairs[:2], bad], folder, options, tmp_path / "b", label="x", quarantine=quarantine)
    (row,) = quarantine.rows
    assert (row["stage"], row["id"], row["row"], row["reason"]) == ("align:x", "p2", 3, reason)
    with pytest.raises(UsageError, match="none of the 1 pairs can be used"):
        train(load_vlm(str(base)), [bad], folder, options, tmp_path / "c", label="x", quarantine=quarantine)


def test_no_pairs(base: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pairs to train on"):
        train(load_vlm(str(base)), [], folder, settings(tmp_path), tmp_path, label="x")


def test_precision_that_loses_updates_is_refused(base: Path, folder: Path, tmp_path: Path) -> None:
    half, short = (load_vlm(str(base), dtype=dtype) for dtype in ("float16", "bfloat16"))
    with pytest.raises(UsageError, match="dtype=float16"):
        train(half, [make(half, 0)], folder, settings(tmp_path), tmp_path, label="x")
    with pytest.raises(UsageError, match="tune=full in bfloat16"):
        train(short, [make(short, 0)], folder, settings(tmp_path, tune="full"), tmp_path, label="x")


def test_bf16_autocast_stays_near_float32(base: Path, folder: Path, tmp_path: Path) -> None:
    logps = []
    for bf16 in (False, True):
        options = settings(tmp_path, bf16=bf16, max_steps=2, lr=1e-4, lora={"r": 4, "alpha": 8, "dropout": 0.0})
        logps.append(read_metrics(run(base, folder, tmp_path / str(bf16), options).metrics)[0]["logps/chosen"])
    assert logps[0] == pytest.approx(logps[1], rel=0.1) and logps[0] != logps[1]


def test_a_foreign_cache_is_said_and_made_anew(
    base: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = settings(tmp_path, max_steps=1)
    run(base, folder, tmp_path / "a", options)
    (shard,) = (tmp_path / "cache" / "reference").glob("*/*.safetensors")
    tensors, facts = read_tensors(shard, "a shard", "")
    write_tensors(shard, tensors, {"made_with": facts["made_with"] | {"weights": "0"}})
    run(base, folder, tmp_path / "b", options)
    assert "made with other weights; set aside" in capsys.readouterr().err
    one, other = (read_metrics(tmp_path / name / "metrics.jsonl")[0]["loss"] for name in "ab")
    assert one == pytest.approx(other, abs=1e-6)


def test_adapter_on_the_head_is_refused(base: Path, folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    vlm = load_vlm(str(base))
    get_peft_model(vlm.model, LoraConfig(r=2, target_modules=["lm_head"])).save_pretrained(tmp_path / "head")
    with pytest.raises(UsageError, match="outside the language model"):
        load_vlm(str(base), adapter=tmp_path / "head")


def test_says_what_trains_and_what_it_will_cost(
    base: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(base, folder, tmp_path, settings(tmp_path, max_steps=1))
    text = capsys.readouterr().err
    assert text.index("language model, adapter") < text.index("estimate: ") < text.index("train firempo")
    assert "MB (weights" in text and "for the whole run" in text


def test_settings_that_differ_do_not_resume(base: Path, folder: Path, tmp_path: Path) -> None:
    run(base, folder, tmp_path, settings(tmp_path, max_steps=2))
    assert run(base, folder, tmp_path, settings(tmp_path, max_steps=3)).steps == 3


def test_pairs_that_a_method_cannot_train_on_are_quarantined_by_name(base: Path, folder: Path, tmp_path: Path) -> None:
    vlm = load_vlm(str(base))
    pairs = [make(vlm, i) for i in range(4)]
    pairs[0].corrupted_images = None
    quarantine = Quarantine(tmp_path / "quarantine.jsonl")
    options = settings(tmp_path, method="copo", max_steps=1)
    train(vlm, pairs, folder, options, tmp_path / "copo", label="copo", quarantine=quarantine)
    assert [(row["id"], row["reason"]) for row in quarantine.rows] == [(p, "no_corrupted_images") for p in ("p0", "p3")]
    with pytest.raises(UsageError, match="none of the 4 pairs can be used.*corrupted_answer"):
        options = settings(tmp_path, method="symmetric", max_steps=1)
        pairs[0].corrupted_images = pairs[3].corrupted_images = pairs[1].corrupted_images
        train(vlm, pairs, folder, options, tmp_path / "s", label="s", quarantine=quarantine)


OWN = """
from torch.nn.functional import softplus

from clinalign.objectives import LossTerms, Method


def loss(logps, coefficients):
    margin = coefficients.beta * ((logps.chosen - logps.rejected) - (logps.ref_chosen - logps.ref_rejected))
    return LossTerms(softplus(-margin), {"rank": softplus(-margin)}, margin)


whole = Method(loss, preference_on="answer", kl_on="none", fixed={"alpha": 0.0, "gamma": 0.0})
"""


def test_an_own_loss_is_one_file_and_trains_like_the_method_that_it_repeats(
    base: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_dpo.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    losses = {}
    for method in ("dpo", "own_dpo:whole"):
        options = settings(tmp_path, method=method, max_steps=3)
        result = run(base, folder, tmp_path / options.label, options)
        losses[method] = [row["loss"] for row in read_metrics(result.metrics)]
    assert losses["dpo"] == losses["own_dpo:whole"] and len(set(losses["dpo"])) == 3
    assert (tmp_path / "whole" / "adapter" / "adapter_model.safetensors").is_file()
