"""DFT (arXiv 2508.05629) and ASFT (arXiv 2509.23753): SFT whose tokens weigh what the policy gives them already.

    dft  = mean over the answer's tokens of sg(pi(y_t)) * -log pi(y_t)
    asft = dft + alpha * mean over the same tokens of KL

A correction has a low probability by its nature, so DFT hardly learns it. ASFT's `paper` has KL(pi || ref); its `code`,
as shipped by others too, computes KL(ref || pi), and its numbers come from that: `sound` is the code's.
"""

from __future__ import annotations

from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def dft(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """Probability-weighted NLL a token, [P]."""
    return LossTerms(logps.dft, {"nll": logps.dft})


def asft(logps: SequenceLogps, coefficients: LossCoefficients, variant: str = "sound") -> LossTerms:
    """DFT + alpha * mean KL a token, [P]."""
    total = logps.kl_reverse if variant == "paper" else logps.kl_forward
    kl = coefficients.alpha * total / logps.nll_tokens.clamp(min=1)
    return LossTerms(logps.dft + kl, {"nll": logps.dft, "kl": kl})
