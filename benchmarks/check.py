"""Seconds per case of ``brainunet check`` against reading the same files alone, and its memory for few and for many cases.

    python benchmarks/check.py [--cases 10 40] [--data FOLDER] [--modalities t1c,t2w,t2f] [--no-pictures]

Cases are those of FOLDER over and over, linked under other names; without it those of two phantoms of 240 x 240 x 155 voxels.
Reading alone is nibabel and numpy in one process, file after file. Memory is the largest resident set of the parent and of its
workers, by the kernel's count; flat means that it does not grow with the number of cases.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from brainunet.data.cases import find_cases
from brainunet.data.phantom import write_phantoms
from brainunet.data.preprocess import files_of
from brainunet.labels import Modality
from brainunet.records import Case

# In a process of its own: the largest resident set of a process never shrinks.
CHECK = """
import json, resource, sys
from brainunet.cli import main
try:
    main()
except SystemExit:
    pass
own, workers = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({"parent": own, "worker": workers}), file=sys.stderr)
"""


def link_cases(data: Path, out: Path, count: int) -> list[Case]:
    """So many cases of BraTS 2023 names, each a set of links to a case of ``data``."""
    for number, case in enumerate(itertools.islice(itertools.cycle(find_cases(data).cases), count)):
        case_id = f"made-up-{number:04d}"
        (out / case_id).mkdir(parents=True)
        for kind, path in [*case.images.items(), ("seg", case.label)]:
            assert path is not None
            (out / case_id / f"{case_id}-{kind}.nii.gz").symlink_to(path.resolve())
    convention = find_cases(data).cases[0].convention
    return list(find_cases(out, convention=convention).cases)


def read_alone(cases: list[Case], modalities: list[Modality]) -> float:
    started = time.perf_counter()
    for case in cases:
        for path in files_of(case, modalities):
            nib.as_closest_canonical(nib.load(path)).get_fdata(dtype=np.float32)
    return time.perf_counter() - started


def check(folder: Path, convention: str, modalities: list[Modality], report: Path | None) -> tuple[float, dict[str, float]]:
    arguments = ["check", str(folder), "--quiet", "--modalities", ",".join(modalities), "--convention", convention]
    arguments += ["--out", str(report)] if report else []
    # a file: a worker is started by the name of what its parent runs
    program = folder.parent / "run_check.py"
    program.write_text(
        f"if __name__ == '__main__':\n{''.join(f'    {line}' for line in CHECK.strip().splitlines(keepends=True))}\n"
    )
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, str(program), *arguments], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    memory: dict[str, float] = json.loads(ended.stderr.splitlines()[-1])
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--modalities", default="t1c,t2w,t2f")
    parser.add_argument("--no-pictures", action="store_true")
    asked = parser.parse_args()
    modalities = [Modality(name) for name in asked.modalities.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        data = asked.data or Path(scratch) / "phantoms"
        if asked.data is None:
            write_phantoms(data, cases=2, style="ssa", seed=0, shape=(240, 240, 155))
        for count in asked.cases:
            folder = Path(scratch) / f"{count}" / "cases"
            cases = link_cases(data, folder, count)
            report = None if asked.no_pictures else folder.parent / "report"
            reading = read_alone(cases, modalities)
            seconds, memory = check(folder, cases[0].convention, modalities, report)
            size = f", report {(report / 'report.html').stat().st_size / 1e6:.1f} MB" if report else ""
            print(
                f"{count} cases: check {seconds / count:.2f} s a case, reading alone {reading / count:.2f} s, "
                f"ratio {seconds / reading:.2f}; peak memory {memory['parent']:.0f} MB parent, "
                f"{memory['worker']:.0f} MB worker{size}"
            )


if __name__ == "__main__":
    main()
