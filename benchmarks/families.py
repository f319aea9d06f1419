"""Which of transformers' vision-language types work, and how: on a tiny model of each, built from its configuration.

    python benchmarks/families.py --out families.json [--types llava qwen3_vl] [--docs docs/models.md]

For each decoder-only type of the image-text-to-text mapping the proof of `models/proof.py` says packed, unpacked or
refused, with the reason. What works is then tried: padding on either side, `generate` against transformers' own, an
adapter on the language model alone with a gradient in every part, a question without an image, two images, saving and
loading. A type that fails any of these is counted as `wrong`. `--docs` writes the table between its two marks.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tiny_types import build
from tiny_types.sizes import NOT_DECODERS
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as TYPES,
)

from clinalign.models import VLM, load_vlm
from clinalign.models.families import FAMILIES
from clinalign.models.features import from_arrays
from clinalign.models.generate import own_greedy
from clinalign.models.guard import first_line
from clinalign.models.proof import settle
from clinalign.models.tree import Target, fork_of, pack, score_tokens, tree_of

BEGIN, END = "<!-- table of types -->", "<!-- end of the table of types -->"
PROMPT = "Where is the nodule?"
ANSWERS = ("On the left side.", "On the right side.")


def main() -> None:
    """Tries every type and writes the numbers and, if asked, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--types", nargs="*", default=[kind for kind in TYPES if kind not in NOT_DECODERS])
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows = []
    for kind in given.types:
        rows.append(examine(kind))
        print("  ".join(str(value) for value in rows[-1].values()), file=sys.stderr, flush=True)
    found = summary(rows)
    given.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if given.docs is not None:
        write_table(given.docs, rows, found)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts beside the rows."""
    count = {kind: sum(row["verdict"] == kind for row in rows) for kind in ("packed", "unpacked", "refused", "wrong")}
    return {
        "transformers": transformers.__version__,
        "types": len(rows),
        "work": count["packed"] + count["unpacked"],
        **count,
        "rows": rows,
    }


def examine(kind: str) -> dict[str, Any]:
    """One row: the type, its verdict, why, and the largest difference of a log-probability in nats."""
    row: dict[str, Any] = {"type": kind, "verdict": "refused", "reason": "", "gap": None}
    try:
        vlm = build(kind)
        proof = settle(vlm)
    except Exception as error:  # each type fails in its own way
        return row | {"reason": first_line(error).removeprefix(f"tiny-{kind}: this {kind} model cannot be used: ")}
    vlm.proof = proof
    row |= {"gap": proof.gap, "reason": proof.reason}
    if proof.images != (0, 0):
        row["reason"] = "; ".join(filter(None, [proof.reason, proof.line(kind).split("nats, ")[1].split(",")[0]]))
    try:
        problem = trial(vlm)
    except Exception as error:  # whatever was tried
        problem = first_line(error)
    return row | ({"verdict": "wrong", "reason": problem} if problem else {"verdict": _work(vlm)})


def _work(vlm: VLM) -> str:
    return "unpacked" if vlm.unpacked else "packed"


def trial(vlm: VLM) -> str:
    """What is wrong with a model that the proof lets pass; "" if nothing is."""
    pictures = [_picture(i) for i in (1, 2)]
    least, most = vlm.images_a_question
    shown = pictures[: most or 2]
    given: list[tuple[str, list[np.ndarray]]] = [(PROMPT, shown), (PROMPT, pictures[:1])]
    given += [] if least else [("Is there an effusion?", [])]
    right, left = (logps(vlm, given, padding) for padding in ("right", "left"))
    if float((right - left).abs().max()) > 1e-4:
        return "padding on the left gives other numbers"
    if float((logps(vlm, [(PROMPT, pictures[:1])]) - logps(vlm, [(PROMPT, pictures[1:])])).abs().max()) < 1e-6:
        return "numbers do not change with the image"
    mine = [answer.token_ids for answer in vlm.generate(given, max_new_tokens=8)]
    if mine != [own_greedy(vlm, prompt, images, 8) for prompt, images in given]:
        return "greedy answers are not those of generate"
    return _saved(vlm, given) or _trained(vlm, given)


def logps(vlm: VLM, given: list[tuple[str, list[np.ndarray]]], padding: str = "right") -> torch.Tensor:
    """Log-probabilities of two answers to each question, in one batch."""
    features, keys = from_arrays(vlm, [images for _, images in given])
    answers = [vlm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ANSWERS]
    trees = [tree_of(vlm, p, images, names, [fork_of(answers)]) for (p, images), names in zip(given, keys, strict=True)]
    targets = [
        Target(t, 0, a, i, token)
        for t in range(len(trees))
        for a, answer in enumerate(answers)
        for i, token in enumerate(answer)
    ]
    packed = pack(vlm, trees, targets, padding=padding).to(vlm.device)
    return score_tokens(vlm, packed, features).logps


def _saved(vlm: VLM, given: list[tuple[str, list[np.ndarray]]]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        vlm.model.save_pretrained(folder)
        vlm.processor.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        written = FAMILIES.pop(vlm.family.name, None)  # what is tried is the generic family
        try:
            again = load_vlm(folder)
        finally:
            FAMILIES.update({} if written is None else {vlm.family.name: written})
        if config["model_type"] != again.family.name or again.unpacked != vlm.unpacked:
            return f"saved and loaded it is {_work(again)}"
        with torch.no_grad():
            apart = float((logps(again, given) - logps(vlm, given)).abs().max())
    return "" if apart < 1e-4 else f"saved and loaded it gives other numbers (by {apart:.2g} nats)"


def _trained(vlm: VLM, given: list[tuple[str, list[np.ndarray]]]) -> str:
    vlm.attach_lora(r=2, alpha=4, dropout=0.0)
    decoder = f"{vlm.family.language}.layers."
    outside = [name for name in vlm.trainable() if decoder not in name or "lora_" not in name]
    if outside or not vlm.trainable():
        return f"the adapter reaches outside the language model ({outside[:1]})"
    grads = torch.autograd.grad(logps(vlm, given).sum(), list(vlm.trainable().values()), allow_unused=True)
    still = [
        name
        for (name, _), grad in zip(vlm.trainable().items(), grads, strict=True)
        if "lora_B" in name and (grad is None or not grad.any())
    ]
    return f"no gradient reaches {still[0]}" if still else ""


def _picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (12, 10, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)


def write_table(path: Path, rows: list[dict[str, Any]], found: dict[str, Any]) -> None:
    """The table between its marks in a page."""
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    counts = ", ".join(f"{found[name]} {name}" for name in ("packed", "unpacked", "refused", "wrong"))
    lines = [
        f"Of {found['types']} decoder-only types in transformers {found['transformers']}'s image-text-to-text mapping "
        f"{found['work']} work: {counts}.",
        "",
        "| type | verdict | why |",
        "|---|---|---|",
        *(f"| `{row['type']}` | {row['verdict']} | {row['reason'].replace('|', '/')[:160]} |" for row in rows),
    ]
    path.write_text(before + "\n".join([BEGIN, *lines, END]) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
