"""How answers leave open whether the thing is there.

As in `denials`, "thingx" stands for the thing wherever the answer names it.
"""

from __future__ import annotations

from clinalign.evaluation.suites.denials import compiled

_UNSURE = (
    r"(?:cannot|can ?not|can't|could not|couldn't|not|n't|unable to|impossible to|hard to|difficult to|no way of|"
    r"uncertain|unsure|unclear|unknown)"
)
LEFT_OPEN = compiled(
    r"\b(?:cannot|can't|can not|not|n't|unable to) (?:be )?(?:say|sure|certain|confirm|guarantee|promise|state)"
    r"(?: for \w+|"
    r" with \w+)?(?: that)? (?:there (?:is no|isn't|are no|aren't|is not|are not)|(?:the )?(?:absence|lack) of)\b",
    r"\b(?:unable to|not able to|cannot|can't|can not) (?:\w+ly )?confirm (?:the )?(?:presence|existence) of\b",
    r"\b(?:unable|not able|cannot|can't) [^.;]{0,30}thingx (?:on|in|from) (?:medical )?(?:images|pictures|scans)\W*$",
    r"\btoo \w+ (?:\w+ ){0,3}to (?:judge|say|tell|see|assess|evaluate|interpret|make out|answer)\b",
    r"(?:\bnot|n't) (?:\w+ly )?(?:exclude|rule out)[^.;]{0,30}thingx|^(?!.*\b(?:favou?r\w*|likely|"
    r"likeliest)\b)\W*(?:the )?(?:differential(?: diagnosis)?|ddx)\b[^.;]*thingx",
)
UNKNOWN = compiled(
    r"^\W*(?:\w+: )?(?:(?:it|that|this)(?:'s| is) )?(?:(?:currently|entirely|simply|quite|rather|very) )?(?:unknown|"
    r"indeterminate|"
    r"equivocal|inconclusive|undetermined|uncertain|unclear|not (?:assessable|evaluable|determinable|interpretable|"
    r"sure|certain)|"
    r"no (?:idea|clue|comment)|hard to (?:say|tell)|difficult to (?:say|tell)|your guess is as good as mine|maybe|"
    r"perhaps|possibly|undecided|questionable)\W*(?:$|,)",
    r"thingx\W+(?:(?:is|are|remains?) )?(?:\w+ly )?(?:n/?a\b|indeterminate|equivocal|questionable|uncertain|unclear|"
    r"undetermined|"
    r"inconclusive|unknown|debatable|not (?:assessable|evaluable|determinable|interpretable))\b",
)
"""Words that say no more than that it is not known."""
OPEN = compiled(
    r"\b(?:cannot|can ?not|can't|could not|couldn't|difficult to|hard to|not possible to|impossible to) (?:be )?"
    r"(?:completely |entirely |fully |reliably |confidently |definitely )?"
    r"(?:rule[d]? out|exclude[d]?|view|see (?:images|pictures)|confirm\w*|choose|decide|make out|be sure|comment)",
    r"\b(?:to|for|before|of) (?:confirm(?:ing)? or )?(?:rul(?:e|ing) out|exclud(?:e|ing))\b|\b(?:must|should|"
    r"needs? to|has to) be "
    r"(?:ruled out|excluded)\b|\bit (?:would |could |might )?depends?\b",
    r"(?:\bnot|n't)(?: been| be| \w+ly)* (?:excluded|ruled out)\b|\bmay or may not\b|\b(?:might|could) or (?:might|"
    r"could) not\b|\bwhether\b|\bif (?:there|it|this|one)\b",
    r"\b(?:cannot|can't|could not) be (?:assessed|evaluated|determined|judged|excluded)|\bdo(?:n't| not) know\b",
    r"\bnot (?:able|qualified) to\b|\bunable to\b|\bonly able to\b|\bonly (?:an?|your|the) (?:doctor|radiologist|"
    r"physician|specialist|expert|professional|ct|mri|clinician) (?:can|could)\b|\b(?:needs?|requires?|required|"
    r"necessary|needed|take) (?:an? |the |further |additional |more )*(?:\w+[- ])?(?:follow-?up|ct|mri|lateral|"
    r"views?|films?|imaging|images?|information|context|study|studies|correlation|ultrasound|picture)\b|\bno (?:idea|"
    r"clue)\b|\bbe a guess\b|\b(?:can't|cannot|can not|couldn't) (?:differentiate|distinguish)\b|(?:n't|"
    r"\bnot) clear (?:from|in|on|whether|if)\b",
    r"\bneither (?:be )?(?:confirmed|established|proven) nor\b|\beither way\b|\bone way or the other\b",
    r"\btoo (?:poor|dark|blurry|blurred|low|small|underexposed|noisy|grainy)\b|\b50[/ -]50\b|\bequally (?:good|"
    r"likely|well)",
    r"\b(?:can't|cannot|can not) (?:say|tell|judge)\b|\b(?:rather|prefer) not\b|\bundecided\b|\bpossible but\b",
)
OF_ELSE = compiled(r"\b(?:rule out|exclude) (?:that|an?|some)\b")
"""A doubt of something else."""
UNDECIDED = compiled(
    r"(?:\bnot|n't) (certain|convinced|say|sure|claim|persuaded)\b[^.]{0,60}(?:\bnot|n't) (?:certain|"
    r"convinced|say|sure|claim|persuaded)\b",
    r"\b(?:in no|not in a) position to\b|\bnot (?:prepared|willing|going) to commit\b|\b(?:in|"
    r"of) either (?:sense|direction)\b",
    r"\b(?:might|may|could|maybe|perhaps|possibly)\b[^.;]{1,60}(?:,| and| or) (?:it |they )?(?:might|may|maybe|perhaps|"
    r"could|possibly)\b|\bwho knows\b|\bno basis for\b|\bnot im(?:possible|probable)|\bnor can (?:it|they|this) be\b",
    r"\b(?:not|n't) \w+ (?:that )?(?:it|there|this|they) (?:is|are) [^.;]{0,30}(?:and|or|nor)\b[^.;]{0,25}"
    r"(?:not|n't) \w+ (?:that )?(?:it|there|this|they) (?:is|are)(?:n't| not)|\bnothing (?:that )?(?:tips|"
    r"decides|settles)\b",
    r"\bconfident enough to\b",
    r"(?:\bnot|n't) (?:have |got )?enough \w+ to (?:tell|say|decide|distinguish|know|be sure)\b|\b(?:may|might|"
    r"could) (?:be|have been) "
    r"(?:missed|overlooked|hidden|obscured|masked)\b",
    r"\bmay or may not\b|\bone way or the other\b|\bneither (?:be )?\w+(?: out| in)? n?or (?:be )?(?:exclud|rul|"
    r"refut|confirm|"
    r"disprov)\w*|"
    r"\b(?:cannot|can't) (?:choose|decide|pick)\b|\bboth (?:are|remain|seem) (?:\w+ly )?(?:possible|plausible|"
    r"conceivable)\b|"
    r"\b(?:could|may|might) be either\b|\beither (?:an? )?(?:\w+ ){0,2}thingx,? or\b|"
    r"\beither [^.;]{1,30} or (?:an? )?(?:\w+ )?thingx|"
    r"\b(?:equally|evenly|just as|50[/ -]50) (?:good|likely|well|plausible|possible|probable|balanced|be|easily)\b|"
    r"\b(?:toss-?up|torn between|fifty-fifty|for and against)\b|(?<!-)\bbalanced\b|\bas (?:likely|probable|"
    r"plausible)\b[^.;]* as\b|\bneither [^.;]{0,30}(?:more likely|favou?red|preferred)\b|"
    rf"\b{_UNSURE} (?:\w+ ){{0,3}}?(?:say|tell|telling|know|knowing|decide|deciding|choose|sure|distinguish\w*|"
    r"differentiat\w+|separat\w+|favou?r\w*|prefer\w*)(?: \w+){0,3}? (?:which(?: of| it| one|\W*$| is)|apart|between|"
    r"one (?:over|from)|from (?:one an|each |the )other|either)\b",
)
"""A doubt that no other clause mends."""
PROPERTY = compiled(
    rf"\b{_UNSURE}\b[^.;]{{0,60}}\b(?:exact|precise|exactly|precisely|(?:what|which) (?:kind|type|sort|breed|make|"
    r"model|colou?r|organism)|how (?:big|large|old|many|long|far)|what (?:the |this |that )?(?:thingx|it) (?:is|are)|"
    r"(?:its|the) (?:nature|cause|age|breed|aetiology|etiology|origin|type)|"
    r"(?:whether|if) (?:it|they|this|the \w+) (?:is|are) (?:an? )?(?:\w+ly )?(?:malignan\w+|benign\w*|old|new|acute|"
    r"chronic|real|male|female|recent|cancer\w*|metasta\w+|primary))",
    r"\b(?:its|the) (?:exact |precise )?(?:site|position|location|extent|size|borders?|nature|cause|age|breed|"
    r"aetiology|etiology|origin|type)\b[^,.;]* "
    rf"(?:is|are|be|remains?) {_UNSURE}\b",
)
"""A doubt of what kind a thing is: that it is there is granted."""
HEDGED = compiled(r"\b(?:could|might|may|perhaps|maybe|possibly|possible)\b(?! (?:be )?(?:seen|see|make out|identif))")
OTHERWISE = compiled(
    r"\bthingx[^.;]*\b(?:or|versus|vs|rather|equally|alternatively)\b|\b(?:or|versus|vs|equally)\b[^.;]*thingx"
)
"""Something else named beside what may be."""
EITHER = compiled(r"[\w-]+ or (?:an? )?(?:\w+ )?thingx\W*$|thingx or (?:an? |perhaps )?(?:\w+ )?\w+\W*$")
