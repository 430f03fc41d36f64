"""Each thing that can be wrong with a machine, made wrong: it is found, and there is a mend."""

from __future__ import annotations

import json
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest

from pipelines import snapshot
from pipelines.needs import GIB
from pipelines.registry import Registry, load_registry
from server import doctor
from server.devices import Gpu
from server.doctor import (
    Finding,
    GpuOfTorch,
    Torch,
    ask_torch,
    downloads_finding,
    driver_finding,
    ffmpeg_finding,
    folder_finding,
    gpu_findings,
    port_finding,
    ram_finding,
    runs_on,
    token_finding,
    torch_finding,
    weights_finding,
)

ADA = Gpu(0, "GPU-1", "RTX 4090", 24 * GIB, 0, (8, 9), "550.1")
SEEN = GpuOfTorch(name="RTX 4090", capability=(8, 9), free_bytes=23 * GIB, memory_bytes=24 * GIB, attention=["native"])
TORCH = Torch(torch="2.13.0", cuda="13.0", architectures=["sm_80", "sm_90", "sm_120"], gpus=[SEEN])


def is_wrong(finding: Finding) -> bool:
    """Tell whether it fails; what fails has to say how it is mended."""
    assert finding.message
    assert finding.mend or finding.state != "fails"
    return finding.state == "fails"


@pytest.mark.parametrize(
    ("found", "torch", "visible", "for_cpus", "state"),
    [
        ((ADA,), TORCH, None, False, "ok"),
        ((), TORCH.model_copy(update={"gpus": []}), None, True, "note"),
        ((ADA,), TORCH.model_copy(update={"gpus": []}), (), False, "note"),
        ((ADA,), TORCH.model_copy(update={"gpus": []}), None, True, "fails"),
        ((ADA,), TORCH.model_copy(update={"gpus": []}), None, False, "fails"),
    ],
)
def test_gpus(
    monkeypatch: pytest.MonkeyPatch,
    found: tuple[Gpu, ...],
    torch: Torch,
    visible: tuple[str, ...] | None,
    for_cpus: bool,
    state: str,
) -> None:
    monkeypatch.setattr(doctor, "visible_gpus", lambda: visible)
    monkeypatch.setattr(doctor, "torch_is_for_cpus", lambda: for_cpus)
    finding = driver_finding(found, torch)
    assert finding.state == state
    assert is_wrong(finding) == (state == "fails")


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 9), ["sm_80", "sm_90"], True),
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((12, 0), ["sm_120"], True),
        ((9, 0), ["sm_90a"], True),
        ((7, 5), ["sm_80", "compute_80", "nonsense"], False),
    ],
)
def test_pytorch_has_code_for_a_card(capability: tuple[int, int], architectures: list[str], *, runs: bool) -> None:
    assert runs_on(capability, architectures) is runs


@pytest.mark.parametrize(
    ("changes", "states"),
    [
        ({}, ["ok", "ok"]),
        ({"capability": (12, 1), "free_bytes": 1}, ["ok", "note"]),
        ({"capability": (7, 5)}, ["fails"]),
        ({"capability": None, "error": "CUDA error: no kernel image"}, ["fails"]),
        ({"free_bytes": 10 * GIB}, ["ok", "note"]),
    ],
)
def test_a_gpu_is_looked_at_through_pytorch(changes: dict[str, object], states: list[str]) -> None:
    findings = list(gpu_findings(0, SEEN.model_copy(update=changes), TORCH.architectures))
    assert [finding.state for finding in findings] == states
    assert any(map(is_wrong, findings)) == ("fails" in states)


def test_an_old_card_is_told_what_it_costs() -> None:
    (first, _) = gpu_findings(0, SEEN.model_copy(update={"capability": (7, 5)}), ["sm_75"])
    assert (first.state, "no bfloat16" in first.message) == ("note", True)


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (f"print('a warning'); print({json.dumps(TORCH.model_dump_json())})", None),
        ("raise ImportError('libcudart.so.12 is missing')", "libcudart.so.12"),
        ("raise SystemExit(3)", "status 3"),
        ("print('nonsense')", "status 0"),
    ],
)
def test_pytorch_is_asked_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, fault: str | None
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(doctor, "sys", SimpleNamespace(executable=str(python)))
    torch, refusal = ask_torch()
    finding = torch_finding(torch, refusal)
    if fault is None:
        assert torch == TORCH
    else:
        assert fault in finding.message
    assert is_wrong(finding) is (fault is not None)


