"""EH-Benchmark on phantom fundus images: the embedded model alone and with the agent, and the checker's worth.

    python benchmarks/eh.py --out results/eh.json

Writes `minutes`, `agent_gain` with `agent_gain_low` and `agent_gain_high` (accuracy of the agent minus that of the bare
model, paired, 95 % by patient), `unsupported_caught` and `false_unsupported` (shares of injected claims caught, and of
supported sentences marked; `eh_injected.py`), `items`, and beside them: the items' hash, accuracies, what the tools'
facts are worth without a model, and the cost of a question. `--base-url` and `--model` ask an OpenAI-compatible
endpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

# A file of this folder shares its name with a module of the standard library, which it must not shadow.
HERE = Path(__file__).parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE.resolve()] + [str(HERE)]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DOCUMENT = """Hard exudates are yellow deposits of lipid in the outer retina.
Retinal haemorrhages are dark red. Microaneurysms are small dark red dots.
Mild nonproliferative diabetic retinopathy has microaneurysms alone.
Severe nonproliferative diabetic retinopathy has haemorrhages in all four quadrants of the retina.
A cup-to-disc ratio above 0.6 with an intraocular pressure above 21 mmHg is typical of glaucoma.
"""


def run(patients: int, injected: int, out: Path, base_url: str = "", model: str = "embedded") -> dict[str, Any]:
    """Asks the questions of so many patients (two eyes each) and checks so many injected claims."""
    import importlib

    from clinalign.agent_run import load_agent_recipe, run_agent

    measure = importlib.import_module("eh_injected").measure
    overrides = [f"data.splits={{test: {patients}}}", f"model={json.dumps('' if base_url else model)}"]
    if base_url:
        overrides += [f"llm.base_url={base_url}", f"llm.model={model}"]
    library = out / "documents"
    library.mkdir(parents=True)
    (library / "retina.txt").write_text(DOCUMENT, encoding="utf-8")
    overrides.append(f"agent.documents={library}")
    start = time.monotonic()
    result = run_agent(load_agent_recipe("phantom", overrides), out)
    claims = measure(injected)
    minutes = (time.monotonic() - start) / 60
    return {
        "minutes": round(minutes, 2),
        "agent_gain": result["gain"]["estimate"],
        "agent_gain_low": result["gain"]["low"],
        "agent_gain_high": result["gain"]["high"],
        "unsupported_caught": claims["unsupported_caught"],
        "false_unsupported": claims["false_unsupported"],
        "items": result["items"],
        "items_hash": result["items_hash"],
        "injected": claims["injected"],
        "by_kind": claims["by_kind"],
        "accuracy": {name: groups["all"]["accuracy"] for name, groups in result["systems"].items()},
        "subclasses": {
            name: {
                group: {m: row[m] for m in ("accuracy", "precision", "recall", "f1")} for group, row in groups.items()
            }
            for name, groups in result["systems"].items()
        },
        "fixed_order": {name: groups["all"]["accuracy"] for name, groups in result["legacy"].items()},
        "baselines": {name: groups["all"] for name, groups in result["baselines"].items()},
        "fixed_order_baselines": {name: groups["all"] for name, groups in result["legacy_baselines"].items()},
        "costs": result["costs"],
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy", "bm25s")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=20, help="two eyes each, about nine questions")
    parser.add_argument("--injected", type=int, default=400, help="injected claims, and as many supported sentences")
    parser.add_argument("--base-url", default="", help="ask an OpenAI-compatible endpoint")
    parser.add_argument("--model", default="embedded", help="folder or hub name, or the endpoint's name of it")
    parser.add_argument("--folder", type=Path, help="keep the run, with its page, in this new folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary) / "run"
        result = run(given.patients, given.injected, folder, given.base_url, given.model)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    shown = (
        "minutes",
        "agent_gain",
        "agent_gain_low",
        "agent_gain_high",
        "unsupported_caught",
        "false_unsupported",
        "items",
    )
    print(json.dumps({name: result[name] for name in shown}))


if __name__ == "__main__":
    main()
