"""Settings of every decoder at which it is greedy."""

from __future__ import annotations

from typing import Any

NEUTRAL: dict[str, list[dict[str, Any]]] = {
    "vcd": [{"alpha": 0.0, "beta": 0.0}, {"noise_step": 0}, {"noise_step": 0, "alpha": 5.0}],
    "m3id": [{"forgetting": 0.0}],
    "pai": [{"alpha": 0.0, "gamma": 1.0}],
    "avisc": [{"alpha": 0.0}],
    "damro": [{"alpha": 0.0}, {"outliers": 10_000}],
    "vhr": [{"scale": 1.0}],
    "imccd": [
        {"alpha": 0.0, "gamma": 1.0},
        {"threshold": float("inf"), "gamma": 1.0},
        {"version": "imccd", "threshold": float("inf"), "mixing": 0.0},
    ],
    "med_vcd": [{"alpha": 0.0, "sink": 0.0, "keep": 1.0}],
    "cai": [{"alpha": 0.0}],
    "second": [{"scales": [1.0], "alphas": []}, {"scales": [1.0], "alphas": [], "select": False, "top": 0}],
    "sample": [{"top_p": 1e-6}],
    "beam": [{"beams": 1}],
}
