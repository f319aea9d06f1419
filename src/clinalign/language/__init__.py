"""Clinical text into claims: lexicon, assertion status, judging against the ground truth, minimal edits."""

from clinalign.language.align import Edit
from clinalign.language.claims import Claim, claims
from clinalign.language.edit import edit
from clinalign.language.judge import Judgement, judge

__all__ = ["Claim", "Edit", "Judgement", "claims", "edit", "judge"]
