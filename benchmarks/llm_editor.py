"""The LLM editor against a real OpenAI-compatible server: what becomes of every record, and nothing is asked twice.

    python benchmarks/llm_editor.py --url http://localhost:8080/v1 --model NAME --out editor.json
    python benchmarks/llm_editor.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf --out editor.json

With --gguf it starts llama.cpp's own server on a free port (`pip install xllamacpp`). Records are phantom questions
with the answers of a biased speaker, so a small model's edits can be judged by the rules. The numbers say how the
editor and its filters behave, not how good a model is.
"""

from __future__ import annotations

import argparse
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from clinalign.data.phantom.cases import sample_case
from clinalign.data.phantom.text import contaminate, questions
from clinalign.errors import UsageError
from clinalign.folder import version_of
from clinalign.llm import Client
from clinalign.models import load_tokenizer
from clinalign.pairs import PairOptions, build_pairs
from clinalign.pairs.backends import open_backend
from clinalign.progress import say
from clinalign.records import Answer, Example
from clinalign.storage import Quarantine, write_json

SERVER = """
import sys, time, xllamacpp
given = xllamacpp.CommonParams()
given.model.path, given.port, given.n_ctx = sys.argv[1], int(sys.argv[2]), 4096
given.n_parallel, given.cpuparams.n_threads = 1, int(sys.argv[3])
server = xllamacpp.Server(given)
while True:
    time.sleep(1)
"""


def records(count: int, tokenizer: Any) -> tuple[list[Example], list[Answer]]:
    """Phantom questions of as many kinds as there are, and answers that are partly wrong."""
    examples: list[Example] = []
    answers: list[Answer] = []
    for patient in range(count):
        rng = random.Random(patient)
        question = rng.choice(questions(sample_case(patient), rng))
        text = contaminate(question, rng).full
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        examples.append(Example(f"p{patient}", [], question.prompt, question.answer, question.task,
                                slots=question.slots))  # fmt: skip
        answers.append(Answer(f"p{patient}", "speaker", 0, question.prompt, text, ids, "stop"))
    return examples, answers


def measure(options: PairOptions, count: int, folder: Path) -> dict[str, Any]:
    """Builds the pairs twice and counts what happened each time."""
    tokenizer = load_tokenizer("embedded")
    examples, answers = records(count, tokenizer)
    out: dict[str, Any] = {"records": count}
    for name in ("first", "second"):
        quarantine = Quarantine(folder / f"{name}.jsonl")
        start = time.monotonic()
        with open_backend(options) as backend:
            pairs = build_pairs(examples, answers, tokenizer, options, quarantine, backend=backend)
            backend.record(folder / "replies.jsonl")
            usage = backend.usage()
        reasons = dict(Counter(row["reason"] for row in quarantine.rows).most_common())
        done = sorted([p.example_id for p in pairs] + [row["id"] for row in quarantine.rows])
        out[name] = {
            "pairs": len(pairs),
            "quarantined": reasons,
            "every_record_once": done == sorted(e.id for e in examples),
            "usage": usage,
            "seconds": round(time.monotonic() - start, 1),
            "edits": [[p.rejected, p.chosen, p.edit_kind] for p in pairs[:20]],
            "details": [f"{row['reason']}: {row['detail']}" for row in quarantine.rows[:20]],
        }
        say(f"{name}: {len(pairs)} pairs of {count}, left out {reasons}, {usage}")
    out["replay_same"] = _replayed(options, examples, answers, tokenizer, folder) == out["second"]["pairs"]
    return out


def _replayed(
    options: PairOptions, examples: list[Example], answers: list[Answer], tokenizer: Any, folder: Path
) -> int:
    again = options.model_copy(update={"editor": "replay", "replay": str(folder / "replies.jsonl")})
    return len(build_pairs(examples, answers, tokenizer, again, Quarantine(folder / "replay.jsonl")))


def started(gguf: str, threads: int) -> tuple[subprocess.Popen[bytes], str]:
    """llama.cpp's server on a free port; a moment later it answers, first with 503 while it loads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVER, gguf, str(port), str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(120):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}/v1"
        if process.poll() is not None:
            raise SystemExit("the server did not start; `pip install xllamacpp`, and check the path of the model")
        time.sleep(0.5)
    process.kill()
    raise SystemExit("the server did not open its port within a minute")


def ready(client: Client, seconds: float = 600.0) -> str:
    """Waits for a server that is loading its weights."""
    until = time.monotonic() + seconds
    while True:
        try:
            return client.check()
        except UsageError as error:
            if "is not ready" not in str(error) or time.monotonic() > until:
                raise SystemExit(str(error)) from error
            time.sleep(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="address of a running server, with /v1")
    where.add_argument("--gguf", help="weights for a llama.cpp server that is started and ended here")
    parser.add_argument("--model", default="model", help="the model's name at the server")
    parser.add_argument("--output", default="schema", choices=["schema", "json", "none"])
    parser.add_argument("--records", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    process, url = started(given.gguf, given.threads) if given.gguf else (None, given.url)
    try:
        with tempfile.TemporaryDirectory() as folder:
            llm = {
                "base_url": url,
                "model": given.gguf or given.model,
                "output": given.output,
                "timeout_s": given.timeout,
                "max_tokens": given.max_tokens,
                "concurrency": 2,
                "cache": str(Path(folder) / "cache"),
            }
            options = PairOptions.model_validate({"editor": "llm", "llm": llm})
            say(ready(Client(options.llm)))
            found = measure(options, given.records, Path(folder))
    finally:
        if process is not None:
            process.terminate()
            process.wait()
    about = {"output": given.output, "model": Path(given.gguf).name if given.gguf else given.model}
    versions = {name: version_of(name) for name in ("clinalign", "httpx2", "xllamacpp")}
    write_json(given.out, about | {"versions": versions} | found)


if __name__ == "__main__":
    main()
