"""A tiny transformer under a name of its own, for whole runs in the process of a test."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

NAME = "tiny_transformer"


def write_weights(folder: Path) -> Path:
    """Seeded weights (0.3 million) as a file that ``model.weights`` takes."""
    import timm
    import torch
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("test_vit", pretrained=False, num_classes=0, img_size=32)
    file = folder / "tiny.safetensors"
    save_file(network.state_dict(), file)
    return file


def give_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the registry know ``NAME`` until the test ends."""
    import torch

    from workzone.models.backbones.registry import BACKBONES, BackboneSpec

    torch.set_num_threads(1)
    half = (0.5, 0.5, 0.5)
    monkeypatch.setitem(BACKBONES, NAME, BackboneSpec("test_vit.r160_in1k", "vit", 16, half, half, "none", "cls"))


def call(monkeypatch: pytest.MonkeyPatch, words: Sequence[str]) -> None:
    """Run ``workzone`` with ``words`` in this process; a code other than 0 fails the test."""
    from workzone.cli.main import main

    monkeypatch.setattr(sys, "argv", ["workzone", *words])
    # Typer ends a command that went well without an exit in some modes.
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    assert not code, f"workzone {words[0]} ended with {code}"
