"""Time and peak memory of one training step for each image: frozen, every weight, with recomputed activations, tiles.

    python benchmarks/adapt.py [--steps 3] [--batches 4,8,16]

EfficientNet-Lite0 at 224, float32, one thread, random pixels. Each cell is a process of its own, so that its peak is
its own; the peak before the first step is taken off.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

WAYS = ("frozen", "full", "checkpointing", "views")


def cell(way: str, batch: int, steps: int) -> dict[str, float]:
    import torch

    from workzone.config.run import ModelConfig, TrainConfig
    from workzone.models.backbones import create_backbone
    from workzone.models.heads import ProbeHead
    from workzone.training.module import ImageModule

    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = create_backbone(ModelConfig(), checkpointing=way == "checkpointing")
    for parameter in backbone.parameters():
        parameter.requires_grad_(way != "frozen")
    head = ProbeHead(backbone.embedding_dim, 512, 0.1)
    config = TrainConfig(method="full", views=4 if way == "views" else 0, view_k=2)
    module = ImageModule(backbone, head, config).train()
    module.on_train_epoch_start()
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    shape = (batch, 5, 3, 224, 224) if way == "views" else (batch, 3, 224, 224)
    images, labels = torch.rand(shape), (torch.arange(batch) % 2).float()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(steps + 1):
        start = time.process_time()
        with torch.set_grad_enabled(True):
            scores, _ = module._score(images)
        torch.nn.functional.binary_cross_entropy_with_logits(scores, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # The first step also fills caches and the state of the optimiser.
    return {"seconds": sorted(times[1:])[steps // 2] / batch, "mb": peak / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batches", default="4,8,16")
    parser.add_argument("--cell", nargs=2)
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(cell(args.cell[0], int(args.cell[1]), args.steps)))
        return
    print("| way | images in a step | CPU ms per image | peak MB of the step | MB per further image |")
    print("|---|---|---|---|---|")
    for way in WAYS:
        last = None
        for batch in (int(b) for b in args.batches.split(",")):
            command = [sys.executable, __file__, "--steps", str(args.steps), "--cell", way, str(batch)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            slope = f"{(found['mb'] - last[1]) / (batch - last[0]):.1f}" if last else ""
            print(f"| {way} | {batch} | {1000 * found['seconds']:.0f} | {found['mb']:.0f} | {slope} |", flush=True)
            last = (batch, found["mb"])


if __name__ == "__main__":
    main()
