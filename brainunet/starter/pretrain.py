"""Makes the starter model: ``python -m brainunet.starter.pretrain``.

Trains brainunet-nano from random weights on clean (gli-style) phantoms, scores it on phantoms of another seed, and writes
it with its card beside this file. Minutes on two CPU cores.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from brainunet.config import ModelConfig, PreprocessConfig, TrainConfig, ValidationConfig
from brainunet.data.cases import find_cases
from brainunet.data.phantom import write_phantoms
from brainunet.data.preprocess import PreparedCase, prepare
from brainunet.inference.predictor import predict_labels
from brainunet.metrics.report import score_case
from brainunet.metrics.summary import mean_of, site_score
from brainunet.model import build, weights_of
from brainunet.modelfile import ModelCard, write_model
from brainunet.settings import sha256_of
from brainunet.starter import STARTER
from brainunet.terminal import progress_bar
from brainunet.training.loop import train

MODEL = ModelConfig(preset="brainunet-nano", norm="group")
SHAPES = ((96, 96, 96), (72, 72, 72))  # features scale with the shape: two sizes teach two scales
TRAINING_SEED, UNSEEN_SEED, WEIGHTS_SEED = 1, 2, 7


def main(
    out: Annotated[Path, typer.Option(help="the model file to write")] = STARTER,
    cases: Annotated[int, typer.Option(help="phantoms to train on")] = 48,
    unseen: Annotated[int, typer.Option(help="phantoms to score on")] = 12,
    steps: Annotated[int, typer.Option(help="optimizer steps")] = 900,
) -> None:
    config = TrainConfig(steps=steps, batch_size=2, patch=(64, 64, 64), learning_rate=2e-3, schedule="cosine", warmup_steps=30)
    with tempfile.TemporaryDirectory() as folder, progress_bar() as progress:
        training = _phantoms(Path(folder) / "train", cases, TRAINING_SEED, progress)
        task = progress.add_task("training", total=steps)
        network = build(MODEL, seed=WEIGHTS_SEED)
        train(
            network,
            training,
            config,
            seed=WEIGHTS_SEED,
            on_step=lambda step, loss: progress.update(task, completed=step, description=f"training, loss {loss:.3f}"),
        )
        held_out = _phantoms(Path(folder) / "unseen", unseen, UNSEEN_SEED, progress)
    scores = []
    for number, case in enumerate(held_out):
        assert case.label is not None
        predicted = predict_labels(network, case.image, ValidationConfig().window)
        scores.append(score_case(str(number), predicted, case.label, case.spacing_mm, ValidationConfig().metrics))
    score = site_score(scores)
    card = ModelCard(
        title="BrainUNet starter: brainunet-nano, pretrained on phantoms",
        model=MODEL,
        preprocess=PreprocessConfig(),
        provenance=f"{steps} steps on {cases} gli-style phantoms (brainunet.starter.pretrain), from "
        f"random weights; scored on {unseen} phantoms of another seed",
        trained_on="phantoms",
        intended_use="Demonstrations and tests. It has never seen a real brain: do not use it on a patient.",
        config_sha256=sha256_of(config),
        scores={"unseen gli phantoms": score},
        made_at=datetime.now(UTC).replace(microsecond=0),
    )
    write_model(out, weights_of(network), card)
    dice = ", ".join(f"{name} {value:.3f}" for name, value in mean_of(score).items() if value is not None)
    Console().print(f"{out}: {out.stat().st_size / 1e6:.2f} MB, Dice on unseen phantoms: {dice}")


def _phantoms(folder: Path, number: int, seed: int, progress: Progress) -> list[PreparedCase]:
    task = progress.add_task("phantoms", total=number)
    for i, shape in enumerate(SHAPES):
        write_phantoms(
            folder / str(i),
            cases=number // len(SHAPES),
            style="gli",
            seed=seed + 1000 * i,
            shape=shape,
            on_case=lambda _: progress.advance(task),
        )
    found = [find_cases(folder / str(i)).cases for i in range(len(SHAPES))]
    return [prepare(case, MODEL.modalities, PreprocessConfig()) for cases in found for case in cases]


if __name__ == "__main__":
    typer.run(main)
