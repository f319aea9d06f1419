"""Answers into minimal-edit preference pairs with exact spans, and the numbers of the corpus."""

from clinalign.pairs.audit import audit_file, audit_pairs
from clinalign.pairs.build import EDITORS, build_pairs
from clinalign.pairs.corpus import corpus_numbers
from clinalign.pairs.counterfactual import answered_under_corruption
from clinalign.pairs.given import given_pairs
from clinalign.pairs.options import PairOptions
from clinalign.pairs.reference import reference_pairs

__all__ = [
    "EDITORS",
    "PairOptions",
    "answered_under_corruption",
    "audit_file",
    "audit_pairs",
    "build_pairs",
    "corpus_numbers",
    "given_pairs",
    "reference_pairs",
]
