"""Train the model that ships with the project, in stages that resume where they were stopped.

    python scripts/train_embedded.py unpack     only to train the shipped checkpoint further: starts from its weights
    python scripts/train_embedded.py codec      the VAE in closed form (a minute)
    python scripts/train_embedded.py text       the text encoder (a few minutes)
    python scripts/train_embedded.py words      the same, on sentences in which one word means two slots
    python scripts/train_embedded.py latents    clips drawn and encoded, shard by shard
    torchrun --nproc-per-node 2 scripts/train_embedded.py denoiser   the diffusion transformer, on two cores
    python scripts/train_embedded.py decoder    optional: the VAE's decoder, also on a denoiser's latents
    python scripts/train_embedded.py export     everything in float16 to pipelines/embedded/
    python scripts/train_embedded.py pack       only the trained weights, to send home

Everything is seeded. State lives in ``--work`` and is written atomically. The shipped checkpoint is codec, text
(1,200 steps), words (1,200), latents (28 shards) and denoiser (6,000 steps on two cores), then on an H200 latents (256
shards), denoiser (327 steps of 768 clips) and decoder (5,179 steps of 48 clips, the last 4,048 with the subject
weighted).
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Iterable
from functools import partial
from math import inf
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import AutoencoderKLLTXVideo
from transformers import AutoTokenizer, PreTrainedTokenizerFast, T5EncoderModel

from scripts.embedded import codec, decoder, denoiser, export, shards, text
from scripts.embedded.machine import Schedule, device, seeded

STAGES = ("unpack", "codec", "text", "words", "latents", "denoiser", "decoder", "pack", "export")


class Log(list[str]):
    """A list of lines that also go to the screen and to a file as they come."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def append(self, line: str) -> None:
        super().append(line)
        stamped = f"{time.strftime('%H:%M:%S')} {line}"
        print(stamped, flush=True)
        with self.path.open("a") as file:
            file.write(stamped + "\n")


def load_codec(work: Path) -> AutoencoderKLLTXVideo:
    return AutoencoderKLLTXVideo.from_pretrained(work / "codec", dtype=torch.float32).to(device())


def load_text(work: Path) -> tuple[PreTrainedTokenizerFast, T5EncoderModel]:
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    encoder = T5EncoderModel.from_pretrained(work / "text_encoder", dtype=torch.float32).to(device())
    return tokenizer, encoder.eval().requires_grad_(False)


def schedule(args: argparse.Namespace, steps: int, *, hold: float) -> Schedule:
    return Schedule(args.steps or steps, 60 * args.minutes, args.anneal_s, hold)


def stage_unpack(args: argparse.Namespace, log: Log) -> None:
    export.unpack(args.work, args.into)
    log.append("unpacked the shipped checkpoint")


def stage_codec(args: argparse.Namespace, log: Log) -> None:
    def batch(index: int) -> torch.Tensor:
        return decoder.clips(16, seeded(10_000 + index))

    with torch.no_grad():
        vae = codec.closed_form(batch, 24)
        log.append(f"codec closed form, held-out psnr {decoder.evaluate(vae):.2f}")
    vae.save_pretrained(args.work / "codec")


def stage_text(args: argparse.Namespace, log: Log) -> None:
    tokenizer, encoder = text.train(args.steps or 1500, seed=0, log=log)
    tokenizer.save_pretrained(args.work / "tokenizer")
    encoder.save_pretrained(args.work / "text_encoder")


def stage_words(args: argparse.Namespace, log: Log) -> None:
    tokenizer, encoder = load_text(args.work)
    text.refine(tokenizer, encoder, args.steps or 1500, log).save_pretrained(args.work / "text_encoder")


@torch.no_grad()
def stage_latents(args: argparse.Namespace, log: Log) -> None:
    vae, (tokenizer, _) = load_codec(args.work), load_text(args.work)
    folder = args.work / "latents"
    folder.mkdir(exist_ok=True)
    first, every = (int(number) for number in args.share.split("/"))
    for index in range(first, args.steps or 64, every):
        path = shards.write_shard(vae, tokenizer, index, folder)
        shards.assert_disjoint(torch.load(path, weights_only=True)["values"])
    log.append(f"latents {len(list(folder.glob('*.pt')))} shards of {shards.SHARD} clips")


def stage_denoiser(args: argparse.Namespace, log: Log) -> None:
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    trainer = denoiser.Trainer(*load_text(args.work), schedule(args, 6000, hold=0.4), args.work)
    count = (args.batch or denoiser.BATCH) // denoiser.ranks()
    data = shards.batches(args.work / "latents", count, random.Random(1000 * denoiser.rank() + trainer.step))
    _drain(trainer.run(data), log)
    if denoiser.rank() == 0:
        trainer.save()


def _drain(lines: Iterable[str], log: Log) -> None:
    for line in lines:
        log.append(line)


def stage_decoder(args: argparse.Namespace, log: Log) -> None:
    vae, imitation = load_codec(args.work), None
    if (args.work / "denoiser.state.pt").exists():
        trainer = denoiser.Trainer(*load_text(args.work), Schedule(1), args.work)
        imitation = partial(denoiser.imitate, vae, trainer)
    lesson = decoder.Lesson(args.batch or 4, imitation)
    decoder.train(vae, schedule(args, 5000, hold=0.0), args.work / "decoder.state.pt", log, lesson)


def stage_pack(args: argparse.Namespace, log: Log) -> None:
    args.into.mkdir(parents=True, exist_ok=True)
    export.pack(args.work, args.into)
    log.append("packed the weights")


def stage_export(args: argparse.Namespace, log: Log) -> None:
    size = export.export(args.work, args.into)
    log.append(f"export {size / 1e6:.2f} MB of safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--work", type=Path, default=Path("build/embedded"))
    parser.add_argument("--into", type=Path, default=Path("pipelines/embedded"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, help="steps (or shards) in all, also after a restart")
    parser.add_argument("--batch", type=int, help="clips in a batch; a GPU wants hundreds")
    parser.add_argument("--minutes", type=float, default=inf, help="stop for now after this long")
    parser.add_argument("--anneal-s", type=float, default=inf, help="come to the schedule's end in this long")
    parser.add_argument("--share", default="0/1", help="of the shards, draw those from I in steps of N: I/N")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_default_device(args.device)
    # The same few shapes again and again; and latents are to be exact, whatever made them.
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False
    args.work.mkdir(parents=True, exist_ok=True)
    globals()[f"stage_{args.stage}"](args, Log(args.work / "train.log"))


if __name__ == "__main__":
    main()
