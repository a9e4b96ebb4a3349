"""How cases are dealt to virtual hospitals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.data.patients import patient_of
from brainunet.data.splits import hold_out
from brainunet.errors import ConfigError, UsageError
from brainunet_sim.partition import DEFAULT_SITES, MIN_PATIENTS, PARTITIONS, partition, partition_from_file
from brainunet_sim.scenario import PartitionConfig
from tests.support.cases import assert_reads_well
from tests.support.simulation import PatientFolder, african_patients, partition_csv

ByNumber = pytest.mark.parametrize("name", sorted(set(PARTITIONS) - {"centre"}))


def dealt(
    folder: PatientFolder, name: str, sites: int | None = None, seed: int = 0, alpha: float = 0.5
) -> dict[str, list[str]]:
    return partition(folder, sites, PartitionConfig(name=name, alpha=alpha), seed)


@pytest.mark.parametrize("name", PARTITIONS)
@given(folder=african_patients(), sites=st.integers(1, 6), seed=st.integers(0, 2**63 - 1), alpha=st.floats(1e-6, 1000))
def test_whoever_deals_every_case_lands_in_one_site_with_its_patient_or_the_reason_is_said(
    name: str, folder: PatientFolder, sites: int, seed: int, alpha: float
) -> None:
    config = PartitionConfig(name=name, alpha=alpha)
    try:
        result = partition(folder, None if name == "centre" else sites, config, seed)
    except ConfigError as error:
        patients = {patient_of(case) for case in folder}
        assert name == "centre" or len(patients) < MIN_PATIENTS * sites  # nobody gives up where a deal exists
        assert_reads_well(str(error), str(error.where))
        return

    assert sorted(case for cases in result.values() for case in cases) == sorted(folder)
    homes = {(patient_of(case), site) for site, cases in result.items() for case in cases}
    assert len(homes) == len({patient for patient, _ in homes})
    for cases in result.values():
        assert cases == sorted(cases)
        assert len({patient_of(case) for case in cases}) >= MIN_PATIENTS
        assert set(hold_out(cases).values()) == {"train", "validation"}
    assert list(result) == sorted(result)
    assert name == "centre" or len(result) == sites
    assert partition(dict(reversed(folder.items())), None if name == "centre" else sites, config, seed) == result


@ByNumber
def test_a_partition_by_number_makes_three_sites_unless_told(name: str) -> None:
    assert len(dealt(african(12), name)) == DEFAULT_SITES
    assert len(dealt(african(12), name, sites=4)) == 4


@pytest.mark.parametrize("name", ["iid", "dirichlet"])
def test_another_seed_deals_otherwise(name: str) -> None:
    assert dealt(african(24), name, seed=1) != dealt(african(24), name, seed=2)


def test_one_site_gets_every_case() -> None:
    for name in set(PARTITIONS) - {"centre"}:
        assert dealt(african(4), name, sites=1) == {"site-1": sorted(african(4))}


@ByNumber
def test_too_few_patients_are_refused_with_the_site_and_the_number_that_it_needs(name: str) -> None:
    with pytest.raises(ConfigError, match=r"site-\d: (1|no) patients?, but expected at least 2.*fewer sites"):
        dealt(african(5), name, sites=3)


def test_visits_of_a_patient_count_as_one_patient() -> None:
    visits = {f"BraTS-SSA-00002-00{visit}": 1.0 for visit in range(4)}

    with pytest.raises(ConfigError, match="site-1: 1 patient, but"):
        dealt(visits, "iid", sites=1)


def test_iid_sites_differ_by_one_patient_at_most() -> None:
    sizes = sorted(len(cases) for cases in dealt(african(11), "iid", sites=4).values())

    assert sizes == [2, 3, 3, 3]


def test_by_size_the_first_site_has_the_smallest_tumours() -> None:
    folder = african(9)

    result = dealt(folder, "size")

    assert [len(cases) for cases in result.values()] == [3, 3, 3]
    largest = [max(folder[case] for case in cases) for cases in result.values()]
    smallest = [min(folder[case] for case in cases) for cases in result.values()]
    assert largest[0] < smallest[1]
    assert largest[1] < smallest[2]


def test_a_patients_size_is_that_of_the_largest_tumour_among_the_visits() -> None:
    folder = african(4) | {"BraTS-SSA-00002-001": 900.0}  # the first patient, whose tumour was the smallest

    assert "BraTS-SSA-00002-000" in dealt(folder, "size", sites=2)["site-2"]


def test_a_small_alpha_makes_sites_that_differ_much_and_a_large_one_sites_that_are_alike() -> None:
    def spread(alpha: float) -> int:
        sizes = [len(cases) for seed in range(8) for cases in dealt(african(60), "dirichlet", seed=seed, alpha=alpha).values()]
        return max(sizes) - min(sizes)

    assert spread(0.05) > 40
    assert spread(1000) < 20


def test_by_centre_the_case_number_tells_the_hospital() -> None:
    folder = {f"BraTS-SSA-{number:05d}-000": 1.0 for number in (2, 81, 89, 108, 110, 230, 123, 225)}

    assert dealt(folder, "centre") == {
        "CRV": ["BraTS-SSA-00002-000", "BraTS-SSA-00081-000"],
        "LASUTH": ["BraTS-SSA-00089-000", "BraTS-SSA-00108-000"],
        "MEDHUB": ["BraTS-SSA-00110-000", "BraTS-SSA-00230-000"],
        "NKDC": ["BraTS-SSA-00123-000", "BraTS-SSA-00225-000"],
    }
    assert dealt(folder, "centre", sites=4) == dealt(folder, "centre")


@pytest.mark.parametrize("stranger", ["BraTS2021_00059", "BraTS-GLI-00002-000", "BraTS-SSA-00082-000", "patient7"])
def test_by_centre_a_name_that_tells_no_hospital_is_refused(stranger: str) -> None:
    with pytest.raises(ConfigError) as refused:
        dealt(african(4) | {stranger: 1.0}, "centre")

    assert refused.value.where == f"case {stranger}"
    assert_reads_well(str(refused.value), f"case {stranger}")


def test_by_centre_another_number_of_sites_than_there_are_centres_is_refused_with_their_names() -> None:
    folder = {f"BraTS-SSA-{number:05d}-000": 1.0 for number in (2, 3, 123, 124)}

    with pytest.raises(ConfigError, match=r"--sites: 3, but expected 2, the centres of these cases \(CRV, NKDC\)"):
        dealt(folder, "centre", sites=3)


def test_a_centre_with_one_patient_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="LILY: 1 patient, but"):
        dealt(african(4) | {"BraTS-SSA-00231-000": 1.0}, "centre")


def test_an_unknown_partition_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"--partition: 'dirichelt' \(did you mean dirichlet\?\)"):
        dealt(african(6), "dirichelt")


CASES = [f"BraTS-SSA-{number:05d}-000" for number in (2, 3, 4, 5)]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes | str], Path]:
    def write(content: bytes | str) -> Path:
        path = tmp_path / "partitioning_1.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


Write = Callable[[bytes | str], Path]


def test_a_partition_file_of_fets_deals_the_cases_that_are_there_and_passes_over_others(write: Write) -> None:
    rows = [("1", CASES[0]), ("1", CASES[2]), ("2", CASES[1]), ("2", CASES[3]), ("3", "FeTS2022_01341")]

    assert partition_from_file(write(partition_csv(rows)), CASES) == {"site-1": CASES[::2], "site-2": CASES[1::2]}


@pytest.mark.parametrize(
    "dress",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("1,", " 1 ,"),
        lambda text: text.replace("Partition_ID,Subject_ID", "Partition_ID,Subject_ID,Comment"),
        lambda text: text + f"1,{CASES[0]}\n",
        lambda text: text + "\n\n",
    ],
    ids=["byte order mark", "Windows line ends", "spaces", "another column", "a row twice", "empty lines"],
)
def test_a_partition_file_that_went_through_a_spreadsheet_is_read_alike(write: Write, dress: Callable[[str], str]) -> None:
    rows = [("1", case) for case in CASES]

    assert partition_from_file(write(dress(partition_csv(rows))), CASES) == {"site-1": CASES}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a table at all",
        b"\x1f\x8b\x08\x00\xff\xfe\x00\x00",
        b"Partition_ID,Subject_ID\n1\n",
        b"Site,Case\n1,BraTS-SSA-00002-000\n",
        b"Partition_ID;Subject_ID\n1;BraTS-SSA-00002-000\n",
        b"Partition_ID,Subject_ID\n1," + b"A" * 200_000 + b"\n",
        b"Partition_ID,Subject_ID\n\x00\x00,\x00\n",
        b"Partition_ID,Subject_ID\n",
    ],
    ids=["empty", "prose", "binary", "half a row", "other columns", "semicolons", "an endless field", "NULs", "no rows"],
)
def test_another_file_is_refused_and_named(write: Write, content: bytes) -> None:
    with pytest.raises(UsageError) as refused:
        partition_from_file(write(content), CASES)

    assert refused.value.where == "partitioning_1.csv"


def test_a_partition_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.csv: not a partition file"):
        partition_from_file(tmp_path / "gone.csv", CASES)


def test_a_patient_in_two_sites_is_refused_also_by_another_visit(write: Write) -> None:
    visits = ["BraTS-SSA-00002-000", "BraTS-SSA-00002-001"]

    with pytest.raises(UsageError, match=r"the patient of BraTS-SSA-00002-001 in two sites"):
        partition_from_file(write(partition_csv([("1", visits[0]), ("2", visits[1])])), visits)


@pytest.mark.parametrize("name", ["../../etc", "a b", "x" * 21, "", "sité", "a/b", "a\tb"])
def test_a_site_whose_name_could_not_be_a_folder_is_refused(write: Write, name: str) -> None:
    with pytest.raises(UsageError, match="expected a number or a word"):
        partition_from_file(write(partition_csv([(name, case) for case in CASES])), CASES)


def test_a_file_of_other_cases_is_refused_with_an_example_of_a_name(write: Write) -> None:
    with pytest.raises(UsageError, match="none of its cases in the data, but expected case ids such as"):
        partition_from_file(write(partition_csv([("1", "FeTS2022_01341")])), CASES)


def test_a_site_of_the_file_with_one_patient_is_refused_like_any_other(write: Write) -> None:
    with pytest.raises(ConfigError, match="site-2: 1 patient, but expected at least 2"):
        partition_from_file(write(partition_csv([("1", CASES[0]), ("1", CASES[1]), ("2", CASES[2])])), CASES)


def african(patients: int) -> PatientFolder:
    """Patients of one hospital, whose tumours grow with the case number."""
    return {f"BraTS-SSA-{2 + i:05d}-000": 10.0 + i for i in range(patients)}
