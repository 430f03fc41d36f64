"""Every knob of the server, described. The only reader of the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "homereel"


Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")]


class Settings(BaseSettings):
    """Read once at start and passed down, so that two servers in one process do not meet."""

    model_config = SettingsConfigDict(env_prefix="HOMEREEL_", frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=7672, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    insecure_no_auth: bool = Field(
        default=False,
        description="Serve everybody who can reach the server while there are no keys, also from other machines.",
    )
    allowed_hosts: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        default=None,
        description="Names of this server, such as video.example.com, that web browsers may use while there are no "
        "keys; addresses and names of the local network need not be listed.",
    )
    data_dir: Path = Field(default_factory=_default_data_dir, description="Folder of the database and all videos.")
    store_url: str | None = Field(
        default=None, description="SQLAlchemy URL of the job database; by default a SQLite file in data_dir."
    )
    devices: Annotated[tuple[Device, ...] | None, NoDecode] = Field(
        default=None, description="One worker each, such as cuda:0,cuda:1. Default: every GPU, else the CPU."
    )
    preload: str | None = Field(
        default=None, description="Model that the workers load at start, so that the first video is not kept waiting."
    )
    keep_alive: float = Field(
        default=-1,
        ge=-1,
        description="Seconds that a model stays loaded after its last video; 0 unloads it at once, -1 keeps it until "
        "another one needs the room.",
    )
    attention: Annotated[str, Field(pattern=r"^_?[a-z][a-z0-9_]*$")] | None = Field(
        default=None,
        description="Attention kernel on GPUs, as diffusers spells it: native, _native_cudnn, flash, xformers, sage, "
        "... Default: the first that works of those that do not round.",
    )
    compile: bool = Field(
        default=False,
        description="Compile the denoiser's blocks: faster steps, but the first video of every size that a worker "
        "makes waits for the compiler, about a minute. Pays where many videos of few sizes are made. Not for videos "
        "with LoRAs, nor where a layer at a time is on the device or weights are fp8. Needs a C++ compiler.",
    )
    step_cache: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Lossy: a step that differs from the last by less than this share takes its results, unless the "
        "request says otherwise. 0.05 is careful, 0.2 bold, 0 computes every step. Results say that it was on.",
    )
    accept_licences: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Licences, by their ids in `homereel list`, that sora-2 and sora-2-pro may lead to although they "
        "exclude or limit somebody; naming a model itself needs no acceptance here.",
    )
    allow_pulls: bool = Field(
        default=False,
        description="Let any key fetch models from the hub over the API; while there are no keys, everybody may.",
    )
    threads: PositiveInt | None = Field(default=None, description="CPU threads per worker; default: all cores.")
    max_queued: PositiveInt = Field(default=100, description="Videos that may wait; beyond this, HTTP 429.")
    max_videos: PositiveInt = Field(
        default=100_000, description="Videos that one key may have, finished ones included; beyond this, HTTP 429."
    )
    max_upload_mb: PositiveInt = Field(default=32, description="Largest request body, in MB.")
    max_file_mb: PositiveInt = Field(default=200, description="Largest file that POST /v1/files takes, in MB.")
    max_files_gb: PositiveFloat = Field(
        default=20.0, description="Room for all files of POST /v1/files together, in GB; beyond it, HTTP 413."
    )
    max_files: PositiveInt = Field(default=10_000, description="Files that one key may have; beyond this, HTTP 429.")
    max_characters: PositiveInt = Field(
        default=1_000, description="Characters that one key may have; beyond this, HTTP 429."
    )
    max_templates: PositiveInt = Field(
        default=200, description="Prompt templates of its own that one key may have; beyond this, HTTP 429."
    )
    max_stars: PositiveInt = Field(
        default=10_000, description="Starred prompts that one key may have; beyond this, HTTP 429."
    )
    max_batches: PositiveInt = Field(
        default=100, description="Batches that one key may have under way; beyond this, HTTP 429."
    )
    max_batch_waiting: PositiveInt = Field(
        default=10, description="Videos of batches that wait at a time; the others follow as these are made."
    )
    max_image_pixels: PositiveInt = Field(
        default=50_000_000, description="Largest reference image, in pixels after decoding."
    )
    max_video_pixels: PositiveInt = Field(
        default=8_847_360, description="Largest frame of an uploaded video, in pixels; the default is 4096x2160."
    )
    policy: Path | None = Field(
        default=None,
        description="YAML file of rules on prompts, such as configs/policy.example.yaml; by default there are none.",
    )
    allow_private_fetch: bool = Field(
        default=False,
        description="Let clients name addresses that are not public, for reference images and webhooks.",
    )
    lease_s: PositiveFloat = Field(
        default=30.0, description="A worker that has not been heard of for so many seconds has lost its video."
    )
    max_attempts: PositiveInt = Field(
        default=3, description="How often a video is started before a worker lost again makes it fail."
    )
    drain_s: float = Field(
        default=5.0,
        ge=0,
        description="Seconds that a running video gets to finish at shutdown before it goes back to the queue; "
        "the default stays below the 10 s that container runtimes grant.",
    )
    checkpoint_s: float = Field(
        default=5.0,
        ge=0,
        description="A video that is being made is saved this often, so that a lost worker costs no more; "
        "0 saves after every step.",
    )
    worker_silence_s: PositiveFloat = Field(
        default=300.0, description="A worker process without a heartbeat for so many seconds is killed."
    )
    embed_metadata: bool = Field(
        default=True, description="Write prompt, seed, model and versions into the video files."
    )
    retention_days: PositiveFloat | None = Field(
        default=None,
        description="Days after which a finished video's files go, unless it is starred; its record stays. "
        "Default: never.",
    )
    disk_budget_gb: PositiveFloat | None = Field(
        default=None,
        description="GB that all videos together may take; beyond this, the files of the oldest that are not starred "
        "go first.",
    )
    min_free_gb: float = Field(
        default=0.5,
        ge=0,
        description="GB of free disk below which no video is begun; those that wait go on waiting until there is "
        "space again.",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Shape of the log's lines.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least serious event that is logged. Prompts appear at DEBUG only."
    )

    @field_validator("devices", "allowed_hosts", "accept_licences", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the job database."""
        return self.store_url or f"sqlite:///{self.data_dir.absolute() / 'homereel.sqlite3'}"

    @property
    def retention_s(self) -> float | None:
        """Seconds that finished videos are kept; None for ever."""
        return None if self.retention_days is None else self.retention_days * 86_400

    @property
    def loras_dir(self) -> Path:
        """Folder of the LoRAs that requests may name."""
        return self.data_dir.absolute() / "loras"

    @property
    def models_dir(self) -> Path:
        """Folder of the cards that were added to those that ship."""
        return self.data_dir.absolute() / "models"

    @property
    def assets_dir(self) -> Path:
        """Folder of the finished files, uploads and work in progress."""
        return self.data_dir.absolute() / "assets"

    @property
    def files_dir(self) -> Path:
        """Folder of the contents of files that clients upload and batches write."""
        return self.data_dir.absolute() / "files"

    @property
    def characters_dir(self) -> Path:
        """Folder of the clips and pictures of characters."""
        return self.data_dir.absolute() / "characters"


