"""Answers into minimal-edit preference pairs with exact spans, and the numbers of the corpus."""

from clinalign.pairs.audit import audit_file, audit_pairs
from clinalign.pairs.build import EDITORS, build_pairs
from clinalign.pairs.counterfactual import answered_under_corruption
from clinalign.pairs.off_policy import dataset_pairs, informed, misled_pairs, reference_pairs
from clinalign.pairs.options import PairOptions
from clinalign.pairs.style import corpus_numbers

__all__ = [
    "EDITORS",
    "PairOptions",
    "answered_under_corruption",
    "audit_file",
    "audit_pairs",
    "build_pairs",
    "corpus_numbers",
    "dataset_pairs",
    "informed",
    "misled_pairs",
    "reference_pairs",
]
