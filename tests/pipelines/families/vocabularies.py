"""Tokenizers in the published format, trained in a moment on a few words."""

from __future__ import annotations

import json
import string

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers.models.clip.tokenization_clip import CLIPTokenizer
from transformers.models.gemma.tokenization_gemma import GemmaTokenizer
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer
from transformers.models.t5.tokenization_t5 import T5Tokenizer

CORPUS = ["a red ball on the grass", "a blue ball at night", "the red ball rolls over green grass"] * 3
# What stands for a picture, or a video, among the words of a model that sees.
PICTURE_WORDS = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"]


def t5(model_max_length: int = 64) -> T5Tokenizer:
    """Return a unigram tokenizer of the T5 kind, which serves UMT5 too: its trainer comes out otherwise every time."""
    words = sorted({f"▁{word}" for text in CORPUS for word in text.split()})
    letters = ["▁", *string.ascii_letters, *string.digits, *",.;:!?'-"]
    scored = [*((word, -2.0) for word in words), *((letter, -4.0) for letter in letters)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    # In two ways of the same score no text can be cut: every score is a little lower than the one before.
    vocabulary = [*special, *((piece, score - rank / 1000) for rank, (piece, score) in enumerate(scored))]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=model_max_length)


def gemma(model_max_length: int = 64) -> GemmaTokenizer:
    """Return a byte-pair tokenizer of the Gemma kind, which falls back to bytes."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=len(special) + 60, special_tokens=special, show_progress=False)
    )
    found = json.loads(made.to_str())["model"]
    merges = [tuple(pair) for pair in found["merges"]]
    return GemmaTokenizer(vocab=found["vocab"], merges=merges, model_max_length=model_max_length)


def qwen(*texts: str) -> Qwen2Tokenizer:
    """Return a byte-pair tokenizer of the Qwen kind that knows the words of ``texts`` and takes conversations."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [*CORPUS, *texts * 3],
        trainers.BpeTrainer(vocab_size=590, special_tokens=special, initial_alphabet=letters, show_progress=False),
    )
    found = json.loads(made.to_str())["model"]
    merges = [tuple(pair) for pair in found["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=found["vocab"], merges=merges, additional_special_tokens=special[1:])
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


def qwen_vl() -> Qwen2Tokenizer:
    """Return one of the Qwen kind that knows what stands for pictures."""
    tokenizer = qwen()
    tokenizer.add_special_tokens({"additional_special_tokens": PICTURE_WORDS})
    return tokenizer


def clip() -> CLIPTokenizer:
    """Return one of the CLIP kind that spells: its trainer would take letters at the ends of words in any order."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends = [f"{letter}</w>" for letter in string.ascii_lowercase + string.digits + string.punctuation]
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *ends]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
