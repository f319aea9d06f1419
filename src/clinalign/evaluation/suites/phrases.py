"""How answers assert, suppose, define, generalise and repeat, and how their sentences hang together.

As in `denials`, "thingx" stands for the thing wherever the answer names it.
"""

from __future__ import annotations

import re

from clinalign.evaluation.suites.denials import compiled

LEADING = compiled(
    r"\W*(?:(?:most likely|probably|i think|i believe|well|honestly|very likely|i(?:'d| would) (?:say|answer)),? )?"
    r"(?:(yes(?! and no)|yeah|yep|yup|affirmative|absolutely|certainly|definitely|correct|indeed|i (?:think|believe|"
    r"guess|suppose) so)\b(?! no\b)"
    r"(?! (?:not|no|the (?:bones|lungs) are))"
    r"|(no|nope|nah|(?<=likely )not(?=,)|(?<=probably )not(?=,))\b(?=\s*(?:[,.;:!\u2013\u2014-]|$)|\s+(?:there|it|"
    r"the|this|i|they)\b))"
)
CONCLUDING = compiled(
    r"\b(?:(?:so|therefore|thus|hence|ergo|in conclusion|in short|bottom line|short answer|my answer|overall|"
    r"conclusion|verdict),?:?\s+(?:the answer (?:is|"
    r"would be)\s+)?"
    r"|(?:(?:my|the) (?:final )?answer|answer(?:ed)?)(?: [^.,;]{0,30})?(?: is| would be| to|"
    r",)? (?:in the )?|that(?:'s| is| would be) an? (?:\w+ )?)(?:(yes|affirmative)|(no|"
    r"negative))\b(?=\s*[,.;:!]|$)"
)
CONCLUSION = compiled(
    r"^\W*(?:and )?(?:so|therefore|thus|hence|in (?:conclusion|summary|short)|overall|to sum up|all in all|conclusion|"
    r"impression|final answer|(?:actually|wait|but),? (?:on|looking)|on (?:closer|second)|looking (?:again|closer|"
    r"more)|i (?:therefore )?conclude)\b|\btherefore\b|\bi conclude\b"
)
ASSERTED = compiled(
    r"\b(?:there (?:is|are|'s|was|appears to be|seems to be)|there's|(?:i|we|you|one) (?:can |do |could )?(?:clearly )?"
    r"(?:see|note|identify|notice|observe|spot|find)|(?:image|picture|photo|photograph|it|film|scan|radiograph|x-?ray|"
    r"ct|mri|view|slice|scene)(?: \w+ly)? (?:does )?(?:shows?|contains?|depicts?|has|reveals?|demonstrates?|includes?|"
    r"features?)|seen is|confirms?) (?:[\w-]+,? ){0,8}?thingx",
    r"thingx(?: (?!(?:is|are|was|were|would)\b)[\w-]+){0,5} (?:is|are|lies?|sits?|stands?|occup(?:y|ies)|can be|"
    r"remains?|"
    r"measures?|persists?)\b(?!n't| (?:not|what|asked|mentioned|the (?:question|term)))",
    r"\b(?:the|this|these) (?:[\w-]+ ){0,2}thingx (?:is|are)(?:n't| not) (?:\w+ly )?(?:locali[sz]ed|confined|limited|"
    r"restricted|focal|loculated|single|solitary|new|large|small|severe|extensive|massive|calcified|complete)\b",
    r"\b(?:abnormality|finding|lesion|change|feature)s?(?: that i see)? (?:is|are) "
    r"(?:an? )?(?:(?!no\b|not\b)[\w-]+ ){0,3}thingx",
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
HAS_VERB = compiled(rf"\b{VERB}\b|n't\b|'d\b")
_SUBJECT = (
    r"(?:the|an?|there|it|its|this|that|these|they|no|none|nothing|nobody|i|we|you|he|she|both|neither|one|some|"
    r"another|"
    r"your|my|his|her|their)\b"
)
CUT = compiled(
    r"(\s*;\s+|,?\s+(?=(?:but|however|although|though|whereas|because|yet|nevertheless)\b)"
    rf"|,\s+and\s+(?={_SUBJECT}[^,;]*? {VERB}\b))|,?\s+(?=while\b)"
    rf"|\s+(?=(?:since|so(?! that)) {_SUBJECT}|as (?:no|none|there|nothing|neither)\b)|,\s+(?=(?:as|since|so|for|"
    r"therefore|thus|hence|otherwise|given|seeing (?:that|as)|considering|with no|"
    rf"without|not)\b)"
    rf"|\s+and\s+(?=(?:{_SUBJECT}[^,;]*? {VERB}|there's|it's)\b)|:\s+(?=[^;]*?\b(?:{VERB}|there's|it's)\b)|"
    rf",\s+(?=(?:only |"
    rf"just )?(?:{_SUBJECT}[^;]*? {VERB}|there's|it's)\b)"
    r"|\s+[\u2013\u2014-]\s+",
)
SUBORDINATE = compiled(
    rf"^(\W*(?:and |but )?(?:while|although|though|since|as|because|given that|even if|if|when|were|had|suppose|with|"
    rf"without|removing|to \w+|in the absence)\b.*?(?:\b{VERB}\b|\bnot\b|^\W*(?:and |"
    r"but )?(?:with|without|in the)\b)[^,]*,)\s+"
)
PLACE = compiled(
    r"\b(?:inside|outside|within|among|against|towards?|out of|onto|next|under|by)\b",
    r"\b(?:left|right|upper|lower|middle|centre|center|central|top|bottom|corner|above|below|under|beneath|behind|"
    r"beside|besides|between|near|nearby|next to|adjacent|around|surround\w*|in front|background|foreground|lobes?|"
    r"zones?|"
    r"ap(?:ex|ices)|apical|bas(?:e|es|al)|hil(?:um|a|ar)|perihilar|hemithorax|region of|located|lies|on|in|at|along|"
    r"over|"
    r"bilateral\w*|diffuse\w*|lateral|medial|anterior|posterior|o'clock|through|across|proximal|distal|lingula)\b",
)
BESIDE = compiled(
    r"\b(?:beside|next to|surround\w*|around|near|nearby|touch\w*|adjacent|overl\w+|obscur\w+|abuts?|border\w*|"
    r"close to|"
    r"accompan\w+|neighbou?r\w*|flank\w*|behind|in front|to (?:the|its|his|her) (?:left|right)|alongside|all sides|"
    r"medially|laterally|superiorly|inferiorly|posteriorly|anteriorly|on (?:one|either|each|the other) side)\b"
)
FRAME = compiled(
    r"\b(?:of|in) (?:the|this) (?:frame|image|picture|photo|photograph|film|shot|view|scan)\b|\bcorner\b|\bfilm\b|"
    r"\b(?:this|the) (?:\w+ )?(?:radiograph|x-?ray|scan|film|image|picture|photo)\b"
)
ONE = compiled(
    r"\b((?:has|have|had|see|seen|find|found|spot|shows?|contains?|(?<!this )is|are|isn't|aren't|be|'s|"
    r"is not|are not|n't|without|lacks?|brought|put|own|owns|carr(?:y|ies)|wearing|holding) (?:even )?)one\b"
    r"(?=\W*(?:$|[,.;)]|(?:here|in|on|up|at|to|anywhere|around|visible|present|there|near|beside|by|behind)\b))"
)
"""One of what was asked for."""
FOREIGN = compiled(
    r"\b(?:nein|kein(?:e|en|er|em)?|nicht|ist|und|der|das|zu sehen|hay (?:un|una|evid\w+)|ning[u\u00fa]n[ao]?|"
    r"s[i\u00ed]|est[a\u00e1]|una|del|se (?:observa|aprecia|ve)|n[a\u00e3]o|h[a\u00e1] (?:um|uma|evid\w+)|nenhum\w*|"
    r"uma|pas|aucun\w*|est|une|il y a|nessun\w*|c'\u00e8|geen|niet|een)\b"
)
ENGLISH = compiled(r"\b(?:the|is|are|there|of|this|it|and|with|not|on|i|yes|an)\b")
"""Words of other languages, in which a negation would go unread, and words that an English answer has."""
AGREED = re.compile(
    r"^\W*(?:yes|sure|certainly|of course|absolutely|okay)[,.:;]? (?:i(?:'ve| have|"
    r"'ll)? (?:\w+ly )?(?:look|check|search|examin|review|"
    r"inspect|went|scann|see (?:the|what))|(?:and|but) no\b)|"
    r"^\W*(?:yes|sure|certainly|of course|absolutely|okay),? (?:this|that|it|the image|here)(?:'s|"
    r" is)? (?:is )?(?:an? |the )"
    r"(?![^.]*thingx)"
)
"""A yes that goes on with something else than the thing."""
COMPARED = compiled(
    r"\b(?:again|no more|no longer|less|more|(?!other|another|after|over|under|either|neither|however|never|together|"
    r"water|paper|order|layer|border|corner|upper|lower|center|inner|outer|finger|shoulder|liver|bladder|ulcer|cancer|"
    r"number|answer|matter|newspaper|tower|flower|river|driver)[a-z]{3,}er)\b"
)
"""What would be otherwise, told by a degree."""
OBJECT = compiled(
    r"^\W*(?:it|they) (?!is\b|are\b|was\b|were\b|seems?\b|appears?\b|looks?\b|could\b|may\b|might\b|can|would\b|"
    r"does\b|do\b|has no\b|has not\b|"
    r"did\b|won't\b|will\b|depends?\b|takes?\b|says?\b)\w+|\b(?!is\b|was\b|as\b)\w+(?:ing|s|ed|to|of|on|with|at|by|"
    r"in) (?:it|them)\b"
)
THESE_ONLY = compiled(
    r"^\W*only (?![^,;]*\b(?:is|are|was|were|has)\b)(?!in|on|at|along|near|the|its|his|her|their|one|partly|part|"
    r"half|just|if|when|by|behind|above|below|under|left|right|"
    r"upper|lower|[\w-]+ly\b)(?:[\w-]+ ){0,2}[\w-]+s\b",
    r"^[^.;,]{0,60}(?<!left)(?<!base)(?<!lobe)(?<!side)(?<!lung)(?<!zone)(?<!apex)(?<!right) only\W*$",
)
"""What there is, and nothing else, in a line without a verb."""
NO_MORE = compiled(
    r"\b(?:nothing (?:more|else|but)|alone\W*$|that(?:'s| is) (?:all|it|the lot)\W*$|^\W*just (?:the|"
    r"an?) (?!left|right)[\w-]+\W*$|consists? (?:only |solely |entirely )?of|"
    r"the only (?:\w+ )?(?:\w+ )?(?:here|around|visible|shown|in|that)|(?:has|have|holds?|contains?|shows?|see|of|by|"
    r"with|are|is) "
    r"(?:[\w-]+ ){0,2}?(?:only|just) (?!one side|part|partly|the|its|his|her|able|half|a (?:part|half|bit|corner)))"
)
"""All that there is of a kind, named."""
ELSEWHERE = compiled(r"thingx (?:is|are)(?:n't| not) (?:on|in|at|near|under) ")
ALREADY = compiled(
    r"\balready\b|\bto begin with\b|\bin the first place\b|\bas (?:it is|things are|they are|"
    r"it stands|they stand)\b"
)
BARE_VERB = compiled(r"^\W*(?:the|this|its|an?) [\w-]+ [\w-]+s (?:the|an?)\b")
"""A subject, what looks like a verb, and what it is done to."""
THERE = compiled(
    r"^\W*(?:it|one|they)(?:'s| is| are)(?: \w+ly| still| indeed)? (?:there|visible|present|seen|evident)\b",
    r"^\W*there (?:is|are):",
    r"^\W*both (?:of (?:them|these) )?(?:are|were|can be) (?:\w+ly )?(?:there|present|visible|seen|shown|found)\b",
    r"^(?!.*\b(?:no|not|if|would)\b).*\b(?:count|spot|see|counted) (?:at least |about )?(?:one|two|three|"
    r"four|five|six|several|many|some|\d+)"
    r"(?: of (?:them|those|these))?\b(?=\W*(?:$|[,.;(]|in\b|on\b|above|below|near|by\b|here|at\b|there))",
    r"(?<!if )(?<!whether )(?<!be sure )\bthere(?:'s| is) (?:indeed )?one\b|\b(?:this|that) is (?:indeed |"
    r"clearly )?the case\W*$",
    r"^\W*(?:it |that |this )?looks? (?:very |much |a lot )*like (?:an? )?(?:\w+ )?thingx(?: to me)?\W*$",
    r"\blooks like [^,.;]{0,25}thingx to me\b",
    r"\b(?:(?:is|are|was|'s) (?:in fact|actually|really|indeed|truly)|(?:turns?|turned) out to be|"
    r"proves? to be) (?:an? )?"
    r"(?:(?!not?\b)[\w-]+ ){0,2}thingx",
    r"^(?!.*(?:\b(?:no|not|without)\b|n't)).*thingx.*\b(?:recurrence|recurred|reappeared|re-?grown|c[oa]me back|"
    r"relapsed?)\b",
    r"\bif it were(?:n't| not) for (?:the|an?) [^,.;]{0,20}?thingx|\bno (?:(?:other|additional|further|"
    r"more) )?thingx (?:\w+ )?"
    r"(?:besides?|apart from|other than|except|aside from|than)\b",
)
WHOLE = compiled(
    r"\b(?:study|exam\w*|film|ct|mri|scan|x-?ray|radiograph|image) (?:is|was|looks|appears) (?:\w+ly )?(?:negative|"
    r"clean)\b",
    r"^\W*(?:both|all|they|these)(?: of them)? (?:are|look|appear) (?:\w+ly )?(?:sharp|clear|normal|free|intact|"
    r"smooth|unremarkable|preserved)\b|"
    r"\bnothing acute\b|\bnad\b|\bno abnormalit(?:y|ies)(?: (?:is|are|was|were))?(?: detected| seen| found|"
    r" identified)?\W*$|\bfound (?:all of them|them all|everything) (?:to be )?(?:normal|clear|unremarkable)|"
    r"\bnormal (?:exam\w*|study|chest|brain|"
    r"film|scan|ct|mri|x-?ray|radiograph|image)\b(?! quality)",
    r"\b(?:everything|all) (?:(?!else)\w+ )?(?:is|looks|appears) (?:normal|fine|unremarkable)\b"
    r"|\bnothing (?:suspicious|abnormal|of note|pathological)\b(?! (?:\w+s (?:it|them|thingx)|around|near|beside|next))"
    r"|^\W*(?:a )?(?:negative|normal|unremarkable) (?:study|exam\w*|film|radiograph|scan|image|ct|mri|x-?ray)\b",
)
"""All of a clinical image called normal."""
LOOK = compiled(r"^\W*(?:please )?(?:look|see|check|focus)(?: closely)? (?:at|in|on|near|to|towards|for)\b")
ALONE = compiled(
    r"^\W*(?:(?:so )?(?:(?:the|my) )?answer (?:to (?:your|the|this) question )?(?:is|would be|would have to be|"
    r"must be|has to be|can only be|should be) |i(?:'d| would)? (?:\w+ )?"
    r"(?:answer|say|lean|go|vote)(?: towards?| with| for)? (?:an? )?|(?:(?:most|very|quite|highly|more) )?"
    r"(?:likely|probably|certainly|definitely|presumably|surely|clearly),? )?"
    r"(?:(yes|yep|yeah|present|detected|visible|seen|(?<=is |be )(?:affirmative|positive)|i (?:think|believe|guess|"
    r"suppose) so|"
    r"(?:most|very|quite|highly) (?:likely|probably)|there (?:is|are)(?: one| some)?|it (?:is|does)|they are)|"
    r"(?:no|nope|not|absent|none|(?:very |highly |most )?unlikely|(?:it )?does(?:n't| not) (?:look|seem)(?: like (?:it|"
    r"that))?|probably not|there are(?:n't| not)|there is(?:n't| not)|not (?:present|detected|seen|"
    r"visible|there)|(?<=is |be )negative))\W*$"
)
INDEFINITE = compiled(r"(?<!evidence )(?<!signs )(?<!sign )(?<!appearance )\bof an? (?:\w+ )?thingx")
INSTEAD = compiled(
    r"\b(?:it|this|that|they|what(?:'s| is| you see| i see)[^,;]*?)(?:'s| is| are| was| turned out to be|"
    r" turns out to be)"
    r"(?: \w+ly| in fact| thus)? (?:an? (?!\w* ?(?:image|photo\w*|picture|x-?ray|radiograph|scan|film))|just|the|"
    r"only|normal)\b",
    r"\b(?:more|most|far|much) (?:likely|probable|plausible|convincing)\b|\bfavou?red\b|\bpreferred\b",
)
"""What a thing that was taken for another really is."""
HANGING = compiled(r"^\W*(?:(?:but|and|yet) )?((?:has|have|had|is|are|was|were|does|do)(?:n't)?\b)")
"""A clause without a subject: "but has been resected"."""
PRONOUN = compiled(
    r"^(\W*(?:but |and |yet |so |as |because |since )?)(?:(?:today|now|meanwhile|in the meantime|"
    r"since then),? )?(?:it|they|this|that|he|she|both|these|those|all)\b(?='s|n't| (?!is an?\b))"
)
BOX = compiled(r"^\W*(?:[xy]\d? ?[=:] ?)?(?:\d+(?:\.\d+)?\W+(?:[xywh]\d? ?[=:] ?)?){3}\d")
REFERS = compiled(r"\b(?:it|its|they|them|their|him|there(?:'s| is) one)\b")
EXPLETIVE = compiled(
    r"\bit(?:'s| is| was| would be| seems| appears)? (?:depends|shows?|contains?|depicts?|includes?|has an?\b|does|"
    r"difficult|hard|"
    r"possible|impossible|important|clear|not|likely|that|worth|taken|obtained|an? (?:image|photo|x-?ray|radiograph|"
    r"scan))"
)
FIELD = re.compile(r'"(\w+)"\s*:\s*("[^"]*"|\[[^\]]*\]|[\w.-]+)')
PLACED = compiled(r"(?:bbox|box|bounding|location|position|site|coord|region|place|side)")
ASKED = compiled(
    r"(?:object|finding|label|class|query|question|category|name|target|confidence|score|probability|"
    r"id)\b"
)
"""A field of JSON, and the keys of those that say nothing."""
LABEL = re.compile(
    r"^\W*(?:(?:(?:short|direct|my|the|model|predicted) )?(?:answer|response|prediction|verdict|output|result|decision|"
    r"assessment|classification|presence|present|detected|visible|found|exists|location|position|site|bbox\w*(?: 2d)?|"
    r"box|coord\w+|explanation|reason(?:ing)?|rationale|note|comment)\s*(?::|=)|\(?[a-d][).:](?=\s*(?:yes|no|present|"
    r"absent)\b))\s*",
    re.M,
)
"""What an answer is headed by."""
EXCLUSIVE = compiled(
    r"\b(?:there(?:'s| is| are)|(?:i|we|you)(?: can| do)? see|(?:image|picture|photo|photograph|scene|frame|film|view|"
    r"scan|one|it|this)(?: \w+ly)? (?:shows?|contains?|has|features?|depicts?|is|are)) (?:only|just|nothing but|solely|"
    r"nothing other than)\b",
    r"\b(?:i|we|you)(?: can)? (?:only|just) see\b|\b(?:only|just|solely) (?:shows?|contains?|has|features?|depicts?)\b",
    r"\b(?:shows?|contains?|has|features?|depicts?|see) (?:[\w-]+ ){1,4}only\b|\b(?:all|"
    r"the only thing) (?:that )?(?:i|we|one) "
    r"(?:can )?see (?:is|are)\b|\bthe only (?:thing|object|animal|finding|abnormality|device)\w* (?:visible |seen |"
    r"here |shown )?"
    r"(?:is|are)\b",
)
"""All that there is in an image, named."""
OUTCOME = compiled(
    r"^(?!.*\b(?:is|are|isn't|aren't)\b)\W*(?:and |but )?(?:with no|with neither|without|no|not|"
    r"free of)\b"
)
"""What goes on with what would be."""
ANIMATE = compiled(r"^\W*(?:he|she)\b")
OTHER = compiled(
    r"^\W*(?:it|that|this|what i see) (?:looks (?:more |rather )?like|appears to be|seems to be|"
    r"resembles) an?\b(?![^.;]*thingx)",
    r"^\W*it(?:'s| is) (?:\w+ ){1,3}that (?:is|are|lies?|sits?|stands?|hangs?)\b",
    r"\b(?:the|that|this) (?:only )?(?:\w+ )?(?:thing|object|item|piece|slice|bit|meal|dish|food|drink|device|"
    r"instrument|pet|fruit|vegetable)s?\b[^,.;]{0,30}? "
    r"(?:is|are)(?: in fact| actually| really)? (?!(?:not|in|on|at|to|of|too|very|hard|unclear|blurred|partly|"
    r"visible|seen|located)\b)\w+",
    r"^\W*(?:the )?[\w' -]{1,30} (?:is|are|stands?|looks?) (?:\w+ly )?(?:empty|bare|deserted|vacant|"
    r"unoccupied|blank)\b",
    r"^\W*what(?:'s| is| we have| you see| i see) [^,.;]{0,30}? is (?:in fact |actually )?(?:an?|the|some)\b",
)
"""A thing of no kind, called something."""
SHADOW = compiled(
    r"\b(?:the|this|that) (?:[\w-]+ ){0,3}(?:density|opacity|shadow|line|lucency|spot|structure|appearance|"
    r"brightness|hyperdensity)\b"
    r"[^.;]{0,50}? (?:is|represents|corresponds to|turns out to be|belongs to|is due to|comes from|"
    r"reflects) (?:\w+ly )?"
    r"(?:an?|the|just|only|physiological|normal|calcification)\b"
)
"""What was seen, explained as something that is no finding."""
ANY = compiled(
    r"\b(?:the|this) (?:\w+ )?(?:abnormality|lesion|finding|area|focus|object|animal|vehicle|item|structure|"
    r"device) |\bwhat you(?:'re| are)? (?:refer|mean|look|ask)\w*|\b(?:is|are) (?:affected|involved)\b"
)
CHANGE = compiled(
    r"\b(?:would|will|could|might)(?:n\'t)?\b|\w'd\b|\b(?:becomes?|disappears?|vanish(?:es)?|re-?expands?|returns?|"
    r"no longer)\b"
)
SAME = compiled(
    r"\b(?:(?<!at )(?<!of )(?<!on )(?<!to )nothing(?! else|\w)(?! to)(?! (?:left|more to|behind|in|on|but)\b)|(?:not|"
    r"n't) (?:affect|alter|make (?:an?|any) (?:\w+ )?difference|have (?:an?|any) (?:\w+ )?(?:effect|impact))|"
    r"wouldn't (?:change|differ|matter)|no (?:change|difference|effect)|nothing changes|not (?:change|differ|"
    r"be altered|do anything|matter)|do nothing|unchanged|the same|"
    r"identical|unaffected|unaltered|stay (?:as|exactly)|as it is|zero change)\b"
)
UNDER = compiled(r"\b(?:in|within|around|near|inside|the|with|by|of the|of|to|from|beside) (?:\w+ )?thingx")
SO_FAR = compiled(r"\b(?:now|already|currently|at present|as (?:it|they|is)|anyway|still|before|unchanged|same)\b")
