"""What a model or adapter folder may not do: run code, hand over pickles, reach outside, keep the program busy."""

from __future__ import annotations

import ast
import json
import threading
import time
from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from clinalign.errors import RowError, UsageError
from clinalign.models import VLM, load_vlm
from clinalign.models.guard import within
from clinalign.models.load import load_tokenizer
from clinalign.models.segmenter import load_segmenter
from clinalign.models.teachers import load_teacher

SOURCE = Path(__file__).parents[2] / "src" / "clinalign"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.tiny_llava(), tmp_path_factory.mktemp("base"))


def copy(base: Path, to: Path) -> Path:
    to.mkdir()
    for path in base.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_every_loader_is_told_not_to_run_code() -> None:
    """Each `from_pretrained` of an Auto class, of a class found by name, or of a configuration, says so itself."""
    silent = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr != "from_pretrained" or ast.unparse(node.func.value) == "PeftModel":
                continue  # PEFT reads settings and tensors only
            told = any(
                k.arg == "trust_remote_code" or (k.arg is None and ast.unparse(k.value) == "SAFE")
                for k in node.keywords
            )
            if not told:
                silent.append(f"{path.name}:{node.lineno}")
    assert not silent


def test_code_in_a_model_folder_is_never_run(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where somebody answers "y" to every question."""
    folder, mark = copy(base, tmp_path / "m"), tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w').write('x')\nclass Thing:\n    pass\n"
    (folder / "evil.py").write_text(code)
    for name, part in (
        ("config.json", {"AutoConfig": "evil.Thing", "AutoModelForImageTextToText": "evil.Thing"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Thing", "evil.Thing"]}),
        ("processor_config.json", {"AutoProcessor": "evil.Thing", "AutoImageProcessor": "evil.Thing"}),
        ("preprocessor_config.json", {"AutoImageProcessor": "evil.Thing"}),
    ):
        path = folder / name
        settings = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(settings | {"auto_map": part}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for load in (load_vlm, load_tokenizer, load_teacher, load_segmenter):
        try:
            load(str(folder))
        except UsageError:
            pass
        assert not mark.exists(), load.__name__


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../outside.safetensors", "lies outside the folder"),
        ("/etc/passwd", "lies outside the folder"),
        ("..\\outside.safetensors", "lies outside the folder"),
        ("part.bin", "no safetensors file; pickled weights are not loaded"),
        ("part.pt", "pickled weights are not loaded"),
    ],
)
def test_an_index_names_safetensors_beside_it(base: Path, tmp_path: Path, name: str, said: str) -> None:
    folder = copy(base, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "part.bin")
    save_file(weights, tmp_path / "outside.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match=said):
        load_vlm(str(folder))


@pytest.mark.parametrize("text", ["[", "[]", '{"weight_map": 3}', "{}"])
def test_a_damaged_index_is_one_line(base: Path, tmp_path: Path, text: str) -> None:
    folder = copy(base, tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UsageError, match="not an index of weights"):
        load_vlm(str(folder))


def test_pickled_weights_alone_are_refused(base: Path, tmp_path: Path) -> None:
    folder = copy(base, tmp_path / "m")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="only pickled weights"):
        load_vlm(str(folder))


MORE = [("llava", "multi_modal_projector"), ("qwen2_5_vl", "merger"), ("llava", "lm_head"), ("llava", "embed_tokens")]


@pytest.mark.parametrize(("family", "module"), MORE)
def test_an_adapter_that_carries_more_than_lora_is_refused(family: str, module: str, tmp_path: Path) -> None:
    base = tiny.save(tiny.tiny(family), tmp_path / "base")
    model = load_vlm(str(base)).model
    queries = [n for n, _ in model.named_modules() if "language_model" in n and n.endswith("q_proj")]
    get_peft_model(model, LoraConfig(r=2, target_modules=queries, modules_to_save=[module])).save_pretrained(
        tmp_path / "adapter"
    )
    with pytest.raises(UsageError, match=f"more than LoRA .*{module}"):
        load_vlm(str(base), adapter=tmp_path / "adapter")


@pytest.mark.parametrize("given", [{"bias": "all"}, {"trainable_token_indices": {"embed_tokens": [5, 6]}}])
def test_biases_and_tokens_beside_lora_are_refused(given: dict, tmp_path: Path) -> None:
    base = tiny.save(tiny.tiny("qwen2_5_vl"), tmp_path / "base")
    model = load_vlm(str(base)).model
    queries = [n for n, _ in model.named_modules() if "language_model" in n and n.endswith("q_proj")]
    get_peft_model(model, LoraConfig(r=2, target_modules=queries, **given)).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UsageError, match="more than LoRA"):
        load_vlm(str(base), adapter=tmp_path / "adapter")


def test_a_pickled_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    vlm = load_vlm(str(base))
    vlm.attach_lora(r=2, alpha=4)
    vlm.save_adapter(tmp_path)
    torch.save(load_file(tmp_path / "adapter_model.safetensors"), tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(UsageError, match="only pickled weights"):
        load_vlm(str(base), adapter=tmp_path)


def test_a_template_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm: VLM = tiny.tiny("llava")
    monkeypatch.setattr("clinalign.models.vlm.TEMPLATE_SECONDS", 0.5)
    endless = "{% for x in range(9999) %}" * 3 + "{% endfor %}" * 3
    monkeypatch.setattr(vlm.processor, "chat_template", endless)
    before, began = threading.active_count(), time.monotonic()
    with pytest.raises(UsageError, match="chat template has no end after 0.5 s"):
        vlm.prompt_ids("Is there a nodule?", [])
    assert time.monotonic() - began < 5
    while threading.active_count() > before and time.monotonic() - began < 10:
        time.sleep(0.05)
    assert threading.active_count() == before, "the thread ends too"


def test_a_template_that_fails_takes_its_row() -> None:
    vlm = tiny.tiny("llava")
    vlm.processor.chat_template = "{{ raise_exception('only one turn') }}"
    with pytest.raises(RowError, match="only one turn") as caught:
        vlm.prompt_ids("Is there a nodule?", [])
    assert caught.value.reason == "chat_template_failed"


def test_within_gives_the_value_or_the_error() -> None:
    assert within(5, lambda: 3) == 3
    with pytest.raises(KeyError):
        within(5, lambda: {}["a"])
