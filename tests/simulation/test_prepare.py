"""Before the first round: which cases are used, and which site they belong to for good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainunet.config import PreprocessConfig
from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.data.usable import UsableCases, usable_cases
from brainunet.errors import ConfigError, DataError
from brainunet.labels import DEFAULT_MODALITIES, Convention
from brainunet_client.site import Site
from brainunet_sim.prepare import deal_sites, make_phantoms
from brainunet_sim.scenario import PartitionConfig, PhantomConfig, SimulationConfig
from tests.support.cases import write_case
from tests.support.nifti import write_nifti
from tests.support.simulation import partition_csv

IDS = [f"BraTS-SSA-{number:05d}-000" for number in (2, 3, 4, 123, 124, 125)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for case_id in IDS:
        write_case(tmp_path / "data", case_id)
    return tmp_path / "data"


def read(data: Path, seen: list[tuple[str, int, int]] | None = None, convention: Convention | None = None) -> UsableCases:
    said = [] if seen is None else seen
    return usable_cases(
        data,
        CaseCache(data.parent / "cache"),
        DEFAULT_MODALITIES,
        PreprocessConfig(),
        convention,
        lambda *step: said.append(step),
    )


def deal(data: Path, usable: UsableCases, partition_file: Path | None = None, seed: int = 0, name: str = "iid") -> list[Site]:
    config = SimulationConfig(sites=None if name == "centre" else 2, seed=seed, partition=PartitionConfig(name=name))
    out = data.parent
    return deal_sites(usable, config, CaseCache(out / "cache"), out / "sites.json", out / "work", partition_file)


def of(sites: Sequence[Site]) -> dict[str, tuple[list[str], list[str]]]:
    return {s.name: ([case.case_id for case in s.train], [case.case_id for case in s.validation]) for s in sites}


def test_every_case_is_read_once_with_the_volume_of_its_tumour_and_the_progress_told(data: Path) -> None:
    seen = list[tuple[str, int, int]]()

    usable = read(data, seen)

    assert list(usable.cases) == IDS
    assert usable.skipped == ()
    assert set(usable.tumour_ml.values()) == {0.064}  # 4 x 4 x 4 voxels of 1 mm
    assert [(done, of_all) for _, done, of_all in seen] == [(n, 6) for n in range(1, 7)]


def test_the_volume_counts_voxels_by_their_size(data: Path) -> None:
    write_case(data, "BraTS-SSA-00005-000", sform=np.diag([2.0, 2.0, 3.0, 1.0]))

    assert read(data).tumour_ml["BraTS-SSA-00005-000"] == pytest.approx(0.064 * 12)


def test_a_bad_case_is_left_out_by_name_and_the_others_go_on(data: Path) -> None:
    (data / IDS[0] / f"{IDS[0]}-t1c.nii.gz").unlink()
    (data / IDS[1] / f"{IDS[1]}-t2f.nii.gz").write_bytes(b"")
    write_nifti(data / IDS[2] / f"{IDS[2]}-seg.nii.gz", np.full((12, 11, 10), 7, np.uint8))

    usable = read(data)

    assert list(usable.cases) == IDS[3:]
    reasons = {problem.case_id: problem.reason for problem in usable.skipped}
    assert sorted(reasons) == IDS[:3]
    assert "no file for t1c" in reasons[IDS[0]]
    assert f"{IDS[1]}-t2f.nii.gz" in reasons[IDS[1]]
    assert "7" in reasons[IDS[2]]


def test_with_nothing_usable_every_reason_is_said(data: Path) -> None:
    for case_id in IDS:
        (data / case_id / f"{case_id}-seg.nii.gz").unlink()

    with pytest.raises(DataError) as refused:
        read(data)

    lines = str(refused.value).splitlines()
    assert lines[0] == "data: no usable case of 6:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == IDS
    assert lines[-1].endswith("Mend the files named above.")
    assert ".." not in str(refused.value)


def test_names_that_do_not_tell_their_labels_need_the_convention(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_case(data, "patient-7")

    with pytest.raises(DataError, match="Say --convention"):
        read(data)
    assert list(read(data, convention=Convention.BRATS2023).cases) == ["patient-7"]


def test_every_site_has_cases_on_both_sides_and_work_and_cache_of_its_own_place(data: Path) -> None:
    sites = deal(data, read(data))

    assert [site.name for site in sites] == ["site-1", "site-2"]
    assert sorted(case for train, held in of(sites).values() for case in train + held) == IDS
    assert all(train and held for train, held in of(sites).values())
    assert [site.work for site in sites] == [data.parent / "work" / site.name for site in sites]


def test_a_deal_is_for_good_whatever_is_added_or_asked_for_later(data: Path) -> None:
    before = of(deal(data, read(data), seed=0))
    write_case(data, "BraTS-SSA-00006-000")

    assert of(deal(data, read(data), seed=1)) == before
    assert of(deal(data, read(data), name="centre")) == before


def test_a_case_that_was_dealt_and_is_gone_is_named(data: Path) -> None:
    usable = read(data)
    deal(data, usable)
    left = replace(usable, cases={case_id: case for case_id, case in usable.cases.items() if case_id != IDS[4]})

    with pytest.raises(ConfigError, match=rf"sites\.json: case {IDS[4]}, which the data no longer has"):
        deal(data, left)


def test_a_deal_that_fails_leaves_nothing_to_resume(data: Path) -> None:
    with pytest.raises(ConfigError):
        deal(data, read(data), name="cente")

    assert not (data.parent / "sites.json").exists()


def test_a_partition_file_takes_the_place_of_the_partition(data: Path) -> None:
    path = data.parent / "partitioning_1.csv"
    path.write_text(partition_csv([("4", case) for case in IDS[:2]] + [("9", case) for case in IDS[2:4]]))

    sites = deal(data, read(data), partition_file=path)

    assert {name: sorted(train + held) for name, (train, held) in of(sites).items()} == {"site-4": IDS[:2], "site-9": IDS[2:4]}
    assert json.loads((data.parent / "sites.json").read_text()).keys() == {"site-4", "site-9"}


def test_equal_settings_make_equal_phantoms_and_making_them_again_changes_nothing(tmp_path: Path) -> None:
    config, seen = PhantomConfig(cases=2, shape=(32, 32, 32)), list[tuple[str, int, int]]()
    make_phantoms(tmp_path, config, lambda *step: seen.append(step))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.nii.gz")}

    make_phantoms(tmp_path, config, lambda *step: None)

    assert {path: path.read_bytes() for path in tmp_path.rglob("*.nii.gz")} == before
    assert len(find_cases(tmp_path).cases) == 2
    assert seen == [("making phantoms", 1, 2), ("making phantoms", 2, 2)]
