"""Every decoder: neutral settings are greedy, defaults are alive, batches change nothing, nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import tiny
import torch
from neutral import NEUTRAL

from clinalign.decoding import decode, function_of
from clinalign.decoding.cai import calibrate
from clinalign.decoding.greedy import greedy
from clinalign.decoding.loop import start
from clinalign.decoding.options import DECODERS
from clinalign.errors import UsageError
from clinalign.recipe import load_recipe

LONG = 32
SHORT = 6
"""Tokens enough for a prompt, a first step and steps on its cache."""
CALIBRATIONS: dict[str, dict[str, str]] = {}
PROMPTS = [
    ("Where is the nodule?", [tiny.image(0, 40, 32)]),
    ("Is there an effusion on the left? Describe the image.", [tiny.image(1, 32, 64)]),
    ("Describe.", [tiny.image(2, 48, 48)]),
    ("Is the heart of normal size?", [tiny.image(3, 40, 32)]),
]
MULTIMODAL = ("llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
PAIRS = [
    pytest.param(name, family, marks=[pytest.mark.slow] if family == "qwen2_vl" and name != "second" else [])
    for name, kind in DECODERS.items()
    for family in (("llava",) if "class_token" in kind.needs else MULTIMODAL if kind.needs else ())
]
"""Decoder and family. Qwen2-VL's decoder is Qwen2.5-VL's, its tower matters to the one that looks again: the others are
slow tests; `test_types.py` runs every decoder on it, neutral, at its default, in a batch."""


@pytest.fixture(scope="module", autouse=True)
def calibrations(tmp_path_factory, models: dict) -> dict:
    """A CAI calibration of each model."""
    pictures = [tiny.image(seed, 40, 32) for seed in range(10)]
    for family, vlm in models.items():
        file = tmp_path_factory.mktemp("cai") / f"{family}.safetensors"
        calibrate(vlm, pictures, ["Is the heart of normal size?"] * 10, share=0.5, batch_size=4).save(file)
        CALIBRATIONS[vlm.name] = {"calibration": str(file)}
    return CALIBRATIONS


@pytest.fixture(scope="module")
def models() -> dict:
    """Tiny models that never end an answer, so that 32 tokens are 32 tokens."""
    found = {family: tiny.tiny(family) for family in MULTIMODAL}
    for vlm in found.values():
        vlm.model.generation_config.eos_token_id = [vlm.tokenizer.convert_tokens_to_ids("<s>")]
        with torch.no_grad():
            vlm.head.weight[vlm.eos_ids] = 0.0
    return found


@pytest.fixture(scope="module")
def own_answers(models: dict) -> Callable[[str], list[list[int]]]:
    """The 32 tokens of a family's model's own generation, asked for once."""
    return cache(lambda family: ids(models[family].generate(PROMPTS, max_new_tokens=LONG)))


@pytest.fixture(scope="module")
def bystander(models: dict) -> Callable[[str], tuple]:
    """Another model of a family, and the greedy answers of both before anything else was asked of them."""

    def pair(family: str) -> tuple:
        other = tiny.tiny(family, seed=5)
        return other, ask(models[family], "greedy"), ask(other, "greedy")

    return cache(pair)


def ids(answers: list) -> list[list[int]]:
    return [answer.token_ids for answer in answers]


def made(vlm, name: str, **options):
    return DECODERS[name](**(CALIBRATIONS[vlm.name] if name == "cai" else {}), **options)


def ask(vlm, name, prompts=PROMPTS, tokens=SHORT, batch_size=8, **options) -> list[list[int]]:
    return ids(decode(vlm, prompts, made(vlm, name, **options), max_new_tokens=tokens, batch_size=batch_size))


def hooked(vlm) -> list[int]:
    return [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in vlm.model.modules()]


def test_every_decoder_has_a_neutral_setting_here() -> None:
    assert set(NEUTRAL) == set(DECODERS) - {"greedy"}
    assert all(callable(function_of(kind())) for kind in DECODERS.values())


@pytest.mark.parametrize("family", MULTIMODAL)
def test_greedy_is_the_models_own(models: dict, own_answers: Callable, family: str) -> None:
    assert ask(models[family], "greedy", tokens=LONG) == own_answers(family)


@pytest.mark.parametrize(("name", "family"), [*PAIRS, *(("sample", f) for f in MULTIMODAL), ("beam", "llava")])
def test_neutral_settings_are_greedy(models: dict, own_answers: Callable, name: str, family: str) -> None:
    vlm, expected = models[family], own_answers(family)
    assert min(map(len, expected)) == LONG
    for options in NEUTRAL[name]:
        assert ask(vlm, name, tokens=LONG, **options) == expected, options


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_defaults_are_alive(models: dict, name: str, family: str) -> None:
    """At default settings the scores differ from the clean ones from the first token on (M3ID by design hardly)."""
    vlm = models[family]
    batch = start(vlm, PROMPTS)
    clean = next(greedy(batch, DECODERS["greedy"]())).log_softmax(-1)
    uncut = {"beta": 0.0} if "beta" in DECODERS[name].model_fields else {}
    options = made(vlm, name, **uncut)
    steps = function_of(options)(batch, options)
    with vlm.evaluating():
        scores = next(steps)
    steps.close()
    gap = (scores.log_softmax(-1) - clean)[scores > -torch.inf].abs().max()
    assert gap > (1e-4 if name == "m3id" else 1e-2)


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_a_batch_of_eight_equals_eight_singles(models: dict, name: str, family: str) -> None:
    prompts = PROMPTS + [(text.lower(), images) for text, images in PROMPTS]
    together = ask(models[family], name, prompts)
    assert together == ask(models[family], name, prompts, batch_size=1)


@pytest.mark.parametrize("name", ["sample", "vcd"])
def test_draws_depend_on_the_seed_and_not_on_the_batch(models: dict, name: str) -> None:
    vlm, options = models["llava"], {"temperature": 1.0, "top_p": 0.9}
    one = ask(vlm, name, **options, seed=1)
    assert one == ask(vlm, name, **options, seed=1, batch_size=1) != ask(vlm, name, **options, seed=2)


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_text_alone_and_an_adapter(models: dict, name: str, family: str) -> None:
    vlm = models[family]
    vlm.attach_lora(r=2, alpha=4, dropout=0.0)
    try:
        before = ask(vlm, name)
        tiny.perturb(vlm, 2.0)
        assert ask(vlm, name) != before
        mixed = [*PROMPTS[:2], ("Where is the heart?", [])]
        assert ask(vlm, name, mixed) == ask(vlm, name, mixed, batch_size=1)
    finally:
        vlm.remove_adapter()


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_nothing_is_left_behind_also_after_a_failure(
    models: dict, bystander: Callable, name: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = models[family]
    other, before, elsewhere = bystander(family)
    attention, hooks = vlm.language_model.config._attn_implementation, hooked(vlm)
    ask(vlm, name)
    calls = iter(range(100))

    def fails(*args, **more):
        if next(calls) == 2:
            raise RuntimeError("cut")
        return real(*args, **more)

    real = vlm.logits
    monkeypatch.setattr(vlm, "logits", fails)
    with pytest.raises(RuntimeError, match="cut"):
        ask(vlm, name)
    monkeypatch.undo()
    assert vlm.language_model.config._attn_implementation == attention
    assert hooked(vlm) == hooks
    assert ask(vlm, "greedy") == before and ask(other, "greedy") == elsewhere


def test_two_decoders_on_one_model_do_not_mix(models: dict) -> None:
    """Each forward carries its own request: decoders that take turns on one model give what each gives alone."""
    vlm = models["llava"]
    batch = start(vlm, PROMPTS)
    tokens = torch.arange(20, 20 + len(batch))

    def scores(names: tuple[str, ...]) -> list[list[torch.Tensor]]:
        steps = [function_of(kind())(batch, kind()) for kind in map(DECODERS.__getitem__, names)]
        found = [[next(step)] for step in steps]
        for _ in range(2):
            for step, own in zip(steps, found):
                own.append(step.send(tokens))
        return found

    with vlm.evaluating():
        turns = scores(("vhr", "pai"))
        alone = [*scores(("vhr",)), *scores(("pai",))]
    for one, other in zip(turns, alone):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.allclose(turns[0][1], turns[1][1])


def test_what_does_not_go_together_is_refused_by_name(models: dict) -> None:
    with pytest.raises(UsageError, match="'damro' does not work with family 'qwen3_vl': it asks the class token"):
        decode(models["qwen3_vl"], PROMPTS, "damro")
    with pytest.raises(UsageError, match="unknown; did you mean 'vcd'"):
        decode(models["llava"], PROMPTS, "vdc")
    with pytest.raises(UsageError, match="'second' does not work with family 'gemma3': its projector pools one grid"):
        decode(tiny.tiny("gemma3"), PROMPTS, "second")


OWN = """
from clinalign.decoding.loop import plausible
from clinalign.models.generate import advance, prefill


