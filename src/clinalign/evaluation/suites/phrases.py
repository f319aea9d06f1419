"""How answers deny, doubt, suppose, define and repeat: the phrases by which `presence` reads a clause.

`MARK` stands for the thing wherever the answer names it, so that one set of patterns serves every thing.
"""

from __future__ import annotations

import re

MARK = "thingx"


def _compiled(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.I)


_UNSURE = (
    r"(?:cannot|can ?not|can't|could not|couldn't|not|n't|unable to|impossible to|hard to|difficult to|no way of|"
    r"uncertain|unsure|unclear|unknown)"
)
LEADING = _compiled(
    r"\W*(?:(?:most likely|probably|i think|i believe|well|honestly),? )?"
    r"(?:(yes(?! and no)|yeah|yep|yup|affirmative|absolutely|certainly|definitely|correct|indeed)\b(?! no\b)"
    r"(?! (?:not|no|the (?:bones|lungs) are))"
    r"|(no|nope|nah)\b(?=\s*(?:[,.;:!\u2013\u2014-]|$)|\s+(?:there|it|the|this|i|they)\b))"
)
CONCLUDING = _compiled(
    r"\b(?:(?:so|therefore|thus|hence|in conclusion|overall|conclusion|verdict),?:?\s+(?:the answer (?:is|"
    r"would be)\s+)?"
    r"|that(?:'s| is| would be) an? (?:\w+ )?)(?:(yes)|(no))\b(?=\s*[,.;:!]|$)"
)
CONCLUSION = _compiled(
    r"^\W*(?:and )?(?:so|therefore|thus|hence|in (?:conclusion|summary|short)|overall|to sum up|all in all|conclusion|"
    r"impression|final answer|(?:actually|wait|but),? (?:on|looking)|on (?:closer|second)|looking (?:again|closer|"
    r"more)|i (?:therefore )?conclude)\b|\btherefore\b|\bi conclude\b"
)
_SAY = r"(?:say|state|claim|conclude|think|assume|suggest|report|speak of|call|describe|believe|agree|accept|talk of)"
DOUBLE = (
    (
        r"\b(?:there is |there's )?(?:no(?:t a)?|hardly (?:any|a)|little) (?:doubt|question|"
        r"denying)(?: about it)?(?: that)?,?|\bundoubtedly,?"
        r"|\bwithout (?:a |any )?(?:doubt|question),?|\bnot only\b|\b(?:cannot|can't) (?:deny|be denied)(?: that)?",
        " ",
    ),
    (
        r"\b(?:do|would|could|can|will|must|should)(?: ?not|n't) (?:disagree|deny|doubt|dispute|exclude the fact)(?: that)?"
        r"|\b(?:\w+ly )?no (?:lack|shortage) of\b",
        " ",
    ),
    (r"\b(?:cannot|can't|can not|hard to|impossible to|difficult to|not) (?:\w+ly )?(?:overlook|miss|ignore)\b", "see"),
    (r"\b(?:(?:would|do|could) ?not|(?:would|do|could)n't|cannot|can't|can not) (?:say|claim|state|conclude)(?: that)? there (?:is no|isn't|are no)\b", "there is"),
    (r"\b(?:neither|no|none of the) (?:\w+ ){0,3}?(?:is|are) (?:free of|free from|clear of|without|spared)\b", "both have"),
    (r"\bnot as (?:if|though) there (?:were|was|is|are) no\b", "there is"),
    (r"\b(?:cannot|can't|can not) (?:say|claim|pretend) to see no\b", "see a"),
    (r"\bnot (?:absent|missing|lacking|free of)\b", "present"),
    (r"\b(lungs?|lung fields?|airspaces?|bases) (?:has|have)(?: since| now| \w+ly)* cleared\b(?! of)", r"\1 are clear"),
    (r"'s (?=not\b|no longer\b)", " is "),
    (r"\b(?:would|'d) not be (?:wrong|incorrect|inaccurate) to\b", "would"),
)
"""What turns a denial round, and what it is turned into; a contraction."""
TURNED = _compiled(
    rf"\b(?:wrong|false|incorrect|untrue|inaccurate|misleading|a mistake|an error)(?: here)? to {_SAY}(?: that)?\b",
    r"(?:\bnot|n't) (?:true|correct|accurate|right|the case) (?:to \w+ )?that\b|\b(?:false|untrue|incorrect|wrong) that\b",
    r"\b(?:do|would|could|can|wo|did)(?: ?not|n't) (?:really |actually |personally )?"
    rf"{_SAY}(?: with the (?:claim|idea|statement))?(?: that)?\b",
    r"\b(?:disagree|doubt|dispute|reject|deny)(?: the \w+)?(?: that)?\b",
    r"\b(?:not|n't) (?:convinced|persuaded|of the opinion|under the impression)(?: that)?\b|\bsceptical|\bskeptical"
    r"|\bsurprised (?:if|to (?:find|see))\b|\bgo so far as to \w+(?: that)?\b",
    r"\b(?:hardly|scarcely|barely) (?:be )?(?:say|said|call(?:ed)?|claim(?:ed)?|speak)(?: that)?\b",
    r"\bno (?:justification|reason|basis|grounds|support)(?: here)? (?:for|to)\b|\bunlikely (?:to be|that)\b",
)
"""What stands before a statement and turns it round."""
REJECTED = _compiled(
    r"\b(?:alleged|supposed|apparent|presumed|so-called) thingx[^,.;]{0,20} (?:is|was|represents|turns) ",
    r"thingx[^,.;]{0,60}? (?:is|are|was|would be|seems?|appears?|looks?)(?: \w+ly)?(?: very| highly| rather| most|"
    r" to be| considered| deemed| thought| felt| judged)* "
    r"(?:unlikely|improbable|doubtful|unsupported|unfounded|unjustified|rejected|dismissed|refuted|mistaken|"
    r"incorrect|wrong|false|untrue|"
    r"inaccurate|untenable|out of the "
    r"question)\b",
    r"\b(?:mimic|simulat|masquerad)\w* (?:as )?(?:a |an |the )?(?:\w+ )?thingx",
    r"thingx[^,.;]{0,60}? (?:not|n't|cannot|never)(?: be| been)?(?: \w+ly)? (?:supported|justified|warranted|"
    r"substantiated|"
    r"borne out|suspected|likely|true|correct|accurate|right|the case)\b",
)
"""A statement of thingx that is turned down."""
_SEEING = (
    r"(?:see|seen|seeing|show|shown|find|found|identify|contain|include|have|detect|observe|notice|depict|display|"
    r"demonstrate|reveal|exhibit|locate|feature|appear (?:to|that)|seem (?:to|that)|visuali[sz]e|present|suggest|"
    r"indicate|make out|spot|support|meet|favou?r|recogni[sz]e)"
)
_SEEN = (
    r"(?:present|visible|visuali[sz]ed|seen|there\b|identified|identifiable|detected|detectable|shown|depicted|"
    r"included|found|observed|evident|apparent|exist|located|demonstrated|noted|appreciated|recogni[sz]able|"
    r"(?:in|on) (?:the|this|today's) (?:current |present |new )?(?:image|picture|photo|x-?ray|scan|radiograph|scene|film|shot|"
    r"frame|one\b|study|view))"
)
_STOP = (
    r"in|within|around|near|inside|at|on|with|is|are|was|were|the|between|behind|next|beside|adjacent|surrounding|"
    r"longer|"
    r"doubt|would|to|that|which|than|by|from|further|change|but|through|into|under|above|below|it|for"
)
_FILL = rf"of the |of |(?!(?:{_STOP})\b)[\w-]+,? "
_NOT = r"(?:n't|\bcannot(?! (?:exclud|rul|be|confirm|\w+ly))|(?<!may )(?<!might )\bnot|\bnever)"
_GONE = (
    r"(?:resolved|cleared|resected|removed|excised|drained|evacuated|extracted|explanted|disappeared|gone|healed|subsided|"
    r"re-?expanded|re-?aerated|regressed|(?:re-?)?absorbed|resorbed|repaired|operated on|snared|aspirated|vanished|cured|"
    r"dissolved|taken (?:out|away))"
)
DENIED = _compiled(
    rf"\b(?:no|not a|not an|not any|not a single|lacks?|lacking|free of|free from|devoid of|empty of|clear of|"
    rf"void of|negative for|absence of|"
    rf"neither(?! (?:confirm|exclud|rul))|nor(?! (?:confirm|exclud|rul))|zero|none of the|rather than|"
    rf"as opposed to) (?:{_FILL}){{0,6}}thingx",
    rf"\b(?:instead of|(?<!to )(?<!not )(?<!n't )rules? out|ruled out|argues? against|exclud(?:es|ed)) (?:a |an |any )?"
    rf"(?:{_FILL}){{0,2}}thingx",
    rf"{_NOT}(?: \w+)?? (?:be )?(?:{_SEEING} |any |a |an )(?:{_FILL}){{0,5}}(?:be )?(?:any |a |an |the |{_FILL}){{0,4}}"
    rf"(?:there is an? )?thingx",
    rf"{_NOT} {_SEEING} (?:\w+ ){{0,6}}?(?:any |a |an |the )(?:{_FILL}){{0,2}}thingx",
    rf"\b(?:fail(?:s|ed)? to|(?:unable|not able) to|nowhere do i|nobody|"
    rf"no one)\b[^,.;]{{0,30}}\b{_SEEING}\b[^,.;]{{0,20}}thingx",
    r"\b(?:no|nothing)\b[^,.;]* (?:suggest|indicat|support|explain|point|represent|think|remind|look|resembl|amount|"
    r"qualif|typical|characteristic|consistent|compatible|suspicious)\w*(?: of| the| to| like| as| for| with)? "
    r"(?:[\w-]+ ){0,3}thingx",
    r"\bnothing (?:has |is |was |looks |appears )?thingx",
    r"\bnot (?:(?:that|those|one|signs|evidence|because|due|caused|typical|characteristic|just|to) )*(?:of |to |by |from |for )?"
    r"(?:(?:an?|any|actual|true|real) )*thingx",
    r"\bnothing (?:\w+ ){0,2}that (?:(?:could|can|would|might|should) be )?(?:called |described as |considered |taken for |seen as )?"
    r"(?:an? )?(?:\w+ )?thingx",
    r"^\W*(?:but |and )?not (?:on |in |with )?(?:a |an |any )?(?:\w+ )?thingx\b(?![^,.;]* (?:is|are)\b)",
    r"\b(?:low|little|minimal|scant) (?:\w+ )?(?:suspicion|likelihood|probability|chance|risk|concern|evidence) (?:of|for|that) "
    r"(?:[\w-]+ ){0,3}thingx",
    r"thingx,? (?:i|we) (?:do not|don't|cannot|can't) (?:see|find|identify|detect)",
    r"\b(?:nobody|no one|none|not one|neither|nowhere)\b[^,.;]{0,60} (?:with|is|are|was|were|ha[sd]|have|having|\w+ing|"
    r"\w+s|\w+ed) (?:an?|any) (?:\w+ )?thingx",
    r"thingx(?: (?!(?:is|are|was|were|which|but|lies|looks?|appears?)\b)[\w-]+){0,5} "
    r"(?:(?:is|are|was|were|can|could|does|do|has|have|ca|wo)(?:n't| not|not) |not |nowhere )"
    rf"(?:\w+ly )?(?:be |been |appear to be )?(?:\w+ly )?{_SEEN}",
    r"thingx:? (?:(?:is|are|was|were|appears?|seems?)(?: to be)? )?(?:clearly |entirely |completely )?"
    r"(?:absent|missing|nowhere|none\b|negative\b)",
    r"thingx (?:can|could|may) be (?:\w+ly )?(?:ruled out|excluded)",
    r"thingx[^,.;]{0,60}? (?:has|have|had|is|are|was|were)(?: been| since| now| all| already| then| long| (?!partial|part|most|large|near|"
    r"incomplete)\w+ly)* "
    rf"(?:{_GONE}|no longer)\b",
    rf"\b(?:complete|full|total|entire|interval|subsequent) (?:resolution|clearing|clearance|disappearance|regression|absorption|"
    r"reabsorption|removal|resorption)\b(?! of)",
    r"thingx[^,.;]{0,30}? (?:no longer|ceased to) ",
    r"\b(?:status post|s/p|after|following|post)[- ](?:\w+ ){0,3}?thingx (?:removal|resection|excision|explantation|"
    r"drainage|evacuation|repair)",
    r"\b(?:removal|resection|excision|explantation|resolution|clearing|disappearance) of (?:the |a |an )?"
    r"(?:\w+ ){0,3}?thingx",
)
"""How a thing is denied; `thingx` stands for it wherever the answer names it."""
JUST = _compiled(
    r"thingx[^,.;]{0,40} turn(?:s|ed) out to be (?:an?|the) (?!\w* ?thingx)",
    r"(?:thingx|\b(?:it|this|that|what|which)\b)[^,.;]{0,60}? (?:is|are|was|were|represents?|reflects?|"
    r"turns? out to be) "
    r"(?:in fact |actually |really |simply |just |merely |only |probably |most likely )*"
    r"(?:(?<=simply )|(?<=just )|(?<=merely )|(?<=actually )|(?<=really )|(?<=fact )|(?=(?:an?|the) (?:normal|"
    r"physiological|"
    r"nipple|skin|vascular|artefact|artifact|shadow)))(?:a|an|the|due|overlapping|artefact\w*|artifact\w*|normal) (?!(?:[\w-]+ ){0,3}thingx)",
)
"""A thing, or what stands for it, explained as something else."""
ASSERTED = _compiled(
    r"\b(?:there (?:is|are|'s|was|appears to be|seems to be)|there's|(?:i|we|you|one) (?:can |do |could )?(?:clearly )?"
    r"(?:see|note|identify|notice|observe|spot|find)|(?:image|picture|photo|photograph|it|film|scan|radiograph|x-?ray|"
    r"ct|mri|view|slice|scene)(?: \w+ly)? (?:does )?(?:shows?|contains?|depicts?|has|reveals?|demonstrates?|includes?|"
    r"features?)|seen is|confirms?) (?:[\w-]+,? ){0,8}?thingx",
    r"thingx(?: (?!(?:is|are|was|were|would)\b)[\w-]+){0,5} (?:is|are|lies?|sits?|stands?|occup(?:y|ies)|can be|"
    r"remains?|"
    r"measures?|persists?)\b(?!n't| (?:not|what|asked|mentioned|the (?:question|term)))",
)
MORE = _compiled(r"\b(?:no|without) (?:other|further|additional|second|more|another) (?:\w+ )?thingx")
"""A denial of a further one, which grants the first."""
SIDED = _compiled(
    r"\b(?:left|right|upper|lower|middle|apex|apical|base|basal|side|surrounding|otherwise|remaining|remainder|rest|"
    r"adjacent|around|elsewhere|other|neighbou?ring|nearby|beside|beyond|new|further|additional|second|another|acute|"
    r"tension|large|loculated|displaced|residual|more|associated|contralateral|opposite|next to|foreground|"
    r"background)\b"
)
"""What makes a denial one of a part alone: a side, or "no new", "no other"."""
BOTH = _compiled(r"\b(?:both|either|bilateral|anywhere|any kind|every|all|residual|on the left or|left or right)\b")
NONE = _compiled(
    rf"\b(?:none|neither|no such \w+|not (?:any|one))(?: of \w+)?(?: (?:is|are|was|were|can be|"
    rf"could be))?(?: \w+ly)? {_SEEN}",
    r"^\W*(?:none|nowhere|absent|not (?:present|there|visible|seen|identified|demonstrated|detected))\b[^a-z]*$",
    r"^\W*(?:on|in|at) neither\b|\bneither \w+ (?:is|are) (?:affected|involved)\b",
    r"\b(?:such an?|that|this) (?:thing|object|animal|finding|lesion|structure|item|abnormality|vehicle|device) (?:(?:is|does|"
    rf"can)(?:n't| not)|cannot) (?:be )?(?:appear|exist|{_SEEN})",
    r"\b(?:nothing|not anything) (?:like (?:that|it|this)|of (?:that|the|this) (?:kind|sort))\b",
    r"\b(?:does|do)(?:n't| not) (?:seem|appear) to be (?:one|any)\b(?! \w+x\b)(?=\W*(?:$|here|in|on))",
    r"^\W*none (?:that|which|as far as|visible|seen|here|at all|in|of (?:it|them))\b[^,;]*$",
    r"\bwithout finding|\b(?:came|come|coming) up (?:empty|with nothing)|\bin vain\b|\bto no avail\b|"
    r"\bwithout (?:any )?(?:success|luck)|\bfound (?:none|nothing)\b",
    r"\bnowhere\b(?! near)|\b(?:see|find) what you(?:'re| are)? (?:refer|mean|ask)\w*|\bno such (?:thing|finding|"
    r"object|animal|lesion|structure|item|vehicle|device)\b",
    r"\b(?:premise|assumption|question|suggestion)\b[^,.;]{0,30} (?:is|appears|seems)(?: to be)? "
    r"(?:wrong|false|incorrect|mistaken|flawed|inaccurate|invalid)",
    r"\b(?:shows?|see|find|contains?|has|have|there's|there is|there are) none\b(?! of)|\bsee nothing(?: there|"
    r" here)?\W*$",
    r"\bno (?:evidence|signs?|trace) of (?:one|it|any|that)\b|^\W*but not (?:in|on) (?:this|the (?:present|current))\b",
    r"\b(?:nothing|not anything|isn't anything) (?:[\w ]{0,25} )?(?:to (?!it\b)|that (?:could|can|would) be )"
    r"(?:remove|take away|point|describe|locali[sz]e|locate|take|removed|show|delete|subtract|erase|report)\w*",
    r"\b(?:one|something that)(?: (?:is|are|was)|'s|s)(?: not|n't) (?:actually |really |even )?"
    r"(?:there|present|visible|in (?:the|this) (?:image|picture|photo|film|scan))",
    r"\b(?:one|something that) (?:isn't|aren't) (?:there|present|visible)\b|\bthere (?:is|are)(?:n't|"
    r" not)(?: actually)? (?:one|any)\b(?=\s*(?:(?:here|in|on|elsewhere|anywhere|around|either|"
    r"to|at)\b|$|[,.;]))|^\W*none (?:on|in|at) (?:the )?\w+ (?:and|or|nor) ",
    rf"(?:n't|\bnot) (?:{_SEEING}) (?:one|any|it|any such \w+|anything (?:like|of))\b(?=\s*(?:(?:here|in|on|to|at|"
    rf"that|lying|"
    r"anywhere)\b|$|[,.;]))",
    r"\byou (?:must|may|might|seem to|could) (?:be|have) (?:mistaken|confus\w+|mixed|(?:thinking of|looking at|referring to) "
    r"(?:another|a different|some other))|\bquestion (?:must|may|might|seems to) (?:be|refer to|belong to|concern) "
    r"(?:about |for |meant for )?(?:another|a different|some other)\b",
    r"\b(?:do|would)(?:n't| not) (?:think|believe) so\b|\bthere is none\b|\bi see none\b|\bthere are none\b",
    r"\b(?:it|they|one|this|he|she) (?:does not|doesn't|do not|don't) exist",
)
"""A denial without a name."""
OPEN = _compiled(
    r"\b(?:cannot|can ?not|can't|could not|couldn't|difficult to|hard to|not possible to|impossible to) (?:be )?"
    r"(?:completely |entirely |fully |reliably |confidently |definitely )?"
    r"(?:rule[d]? out|exclude[d]?|view|see (?:images|pictures)|confirm\w*|choose|decide|make out|be sure|comment)",
    r"\b(?:to|for|before|of) (?:confirm(?:ing)? or )?(?:rul(?:e|ing) out|exclud(?:e|ing))\b|\b(?:must|should|needs? to|has to) be "
    r"(?:ruled out|excluded)\b|\bit (?:would |could |might )?depends?\b",
    r"(?:\bnot|n't)(?: been| be| \w+ly)* (?:excluded|ruled out)\b|\bmay or may not\b|\b(?:might|could) or (?:might|could) not\b|\bwhether\b|\bif (?:there|it|this|one)\b",
    r"\b(?:cannot|can't|could not) be (?:assessed|evaluated|determined|judged|excluded)|\bdo(?:n't| not) know\b",
    r"\bnot (?:able|qualified) to\b|\bunable to\b|(?:n't|\bnot) clear (?:from|in|on|whether|if)\b",
    r"\bneither (?:be )?(?:confirmed|established|proven) nor\b|\beither way\b|\bone way or the other\b",
    r"\btoo (?:poor|dark|blurry|blurred|low|small|underexposed|noisy|grainy)\b|\b50[/ -]50\b|\bequally (?:good|"
    r"likely|well)",
    r"\b(?:can't|cannot|can not) (?:say|tell|judge)\b|\b(?:rather|prefer) not\b|\bundecided\b|\bpossible but\b",
)
UNDECIDED = _compiled(
    r"\bmay or may not\b|\bone way or the other\b|\bneither (?:be )?\w+(?: out)? n?or (?:exclud|rul|refut|confirm|disprov)\w*|"
    r"\b(?:cannot|can't) (?:choose|decide)\b|"
    r"\b(?:equally|evenly|just as|50[/ -]50) (?:good|likely|well|plausible|possible|probable|balanced|be|easily)\b|"
    r"\b(?:toss-?up|torn between|fifty-fifty|for and against)\b|(?<!-)\bbalanced\b|\bas (?:likely|probable|plausible)\b[^.;]* as\b|\bneither [^.;]{0,30}(?:more likely|favou?red|preferred)\b|"
    rf"\b{_UNSURE} (?:\w+ ){{0,3}}?(?:say|tell|telling|know|knowing|decide|deciding|choose|sure|distinguish\w*|"
    r"differentiat\w+|separat\w+|favou?r\w*|prefer\w*)(?: \w+){0,3}? (?:which(?: of| it| one|\W*$| is)|apart|between|"
    r"one (?:over|from)|from (?:one an|each |the )other|either)\b"
)
"""A doubt that no other clause mends."""
GENERIC = _compiled(
    r"^\W*(?:in general|in (?:radiology|medicine|anatomy)|hypothetically|in theory|generally|usually|typically|commonly|often|as a rule|normally)\b",
    r"\b(?:usually|typically|most often|textbooks?|in most (?:cases|patients|people)|in (?:most|many|"
    r"such) (?:pictures|images|photos|films)|worldwide|defined as|synonyms?|"
    r"common causes|the (?:treatment|procedure|method|operation|therapy|test) of choice|\d+-year survival|survival (?:is|rate)|"
    r"best (?:looked|searched) for|can (?:be caused|result|occur|arise)|may (?:be caused|result|arise)|is caused by|are caused by|"
    r"(?<!its )usual|matters? for|relieves?|is treated|"
    r"(?:the|this) (?:term|word|expression)|in the \w+ century|were invented|was invented|domesticated|"
    r"means of transport|"
    r"(?:commonly|generally|often) (?:seen|found|used|associated|caused|located|occur\w*|appear\w*|present\w*|"
    r"affect\w*)|"
    r"frequently|in (?:\w+ )?patients(?: with)?|"
    r"by definition|depends on|people (?:use|keep|ride|love|like|have)|sensitiv\w+|for example)\b",
)
SUPPOSED = _compiled(
    r"^\W*(?:and |but |so )?(?:(?:even |only )?if(?! (?:you|one|we) (?:looks?|zooms?))|imagine|suppose|supposing|"
    r"assuming|provided|were|had|"
    r"in the absence of|"
    r"by removing|removing|taking away|after removing|in case|whenever|when present|to (?:decide|determine|tell|"
    r"check|see|"
    r"find out|assess) (?:whether|if)|should (?:there|a|an|the|it))\b"
)
WITHOUT = _compiled(r"^\W*(?:and |but )?(?:without|with) (?:the|a|an|this|that|its|any|it|his|her|their|no)\b[^,.;]*$")
ECHO = _compiled(
    r"\b(?:the|your|this) (?:question|query|prompt|request|referral|clinical (?:request|information))\b[^,.;]* "
    r"(?:takes?|assum\w+|presuppos\w+|suggests?|implies|mentions?|asks?|states?|claims?|says?|refers?|supposes?)\b",
    r"\b(?:you|i was)(?: are|'re)? (?:ask|asked|asking|mention|assume|refer)\b(?! about (?:is|lies|layers|sits))",
    r"\b(?:look|search|check|hunt|scan)(?:s|ed|ing)? [^,.;]{0,30}for (?:an? |any |the )?(?:\w+ )?thingx",
    r"\b(?:contrary to|as stated|supposed|so-called|alleged|where an? thingx|apparent(?! on)|purported|"
    r"what (?:resembles|looks like|"
    r"appears)|"
    r"resembl\w+|mistak\w+ (?:it )?for|mistaken for|look(?:s|ed)? like(?! there)|(?:took|taken|take|mistook|"
    r"mistaken) [^,.;]{0,30}for|inclined to|tempted to|initially|at a glance|"
    r"what (?:has been|was|the \w+|you|i|looks|might|could|seems)|mimic\w*|reminiscent|confused with|at first|"
    r"i (?:first )?(?:thought|considered|wondered)|might (?:be|suggest) [^,.;]* at first|similar to)\b",
)
"""Words that only repeat the question, or hold the thing against something else."""
HISTORY = _compiled(
    r"\b(?:history|had (?:an?|the)|previous(?:ly)?|prior|treated for|earlier|last (?:week|month|year|time)|in (?:19|"
    r"20)\d\d|"
    r"years ago|in the past|used to)\b"
)
STILL = _compiled(
    r"\b(?:unchanged|stable|again|still|persist\w*|remains?|larger|smaller|increased|decreased|compared|now|today)\b"
)
ASIDE = _compiled(
    r"\b(?:sure|great|good|interesting|hello|hi|thanks?|thank you|okay|of course|certainly|let me|please|happy to|help|"
    r"question|hypothetical|sorry|disclaimer|upload|rephrase|ai|model|diagnos\w+|n/?a|note|context|"
    r"(?:image|film|picture) quality|exposure|resolution|contrast|quality|better (?:lens|camera|lighting)|"
    r"radiologist|doctor)\b"
)
VERB = (
    r"(?:is|are|was|were|isn't|aren't|am|has|have|had|do|does|did|can|cannot|could|would|will|may|might|must|should|"
    r"shows?|sees?|see|appears?|contains?|looks?|lies?|sits?|stands?|remains?|seems?|obscures?|extends?|ends?|touch\w*|"
    r"abuts?|reach(?:es)?|accompan(?:y|ies)|surrounds?|depicts?|occup(?:y|ies)|covers?|runs?|borders (?:on|the)|"
    r"includes?|faces?|"
    r"measures?|represents?|don't|doesn't|can't|i'm|it's|there's|what's|that's|you'd|i'd|isnt|overl(?:ies|aps?|ie)|"
    r"tracks?|layers?|pushes|depends?|needs?|wants?|makes?|gives?|keeps?|goes|comes|carries|wears|rides|hangs|invades?|"
    r"compress(?:es)?|separates?|meets?|continues?|consists?|belongs?|likes?|lives?|leans?|rests on|projects?|grows?|"
    r"demonstrates?|reveals?|find|mentions?|takes?|suggests?|assumes?|displaces?|partly hides?)"
)
_SUBJECT = (
    r"(?:the|an?|there|it|its|this|that|these|they|no|none|nothing|nobody|i|we|you|he|she|both|neither|one|some|"
    r"another|"
    r"your|my|his|her|their)\b"
)
CUT = _compiled(
    r"(\s*;\s+|,?\s+(?=(?:but|however|although|though|whereas|because|yet|nevertheless)\b)"
    rf"|,\s+and\s+(?={_SUBJECT}[^,;]*? {VERB}\b))|,?\s+(?=while\b)"
    rf"|\s+(?=(?:since|so(?! that)) {_SUBJECT}|as (?:no|none|there|nothing|neither)\b)|,\s+(?=(?:as|since|so|for|therefore|thus|hence|given that|with no|"
    rf"without|not)\b)"
    rf"|\s+and\s+(?=(?:{_SUBJECT}[^,;]*? {VERB}|there's|it's)\b)|:\s+(?=(?:{_SUBJECT}[^;]*? {VERB}|there's|it's)\b)|"
    rf",\s+(?=(?:only |"
    rf"just )?(?:{_SUBJECT}[^;]*? {VERB}|there's|it's)\b)"
    r"|\s+[\u2013\u2014-]\s+",
)
SUBORDINATE = _compiled(
    rf"^(\W*(?:and |but )?(?:while|although|though|since|as|because|given that|even if|if|when|were|had|suppose|with|"
    rf"without|removing|to \w+|in the absence)\b.*?(?:\b{VERB}\b|^\W*(?:al)?though (?:\w+ )?not\b|^\W*(?:and |but )?(?:with|without|in the)\b)[^,]*,)\s+"
)
PLACE = _compiled(
    r"\b(?:inside|outside|within|among|against|towards?|out of|onto|next|under|by)\b",
    r"\b(?:left|right|upper|lower|middle|centre|center|central|top|bottom|corner|above|below|under|beneath|behind|"
    r"beside|besides|between|near|nearby|next to|adjacent|around|surround\w*|in front|background|foreground|lobes?|"
    r"zones?|"
    r"ap(?:ex|ices)|apical|bas(?:e|es|al)|hil(?:um|a|ar)|perihilar|hemithorax|region of|located|lies|on|in|at|along|"
    r"over|"
    r"bilateral\w*|diffuse\w*|lateral|medial|anterior|posterior|o'clock|through|across|proximal|distal|lingula)\b",
)
BESIDE = _compiled(
    r"\b(?:beside|next to|surround\w*|around|near|nearby|touch\w*|adjacent|overl\w+|obscur\w+|abuts?|border\w*|"
    r"close to|"
    r"accompan\w+|neighbou?r\w*|flank\w*|behind|in front|to (?:the|its|his|her) (?:left|right)|alongside|all sides|"
    r"medially|laterally|superiorly|inferiorly|posteriorly|anteriorly|on (?:one|either|each|the other) side)\b"
)
FRAME = _compiled(
    r"\b(?:of|in) (?:the|this) (?:frame|image|picture|photo|photograph|film|shot|view|scan)\b|\bcorner\b|\bfilm\b|"
    r"\b(?:this|the) (?:\w+ )?(?:radiograph|x-?ray|scan|film|image|picture|photo)\b"
)
ELSEWHERE = _compiled(r"thingx (?:is|are)(?:n't| not) (?:on|in|at|near|under) ")
ALREADY = _compiled(r"\balready (?:is|are|\w+)\b|\b(?:is|are) (?:\w+ )?already\b")
BARE_VERB = _compiled(r"^\W*(?:the|this|its|an?) [\w-]+ [\w-]+s (?:the|an?)\b")
"""A subject, what looks like a verb, and what it is done to."""
THERE = _compiled(r"^\W*(?:it|one|they)(?:'s| is| are)(?: \w+ly)? (?:there|visible|present|seen|evident)\b",
    r"(?<!if )(?<!whether )\bthere(?:'s| is) (?:indeed )?one\b",
    r"^\W*(?:it |that |this )?looks? (?:very |much |a lot )*like (?:an? )?(?:\w+ )?thingx(?: to me)?\W*$",
    r"\b(?:(?:is|are|was|'s) (?:in fact|actually|really|indeed|truly)|(?:turns?|turned) out to be|proves? to be) (?:an? )?"
    r"(?:(?!not?\b)[\w-]+ ){0,2}thingx",
    r"^(?!.*(?:\b(?:no|not|without)\b|n't)).*thingx.*\b(?:recurrence|recurred|reappeared|re-?grown|c[oa]me back|relapsed?)\b",
    r"\bif it were(?:n't| not) for (?:the|an?) [^,.;]{0,20}?thingx|\bno (?:(?:other|additional|further|more) )?thingx (?:\w+ )?"
    r"(?:besides?|apart from|other than|except|aside from|than)\b",
)
TYPICAL = _compiled(r",? (?:which|as) is (?:the )?(?:usual|typical|common|customary|classic\w*|normal|expected|often)\b[^.;]*")
"""What goes for all of its kind, said after the place of this one."""
WHOLE = _compiled(
    r"\b(?:everything|all) (?:\w+ )?(?:is|looks|appears) (?:normal|fine|unremarkable)\b"
    r"|\bnothing (?:suspicious|abnormal|of note|pathological)\b"
    r"|^\W*(?:a )?(?:negative|normal|unremarkable) (?:study|exam\w*|film|radiograph|scan|image|ct|mri|x-?ray)\b"
)
"""All of a clinical image called normal."""
LOOK = _compiled(r"^\W*(?:please )?(?:look|see|check|focus)(?: closely)? (?:at|in|on|near|to|towards|for)\b")
ALONE = _compiled(r"^\W*(?:(yes|yep|yeah|i (?:think|believe|guess|suppose) so)|(?:no|nope))\W*$")
INDEFINITE = _compiled(r"(?<!evidence )(?<!signs )(?<!sign )(?<!appearance )\bof an? (?:\w+ )?thingx")
INSTEAD = _compiled(
    r"\b(?:it|this|that|they|what(?:'s| is| you see| i see)[^,;]*?)(?:'s| is| are| was| turned out to be| turns out to be)"
    r"(?: \w+ly| in fact| thus)? (?:an? (?!\w* ?(?:image|photo\w*|picture|x-?ray|radiograph|scan|film))|just|the|only|normal)\b",
    r"\b(?:more|most|far|much) (?:likely|probable|plausible|convincing)\b|\bfavou?red\b|\bpreferred\b",
)
"""What a thing that was taken for another really is."""
HEDGED = _compiled(r"\b(?:could|might|may|perhaps|maybe|possibly)\b(?! (?:be )?(?:seen|see|make out|identif))")
HANGING = _compiled(r"^\W*(?:(?:but|and|yet) )?((?:has|have|had|is|are|was|were|does|do)(?:n't)?\b)")
"""A clause without a subject: "but has been resected"."""
PRONOUN = _compiled(
    r"^(\W*(?:but |and |yet |so |as |because |since )?)(?:it|they|this|that|he|she)\b(?='s|n't| (?!is an?\b))"
)
BOX = _compiled(r"^\W*(?:\d+(?:\.\d+)?\W+){3}\d")
REFERS = _compiled(r"\b(?:it|its|they|them|their|him|there(?:'s| is) one)\b")
EXPLETIVE = _compiled(
    r"\bit(?:'s| is| was| would be| seems| appears)? (?:depends|shows?|contains?|depicts?|includes?|has an?\b|does|"
    r"difficult|hard|"
    r"possible|impossible|important|clear|not|likely|that|worth|taken|obtained|an? (?:image|photo|x-?ray|radiograph|"
    r"scan))"
)
PROPERTY = _compiled(
    rf"\b{_UNSURE}\b[^.;]{{0,60}}\b(?:exact|precise|exactly|precisely|(?:what|which) (?:kind|type|sort|breed|make|"
    r"model|colou?r|organism)|how (?:big|large|old|many|long|far)|what (?:the |this |that )?(?:thingx|it) (?:is|are)|"
    r"(?:its|the) (?:nature|cause|age|breed|aetiology|etiology|origin|type)|"
    r"(?:whether|if) (?:it|they|this|the \w+) (?:is|are) (?:an? )?(?:\w+ly )?(?:malignan\w+|benign\w*|old|new|acute|"
    r"chronic|real|male|female|recent|cancer\w*|metasta\w+|primary))",
    r"\b(?:its|the) (?:exact |precise )?(?:site|position|location|extent|size|borders?|nature|cause|age|breed|aetiology|etiology|origin|type)\b[^,.;]* "
    rf"(?:is|are|be|remains?) {_UNSURE}\b",
)
"""A doubt of what kind a thing is: that it is there is granted."""
FIELD = re.compile(r'"(\w+)"\s*:\s*("[^"]*"|\[[^\]]*\]|[\w.-]+)')
ASKED = _compiled(r"(?:object|label|class|query|question|category|name|target|confidence|score|probability|id)\b")
"""A field of JSON, and the keys of those that say nothing."""
LABEL = re.compile(
    r"^\W*(?:(?:(?:short|direct|my|the|model|predicted) )?(?:answer|response|prediction|verdict|output|result|decision|"
    r"assessment|classification|presence|present|detected|visible|found|exists|location|position|site|bbox\w*(?: 2d)?|"
    r"box|explanation|reason(?:ing)?|rationale|note|comment)\s*(?::|=)|\(?[A-D][).:](?=\s*(?:yes|no)\b))\s*",
    re.I | re.M,
)
"""What an answer is headed by."""
EXCLUSIVE = _compiled(
    r"\b(?:there(?:'s| is| are)|(?:i|we|you)(?: can| do)? see|(?:image|picture|photo|photograph|scene|frame|film|view|"
    r"scan|one|it|this)(?: \w+ly)? (?:shows?|contains?|has|features?|depicts?|is|are)) (?:only|just|nothing but|solely|"
    r"nothing other than)\b",
    r"\b(?:i|we|you)(?: can)? (?:only|just) see\b|\b(?:only|just|solely) (?:shows?|contains?|has|features?|depicts?)\b",
    r"\b(?:shows?|contains?|has|features?|depicts?|see) (?:[\w-]+ ){1,4}only\b|\b(?:all|the only thing) (?:that )?(?:i|we|one) "
    r"(?:can )?see (?:is|are)\b|\bthe only (?:thing|object|animal|finding|abnormality|device)\w* (?:visible |seen |here |shown )?"
    r"(?:is|are)\b",
)
"""All that there is in an image, named."""
IMAGINED = _compiled(r"^\W*(?:if|were|had|should) (?:there (?:is|was|were|had been|be) an? |an? thingx (?:is|was|were|be) \w+)")
"""A thing supposed to be there, so that what follows says nothing of the image."""
NOW = _compiled(
    r"\b(?:here|currently|at present|today|(?:this|the present|the current|in the|on the) (?:image|picture|photo|photograph|film|scan|"
    r"radiograph|x-?ray|ct|mri|view|scene|frame|study|patient|case|one))\b|\bthere(?:'s| is| are)(?: no|n't| none)\b"
)
"""What speaks of this image, and not in general."""
TURN = _compiled(r"^\W*(?:but|however|yet|here|in this)\b")
OUTCOME = _compiled(r"^\W*(?:and |but )?(?:with no|with neither|without|no|not|free of)\b")
"""What goes on with what would be."""
OTHERWISE = _compiled(
    r"\bthingx[^.;]*\b(?:or|versus|vs|rather|equally|alternatively)\b|\b(?:or|versus|vs|equally)\b[^.;]*thingx"
)
"""Something else named beside what may be."""
ANIMATE = _compiled(r"^\W*(?:he|she)\b")
ANY = _compiled(
    r"\b(?:the|this) (?:\w+ )?(?:abnormality|lesion|finding|area|focus|object|animal|vehicle|item|structure|"
    r"device) |\bwhat you(?:'re| are)? (?:refer|mean|look|ask)\w*|\b(?:is|are) (?:affected|involved)\b"
)
CHANGE = _compiled(
    r"\b(?:would|will|could|might)(?:n\'t)?\b|\w'd\b|\b(?:becomes?|disappears?|vanish(?:es)?|re-?expands?|returns?|"
    r"no longer)\b"
)
SAME = _compiled(
    r"\b(?:nothing(?! else|\w)(?! to)|no (?:change|difference|effect)|nothing changes|not (?:change|differ|"
    r"be altered|do anything|matter)|do nothing|unchanged|the same|"
    r"identical|unaffected|unaltered|stay (?:as|exactly)|as it is|zero change)\b"
)
I_SAY = _compiled(
    r"\b(?:i|we|one)(?: would|'d) (?:therefore |also |still )?(?:say|place|call|describe|put|read|locali[sz]e|conclude|"
    r"suspect|favou?r|classify|report|consider|look(?= at))(?: that)?\b(?! (?:no|it (?:difficult|hard)))"
    r"|\bmy (?:best )?guess (?:is|would be)\b|\bi (?:think|believe|guess|suppose)(?: that)?\b(?! so)"
    r"|\bwould (?:be )?(?=(?:qualify|count|pass|amount|explain|consistent|compatible|in keeping|fit|suggest|indicate|represent)\b)"
)
UNDER = _compiled(r"\b(?:in|within|around|near|inside|the|with|by|of the|of|to|from|beside) (?:\w+ )?thingx")
_KIND = (
    r"(?:procedure|technique|condition|disease|disorder|treatment|method|operation|devices?|infection|process|term|"
    r"therapy|accumulation|collection|build-?up|collapse|enlargement|inflammation|presence|swelling|protrusion|break|"
    r"dilatation|thickening|scarring|bleeding|bulging|animals?|mammals?|vehicles?|instruments?|objects?|tools?)"
)
_BARE = r"(?:an? )?(?!(?:no|the|this|that|his|her|it|there|here|these|those|its|my|your)\b)(?:[\w-]+ )?"
DEFINED = _compiled(
    rf"^\W*{_BARE}(?:[\w-]+ ){{0,2}}(?:is|are) (?:an?|the)? ?"
    rf"(?:(?!not?\b)[\w-]+ ){{0,2}}{_KIND} (?:of|in|by|that|which|where|for|used|whereby|caused|with)\b",
    rf"^\W*{_BARE}thingx(?: (?:in|of) (?:the|a) \w+)? (?:can|may|could)(?: also)? (?:(?:occur|arise|develop|form|vary)\b|be "
    rf"(?:(?!{_SEEN}|ruled|excluded|made)\w+\b|(?:{_SEEN})[^.;]*\b(?:or|any|every)\b))(?! (?:in|on|at) (?:this|the (?:image|picture|photo|scan|film)))",
    rf"^\W*{_BARE}thingx (?:is|are) (?:\w+ly )?(?:diagnosed|treated|managed|classified|graded|divided|characteri[sz]ed|caused)\b",
    r"^\W*(?:the|its) (?:\w+ )?(?:location|position|site|appearance|treatment|management|causes?|size|surroundings) of "
    rf"{_BARE}thingx\b",
    r"^\W*to (?:find|detect|locate|look for|see|identify|diagnose|spot|localise|localize) (?:an? |any )?thingx\b",
    rf"^\W*{_BARE}thingx (?:heals?|develops?|forms?|affects?|occurs?|arises?|causes?|lasts?|grows?|consists?|protects?|"
    r"comes? in|provides?|serves?|helps?|(?:appears?|presents?|shows? up) as)\b(?![^.;]*\b(?:this|left|right|here|the|her|his)\b)",
    rf"^\W*{_BARE}thingx are (?!(?:{_SEEN}|\w+ing|\w+ed|both|all)\b)(?:(?!(?:in|on|at|of|with|and|to)\b)[\w-]+ ){{0,3}}?"
    r"(?:\w{3,}s|thingx)\b",
    r"^\W*(?:removal|resection|excision|drainage|treatment|removing|draining) (?:of )?(?:an? )?thingx\b(?!(?: \w+){0,4} would)",
    r"^\W*(?:an? )?(?:(?!(?:no|the|this|that|his|her)\b)\w+ )?thingx (?:(?:is|are) (?:an?|any|air|fluid|when|"
    r"defined|caused|"
    r"usually|typically|often|the (?:presence|accumulation|collection))\b|refers? to|means?\b|describes?\b|may be|"
    r"can be (?:caused|due|an?|the|associated|defined))",
    rf"^\W*{_BARE}thingx (?:is|are) (?:(?:an?|the) )?(?:\w+ )?thingx\b",
    r"^\W*thingx: (?:excess|an? |the (?:presence|accumulation))",
    r"^\W*thingx (?:were|was|are|have been|remain|come) (?:\w+ ){0,4}?(?:invented|popular|common\b|"
    r"animals?|mammals?|domesticated|used|known|kept|vehicles?|loyal|pets?)",
    r"^\W*thingx (?:like|love|need|eat|live|prefer|enjoy|tend|occurs? (?:when|in)|results? from|requires?|arises?)\b",
)
MODAL = _compiled(r"\b(?:would(?:n't)?|\w+'d)\b")
HERE = _compiled(
    r"\b(?:that|which)(?: we| i| you| is| are| can| be| now| currently)+ (?:see|seen|visible|here|present|shown)\b"
    r"|\bthe (?:\w+ )?thingx(?: now| currently)? (?:seen|visible|shown|present|lying|here)\b"
)
