"""Two processes that train together: equal weights on both, and codes and centres made over all images."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.command import environment

TWO = """
import json, sys, tempfile
from pathlib import Path
import numpy as np, torch
import torch.distributed as dist
from timm.models.vision_transformer import VisionTransformer
from workzone.config.pretraining import PretrainConfig
from workzone.models.backbones import Backbone, BackboneSpec
from workzone.training.pretraining import terms
from workzone.training.pretraining.images import StoredImages
from workzone.training.pretraining.loop import run_loop
from workzone.training.pretraining.run import _unfrozen
from workzone.training.pretraining.selfsupervised import SelfSupervised

torch.set_num_threads(1)
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{sys.argv[2]}", rank=rank, world_size=2)
scores = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
codes = terms.sinkhorn(scores[rank * 4 : rank * 4 + 4])
ssl = {"local_crops": 1, "local_size": 16, "prototypes": 8, "queue": 8, "hidden": 16, "bottleneck": 8}
config = PretrainConfig(method="hybrid", epochs=2, batch_size=4, lr=1e-3, warmup=0.0, ssl=ssl)
torch.manual_seed(rank)
network = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2, num_classes=0)
spec = BackboneSpec("tiny", "vit", 8, (0.5,) * 3, (0.5,) * 3, "none", "cls")
backbone = Backbone("tiny", spec, network, image_size=32, pooling="cls")
pixels = np.random.default_rng(0).integers(0, 255, (16, 40, 40, 3), dtype=np.uint8)
images = StoredImages(pixels, tuple(f"{i:064x}" for i in range(16)))
made = SelfSupervised(_unfrozen(backbone, config, 0), config, seed=0)
folder = Path(sys.argv[3])
outcome = run_loop(made, images, config, seed=0, folder=folder / "both", key="k")
state = made.state_dict()
apart = {k: state[k] for k in state if "running_" in k or k in ("queue", "queued") or "num_batches" in k}
shared = {k: float(v.double().sum()) for k, v in state.items() if k not in apart}
result = {"codes": codes.tolist(), "shared": shared, "trace": outcome.trace}
(folder / f"{rank}.json").write_text(json.dumps(result))
dist.destroy_process_group()
"""


@pytest.mark.timeout(180)
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    import torch

    from workzone.training.pretraining.terms import sinkhorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(rank), str(port), str(tmp_path)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in both:
        out, _ = process.communicate(timeout=170)
        assert process.returncode == 0, out
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    scores = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.tensor(first["codes"] + second["codes"]), sinkhorn(scores))
    assert first["shared"] == second["shared"]
    assert "centre" in first["shared"]
    assert len(first["trace"]) == 4, "16 images, 4 a process and step, 2 epochs"
    assert first["trace"] != second["trace"], "each process sees its own images"
    assert (tmp_path / "both" / "last.ckpt").is_file()
