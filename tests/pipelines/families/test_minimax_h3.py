import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLMiniMaxH3,
    MiniMaxH3Scheduler,
    MiniMaxH3Transformer3DModel,
    ModularPipeline,
)
from diffusers.models import AutoencoderKLMiniMaxH3Audio
from diffusers.modular_pipelines.minimax_h3 import MiniMaxH3ImageReference, MiniMaxH3VideoReference
from PIL import Image
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pipelines import footage
from pipelines.families.minimax_h3 import Clips, Pictures, Processor, read_processor
from pipelines.types import Frames, GenerationRequest, Given, ImageCondition, VideoShape
from tests.pipelines.families import vocabularies
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import equal, moving_bar, picture, tiny

SIZES = ((96, 64), (64, 96))
# As short as the blocks let a clip be: they count seconds.
FRAMES = (124, 141)


def text_encoder(words: Any) -> Qwen3VLForConditionalGeneration:
    start, picture, end, video = words.convert_tokens_to_ids(vocabularies.PICTURE_WORDS)
    # The blocks read what the fiftieth layer says; those behind the next are not loaded by us.
    text = {
        "vocab_size": len(words), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 53,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000000.0, "mrope_section": [2, 1, 1]},
    }  # fmt: skip
    eyes = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "out_hidden_size": 16, "num_heads": 2,
        "patch_size": 16, "deepstack_visual_indexes": [0], "num_position_embeddings": 64,
    }  # fmt: skip
    config = Qwen3VLConfig(
        text_config=text, vision_config=eyes, image_token_id=picture, video_token_id=video,
        vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    return Qwen3VLForConditionalGeneration(config).eval()


def transformer() -> MiniMaxH3Transformer3DModel:
    return MiniMaxH3Transformer3DModel(
        num_attention_heads=2, attention_head_dim=16, hidden_size=24, num_layers=2, num_refiner_layers=1, ffn_dim=32,
        in_channels=4, audio_in_channels=4, text_dim=16, freq_dim=16, time_embed_hidden_dim=16, time_embed_dim=8,
        rope_freq_dim=2,
    )  # fmt: skip


def vae() -> AutoencoderKLMiniMaxH3:
    return AutoencoderKLMiniMaxH3(
        latent_channels=4, block_out_channels=(8,) * 6, layers_per_block=1, norm_num_groups=2, decoder_num_layers=1,
        decoder_num_attention_heads=2, decoder_attention_head_dim=16, decoder_ffn_mult=2,
        latents_mean=(0.1, -0.2, 0.0, 0.3), latents_std=(1.5, 0.9, 1.1, 1.0),
    )  # fmt: skip


def audio_vae() -> AutoencoderKLMiniMaxH3Audio:
    return AutoencoderKLMiniMaxH3Audio(
        encoder_dim=4, encoder_rates=(2, 4), latent_dim=16, latent_channels=4, num_attention_heads=2, decoder_dim=16,
        decoder_rates=(4, 2), decoder_kernel_sizes=(8, 4), resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3, 5),), sampling_rate=320, latents_mean=[0.1] * 4, latents_std=[1.2] * 4,
    )  # fmt: skip


