"""Two tiny tokenizers built on the spot: a byte-level BPE and a SentencePiece-style BPE with byte fallback."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "There is a small nodule in the left upper zone of the lung on this radiograph.",
    "There is no pleural effusion and no pneumothorax on the right side of the chest.",
    "The heart is enlarged, consistent with cardiomegaly; a large consolidation is seen.",
    "This image shows evidence of an atelectasis in the lower zone of the left lung.",
]


@cache
def byte_level() -> PreTrainedTokenizerFast:
    """GPT-2 style."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@cache
def sentencepiece() -> PreTrainedTokenizerFast:
    """Llama-2 style: U+2581 for spaces, prefix space, words may cross no space, bytes for unknown characters."""
    pre = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre
    special = ["<unk>", "<s>", "</s>"]
    trained.train_from_iterator(
        CORPUS * 5, trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    model = json.loads(trained.to_str())["model"]
    vocab = dict(model["vocab"])
    for byte in range(256):
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    merges = [tuple(m) for m in model["merges"]]
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
