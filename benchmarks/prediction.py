"""What a hospital waits for: the command `brainunet predict`, from three NIfTI files to all its outputs, in a fresh process.

    python -m benchmarks.prediction [--data DIR --case ID] [--presets brainunet brainunet-fast] [--ways auto one-pass] [--json]

For one case (of --data, else a phantom), each preset (random weights, which cost what trained ones do) and each way: the first
use of a model, which makes its graph, and the second. Printed are the seconds of the whole command as whoever started it saw
them, the most resident memory and what was planned for, the seconds from the program's start to the first case, and those of
each stage. Random weights find tumour all over the brain, so measuring and writing take longer than with a trained model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.models import random_model

MOST_START_S = 2.0  # before the first case, on the second use


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of cases; without it a phantom")
    parser.add_argument("--case", help="id of the case; the first one without it")
    parser.add_argument("--presets", nargs="+", default=["brainunet", "brainunet-fast"])
    parser.add_argument("--ways", nargs="+", default=["auto", "one-pass"])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        case = the_case(asked.data, asked.case, Path(folder) / "cases")
        rows = [row for preset in asked.presets for row in uses(preset, asked.ways, case, Path(folder))]
    if asked.json:
        print(json.dumps(rows))
        return
    print(f"case {case.name}; the start to the first case may take {MOST_START_S:g} s on the second use")
    heads = f"{'network':>16} {'way':>9} {'use':>7} {'seconds':>8} {'MB':>6} {'planned':>7} {'start':>6}"
    print(f"{heads}  read, network, measure, write")
    for row in rows:
        stages = ", ".join(f"{seconds:.1f}" for seconds in row["stages"].values())
        line = f"{row['preset']:>16} {row['way']:>9} {row['use']:>7} {row['seconds']:8.1f} {row['peak_mb']:6.0f}"
        print(f"{line} {row['estimated_mb']:7.0f} {row['start']:6.2f}  {stages} ({row['run']})")


def the_case(data: Path | None, case_id: str | None, made: Path) -> Path:
    """The folder of one case."""
    if data is None:
        from brainunet.data.phantom import write_phantoms

        write_phantoms(made, cases=1, style="gli", seed=1, shape=(240, 240, 155))
        data = made
    folders = sorted(path for path in data.iterdir() if path.is_dir() and case_id in (None, path.name))
    if not folders:
        raise SystemExit(f"no such case in {data}")
    return folders[0]


def uses(preset: str, ways: list[str], case: Path, folder: Path) -> list[dict[str, Any]]:
    model = folder / f"{preset}.safetensors"
    random_model(model, preset)
    rows = []
    for way in ways:
        shutil.rmtree(model.with_name(f"{model.name}.openvino"), ignore_errors=True)
        for use in ("first", "second"):
            print(f"{preset}, {way}: {use} use", file=sys.stderr, flush=True)
            out = folder / f"{preset}-{way}-{use}"
            rows.append({"preset": preset, "way": way, "use": use, **used(model, way, case, out)})
    return rows


def used(model: Path, way: str, case: Path, out: Path) -> dict[str, Any]:
    """The command once, as a person types it, and what it told of itself."""
    program = "from brainunet.cli import main; main()"
    options = ["-i", str(case), "-o", str(out), "--model", str(model), "--way", way, "--demo", "--quiet"]
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, "predict", *options], check=True)
    seconds = time.perf_counter() - begun
    report = json.loads(next(out.glob("*/run_report.json")).read_text(encoding="utf-8"))
    engine = report["engine"]
    return {
        "seconds": seconds,
        "estimated_mb": engine["estimated_memory_bytes"] / 1e6,
        "peak_mb": report["peak_memory_bytes"] / 1e6,
        "start": report["seconds_from_program_start_to_case"],
        "stages": report["seconds"],
        "run": f"{engine['engine']} {engine['precision']} {engine['way']}",
    }


if __name__ == "__main__":
    main()