@pytest.mark.parametrize(("total", "free", "state"), [(64, 40, "ok"), (8, 6, "note"), (64, 1, "fails")])
def test_ram(total: int, free: int, state: str) -> None:
    finding = ram_finding(total * GIB, free * GIB)
    assert finding.state == state
    assert is_wrong(finding) == (state == "fails")


def test_a_folder_needs_room_and_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_finding("data folder", tmp_path / "not" / "yet", 0).state == "ok"
    assert is_wrong(folder_finding("data folder", tmp_path, 10**9))

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    finding = folder_finding("data folder", tmp_path, 0)
    assert is_wrong(finding)
    assert "Permission denied" in finding.message


def test_downloads_that_were_cut_short_are_found(tmp_path: Path) -> None:
    assert downloads_finding(tmp_path).state == "ok"
    blobs = tmp_path / "models--some--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.incomplete").write_bytes(b"half")
    finding = downloads_finding(tmp_path)
    assert (finding.state, finding.message.split()[0]) == ("note", "1")
    assert finding.mend


def safetensors(missing: int = 0) -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8 - missing)


@pytest.mark.parametrize(
    ("contents", "flaw"),
    [
        (safetensors(), None),
        (safetensors(missing=3), "3 bytes are missing"),
        (b"", "is no safetensors file"),
        (b"<html>not found</html>", "is no safetensors file"),
        (struct.pack("<Q", 4) + b"[1] ", "is no safetensors file"),
        (struct.pack("<Q", 30) + b'{"a": {"shape"', "is no safetensors file"),
    ],
)
def test_weights_are_judged_by_header_and_size(tmp_path: Path, contents: bytes, flaw: str | None) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(contents)
    assert snapshot.flaw_of(file) == flaw


def test_installed_models_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry = load_registry()
    assert "homereel-mini installed" in weights_finding(registry).message
    assert is_wrong(weights_finding(Registry({}, {})))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "model.safetensors").write_bytes(safetensors(missing=1))
    monkeypatch.setattr(doctor, "files_of", lambda card: list(tmp_path.rglob("*")))
    finding = weights_finding(registry)
    assert is_wrong(finding)
    assert "model.safetensors: 1 bytes are missing" in finding.message


@pytest.mark.parametrize(
    ("script", "state", "word"),
    [
        ("echo ' V..... libx264 H.264'; echo ' A..... aac AAC'", "ok", "libx264"),
        ("echo ' A..... aac AAC'", "fails", "lacks libx264"),
        ("exit 1", "fails", "does not run"),
    ],
)
def test_ffmpeg_has_to_know_the_codecs(tmp_path: Path, script: str, state: str, word: str) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    finding = ffmpeg_finding(lambda: str(program))
    assert (finding.state, word in finding.message) == (state, True)
    assert is_wrong(finding) == (state == "fails")


def test_the_ffmpeg_that_is_installed_will_do() -> None:
    assert ffmpeg_finding().state == "ok"


def test_a_token_is_not_shown() -> None:
    assert token_finding(None).state == "note"
    finding = token_finding("hf_secret")
    assert (finding.state, "secret" in finding.message) == ("ok", False)


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (lambda: {"status": "ok", "version": "1"}, False),
        (lambda: ["not", "ours"], True),
        (lambda: json.loads("<html>"), True),
    ],
)
def test_a_port_is_free_or_ours_or_taken(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[], object], *, wrong: bool
) -> None:
    monkeypatch.setattr(httpx2, "get", lambda url, timeout: SimpleNamespace(json=answer))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert is_wrong(port_finding("127.0.0.1", port)) is wrong
    assert port_finding("127.0.0.1", port).message == "is free"
    assert is_wrong(port_finding("203.0.113.7", 1))
