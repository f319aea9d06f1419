"""DPO whose tokens have a temperature by kind: DDPO (RLHF-V, arXiv 2312.00849), and one beta for each kind of span.

    ddpo        = -log s(beta * [R(y+) - R(y-)]),  R = sum_t w_t log(pi / ref) / sum_t w_t,  w 5 in spans and 1 outside
    segment_dpo = -log s(sum over kinds k of beta_k * [r_k(y+) - r_k(y-)]),  r_k over the tokens of kind k

Kinds are those of the edits (a pair's `edit_kind`, for the tokens in its spans) and the "rest". A beta a kind covers
the idea of fine-grained DPO (a beta by the quality of a segment); by default the rest weighs a fifth, as in ddpo.
"""

from __future__ import annotations

from clinalign.objectives.dpo import dpo, margin, preference
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def ddpo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """-log s of the margin of weighted means, [P]; the weights enter where the sums and counts are formed."""
    chosen, rejected = logps.chosen_tokens.clamp(min=1), logps.rejected_tokens.clamp(min=1)
    gap = margin(
        logps.chosen / chosen,
        logps.rejected / rejected,
        logps.ref_chosen / chosen,
        logps.ref_rejected / rejected,
        coefficients.beta,
    )
    rank = preference(gap)
    return LossTerms(rank, {"rank": rank}, gap)


def segment_dpo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """-log s of the sum over kinds of tokens of their own margins, [P]; DPO where each kind has the same beta.

    A kind's beta over `beta` enters where the sums are formed.
    """
    return dpo(logps, coefficients)
