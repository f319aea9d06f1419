"""How answers deny and doubt: the phrases by which `presence` tells yes, no and an open question apart.

`MARK` stands for the thing wherever the answer names it, so that one set of patterns serves every thing.
"""

from __future__ import annotations

import re

MARK = "thingx"


def compiled(*parts: str) -> re.Pattern[str]:
    """One pattern of alternatives; answers are read in small letters."""
    return re.compile("|".join(parts))


_SAY = r"(?:say|state|claim|conclude|think|assume|suggest|report|speak of|call|describe|believe|agree|accept|talk of)"
_DOUBLE = (
    (
        r"\b(?:there is |there's )?(?:no(?:t a)?|hardly (?:any|a)|little) (?:doubt|question|"
        r"denying)(?: about it)?(?: that)?,?|\bundoubtedly,?"
        r"|\bwithout (?:a |any )?(?:doubt|question),?|\bnot only\b|\b(?:cannot|can't) (?:deny|be denied)(?: that)?",
        " ",
    ),
    (
        r"\b(?:do|would|could|can|will|must|should)(?: ?not|n't) (?:disagree|deny|doubt|dispute|"
        r"exclude the fact)(?: that)?"
        r"|\b(?:\w+ly )?no (?:lack|shortage) of\b",
        " ",
    ),
    (r"\b(?:cannot|can't|can not|hard to|impossible to|difficult to|not) (?:\w+ly )?(?:overlook|miss|ignore)\b", "see"),
    (
        r"\b(?:(?:would|do|could) ?not|(?:would|do|could)n't) (?:say|claim|state|"
        r"conclude)(?: that)? there (?:is no|isn't|are no)\b",
        "there is",
    ),
    (
        r"\b(?:neither|no|none of the) (?:\w+ ){0,3}?(?:is|are) (?:free of|free from|clear of|without|spared)\b",
        "both have",
    ),
    (r"\bnot as (?:if|though) there (?:were|was|is|are) no\b", "there is"),
    (r"\b(?:cannot|can't|can not) (?:say|claim|pretend) to see no\b", "see a"),
    (r"\bnot (?:absent|missing|lacking|free of)\b", "present"),
    (r"\b(lungs?|lung fields?|airspaces?|bases) (?:has|have)(?: since| now| \w+ly)* cleared\b(?! of)", r"\1 are clear"),
    (r"\b(?:any|every)thing but\b", "no"),
    (r"\bnothing (?:but|other than|except)(?= an? )", "only"),
    (r"'s (?=not\b|no longer\b)", " is "),
    (r"\b(?:would|'d) not be (?:wrong|incorrect|inaccurate) to\b", "would"),
    (r"\bnot (?:as (?:if|though)|that) (?:nothing|none)\b", "something"),
    (r"\b(?:hardly|im|not )possible to (?:not |overlook|miss|ignore)", "see "),
    (r"\b(?:not|n't) (?:entirely |completely |wholly )?(?:without|lacking|devoid of)\b", "with"),
    (r"n't (?:absent|missing|free of)\b", " present"),
    (
        r"^(\W*)no, (?:you(?:'re| are)|that(?:'s| is)|it(?:'s| is)) not (?:mistaken|wrong|incorrect|imagining)\b",
        r"\1yes",
    ),
    (
        r"\b(?:cannot|can't|(?:do|does|did|would|will|am|could)(?: not|n't)|'d not|not)(?: \w+ to)? (?:deny|"
        r"dispute|question|contradict|"
        r"argue against|speak against|disagree with|hesitate to)(?: (?:the|any|other|anybody|anyone|those|who|"
        r"says?|said|found|finding|"
        r"statement|report|claim|reviewer|fact|of|reader)\b)*(?: that)?",
        "",
    ),
    (r"\bthere(?:'s| is) no (?:question of|way) (?:it|thingx)? ?not (?:being|to be)\b", "see thingx"),
    (r"\b(?:not|n't) (?:that|as (?:if|though)) there (?:is|was|were|are) no\b", "there is a"),
    (r"\b(?:it )?(?:is |'s |be )?(?:not|n't) (?:wrong|incorrect|false) to (?:say|state|claim)\b(?: that)?", ""),
    (r"\bit isn't (?:wrong|incorrect|false) to (?:say|state|claim)\b(?: that)?", ""),
    (
        r"\b(?:above|over|beyond|exceed(?:s|ing)|outside) (?:the )?(?:upper )?"
        r"(?:normal|limits? of normal)(?: limits?| range)?\b",
        "increased",
    ),
    (
        r"\b(ratio|ctr)\b([^.;]{0,30}?) (?:exceeds?|is (?:above|over|greater than|more than)) (?:0?\.5\d?|5\d ?%)",
        r"\1\2 is increased",
    ),
    (r"\b(?:at|near) the upper (?:limits? of normal|normal limits?)\b", "normal"),
)
DOUBLE = [(re.compile(double), right) for double, right in _DOUBLE]
"""What turns a denial round, and what it is turned into; a contraction."""
TURNED = compiled(
    rf"\b(?:wrong|false|incorrect|untrue|inaccurate|misleading|a mistake|an error)(?: here)? to {_SAY}(?: that)?\b",
    r"(?:\bnot|n't) (?:true|correct|accurate|right|the case) (?:to \w+ )?that\b|\b(?:false|untrue|incorrect|"
    r"wrong) that\b",
    r"\b(?:do|would|could|can|wo|did|should|must)(?: ?not|n't) (?:really |actually |personally )?"
    rf"{_SAY}(?: with the (?:claim|idea|statement))?(?: that)?\b",
    r"\b(?:disagree|doubt|dispute|reject|deny)(?: the \w+)?(?: that)?\b",
    r"\b(?:not|n't) (?:convinced|persuaded|of the opinion|under the impression)(?: that)?\b|\bsceptical|\bskeptical"
    r"|\bsurprised (?:if|to (?:find|see))\b|\bgo so far as to \w+(?: that)?\b",
    r"\b(?:hardly|scarcely|barely) (?:be )?(?:say|said|call(?:ed)?|claim(?:ed)?|speak)(?: that)?\b",
    r"\b(?:cannot|can't) (?:agree|accept|believe|support)(?: (?:with )?(?:the \w+ )?that)?\b",
    rf"\b(?:nobody|no one|no-one|few) (?:could|can|would|will) {_SAY}(?: that)?\b",
    r"\bno (?:justification|reason|basis|grounds|support)(?: here)? (?:for|to)\b|\bunlikely (?:to be|that)\b",
)
"""What stands before a statement and turns it round."""
APART = compiled(
    r"^\W*(?:in |on |at )?the (?:opposite|contralateral|other|remaining|rest|remainder)\b",
    r"^\W*(?:the )?(?:ulna|radius|tibia|fibula|clavicle|scapula|humerus|femur|patella|pelvis|spine|skull) (?:is|are)\b",
    r"^\W*(?:on|by|at|near|under|behind|next to|beside) the (?!image|picture|photo|scan|film|x-ray|left or|"
    r"right or)\w+ (?:there|i|we|one)\b",
)
"""What makes all that is denied in a clause denied of another place alone."""
RELATIVE = compiled(
    r"\bin the absence of (?:any |an? )?thingx (?:on|in) (?:this|the (?:current|present|given)|today's)\b",
    r"thingx (?:that|which|who) (?:is|are|was|were|has|have|does|do)(?:n't| not| never)(?: \w+ly)? (?:been |be )?"
    r"(?:there|present|here|visible|part|in |on |exist|shown|seen|appear|depicted|included)",
)
CONSEQUENCE = compiled(
    r"^\W*(?:and )?(?:so|therefore|thus|hence|which is why|that is why|consequently|accordingly) "
    r"[^,;]*(?:can't|cannot|can not|unable|impossible|not possible|couldn't)[^,;]* (?:an?|any) (?:\w+ )?thingx"
)
"""An inability that follows from there being no such thing."""
MOOT = compiled(
    r"\b(?:moot|not applicable|does(?:n't| not) (?:apply|arise|hold)|do(?:n't| not) apply|no bearing on|pointless|"
    r"meaningless|(?:just|exactly|same|clear|normal|intact|dry|empty) (?:\w+ )?as (?:it|they)(?:'s|'re| is| are|"
    r" does| do)(?: right)? now|"
    r"the way (?:it|they) (?:do|does|is|are|look|looks) now|invent(?:ing)? (?:one|it|something)|already the case|"
    r"(?:is|'s) what we (?:already )?have|false premise|"
    r"premise (?:is|does|of)[^.;]*(?:n't|not|wrong|false))\b",
    r"\bwhat (?:it|the \w+|you|he|she|they|one) (?:does(?:n't| not)|do(?:n't| not)|never) (?:have|had|contain|own|"
    r"show|exist)",
)
"""A question that was put in vain."""
MERELY = compiled(
    r"\b(?:area|thing|structure|object|spot|region|one|what) (?:that |which )?you(?:'re| are)? (?:mean|refer|ask|"
    r"point|describ|look)\w*"
    r"[^.;]{0,15} (?:is|are) (?:probably |most likely |actually |just )?(?:an?|the|just|only|normal)\b(?![^.;]*thingx)",
    r"^\W*(?:but |and )?(?:on (?:re-?examination|closer inspection|review|reflection|second thoughts?),? )?"
    r"(?:that|this|it|what i \w+)(?:'s| is| was)(?: in fact| actually| really)? (?:just|merely|only|simply) (?:an? |"
    r"the )?[a-z]+",
)
"""What was taken for the thing, and is something slighter."""
REJECTED = compiled(
    r"\bmak(?:e|es|ing) (?:an? |the )?(?:\w+ )?thingx (?:\w+ )?(?:unlikely|improbable|implausible|doubtful)\b",
    r"\b(?:alleged|supposed|apparent|presumed|so-called) thingx[^,.;]{0,20} (?:is|was|represents|turns) ",
    r"thingx[^,.;]{0,60}? (?:is|are|was|would be|seems?|appears?|looks?)(?: \w+ly)?(?: very| highly| rather| most|"
    r" to be| considered| deemed| thought| felt| judged)* "
    r"(?:unlikely|improbable|doubtful|unsupported|unfounded|unjustified|rejected|dismissed|refuted|mistaken|"
    r"incorrect|wrong|false|untrue|"
    r"inaccurate|untenable|out of the "
    r"question)\b",
    r"thingx (?:is|are)(?:n't| not) (?:what|part of|among)\b|\b(?:deny|dispute|reject) (?:the |an? )?thingx",
    r"\bcalling (?:this|it|that) (?:an? )?thingx [^.;]{0,20}(?:wrong|inaccurate|incorrect|mislead\w*|"
    r"a mistake|false|overcall\w*)",
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
SEEN = (
    r"(?:present|visible|visuali[sz]ed|seen|there\b|identified|identifiable|detected|detectable|shown|depicted|"
    r"included|found|observed|evident|apparent|exist|located|demonstrated|noted|appreciated|recogni[sz]able|"
    r"among (?:them|these|those)|part of (?:the|this)|in (?:view|sight)|"
    r"(?:in|on) (?:the|this|today's) (?:current |present |new )?(?:image|picture|photo|x-?ray|scan|radiograph|scene|"
    r"film|shot|"
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
    r"(?:resolved|cleared|resected|removed|excised|drained|evacuated|extracted|explanted|disappeared|gone|healed|"
    r"subsided|"
    r"re-?expanded|re-?aerated|regressed|(?:re-?)?absorbed|resorbed|repaired|operated on|snared|aspirated|vanished|"
    r"cured|"
    r"dissolved|taken (?:out|away))"
)
GONE = compiled(rf"\b{_GONE}\b|\bno longer\b")
DENIED = compiled(
    r"\b(?:suspected|questioned|queried|reported) (?:\w+ )?thingx (?:was|is|has|could|can)(?:n't| not) (?:been |"
    r"be )?confirmed\b",
    r"\b(?:(?:incompatible|inconsistent|at odds) with|(?:speaks?|goes|weighs?|evidence) against|"
    r"far from (?:showing |being )?)(?: an?| any)? ?(?:\w+ )?thingx",
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
    r"\bnot (?:(?:that|those|one|signs|evidence|because|due|caused|typical|characteristic|just|to) )*(?:of |to |by |"
    r"from |for )?"
    r"(?:(?:an?|any|actual|true|real) )*thingx",
    r"\bnothing (?:\w+ ){0,2}that (?:(?:could|can|would|might|should) be )?(?:called |described as |considered |"
    r"taken for |seen as )?"
    r"(?:an? )?(?:\w+ )?thingx",
    r"^\W*(?:but |and )?not (?:on |in |with )?(?:a |an |any )?(?:\w+ )?thingx\b(?![^,.;]* (?:is|are)\b)",
    r"\b(?:low|little|minimal|scant) (?:\w+ )?(?:suspicion|likelihood|probability|chance|risk|concern|"
    r"evidence) (?:of|for|that) "
    r"(?:[\w-]+ ){0,3}thingx",
    r"thingx,? (?:i|we) (?:do not|don't|cannot|can't) (?:see|find|identify|detect)",
    r"\b(?:nobody|no one|none|not one|neither|nowhere)\b[^,.;]{0,60} (?:with|is|are|was|were|ha[sd]|have|having|\w+ing|"
    r"\w+s|\w+ed) (?:an?|any) (?:\w+ )?thingx",
    r"thingx(?: (?!(?:is|are|was|were|which|but|lies|looks?|appears?)\b)[\w-]+){0,5} "
    r"(?:(?:is|are|was|were|can|could|does|do|has|have|ca|wo)(?:n't| not|not) |not |nowhere )"
    rf"(?:\w+ly )?(?:be |been |appear to be )?(?:\w+ly )?{SEEN}",
    r"thingx:? (?:(?:is|are|was|were|appears?|seems?)(?: to be)? )?(?:clearly |entirely |completely )?"
    r"(?:absent|missing|lacking|nowhere|none\b|negative\b)",
    r"thingx (?:is|are|lies?|must be|would be) (?:\w+ly )?(?:outside|beyond|out of|off) (?:the |"
    r"this )?(?:field|frame|image|"
    r"picture|view|scan|film|shot|edge|slice|section|camera|sight)",
    r"thingx\s*[:=-]\s*(?:0|zero|nil|no|false|nope|not \w+|\u2717|\u2718|\u274c)(?!\w)",
    r"thingx,? (?:no|not)\W*$|thingx\s*[:=]?\s*\(?[-\u2013\u2014]\)?\W*$|thingx[- ]free\b",
    r"thingx (?:is|was|are|were)(?: not|n't) (?:confirmed|borne out|substantiated|verified) (?:by|on|in)\b",
    r"thingx (?:that |which )?you (?:are )?(?:ask|mention|mean|refer|look)\w*(?: about| for| to)? (?:is|are|does|"
    r"do)(?:n't| not)\W*$",
    r"\bin the absence of (?:any |an? )?thingx (?:on|in) (?:this|the (?:current|present|given)|today's)\b",
    r"thingx (?:has|have|had) (?:already |just )?(?:left|departed)\b(?![- ](?:lung|side|upper|lower))",
    r"thingx (?:can|could|may) be (?:\w+ly )?(?:ruled out|excluded)",
    r"thingx[^,.;]{0,60}? (?:has|have|had|is|are|was|were)(?: been| since| now| all| already| then| long| (?!partial|"
    r"part|most|large|near|"
    r"incomplete)\w+ly)* "
    rf"(?:{_GONE}|no longer)\b",
    r"\b(?:complete|full|total|entire|interval|subsequent) (?:resolution|clearing|clearance|disappearance|regression|"
    r"absorption|"
    r"reabsorption|removal|resorption)\b(?! of)",
    r"thingx[^,.;]{0,30}? (?:no longer|ceased to) ",
    r"\b(?:status post|s/p|after|following|post)[- ](?:\w+ ){0,3}?thingx (?:removal|resection|excision|explantation|"
    r"drainage|evacuation|repair)",
    r"\b(?:removal|resection|excision|explantation|resolution|clearing|disappearance) of (?:the |a |an )?"
    r"(?:\w+ ){0,3}?thingx",
)
"""How a thing is denied; `thingx` stands for it wherever the answer names it."""
LACKING = compiled(r"^\W*(?:in the absence of|without) (?:an?|any) (?:\w+ )?thingx\b")
MORE = compiled(r"\b(?:no|without) (?:other|further|additional|second|more|another) (?:\w+ )?thingx")
"""A denial of a further one, which grants the first."""
JUST = compiled(
    r"\"\s*thingx\s*\"[^.;]{0,30}? (?:is|are|was|turns?|represents?|looks)[^.;]{0,30}? (?:an?|the|just|"
    r"only)\b(?! (?:[\w-]+ ){0,3}thingx)",
    r"^\W*(?:but )?what [^.;]{0,60}?thingx[^.;]{0,40}? (?:is|are|was|were|turns out to be) (?:in fact |actually |"
    r"really |\w+ly )?"
    r"(?:an?|the|some|just|only|part|due)\b(?! (?:[\w-]+ ){0,3}thingx)",
    r"thingx\W+(?:that |which )?you(?:'re| are| may be| might be)? [^,.;]{1,30}?(?:is|are) (?:in fact |actually |"
    r"really |simply |"
    r"just |merely |only |probably )?(?:an?|the|just|only|normal)\b(?! (?:[\w-]+ ){0,3}thingx)",
    r"thingx[^,.;]{0,40} turn(?:s|ed) out to be (?:an?|the) (?!\w* ?thingx)",
    r"(?:thingx|\b(?:it|this|that|what|which)\b)[^,.;]{0,60}? (?:is|are|was|were|represents?|reflects?|"
    r"turns? out to be) "
    r"(?:in fact |actually |really |simply |just |merely |only |probably |most likely )*"
    r"(?:(?<=simply )|(?<=just )|(?<=merely )|(?<=actually )|(?<=really )|(?<=fact )|(?=(?:an?|the) (?:normal|"
    r"physiological|"
    r"nipple|skin|vascular|artefact|artifact|shadow)))(?:a|an|the|due|overlapping|artefact\w*|artifact\w*|"
    r"normal) (?!(?:[\w-]+ ){0,3}thingx)",
)
"""A thing, or what stands for it, explained as something else."""
SIDED = compiled(
    r"\b(?:left|right|upper|lower|middle|apex|apical|base|basal|side|surrounding|otherwise|remaining|remainder|rest|"
    r"adjacent|around|else|elsewhere|other|neighbou?ring|satellite|apices|bases|r[uml]l|l[ul]l|nearby|beside|beyond|"
    r"new|further|additional|second|another|acute|"
    r"tension|large|loculated|displaced|residual|more(?! than)|associated|contralateral|opposite|next to|foreground|"
    r"background)\b"
)
"""What makes a denial one of a part alone: a side, or "no new", "no other"."""
RESIDUE = compiled(r"\b(?:remaining|rest|remainder|adjacent|surrounding|otherwise|neighbou?ring)\b")
"""What is left when the thing is left out."""
BOTH = compiled(r"\b(?:both|either|bilateral|anywhere|any kind|every|all|residual|on the left or|left or right)\b")
NONE = compiled(
    rf"\b(?:none|neither|no such \w+|not (?:any|one))(?: of \w+)?(?: (?:is|are|was|were|can be|"
    rf"could be))?(?: \w+ly)? {SEEN}",
    r"^\W*(?:(?:it|this|that|one|they|these)(?:'s|'re| is| are) )?(?:none|nowhere|absent|missing|"
    r"not (?:present|there|visible|seen|"
    r"identified|demonstrated|detected|found|shown|depicted))\b[^a-z]*"
    r"(?:(?:on|in|at) (?:this|the|today's|either|any) (?:\w+ )?(?:image|picture|photo|film|scan|view|x-?ray|"
    r"radiograph|side|frame|lung|study|ct|mri)\W*)?$",
    r"^\W*(?:none|neither|no one|nobody|not one)(?: of [^,.;]{1,40})? (?:is|are|does|do|has|have|did|shows?)\W*$",
    r"^\W*what (?:\w+ )?thingx\?|^\W*there (?:is|are)(?:n't| not)\W*$",
    r"\bthere (?:simply |just |really |\w+ly )?(?:is|are) none\b|\bthere (?:was|were|is|are)(?:n't|"
    r" not) any\b|\bnone (?:has|have) been\b",
    r"\b(?:absent|missing) (?:it|they) (?:is|are)\b|\bits absence is\b|\bpremise valid: no\b|"
    r"\bmistaken (?:assumption|premise)\b",
    r"\b(?:mistaken|mistook|taken|took it) for (?:one|an? thingx|thingx)\b",
    r"^\W*(?:on|in|at) neither\b|\bneither \w+ (?:is|are) (?:affected|involved)\b",
    r"\b(?:such an?|that|this) (?:thing|object|animal|finding|lesion|structure|item|abnormality|vehicle|"
    r"device) (?:(?:is|does|"
    rf"can)(?:n't| not)|cannot) (?:be )?(?:appear|exist|{SEEN})",
    r"\b(?:nothing|not anything) (?:like (?:that|it|this)|of (?:that|the|this) (?:kind|sort))\b",
    r"\b(?:does|do)(?:n't| not) (?:seem|appear) to be (?:one|any)\b(?! \w+x\b)(?=\W*(?:$|here|in|on))",
    r"^\W*none (?:that|which|as far as|visible|seen|here|at all|in|of (?:it|them))\b[^,;]*$",
    r"\bwithout finding|\b(?:came|come|coming) up (?:empty|with nothing)|\bin vain\b|\bto no avail\b|"
    r"\bwithout (?:any )?(?:success|luck)|\bfound (?:none|nothing)\b",
    r"\b(?:object|target|item|finding|lesion) (?:is |was )?not (?:\w+ly )?(?:present|detected|found|visible|seen|"
    r"identified)|\bnot anywhere\b",
    r"(?:n't|not) know (?:which|what) (?:\w+ )?thingx you\b",
    r"\bnowhere\b(?! near)|\b(?:see|find) what you(?:'re| are)? (?:refer|mean|ask)\w*|\bno such (?:thing|finding|"
    r"area|region|focus|sign|line|opacity|spot|change|"
    r"object|animal|lesion|structure|item|vehicle|device)\b",
    r"\b(?:premise|assumption|question|suggestion)\b[^,.;]{0,30} (?:is|appears|seems)(?: to be)? "
    r"(?:wrong|false|incorrect|mistaken|flawed|inaccurate|invalid)",
    r"\b(?:shows?|see|find|count|detect|spot|identify|notice|contains?|has|have|there's|there is|there are|there was|"
    r"there were) none\b(?! of)|\bsee nothing(?: there|"
    r" here)?\W*$",
    r"\bno (?:evidence|signs?|trace) of (?:one|it|any|that)\b|^\W*(?:but )?not (?:in|on) (?:this|today's|"
    r"the (?:present|current))\b",
    r"\b(?:nothing|not anything|isn't anything) (?:[\w ]{0,25} )?(?:to (?!it\b)|that (?:could|can|would) be )"
    r"(?:remove|change|alter|correct|heal|treat|take away|point|describe|locali[sz]e|locate|take|removed|show|delete|"
    r"subtract|erase|report)\w*",
    r"\b(?:one|what|(?:something|anything|a thing) (?:that|which))(?: (?:is|are|was)|'s|s)(?: not|n't) (?:actually |"
    r"really |even )?"
    r"(?:there|present|visible|in (?:the|this) (?:image|picture|photo|film|scan))",
    r"\b(?:one|what|(?:something|anything|a thing) (?:that|which)) (?:isn't|aren't) (?:there|present|visible)\b|"
    r"\bthere (?:is|are)(?:n't|"
    r" not)(?: actually)? (?:one|any)\b(?=\s*(?:(?:here|in|on|elsewhere|anywhere|around|either|"
    r"to|at)\b|$|[,.;]))|^\W*none (?:on|in|at) (?:the )?\w+ (?:and|or|nor) ",
    rf"(?:n't|\bnot) (?:{_SEEING}) (?:one|any|it|any such \w+|anything (?:like|of))\b(?=\s*(?:(?:here|in|on|to|at|"
    rf"that|lying|"
    r"anywhere)\b|$|[,.;]))",
    r"\byou (?:must|may|might|seem to|could) (?:be|have) (?:mistaken|confus\w+|mixed|(?:thinking of|looking at|"
    r"referring to) "
    r"(?:another|a different|some other))|\bquestion (?:must|may|might|seems to) (?:be|refer to|belong to|concern) "
    r"(?:about |for |meant for )?(?:another|a different|some other)\b",
    r"\b(?:do|would)(?:n't| not) (?:think|believe) so\b|\bthere is none\b|\bi see none\b|\bthere are none\b",
    r"\b(?:it|they|one|this|he|she) (?:does not|doesn't|do not|don't) exist",
)
"""A denial without a name."""
