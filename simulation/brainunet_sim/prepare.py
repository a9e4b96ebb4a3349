"""Before the first round: cases found (or made up), preprocessed into the cache, dealt to sites, split for good."""

from __future__ import annotations

import json
from pathlib import Path

from brainunet.data.cache import CaseCache
from brainunet.data.phantom import write_phantoms
from brainunet.data.splits import Side, hold_out
from brainunet.data.usable import Progress, UsableCases
from brainunet.errors import ConfigError
from brainunet.files import writing_aside
from brainunet_client.site import Site
from brainunet_sim.partition import partition, partition_from_file
from brainunet_sim.scenario import PhantomConfig, SimulationConfig


def make_phantoms(folder: Path, config: PhantomConfig, on_progress: Progress) -> None:
    """Write the phantoms of a simulation; equal settings give equal files."""
    done = iter(range(1, config.cases + 1))
    write_phantoms(
        folder,
        cases=config.cases,
        style=config.style,
        seed=config.seed,
        shape=config.shape,
        on_case=lambda _: on_progress("making phantoms", next(done), config.cases),
    )


def deal_sites(
    usable: UsableCases, config: SimulationConfig, cache: CaseCache, kept: Path, work: Path, partition_file: Path | None
) -> list[Site]:
    """The virtual sites; the deal is kept in the file ``kept`` and taken from it on a resume.

    Raises:
        ConfigError: the partition can't be made, or a case that was dealt before is gone.
    """
    if kept.exists():
        sides: dict[str, dict[str, Side]] = json.loads(kept.read_text(encoding="utf-8"))
        gone = [case for cases in sides.values() for case in cases if case not in usable.cases]
        if gone:
            raise ConfigError(
                kept, found=f"case {gone[0]}, which the data no longer has", expected="the cases the run began with"
            )
    else:
        if partition_file is not None:
            dealt = partition_from_file(partition_file, list(usable.cases))
        else:
            dealt = partition(usable.tumour_ml, config.sites, config.partition, config.seed)
        sides = {site: hold_out(cases) for site, cases in dealt.items()}
        with writing_aside(kept) as aside:
            aside.write_text(json.dumps(sides, indent=2) + "\n", encoding="utf-8")
    return [Site.of(name, [usable.cases[case] for case in cases], cases, cache, work / name) for name, cases in sides.items()]
