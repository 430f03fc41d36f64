"""Tokenizers in the published format, trained in a moment on a few words."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers.models.t5.tokenization_t5 import T5Tokenizer

CORPUS = ["a red ball on the grass", "a blue ball at night", "the red ball rolls over green grass"] * 3


def t5(model_max_length: int = 64) -> T5Tokenizer:
    """Return a unigram tokenizer of the T5 kind, which serves UMT5 too."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=120, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    vocabulary = [(piece, score) for piece, score in json.loads(made.to_str())["model"]["vocab"]]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=model_max_length)