class ClientSettings(BaseSettings):
    """Where the command line finds a server."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("HOMEREEL_URL", "OPENAI_BASE_URL"),
        description="Address of the server; by default the one on this machine.",
    )
    api_key: str | None = Field(
        default=None,
        # Not OPENAI_API_KEY: a real key of the hosted service must not travel to whatever listens here.
        validation_alias="HOMEREEL_API_KEY",
        description="Key that the server asks for.",
    )


class TerminalSettings(BaseSettings):
    """What a terminal says of itself. Not ours to name: these are what terminals set."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    term: str = Field(default="", validation_alias="TERM", description="The kind of terminal.")
    program: str = Field(default="", validation_alias="TERM_PROGRAM", description="The terminal itself.")
    kitty: str = Field(default="", validation_alias="KITTY_WINDOW_ID", description="Set within kitty.")
    multiplexer: str = Field(
        default="",
        validation_alias=AliasChoices("TMUX", "STY"),
        description="Set within tmux and screen, which keep pictures from the terminal.",
    )


class WorkerOrder(BaseModel):
    """What a worker process is told when it starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    worker: str
    device: Device
    settings: Settings


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a worker process, which must be in place before it loads a tensor library."""
    own = {
        # Spinning OpenMP threads starve the API process of its cores: several times slower on two of them.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        # Weights are on this machine before a worker starts; it has no business on the network.
        "HF_HUB_OFFLINE": "1",
        # Progress goes to the database; bars would fill the log.
        "TQDM_DISABLE": "1",
    }
    if settings.threads is not None:
        own |= {"OMP_NUM_THREADS": str(settings.threads), "MKL_NUM_THREADS": str(settings.threads)}
    return {**os.environ, **own}


def visible_gpus() -> tuple[str, ...] | None:
    """Return the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves visible, as it names them, or None if it is not set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return None
    entries = [entry.strip() for entry in visible.split(",")]
    # CUDA stops at the first invalid entry; "", "-1" and "none" are the usual ways to hide every GPU.
    valid = next((i for i, entry in enumerate(entries) if entry.lower() in {"", "-1", "none", "nodevfiles"}), None)
    return tuple(entries[:valid])
