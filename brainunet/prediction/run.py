"""Cases through the network one after the other; what can't be used is collected, and the others go on."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from brainunet import __version__
from brainunet.complaints import one_line
from brainunet.errors import DataError
from brainunet.files import clear_folders, writing_folder_aside
from brainunet.folders import FolderKind
from brainunet.inference.plan import TooLarge
from brainunet.inference.prediction import Prediction, RunFacts
from brainunet.memory import peak_memory
from brainunet.modelfile import ModelCard
from brainunet.prediction.components import BECOMES, committed_thresholds, without_small_components
from brainunet.prediction.grid import (
    ReadCase,
    maps_on_files_grid,
    probabilities_on_files_grid,
    read_case,
)
from brainunet.prediction.outputs import (
    FORMAT,
    REPORT,
    Segmented,
    input_digests,
    report_of,
    require_free,
    require_replaceable,
    require_short,
    write_case,
    write_json,
)
from brainunet.prediction.review import Finding, reasons_to_review
from brainunet.prediction.room import bytes_beside
from brainunet.prediction.statistics import statistics
from brainunet.records import Case, Problem
from brainunet.started import seconds_since_start

OUTPUT: Final = FolderKind("prediction", frozenset(), "", ())  # its folders of cases have an owner each
_STAGES: Final = ("read", "network", "measure", "write")


class Segments(Protocol):
    """What of :class:`~brainunet.inference.segmenter.Segmenter` is used here."""

    card: ModelCard

    @property
    def digest(self) -> str: ...
    def describe(self) -> dict[str, str | int]: ...
    def require_room(self, beside_bytes: int) -> None: ...
    def predict(self, image: npt.NDArray[np.floating], beside_bytes: int) -> Prediction: ...


@dataclass(frozen=True)
class Wanted:
    """What is to be written and how the network is asked.

    Attributes:
        keep_small: leave components in that are smaller than ``components.toml`` says.
        asked: the engine's options, by name: results of others are not gone on with.
        overwrite, resume: what to do with output that is there; at most one.
        demo: the model was trained on made-up cases, or on none.
        withdrawn: why the federation has withdrawn the model, if it has.
    """

    probabilities: bool = False
    uncertainty: bool = True
    keep_small: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    resume: bool = False
    demo: bool = False
    withdrawn: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What two runs must have alike for one to go on with the other's cases."""
        kinds = {"probabilities": self.probabilities, "uncertainty": self.uncertainty}
        told = {**kinds, "demo": self.demo, "withdrawn": self.withdrawn, **self.asked}
        smallest = None if self.keep_small else {region.value: mm3 for region, mm3 in committed_thresholds().items()}
        return {**told, "smallest_components_mm3": smallest}


@dataclass(frozen=True)
class Done:
    """One case that is whole on disk; ``kept`` from an earlier run."""

    name: str
    folder: Path
    statistics: Mapping[str, Mapping[str, Any]]
    review: Mapping[str, str]
    seconds: float
    kept: bool


def predict_cases(
    cases: Sequence[tuple[str, Case]],
    segmenter: Segments,
    out: Path,
    wanted: Wanted,
    on_case: Callable[[], None] = lambda: None,
) -> tuple[list[Done], list[Problem]]:
    """Segment each case (with the name it is to have in the output) into ``out/NAME``. Nobody else may write to ``out`` now.

    Raises:
        DataError: output that is there and may be neither kept nor replaced, before any work.
        BrainUNetError: the disk is full, or ``out`` can't be written: the next case would fare no better.
    """
    if out.is_dir():
        clear_folders(out)
    if not (wanted.overwrite or wanted.resume):
        for name, _ in cases:
            require_free(out / name)
    done: list[Done] = []
    problems: list[Problem] = []
    for name, case in cases:
        try:
            done.append(_one(name, case, segmenter, out / name, wanted))
        except (DataError, TooLarge) as error:  # another case may be smaller
            problems.append(Problem(name, str(error)))
        on_case()
    return done, problems


def _one(name: str, case: Case, segmenter: Segments, folder: Path, wanted: Wanted) -> Done:
    require_short(name)
    inputs = input_digests(case)
    replace = (wanted.overwrite or wanted.resume) and (folder.exists() or folder.is_symlink())
    if replace:
        earlier = report_of(folder)
        if wanted.resume and earlier is not None and _same(earlier, segmenter, wanted, inputs) and _is_whole(folder, earlier):
            told = earlier["result"]
            return Done(name, folder, told["structures"], told["review"], 0.0, kept=True)
        require_replaceable(folder, case)
    waited = seconds_since_start()
    clock = [time.perf_counter()]
    beside = bytes_beside(case.case_id, list(case.images.values()))
    segmenter.require_room(beside)
    read = read_case(case, segmenter.card.model.modalities, segmenter.card.preprocess)
    clock.append(time.perf_counter())
    prediction = segmenter.predict(read.image, beside)
    clock.append(time.perf_counter())
    segmented = _segmented(name, case, read, prediction, wanted)
    clock.append(time.perf_counter())
    with writing_folder_aside(folder, replace=replace) as aside:
        names = write_case(aside, segmented, _for_people(segmenter, prediction, segmented, wanted))
        clock.append(time.perf_counter())
        seconds = {stage: round(after - before, 3) for stage, before, after in zip(_STAGES, clock, clock[1:], strict=False)}
        write_json(
            aside / REPORT,
            {
                **_about_the_program(segmenter, wanted, prediction.facts),
                "inputs_sha256": inputs,
                "missing_modalities": list(read.missing),
                "spacing_mm": list(read.spacing_mm),
                "resampled_to_1mm": read.resampled,
                "removed_components": segmented.removed_told,
                "undecided_share": prediction.undecided,
                "seconds": seconds,
                "seconds_from_program_start_to_case": None if waited is None else round(waited, 2),
                "peak_memory_bytes": peak_memory(),
                "result": {"structures": segmented.statistics, "review": segmented.review},
                "files": names,
            },
        )
    return Done(name, folder, segmented.statistics, segmented.review, clock[-1] - clock[0], kept=False)