def sharp(batch, options):
    state = prefill(batch.vlm, batch.ids, batch.features, batch.grids)
    while True:
        tokens = yield plausible(options.sign * state.logits, state.logits, 0.0)
        advance(batch.vlm, state, tokens)


nothing = None
"""


def test_an_own_decoder_is_one_file_named_in_a_recipe(
    models: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_decoders.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    vlm, own = models["llava"], "own_decoders:sharp"

    def answers(sign: float) -> list[list[int]]:
        recipe = load_recipe("phantom", [f"evaluate.decoder={{name: '{own}', sign: {sign}}}"])
        return ids(decode(vlm, PROMPTS, recipe.evaluate.decoder, max_new_tokens=8))

    assert answers(1.0) == ask(vlm, "greedy", tokens=8) != answers(-1.0)
    assert load_recipe("phantom", [f"evaluate.decoder={own}"]).evaluate.decoder.name == own
    for name, words in [
        ("own_decoders:nothing", "not a function"),
        ("own_decoders:other", "no 'other'"),
        ("no_such_module:sharp", "PYTHONPATH"),
    ]:
        with pytest.raises(UsageError, match=words):
            decode(vlm, PROMPTS, name)
    with pytest.raises(UsageError, match="evaluate.decoder: "):
        load_recipe("phantom", ["evaluate.decoder=vdc"])
