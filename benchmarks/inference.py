"""A whole brain through the network: OpenVINO and PyTorch, one pass and windows, each in a process of its own.

    python -m benchmarks.inference [--data DIR --case ID] [--presets brainunet brainunet-fast] [--max-memory-gb 3]
                                   [--no-eager] [--json]

For one case (of --data, else a phantom) and each preset with random weights, which cost what trained ones do. Each way starts
twice in fresh processes: the first makes the graph, the second is what a hospital waits for. Printed:

- seconds from the start of the program to the label map (reading three files, preparing, opening the model, predicting), of
  opening and of the network alone; the most resident memory beside what was estimated (to the last output of the real command:
  benchmarks/prediction.py);
- how many times as fast as eager PyTorch in fp32 with MONAI's sliding window (128^3, overlap 0.5, Gaussian), same weights, same
  run (--no-eager leaves it out: it takes minutes);
- the network's multiply-adds a second as a share of what a large matrix product reaches in the same engine and precision;
- Dice of each label map with the first one's, mean over labels. With random weights this tells of bf16 against fp32 in the same
  way; one pass against windows needs a trained model (benchmarks/one_pass.py).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS: dict[str, list[str]] = {
    "openvino bf16 one pass": ["--engine", "openvino", "--precision", "bf16", "--way", "one-pass"],
    "openvino fp32 one pass": ["--engine", "openvino", "--precision", "fp32", "--way", "one-pass"],
    "openvino bf16 windows": ["--engine", "openvino", "--precision", "bf16", "--way", "windows"],
    "torch auto windows": ["--engine", "torch", "--precision", "auto", "--way", "windows"],
    "monai fp32 128^3": ["--engine", "monai", "--precision", "fp32", "--way", "windows"],
}
EAGER = "monai fp32 128^3"
MATRIX_SIDE = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of cases; without it a phantom")
    parser.add_argument("--case", help="id of the case; the first one without it")
    parser.add_argument("--presets", nargs="+", default=["brainunet", "brainunet-fast"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), help="some of: " + ", ".join(WAYS))
    parser.add_argument("--max-memory-gb", type=float, help="also: the first way within so much")
    parser.add_argument("--no-eager", action="store_true")
    parser.add_argument("--json", action="store_true")
    for hidden in ("--model", "--engine", "--precision", "--way", "--labels"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.engine == "matrix":
        print(json.dumps({"rate": matrix_rate(asked.precision)}))
        return
    if asked.engine:
        print(json.dumps(one(asked)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(asked, preset, Path(folder)) for preset in asked.presets]
    if asked.json:
        print(json.dumps(rows))
        return
    for row in rows:
        show(row)


def measured(asked: argparse.Namespace, preset: str, folder: Path) -> dict[str, Any]:
    from brainunet.config import ModelConfig, PreprocessConfig
    from brainunet.model import build, size_of, weights_of
    from brainunet.modelfile import ModelCard, write_model

    config = ModelConfig(preset=preset)
    card = ModelCard(title=preset, model=config, preprocess=PreprocessConfig(), provenance="random", trained_on="nothing")
    write_model(folder / f"{preset}.safetensors", weights_of(build(config, seed=0)), card)
    data = asked.data
    if data is None:
        from brainunet.data.phantom import write_phantoms

        data = folder / "cases"
        write_phantoms(data, cases=1, style="gli", seed=1, shape=(160, 192, 160))
    common = [
        "--data",
        str(data),
        "--model",
        str(folder / f"{preset}.safetensors"),
        *(["--case", asked.case] if asked.case else []),
    ]
    ways = [way for way in asked.ways if not (asked.no_eager and way == EAGER)]
    told: dict[str, Any] = {}
    for way in ways:
        labels = ["--labels", str(folder / f"{preset}-{way.replace(' ', '-').replace('^', '')}.npy")]
        say(f"{preset}: {way}")
        if way != EAGER:
            in_a_process([*common, *WAYS[way], *labels])  # makes the graph, and warms the disk
        told[way] = in_a_process([*common, *WAYS[way], *labels]) | {"labels": labels[1]}
    if asked.max_memory_gb:
        first = [*common, *WAYS[ways[0]][:4], "--way", "auto", "--max-memory-gb", str(asked.max_memory_gb)]
        told[f"within {asked.max_memory_gb:g} GB"] = in_a_process([*first, "--labels", str(folder / "limited.npy")])
    rates = {
        precision: in_a_process(["--engine", "matrix", "--precision", precision])["rate"] for precision in ("bf16", "fp32")
    }
    macs = size_of(config, (128, 128, 128)).multiply_adds / 128**3  # for each voxel
    return {"preset": preset, "ways": told, "rates": rates, "multiply_adds_per_voxel": macs, "agreement": agreement(told)}


def agreement(told: dict[str, Any]) -> dict[str, float]:
    """Dice between label maps, mean over the labels that both have, of each way with the first."""
    import numpy as np

    maps = {way: np.load(row["labels"]) for way, row in told.items() if "labels" in row}
    first = next(iter(maps))
    found = {}
    for way, labels in maps.items():
        pairs = [(maps[first] == number, labels == number) for number in range(4)]
        scores = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs if a.any() or b.any()]
        found[way] = float(np.mean(scores))
    return found


def one(asked: argparse.Namespace) -> dict[str, Any]:
    """One case in this process, from its files to its label map."""
    begun = time.perf_counter()
    import numpy as np

    from brainunet.data.cases import find_cases
    from brainunet.data.preprocess import prepare
    from brainunet.inference.segmenter import EngineOptions, open_segmenter
    from brainunet.modelfile import read_model

    model = Path(asked.model)
    _, card = read_model(model)
    cases = find_cases(asked.data).cases
    case = next(case for case in cases if asked.case in (None, case.case_id))
    prepared = prepare(case, card.model.modalities, card.preprocess)
    ready = time.perf_counter()
    facts: dict[str, Any]
    if asked.engine == "monai":
        labels, seconds = eager(model, prepared.image)
        facts = {"seconds_network": seconds, "seconds_load": 0.0, "estimated_mb": None, "window": [128, 128, 128]}
    else:
        limit = None if asked.max_memory_gb is None else int(asked.max_memory_gb * 1e9)
        options = EngineOptions(engine=asked.engine, precision=asked.precision, way=asked.way, max_memory_bytes=limit)
        made = open_segmenter(model, options).predict(prepared.image)
        labels = made.labels
        facts = {
            "seconds_network": made.facts.seconds_network,
            "seconds_load": made.facts.seconds_load,
            "estimated_mb": made.facts.estimated_bytes / 1e6,
            "window": made.facts.window,
            "precision": made.facts.precision,
        }
    ended = time.perf_counter()
    np.save(asked.labels, labels)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return facts | {
        "seconds": ended - begun,
        "seconds_prepare": ready - begun,
        "peak_mb": peak_mb,
        "voxels": int(np.prod(labels.shape)),
        "shape": list(labels.shape),
    }


def eager(model: Path, image: Any) -> tuple[Any, float]:
    import numpy as np
    import torch
    from monai.inferers import sliding_window_inference

    from brainunet.model import load

    network = load(model)
    tensor = torch.from_numpy(np.asarray(image, np.float32))[None]
    begun = time.perf_counter()
    with torch.inference_mode():
        logits = sliding_window_inference(tensor, (128, 128, 128), 1, network, overlap=0.5, mode="gaussian")
    return logits[0].argmax(0).to(torch.uint8).numpy(), time.perf_counter() - begun


def matrix_rate(precision: str) -> float:
    """Multiply-adds a second of a large matrix product in OpenVINO."""
    import numpy as np

    from brainunet.inference.openvino_graph import openvino

    ov = openvino()
    from openvino import opset13 as ops

    side = MATRIX_SIDE
    rng = np.random.default_rng(0)
    given = ops.parameter([side, side], np.float32)
    weights = ops.constant(rng.normal(size=(side, side)).astype(np.float32))
    graph = ov.Model([ops.matmul(given, weights, False, False)], [given])
    hint = "bf16" if precision == "bf16" else "f32"
    request = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": hint}).create_infer_request()
    image = rng.normal(size=(side, side)).astype(np.float32)
    seconds = []
    for _ in range(4):
        begun = time.perf_counter()
        request.infer({0: image}, share_inputs=True, share_outputs=True)
        seconds.append(time.perf_counter() - begun)
    return float(side**3 / min(seconds[1:]))


def show(row: dict[str, Any]) -> None:
    ways, macs = row["ways"], row["multiply_adds_per_voxel"]
    shape = " x ".join(str(side) for side in next(iter(ways.values()))["shape"])
    rates = ", ".join(f"{precision} {rate / 1e9:.0f} G" for precision, rate in row["rates"].items())
    print(f"{row['preset']}, {shape} voxels; multiply-adds a second of a matrix product of {MATRIX_SIDE}: {rates}")
    base = ways[EAGER]["seconds"] if EAGER in ways else None
    for way, told in ways.items():
        line = (
            f"  {way:>24}: {told['seconds']:6.1f} s ({told['seconds_prepare']:.1f} files, {told['seconds_load']:.1f} opening, "
        )
        line += f"{told['seconds_network']:.1f} network), {told['peak_mb']:.0f} MB"
        if told["estimated_mb"] is not None:
            line += f" (estimated {told['estimated_mb']:.0f})"
        if base is not None and way != EAGER:
            line += f", {base / told['seconds']:.1f} x as fast as eager"
        if way in WAYS and WAYS[way][-1] == "one-pass":
            share = macs * told["voxels"] / told["seconds_network"] / row["rates"][WAYS[way][3]]
            line += f", {share:.0%} of the matrix product's rate"
        if way in row["agreement"]:
            line += f", Dice with the first {row['agreement'][way]:.3f}"
        print(line)


def in_a_process(arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.inference", *arguments]
    told: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return told


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