def _segmented(name: str, case: Case, read: ReadCase, prediction: Prediction, wanted: Wanted) -> Segmented:
    """The network's answer on the grid of the files, without its small components unless they were asked for."""
    made = prediction.probabilities
    labels, entropy = maps_on_files_grid(made, read, uncertainty=wanted.uncertainty)
    smallest = dict.fromkeys(BECOMES, 0.0) if wanted.keep_small else committed_thresholds()
    labels, removed = without_small_components(labels, math.prod(read.spacing_mm), smallest)
    figures = statistics(labels, read.spacing_mm, entropy)
    return Segmented(
        name=name,
        reference=next(iter(case.images.values())),
        read=read,
        labels=labels,
        removed=removed,
        entropy=entropy,
        probabilities=probabilities_on_files_grid(made, read) if wanted.probabilities else None,
        statistics=figures,
        review=reasons_to_review(
            Finding(labels, read.brain, read.spacing_mm, figures, prediction.undecided, read.missing, wanted.withdrawn)
        ),
        demo=wanted.demo,
    )


def _about_the_program(segmenter: Segments, wanted: Wanted, facts: RunFacts) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "purpose": "Research only. Not a medical device; not for diagnosis or treatment.",
        "demonstration": wanted.demo,
        "versions": {"brainunet": __version__, "python": platform.python_version(), "numpy": np.__version__},
        "model": _model(segmenter),
        "settings": wanted.settings,
        "engine": {
            "engine": facts.engine,
            "precision": facts.precision,
            "device": facts.device,
            "threads": facts.threads,
            "way": facts.way,
            "passes": facts.passes,
            "estimated_memory_bytes": facts.estimated_bytes,
        },
        "warnings": list(facts.warnings),
        "entropy_scale": "uint8: 0 is certain, 255 is all labels as likely" if wanted.uncertainty else None,
    }


def _model(segmenter: Segments) -> dict[str, Any]:
    card = segmenter.card
    return {
        "title": card.title,
        "weights_sha256": segmenter.digest,
        "trained_on": card.trained_on,
        "release": card.release.name if card.release else None,
        "federation": card.release.federation if card.release else None,
        "round": card.round if card.run else None,
    }


def _for_people(segmenter: Segments, prediction: Prediction, segmented: Segmented, wanted: Wanted) -> dict[str, str]:
    read = segmented.read
    model, facts = _model(segmenter), prediction.facts
    spacing = " x ".join(f"{side:.2f}" for side in read.spacing_mm)
    release = f", release {model['release']} of {model['federation']}, round {model['round']}" if model["release"] else ""
    return {
        "model": one_line(f"{model['title']}{release}"),
        "trained on": str(model["trained_on"]),
        "SHA-256 of its weights": segmenter.digest,
        "program": f"brainunet {__version__}, {facts.engine} in {facts.precision} on {facts.device}, {facts.way}",
        "voxels": f"{spacing} mm" + (", resampled to 1 mm for the network" if read.resampled else ""),
        "small parts removed": _removed_in_words(segmented, wanted),
        "missing": ", ".join(read.missing) or "no modality",
        "labels": "1 NETC, 2 SNFH, 3 ET (BraTS 2023); TC = NETC + ET, WT = all three",
        "warnings": "; ".join(facts.warnings) or "none",
    }


def _removed_in_words(segmented: Segmented, wanted: Wanted) -> str:
    if wanted.keep_small:
        return "none: they were to be left in"
    limits = committed_thresholds()
    words = [
        f"{region}: {removed.components} of up to {limits[region]:g} mm3, {removed.volume_mm3:.0f} mm3 in all"
        for region, removed in segmented.removed.items()
        if removed.components
    ]
    return "; ".join(words) or "none: there were none of up to " + ", ".join(f"{mm3:g} mm3 ({r})" for r, mm3 in limits.items())


def _same(earlier: Mapping[str, Any], segmenter: Segments, wanted: Wanted, inputs: Mapping[str, str]) -> bool:
    """Whether a whole folder holds what this run would write."""
    model, result = earlier.get("model"), earlier.get("result")
    return (
        isinstance(model, dict)
        and isinstance(result, dict)
        and {"structures", "review"} <= set(result)
        and model.get("weights_sha256") == segmenter.digest
        and earlier.get("settings") == wanted.settings
        and earlier.get("inputs_sha256") == inputs
    )


def _is_whole(folder: Path, report: Mapping[str, Any]) -> bool:
    """Whether every file that the report tells of is still there: somebody may have moved one away."""
    names = report.get("files")
    return isinstance(names, list) and all(isinstance(name, str) and (folder / name).is_file() for name in names)
