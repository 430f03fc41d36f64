"""The embedded text encoder: a small T5 that is taught on words alone what each slot says.

Every token is asked for every slot of its sentence, "open" included. The denoiser then finds the whole
prompt in whichever token it attends to, which takes the hard part of text conditioning off its hands.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from scripts.embedded.captions import FILLERS, caption, drop, nonsense
from scripts.embedded.machine import reduced_precision
from scripts.embedded.scenes import SLOTS

WIDTH = 128
MAX_TOKENS = 128


def build_tokenizer(rng: random.Random) -> PreTrainedTokenizerFast:
    """Train a lower-casing subword tokenizer on captions; unknown words fall apart into letters."""
    corpus = [text for text, _ in captions(rng, 20_000, noise=False)]
    corpus += list(FILLERS) + list("abcdefghijklmnopqrstuvwxyz0123456789-'") * 50
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=["<pad>", "</s>", "<unk>"], min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )  # fmt: skip


# Values of two slots that share a word: motion and camera, subject and surroundings.
CLASHES = {
    ("motion", "camera"): (("left", "pan right"), ("right", "pan left"), ("left", "pan left"), ("right", "pan right")),
    ("colour", "environment"): (("green", "green"), ("blue", "blue"), ("pink", "pink"), ("orange", "sand")),
}


def _clash(indices: list[int], rng: random.Random) -> None:
    """Give two slots values that share a word."""
    for pair, choices in CLASHES.items():
        for slot, value in zip(pair, rng.choice(choices), strict=True):
            indices[list(SLOTS).index(slot)] = SLOTS[slot].index(value)


def captions(rng: random.Random, count: int, *, noise: bool, hard: float = 0.0) -> Iterator[tuple[str, list[int]]]:
    """Yield captions with the slot values that they name; the last class of each slot means "open"."""
    for _ in range(count):
        indices = [rng.randrange(len(v)) for v in SLOTS.values()]
        if rng.random() < hard:
            _clash(indices, rng)
        values = drop(indices, rng, open_rate=rng.choice((0.1, 0.3, 0.6)), empty_rate=0.03)
        text = caption(values, rng)
        if noise and rng.random() < 0.4:
            words = text.split()
            for _ in range(rng.randint(1, 4)):
                words.insert(rng.randrange(len(words) + 1), nonsense(rng))
            text = " ".join(words)
        named = [
            len(SLOTS[slot]) if values[slot] is None else index for slot, index in zip(SLOTS, indices, strict=True)
        ]
        yield text, named


def build_encoder(vocabulary: int) -> T5EncoderModel:
    """Return an untrained encoder, about half a million parameters."""
    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary, d_model=WIDTH, d_kv=32, num_heads=4, d_ff=384, num_layers=2,
            feed_forward_proj="gated-gelu", relative_attention_num_buckets=16, dropout_rate=0.0,
            pad_token_id=0, eos_token_id=1, is_encoder_decoder=False,
        )
    )  # fmt: skip


class SlotHeads(nn.Module):
    """One linear reading per slot, used in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(WIDTH, len(v) + 1) for v in SLOTS.values())

    def forward(self, hidden: Tensor) -> list[Tensor]:
        return [head(hidden) for head in self.heads]


def tokenise(tokenizer: PreTrainedTokenizerFast, texts: list[str], length: int) -> Tensor:
    """Return token ids ``(batch, length)``, padded, int64."""
    tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True)
    return torch.tensor(tokens.input_ids)


