"""A pipeline of small phases that only copy numbers, to try the engine without images or torch.

Run as a program it runs itself in a folder and kills itself where it is told to.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from workzone.config import RunConfig
from workzone.files import read_json, write_json
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phase import Context, PhaseSpec

NAMES = ("prepare", "train", "decide", "evaluate")
KEYS = {"prepare": "seed", "train": "train", "decide": "decide.delta", "evaluate": "evaluate.level"}
Hook = Callable[[str, str], None]


def config(out: Path, **sections: object) -> RunConfig:
    return RunConfig.model_validate({"data": "synthetic", "out": out, **sections})


def output(artifacts: Artifacts, name: str, part: int) -> Path:
    return artifacts.root / name / f"part{part}.json"


def phases(hook: Hook = lambda phase, moment: None) -> list[PhaseSpec]:
    """A chain of phases that write two files each; ``hook`` is called before, between and after the two writes."""
    return [_phase(i, hook) for i in range(len(NAMES))]


def _phase(index: int, hook: Hook) -> PhaseSpec:
    name = NAMES[index]

    def inputs(a: Artifacts, c: RunConfig) -> list[Path]:
        return [output(a, NAMES[index - 1], 2)] if index else []

    def run(context: Context) -> None:
        values = [context.config.model_dump(mode="json")[KEYS[name].partition(".")[0]]]
        values += [read_json(p) for p in inputs(context.artifacts, context.config)]
        with (context.artifacts.root / "journal.txt").open("a") as stream:
            stream.write(f"{name}\n")
        hook(name, "start")
        write_json(output(context.artifacts, name, 1), ["first", values])
        hook(name, "middle")
        write_json(output(context.artifacts, name, 2), ["second", values])
        hook(name, "end")

    return PhaseSpec(
        name=name,
        version=1,
        config=(KEYS[name],),
        inputs=inputs,
        outputs=lambda a, c: [output(a, name, 1), output(a, name, 2)],
        roles=(),
        run=run,
    )


def journal(out: Path) -> list[str]:
    """Names of the phases that were begun, in order."""
    path = out / "journal.txt"
    return path.read_text().split() if path.exists() else []


def main() -> None:
    """``toy.py OUT PHASE MOMENT SIGNAL``: run, and send the signal to this process at that moment."""
    out, phase, moment, number = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])

    def hook(name: str, when: str) -> None:
        if (name, when) == (phase, moment):
            # A partial file such as an interrupted atomic write leaves.
            (out / name).mkdir(exist_ok=True)
            (out / name / ".part2-0123abcd.partial.json").write_text("half")
            if number == signal.SIGCONT:
                print("reached", flush=True)
                sys.stdin.read()
            if number == signal.SIGINT:
                # A shell that started the tests in the background has it ignored.
                signal.signal(signal.SIGINT, signal.default_int_handler)
            os.kill(os.getpid(), number)

    run_pipeline(config(out), phases(hook))


if __name__ == "__main__":
    main()
