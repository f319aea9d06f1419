"""One file a decoder, all behind one call: `decoder(vlm, prompts, max_new_tokens=..., batch_size=...)`.

`prompts` is a list of (prompt, images) and the result one generation a prompt, in the same order, with `token_ids` (EOS
included), `text` and `finish_reason` (stop or length).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clinalign.decoding.greedy import greedy

Prompt = tuple[str, Sequence[np.ndarray]]
Decoder = Callable[..., list[Any]]

DECODERS: dict[str, Decoder] = {"greedy": greedy}
