"""MASK-DPO: DPO whose sums run over the differing spans only, as compared in arXiv 2606.12590 (FiRe-MPO without KL)."""

from __future__ import annotations

from clinalign.objectives.dpo import dpo
from clinalign.objectives.sums import Sums, Terms, Weights


def mask_dpo(sums: Sums, weights: Weights) -> Terms:
    """DPO on span sums; the choice of tokens is made where the sums are formed."""
    return dpo(sums, weights)
