"""What the federation itself costs: rounds of ten sites that do no training, in-process grid against Flower's Ray engine.

    python -m benchmarks.federation_overhead [--sites 10] [--rounds 3] [--preset brainunet]

The same ServerApp and ClientApp objects run on both; each engine has a process of its own. Printed: seconds per round (the
first round left out, which starts the engine), and the most memory held by the process and its descendants (PSS, sampled).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.processes import watching


def run_engine(engine: str, sites: int, rounds: int, preset: str) -> None:
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    from brainunet.config import ModelConfig, PreprocessConfig, StrategyConfig, TrainConfig, ValidationConfig
    from brainunet.model import build, weights_of
    from brainunet.records import AnyTask, CaseCounts, EvaluateReply, Reply, SiteScore, TrainReply, TrainTask
    from brainunet.weights import Weights
    from brainunet_client.flower.app import client_app
    from brainunet_server.answers import Exchange
    from brainunet_server.flower.app import server_app
    from brainunet_server.flower.strategies import strategy_from
    from brainunet_server.rounds import Plan
    from brainunet_server.rounds import rounds as run_rounds

    def idle(task: AnyTask, site: object) -> Reply:
        """A site that answers at once with a small change: everything of a round but the training."""
        del site
        facts = {
            "run": task.run,
            "round": task.round,
            "cases": CaseCounts(train=1, validation=0),
            "score": SiteScore(cases=0, rows=()),
            "seconds": 0.0,
            "client_version": "0",
        }
        if not isinstance(task, TrainTask):
            return EvaluateReply(**facts)
        delta = Weights(task.weights.names, tuple(np.full(a.shape, 1e-3, np.float32) for a in task.weights.arrays))
        return TrainReply(**facts, delta=delta, loss=None)

    model = ModelConfig(preset=preset)
    start = weights_of(build(model))
    plan = Plan("overhead", rounds, sites, 0, model, PreprocessConfig(), TrainConfig(), ValidationConfig())
    ends: list[float] = []

    def conduct(exchange: Exchange) -> None:
        while len(exchange.sites()) < sites:
            time.sleep(0.1)
        ends.append(time.perf_counter())
        last = start
        with tempfile.TemporaryDirectory() as folder:
            for result in run_rounds(plan, start, 0, exchange, strategy_from(StrategyConfig()), Path(folder) / "replies"):
                ends.append(time.perf_counter())
                last = result.weights or last
        moved = float(np.mean(last.minus(start).flat()))
        assert abs(moved - rounds * 1e-3) < 1e-5, f"the model moved by {moved}: the engine lost or changed an update"

    server, client = server_app(conduct), client_app(lambda context: None, idle)  # type: ignore[arg-type, return-value]
    if engine == "local":
        from brainunet_sim.local_grid import run_locally

        run_locally(server, client, [f"site-{i}" for i in range(sites)])
    else:
        from flwr.simulation import run_simulation

        run_simulation(server, client, sites, backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}})
    seconds = np.diff(ends)[:rounds]
    print(json.dumps({"megabytes": start.n_bytes / 1e6, "rounds_s": seconds.tolist()}), flush=True)


def measured(command: Sequence[str]) -> tuple[dict[str, list[float]], float, float]:
    """What a command printed as its last JSON line, its wall seconds, and the most PSS of all its processes in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    with watching(process.pid) as peak:
        output, _ = process.communicate()
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if process.returncode or not lines:
        sys.exit(f"{' '.join(command)} failed with {process.returncode}")
    return json.loads(lines[-1]), time.perf_counter() - started, peak.mb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="brainunet")
    parser.add_argument("--engine", choices=["local", "ray"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.engine:
        run_engine(asked.engine, asked.sites, asked.rounds, asked.preset)
        return
    per_round: dict[str, float] = {}
    memory: dict[str, float] = {}
    report: Callable[[str], None] = lambda text: print(text, flush=True)  # noqa: E731
    for engine in ("local", "ray"):
        command = [sys.executable, "-m", "benchmarks.federation_overhead", "--engine", engine]
        command += ["--sites", str(asked.sites), "--rounds", str(asked.rounds), "--preset", asked.preset]
        facts, wall, memory[engine] = measured(command)
        per_round[engine] = float(np.median(facts["rounds_s"][1:] or facts["rounds_s"]))
        report(
            f"{engine:>5}: {asked.sites} sites, {facts['megabytes']:.1f} MB model: {per_round[engine]:.2f} s per round "
            f"(first {facts['rounds_s'][0]:.2f} s), {wall:.1f} s in all, {memory[engine]:.0f} MB at most"
        )
    report(
        f"ray / in-process grid: {per_round['ray'] / per_round['local']:.1f} x the time per round, "
        f"{memory['ray'] / memory['local']:.1f} x the memory"
    )


if __name__ == "__main__":
    main()
