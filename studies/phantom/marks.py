"""How the page shows numbers, tables and the figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.phantom.settings import LABELS

Json = Mapping[str, Any]
PRIORS = (("accuracy_prior_conflicting", "tab:red", 0.15), ("accuracy_prior_aligned", "tab:blue", -0.15))


def figure(result: Json, path: Path) -> None:
    """Accuracy against and with the prior, and two training curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(1, 3, figsize=(13, 4.2), width_ratios=(1.6, 1, 1))
    labels = list(result["systems"])
    for name, colour, offset in PRIORS:
        for i, label in enumerate(labels):
            value = result["systems"][label]["metrics"].get(name)
            if value and value["estimate"] is not None:
                low, high = (value["estimate"] if value[k] is None else value[k] for k in ("low", "high"))
                axes[0].plot([100 * low, 100 * high], [i + offset] * 2, color=colour, lw=2)
                axes[0].plot(100 * value["estimate"], i + offset, "o", color=colour, ms=5)
    axes[0].set_yticks(range(len(labels)), [titled(label) for label in labels])
    axes[0].invert_yaxis()
    axes[0].set_xlabel("% right: against (red) and with (blue) the prior")
    for label, rows in result["curves"].items():
        steps = [row["step"] for row in rows]
        axes[1].plot(steps, [row["rewards/accuracies"] for row in rows], label=titled(label), lw=1)
        axes[2].semilogy(steps, [row["grad_norm"] for row in rows], label=titled(label), lw=1)
    axes[1].set_xlabel("reward accuracy by step")
    axes[2].set_xlabel("gradient norm by step")
    axes[2].legend(fontsize=7)
    drawn.tight_layout()
    drawn.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(drawn)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def titled(label: str) -> str:
    return LABELS.get(label, label)


def tuned(setting: Json | None, defaults: Json) -> str:
    """Learning rate and beta of a setting; SFT has no beta."""
    if setting is None:
        return "-"
    keys = ("lr",) if setting["method"] == "sft" else ("lr", "beta")
    return ", ".join(f"{setting.get(key, defaults[key]):g}" for key in keys)


def percent(value: Json | None, *, interval: bool = False) -> str:
    if value is None or value["estimate"] is None:
        return "-"
    text = f"{100 * value['estimate']:.1f}"
    if interval and value["low"] is not None:
        text += f" [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
    return text


def spread(system: Json) -> str:
    spread = system["seeds"].get("seed_sd")
    return "" if spread is None else f" ± {100 * spread:.1f}"


def points(value: Json | None) -> str:
    if value is None or value["estimate"] is None:
        return "-"
    text = signed(100 * value["estimate"])
    return text if value["low"] is None else f"{text} [{signed(100 * value['low'])}, {signed(100 * value['high'])}]"


def points_of(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def signed(value: float) -> str:
    return f"{value:+.1f}"


def share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def count(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