class H3Contract(FamilyContract):
    denoiser_name = "transformer"

    @classmethod
    def build(cls, folder: Path) -> None:
        words = vocabularies.qwen_vl()
        parts = {
            "text_encoder": text_encoder(words),
            "tokenizer": words,
            "processor": Qwen2VLImageProcessorPil(
                patch_size=16, merge_size=2, size={"shortest_edge": 1024, "longest_edge": 4096}
            ),
            "vae": vae(),
            "audio_vae": audio_vae(),
            "scheduler": MiniMaxH3Scheduler(shift=12.0),
            "audio_scheduler": MiniMaxH3Scheduler(shift=3.0),
            cls.denoiser_name: transformer(),
        }
        index: dict[str, Any] = {
            "_class_name": "MiniMaxH3ModularPipeline",
            "_blocks_class_name": "MiniMaxH3Blocks",
            "reference_image_short_edge": 64,
            "canvas_short_edge": 64,
            "canvas_max_pixels": 96 * 64,
        }
        homes = {"transformers": ("text_encoder", "tokenizer", "processor")}
        for name, part in parts.items():
            part.save_pretrained(folder / name)
            home = "transformers" if name in homes["transformers"] else "diffusers"
            kind = "Qwen3VLProcessor" if name == "processor" else type(part).__name__
            place = {"pretrained_model_name_or_path": "MiniMaxAI/MiniMax-H3", "subfolder": name, "revision": None}
            index[name] = [home, kind, {**place, "variant": None, "type_hint": [home, kind]}]
        for name in ("model_index.json", "modular_model_index.json"):
            (folder / name).write_text(json.dumps(index))

    @classmethod
    def called(cls, folder: Path, request: GenerationRequest, **more: Any) -> Any:
        """Return the state after one plain call of diffusers."""
        workflow = "ref2va" if "references" in more else "fl2va" if more else "t2va"
        pipe: Any = ModularPipeline.from_pretrained(str(folder), workflow=workflow)
        # Its own class needs torchvision.
        parts = [name for name in pipe.pretrained_component_names if name != "processor"]
        pipe.load_components(names=parts, dtype=torch.float32)
        pipe.update_components(processor=Processor(read_processor(folder / "processor"), pipe.tokenizer))
        return pipe(
            prompt=request.prompt, height=request.shape.height, width=request.shape.width,
            num_frames=request.shape.frames, num_inference_steps=request.num_inference_steps + 1,
            generator=torch.Generator().manual_seed(request.seed), output_type="np", **more,
        )  # fmt: skip

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> Any:
        names = {"image" if frame == 0 else "last_image": picture for frame, picture in pictures.items()}
        state = cls.called(folder, request, **names)
        return [state.get("latents"), state.get("audio_latents")]

    @classmethod
    def seen_again(cls, pipe: Any, frames: Frames) -> torch.Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (pipe.pixel_mean, pipe.pixel_std))
        # What it drops in the end is the second chunk's.
        pixels = torch.from_numpy(np.concatenate([frames, frames[-1:].repeat(17, 0)])).permute(3, 0, 1, 2)[None] / 255
        latents = pipe.vae.encode((pixels - mean) / std).latent_dist.mode()[:, :, : (len(frames) - 1) // 4 + 1]
        return (pipe.vae.decode(latents).sample * std + mean) * 2 - 1


class TestFrames(H3Contract):
    card = tiny("minimax-h3", SIZES, FRAMES)

    def test_pictures_at_both_ends_equal_one_plain_call_of_diffusers(
        self, checkpoint: Path, pipeline: Any, album: Path
    ) -> None:
        for colours in ({"first_frame": "red"}, {"last_frame": "blue"}, {"first_frame": "red", "last_frame": "blue"}):
            request = self.wish(album, conditions=self.pictures(album, **colours))
            pictures = {c.frame: Image.open(c.path).resize((96, 64)) for c in request.conditions}
            assert equal(self.latents(pipeline, request), self.plain(checkpoint, request, pictures)), colours

    def test_frames_and_sound_are_those_of_diffusers(self, checkpoint: Path, pipeline: Any, album: Path) -> None:
        request = self.wish(album)
        state = self.called(checkpoint, request)
        made = self.clip(pipeline, request)
        frames = np.concatenate(list(made.chunks))
        assert np.abs(frames - np.round(state.get("videos")[0] * 255)).max() <= 1
        assert made.audio is not None
        assert made.audio.rate == state.get("sampling_rate")
        assert made.audio.samples.shape[0] == 2
        sound = state.get("audio")[0].clamp(-1, 1).numpy()
        assert (made.audio.samples[:, : sound.shape[1]] == sound[:, : made.audio.samples.shape[1]]).all()

    def test_the_words_are_read_with_the_frame_that_a_window_goes_on_from(self, pipeline: Any, album: Path) -> None:
        before = self.footage(1)
        Image.fromarray(before[0]).save(album / "before.png")
        expected = self.latents(pipeline, self.wish(album, conditions=(ImageCondition(album / "before.png"),)))
        assert equal(self.latents(pipeline, self.wish(album), Given(before=before)), expected)

    def test_layers_that_nobody_hears_are_not_there(self, pipeline: Any) -> None:
        assert len(pipeline._host.pipe.text_encoder.model.language_model.layers) == 51

    def test_tiles_stay_whatever_the_plan(self, pipeline: Any) -> None:
        pipeline.adopt(pipeline._host.plan)
        assert pipeline._host.pipe.vae.use_tiling


@pytest.mark.slow
class TestReferences(H3Contract):
    card = tiny("minimax-h3-ref", SIZES, FRAMES)
    denoiser_name = "transformer_ref"

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> Any:
        subjects = [MiniMaxH3ImageReference(Image.open(path)) for path in request.references]
        state = cls.called(folder, request, references=subjects)
        return [state.get("latents"), state.get("audio_latents")]

    def denoiser(self, pipeline: Any) -> torch.nn.Module:
        return pipeline._host.pipe.transformer_ref

    def test_subjects_are_told_apart_by_their_order(self, checkpoint: Path, pipeline: Any, album: Path) -> None:
        red, blue = (picture(album, colour) for colour in ("red", "blue"))
        one, other = (self.wish(album, references=both) for both in ((red, blue), (blue, red)))
        assert equal(self.latents(pipeline, one), self.plain(checkpoint, one, {}))
        assert not equal(self.latents(pipeline, other), self.latents(pipeline, one))

    @pytest.mark.parametrize(("fps", "heard"), [(24, False), (12, True)], ids=["silent", "sounding"])
    def test_a_clip_of_a_subject_equals_one_plain_call_of_diffusers(
        self, checkpoint: Path, pipeline: Any, tmp_path: Path, album: Path, fps: int, *, heard: bool
    ) -> None:
        frames = moving_bar(self.card.shape.sizes[0], 20)
        still, clip = picture(album, "red"), filmed(tmp_path / "clip.mp4", frames, fps, heard=heard)
        request = self.wish(album, references=(still,), clips={still: clip})
        assert request.references == (clip,)
        video = MiniMaxH3VideoReference(frames, float(fps))
        if heard:
            # As long as the pictures.
            sound = footage.sound(clip, 320, 20 / fps)
            assert sound is not None
            video.audio = torch.zeros(2, round(20 / fps * 320))
            video.audio[:, : sound.shape[1]] = torch.from_numpy(sound)[:, : video.audio.shape[1]]
            video.sample_rate = 320
        state = self.called(checkpoint, request, references=[video])
        made = self.latents(pipeline, request)
        assert equal(made, [state.get("latents"), state.get("audio_latents")])
        assert not equal(made, self.latents(pipeline, self.wish(album, references=(still,))))

    def test_a_clip_of_a_moment_or_of_any_proportions_will_do(self, pipeline: Any, tmp_path: Path, album: Path) -> None:
        still, strip = picture(album, "red"), np.zeros((2, 16, 320, 3), np.uint8)
        request = self.wish(album, references=(still,), clips={still: filmed(tmp_path / "clip.mp4", strip, 24)})
        assert torch.isfinite(self.latents(pipeline, request).video).all()


def filmed(path: Path, frames: Frames, fps: int, *, heard: bool = False) -> Path:
    """Write a clip without any loss, with a tone if it is to be heard."""
    count, height, width, _ = frames.shape
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0"]
    tone = f"sine=frequency=40:sample_rate=8000:duration={count / fps}"
    command += ["-f", "lavfi", "-i", tone, "-c:a", "alac"] if heard else []
    command += ["-c:v", "libx264rgb", "-qp", "0", str(path)]
    subprocess.run(command, input=frames.tobytes(), check=True)
    return path


def test_a_clip_is_prepared_as_pictures_are() -> None:
    """Two frames alike are the picture that is as large: it is prepared as its own double."""
    pictures = Pictures(patch_size=16, merge_size=2, size={"shortest_edge": 1024, "longest_edge": 1 << 20})
    shown = moving_bar(TestFrames.card.shape.sizes[0], 1)[0]
    of_clip = Clips(pictures)([np.stack([shown] * 3)])
    of_picture = pictures(images=[Image.fromarray(shown)], return_tensors="pt")
    assert of_clip["video_grid_thw"].tolist() == [[2, *of_picture["image_grid_thw"][0, 1:].tolist()]]
    torch.testing.assert_close(of_clip["pixel_values_videos"], torch.cat([of_picture["pixel_values"]] * 2))


@pytest.mark.parametrize("name", ["video_preprocessor_config.json", "processor_config.json"])
def test_how_large_a_clip_is_seen_is_what_the_checkpoint_says(tmp_path: Path, name: str) -> None:
    Pictures(patch_size=16, merge_size=2).save_pretrained(tmp_path)
    assert read_processor(tmp_path).clip_pixels == Pictures.clip_pixels
    said: Any = {"size": {"shortest_edge": 2048, "longest_edge": 8192}}
    (tmp_path / name).write_text(json.dumps({"video_processor": said} if name.startswith("processor") else said))
    assert read_processor(tmp_path).clip_pixels == (2048, 8192)


def test_a_chunk_is_as_many_latents_as_the_card_says() -> None:
    made = vae().decode(torch.zeros(1, 4, 37, 2, 2)).sample
    shape = VideoShape(made.shape[2], 64, 96, 24)
    assert shape.frames == 124
    assert TestFrames.card.shape.tokens(shape) == 37 * 2 * 3
