"""How answers suppose, define, generalise, repeat the question and tell the history: what says nothing of this image.

As in `denials`, "thingx" stands for the thing wherever the answer names it.
"""

from __future__ import annotations

from clinalign.evaluation.suites.denials import SEEN, compiled

GENERIC = compiled(
    r"^\W*(?:in general|in (?:\w+ )?(?:radiology|medicine|anatomy|imaging|principle)|hypothetically|in theory|"
    r"generally|usually|typically|"
    r"commonly|often|as a rule|normally)\b",
    r"\b(?:is|are) normally\b(?! (?:sized|aerated|inflated|expanded|placed|positioned|shaped|distributed|vascular\w+))",
    r"\b(?:usually|typically|most often|textbooks?|in most (?:cases|patients|people)|in (?:most|many|"
    r"such) (?:pictures|images|photos|films)|worldwide|defined as|synonyms?|"
    r"common causes|the (?:treatment|procedure|method|operation|therapy|test) of choice|\d+-year survival|"
    r"survival (?:is|rate)|"
    r"best (?:looked|searched) for|can (?:be caused|result|occur|arise)|may (?:be caused|result|arise)|"
    r"(?:the|a) usual (?:\w+ )?(?:site|place|location|cause|appearance|presentation|finding|treatment)|varies with|"
    r"vary with|differs? from \w+ to|(?:often|usually|typically) (?:recurs?|returns?|heals?|resolves?)|"
    r"in an? (?:\w+ )?(?:patient|person|child|adult)|(?:healing|treatment|recovery|removal) (?:usually )?takes|"
    r"matters? for|relieves?|is treated|"
    r"(?:the|this) (?:term|word|expression)|in the \w+ century|were invented|was invented|domesticated|"
    r"means of transport|"
    r"(?:commonly|generally|often) (?:seen|found|used|associated|caused|located|occur\w*|appear\w*|present\w*|"
    r"affect\w*)|"
    r"(?:commonly|generally|often|usually) (?:recommended|advised|performed|indicated|done|placed)|ideally|"
    r"frequently|in (?:\w+ )?patients(?: with)?|"
    r"by definition|depends on|people (?:use|keep|ride|love|like|have)|sensitiv\w+|for example)\b",
)
SUPPOSED = compiled(
    r"^\W*(?:and |but |so )?(?:(?:even |only )?if(?! (?:you|one|we) (?:looks?|zooms?))|imagine|suppose|supposing|"
    r"assuming|provided|were|had|"
    r"in the absence of|"
    r"by removing|removing|taking away|after removing|in case|whenever|when present|to (?:decide|determine|tell|"
    r"check|see|"
    r"find out|assess) (?:whether|if)|should (?:there|a|an|the|it))\b"
)
WITHOUT = compiled(r"^\W*(?:and |but )?(?:without|with) (?:the|a|an|this|that|its|any|it|his|her|their|no)\b[^,.;]*$")
ECHO = compiled(
    r"\b(?:the|your|this) (?:question|query|prompt|request|referral|clinical (?:request|information))\b[^,.;]* "
    r"(?:takes?|assum\w+|presuppos\w+|suggests?|implies|mentions?|asks?|states?|claims?|says?|refers?|supposes?)\b",
    r"\b(?:you|i was)(?: are|'re)? (?:ask|asked|asking|mention|assume|refer)\b(?! about (?:is|lies|layers|sits))",
    r"\b(?:look|search|check|hunt|scan)(?:s|ed|ing)? [^,.;]{0,30}for (?:an? |any |the )?(?:\w+ )?thingx",
    r"\b(?:contrary to|as stated|supposed|so-called|alleged|where an? thingx|apparent(?! on)|purported|"
    r"what (?:resembles|looks like|"
    r"appears)|"
    r"thingx must (?:be|have)|(?:was|were|had been) (?:suspected|queried|reported|described|thought)|resembl\w+|"
    r"mistak\w+ (?:it )?for|mistaken for|look(?:s|ed)? like(?! there)|(?:took|taken|take|mistook|"
    r"mistaken) [^,.;]{0,30}for|inclined to|tempted to|initially|at a glance|"
    r"what (?:has been|was|the \w+|you|i|looks|might|could|seems)|mimic\w*|reminiscent|confused with|at first|"
    r"i (?:first )?(?:thought|considered|wondered)|might (?:be|suggest) [^,.;]* at first|similar to)\b",
)
"""Words that only repeat the question, or hold the thing against something else."""
HISTORY = compiled(
    r"\b(?:history|had (?:an?|the)|previous(?:ly)?|prior|treated for|earlier|last (?:week|month|year|time)|in (?:19|"
    r"20)\d\d|"
    r"years ago|in the past|used to)\b"
)
STILL = compiled(
    r"\b(?:unchanged|stable|again|still|persist\w*|remains?|larger|smaller|increased|decreased|compared|now|today)\b"
)
ASIDE = compiled(
    r"\b(?:sure|great|good|interesting (?:\w+ ){0,2}(?:question|image|picture|point|experiment|thought|scenario)|"
    r"hello|hi|apolog\w+|error|went wrong|decoded|no output|try again|process text|thanks?|thank you|okay|of course|"
    r"certainly|let me|please|happy to|help|"
    r"question|hypothetical|sorry|disclaimer|upload|rephrase|ai|model|diagnos\w+|n/?a|note|context|"
    r"(?:image|film|picture) quality|exposure|resolution|contrast|quality|better (?:lens|camera|lighting)|"
    r"radiologist|doctor)\b"
)
TYPICAL = compiled(
    r",? (?:which|as) is (?:the )?(?:usual|typical|common|customary|classic\w*|normal|expected|often)\b[^.;]*"
)
"""What goes for all of its kind, said after the place of this one."""
IMAGINED = compiled(
    r"^\W*(?:if|were|had|should) (?:there (?:is|was|were|had been|be) an? |an? thingx (?:is|was|were|be) \w+)"
)
"""A thing supposed to be there, so that what follows says nothing of the image."""
NOW = compiled(
    r"\b(?:here|currently|at present|today|(?:this|the present|the current|in the|on the) (?:image|picture|photo|"
    r"photograph|film|scan|"
    r"radiograph|x-?ray|ct|mri|view|scene|frame|study|patient|case|one))\b|\bthere(?:'s| is| are)(?: no|n't| none)\b"
)
"""What speaks of this image, and not in general."""
TURN = compiled(r"^\W*(?:but|however|yet|here|in this)\b")
I_SAY = compiled(
    r"\bwhere (?:one|you|i|we) (?:would|might|could)\b|(?:the doctor|a doctor|a radiologist|radiologists|most people|"
    r"anyone) would (?:probably |likely |certainly )?(?:call|say|describe|diagnose|read)(?: (?:this|it) as)?\b|"
    r"\bthat (?:i|one|you)(?:'d| would| could) (?:\w+ )?(?:call|describe|label|name) (?:as )?",
    r"\b(?:i|we|one)(?: would|'d) (?:therefore |also |still |rather )?(?:say(?!\W*$)|place|call|describe|put|read|"
    r"locali[sz]e|conclude|"
    r"suspect|favou?r|classify|report|confirm|diagnose|consider|look(?= at))(?: that)?\b(?! (?:no|it (?:difficult|"
    r"hard)))"
    r"|\bmy (?:best )?guess (?:is|would be)\b|\bi (?:think|believe|guess|suppose)(?: that)?\b(?! so)"
    r"|\bwould (?:be )?(?=(?:rule out|qualify|count|pass|amount|explain|consistent|compatible|in keeping|fit|suggest|"
    r"indicate|"
    r"represent)\b)",
)
_KIND = (
    r"(?:procedure|technique|condition|disease|disorder|treatment|method|operation|devices?|infection|process|term|"
    r"therapy|accumulation|collection|build-?up|collapse|enlargement|inflammation|presence|swelling|protrusion|break|damage|"
    r"dilatation|thickening|scarring|bleeding|bulging|animals?|mammals?|vehicles?|instruments?|objects?|tools?)"
)
_BARE = r"(?:an? )?(?!(?:no|the|this|that|his|her|it|there|here|these|those|its|my|your)\b)(?:[\w-]+ )?"
DEFINED = compiled(
    r"^\W*(?:surgery|treatment|therapy|removal|resection|drainage|repair|management|diagnosis) (?:of|"
    r"for) (?:an? )?thingx "
    r"(?:can|may|is|are|usually|depends|involves|consists|requires)\b",
    r"^\W*what (?:surrounds|is around|is next to|lies (?:around|next to)) an? (?:\w+ )?thingx|"
    r"^\W*an? (?:\w+ )?thingx,? once\b",
    rf"^\W*{_BARE}thingx (?:is|are)\b[^.;]*\b(?:when|if) (?:it|they)\b|^\W*an? (?:\w+ )?thingx (?:that|"
    rf"which) is (?:treated|removed|drained|small|large)\b",
    rf"^\W*{_BARE}thingx (?:mostly|mainly|primarily|predominantly) (?:affects?|involves?|occurs?|arises?|develops?|"
    rf"appears?)\b",
    rf"^\W*{_BARE}(?:[\w-]+ ){{0,2}}(?:is|are) (?:an?|the)? ?"
    rf"(?:(?!not?\b)[\w-]+ ){{0,2}}{_KIND} (?:of|to|in|by|that|which|where|for|used|whereby|caused|with)\b",
    rf"^\W*{_BARE}thingx(?: (?:in|of) (?:the|a) \w+)? (?:can|may|could)(?: also)? (?:(?:occur|arise|develop|form|"
    r"vary)\b|be "
    rf"(?:(?!{SEEN}|ruled|excluded|made|neither)\w+\b|(?:{SEEN})[^.;]*\b(?:or|any\w*|every\w*|often)\b))"
    r"(?! (?:in|on|at) (?:this|"
    r"the (?:image|picture|photo|scan|film)))",
    rf"^\W*{_BARE}thingx (?:is|are) (?:\w+ly )?(?:diagnosed|treated|managed|classified|graded|divided|"
    r"characteri[sz]ed|caused)\b",
    r"^\W*(?:the|its) (?:\w+ )?(?:location|position|site|appearance|treatment|management|causes?|size|surroundings) of "
    rf"{_BARE}thingx\b",
    r"^\W*to (?:find|detect|locate|look for|see|identify|diagnose|spot|localise|localize) (?:an? |any )?thingx\b",
    rf"^\W*{_BARE}thingx (?:heals?|develops?|forms?|affects?|occurs?|arises?|causes?|lasts?|grows?|consists?|protects?|"
    r"comes? in|provides?|serves?|helps?|(?:appears?|presents?|shows? up) as)\b(?![^.;]*\b(?:this|left|right|here|"
    r"the|her|his)\b)",
    rf"^\W*{_BARE}thingx are (?!(?:{SEEN}|\w+ing|\w+ed|both|all)\b)(?:(?!(?:in|on|at|of|with|and|to)\b)[\w-]+ ){{0,3}}?"
    r"(?:\w{3,}s|thingx)\b",
    r"^\W*(?:removal|resection|excision|drainage|treatment|removing|"
    r"draining) (?:of )?(?:an? )?thingx\b(?!(?: \w+){0,4} would)",
    r"^\W*(?:an? )?(?:(?!(?:no|the|this|that|his|her)\b)\w+ )?thingx (?:(?:is|are) (?:an?|any|air|fluid|when|"
    r"defined|caused|"
    r"usually|typically|often|the (?:presence|accumulation|collection))\b|refers? to|means?\b|describes?\b|may be|"
    r"can be (?:caused|due|an?|the|associated|defined))",
    rf"^\W*{_BARE}thingx (?:is|are) (?:(?:an?|the) )?(?:\w+ )?thingx\b",
    rf"^\W*{_BARE}thingx (?:is|are) (?:among|one of|an? (?:\w+ )?(?:cause|form|type|kind|complication|sign))\b",
    r"^\W*thingx: (?:excess|an? |the (?:presence|accumulation))",
    r"^\W*thingx (?:were|was|are|have been|remain|come) (?:\w+ ){0,4}?(?:invented|popular|common\b|"
    r"animals?|mammals?|domesticated|used|known|kept|vehicles?|loyal|pets?)",
    r"^\W*thingx (?:like|love|need|eat|live|prefer|enjoy|tend|requires?)\b",
    rf"^\W*{_BARE}thingx (?:occurs? (?:when|if|in)|results? from|arises?)\b",
)
MODAL = compiled(r"\b(?:would(?:n't)?|\w+'d)\b")
WOULD_BE = compiled(r"[^.;,]*(?:\bwould(?:n't)?\b|\w'd\b)[^.;,]*(?:, (?:and|or|with|without)\b[^.;,]*)*")
LIKENED = compiled(r"^\W*(?:to me,? )?(?:it |that |this |the \w+ )?looks? (?:very |much )*like [^,.;]{0,40}thingx")
HERE = compiled(
    r"\b(?:that|which)(?: we| i| you| is| are| can| be| now| currently)+ (?:see|seen|visible|here|present|shown)\b"
    r"|\bthe (?:\w+ )?thingx(?: now| currently)? (?:seen|visible|shown|present|lying|here)\b"
)