def encode(encoder: T5EncoderModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return embeddings ``(batch, length, WIDTH)`` and the boolean mask ``(batch, length)``, as the pipeline does."""
    mask = tokens != encoder.config.pad_token_id
    return encoder(tokens, attention_mask=mask)[0], mask


def train(steps: int, seed: int, log: list[str]) -> tuple[PreTrainedTokenizerFast, T5EncoderModel]:
    """Teach the encoder; the last line of ``log`` says how many slots of fresh captions it reads right."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(rng)
    encoder, heads = build_encoder(len(tokenizer)), SlotHeads()
    parameters = [*encoder.parameters(), *heads.parameters()]
    descend = _descent(parameters, 2e-3, steps, weight_decay=0.01)
    for step in range(1, steps + 1):
        texts, named = zip(*captions(rng, 96, noise=True), strict=True)
        loss = _slot_loss(tokenizer, encoder, heads, list(texts), torch.tensor(named))
        descend(loss)
        if step % 200 == 0 or step == steps:
            log.append(f"text step {step} loss {loss.item():.4f} slots {_accuracy(tokenizer, encoder, heads):.4f}")
    _normalise(tokenizer, encoder, rng)
    return tokenizer, encoder.eval()


def _descent(
    parameters: list[nn.Parameter], rate: float, steps: int, *, weight_decay: float
) -> Callable[[Tensor], None]:
    """Return what takes one optimisation step on a loss; the rate rises and falls once over ``steps``."""
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)

    def descend(loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()

    return descend


def refine(tokenizer: PreTrainedTokenizerFast, encoder: T5EncoderModel, steps: int, log: list[str]) -> T5EncoderModel:
    """Teach a finished encoder the hard sentences without moving what a denoiser has already learned to read.

    Hard are those in which one word means two slots: a subject that goes left while the camera pans right, or that
    has the colour of its surroundings. The readings are fitted to the encoder first and then held fixed.
    """
    torch.manual_seed(3)
    rng, heads = random.Random(3), SlotHeads()
    encoder.requires_grad_(False)
    for name, parameters, count, rate in (
        ("heads", list(heads.parameters()), steps // 3, 1e-2),
        ("encoder", list(encoder.parameters()), steps, 4e-4),
    ):
        for parameter in (*heads.parameters(), *encoder.parameters()):
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        descend = _descent(parameters, rate, count, weight_decay=0.0)
        for step in range(1, count + 1):
            texts, named = zip(*captions(rng, 96, noise=True, hard=0.5 if name == "encoder" else 0.0), strict=True)
            loss = _slot_loss(tokenizer, encoder, heads, list(texts), torch.tensor(named))
            descend(loss)
            if step % 200 == 0 or step == count:
                accuracy = _accuracy(tokenizer, encoder, heads)
                log.append(f"text refine {name} step {step} loss {loss.item():.4f} slots {accuracy:.4f}")
    return encoder.requires_grad_(False).eval()


def _slot_loss(
    tokenizer: PreTrainedTokenizerFast, encoder: T5EncoderModel, heads: SlotHeads, texts: list[str], named: Tensor
) -> Tensor:
    with reduced_precision():
        hidden, mask = encode(encoder, tokenise(tokenizer, texts, 56))
    hidden = hidden.float()
    wanted = named[:, None].expand(-1, mask.shape[1], -1)[mask]
    losses = [nn.functional.cross_entropy(logits, wanted[:, i]) for i, logits in enumerate(heads(hidden[mask]))]
    return torch.stack(losses).sum()


@torch.no_grad()
def _accuracy(tokenizer: PreTrainedTokenizerFast, encoder: T5EncoderModel, heads: SlotHeads) -> float:
    texts, named = zip(*captions(random.Random(7), 500, noise=True), strict=True)
    hidden, mask = encode(encoder, tokenise(tokenizer, list(texts), 64))
    wanted = torch.tensor(named)[:, None].expand(-1, mask.shape[1], -1)[mask]
    right = [(logits.argmax(-1) == wanted[:, i]).float().mean() for i, logits in enumerate(heads(hidden[mask]))]
    return float(torch.stack(right).mean())


@torch.no_grad()
def _normalise(tokenizer: PreTrainedTokenizerFast, encoder: T5EncoderModel, rng: random.Random) -> None:
    """Scale the outputs to unit size; the denoiser's caption projection starts from there."""
    texts = [text for text, _ in captions(rng, 300, noise=False)]
    hidden, mask = encode(encoder, tokenise(tokenizer, texts, 64))
    encoder.encoder.final_layer_norm.weight.div_(hidden[mask].std())
