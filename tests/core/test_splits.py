"""Who is held out for validation: a fifth, by patient, for good, whatever the order."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.data.patients import SAME_PATIENT, patient_of
from brainunet.data.splits import Side, SplitConfig, by_centre, folds, hold_out, split_by
from brainunet.errors import ConfigError

african = st.builds("BraTS-SSA-{:05d}-{:03d}".format, st.integers(1, 40), st.integers(0, 2))
of_2021 = st.builds("BraTS2021_{:05d}".format, st.sampled_from([626, 758, 639, 557, 1, 2, 3]))
plain = st.text("abcdefgh", min_size=1, max_size=4)
cases = st.lists(african | of_2021 | plain, unique=True, max_size=60)


def sides_of_patients(sides: Mapping[str, Side]) -> dict[str, set[Side]]:
    patients: dict[str, set[Side]] = {}
    for case, side in sides.items():
        patients.setdefault(patient_of(case), set()).add(side)
    return patients


@given(st.lists(plain, unique=True, min_size=1, max_size=60))
def test_a_fifth_is_held_out_and_at_least_one(case_ids: list[str]) -> None:
    held = [case for case, side in hold_out(case_ids).items() if side == "validation"]

    assert len(held) == max(1, len(case_ids) // 5)


@given(cases)
def test_with_several_visits_the_last_patient_held_out_may_bring_a_few_more(case_ids: list[str]) -> None:
    held = [case for case, side in hold_out(case_ids).items() if side == "validation"]

    assert len(held) in range(max(1, len(case_ids) // 5), max(1, len(case_ids) // 5) + 3) if case_ids else held == []


@given(cases, cases)
def test_no_patient_is_on_both_sides(first: list[str], later: list[str]) -> None:
    sides = hold_out(first)
    for known in (sides, hold_out(later, sides), hold_out(first + later, sides)):
        assert all(len(found) == 1 for found in sides_of_patients(known).values())


@given(st.lists(cases, max_size=5))
def test_nobody_ever_changes_side_while_cases_come_and_go(scans: list[list[str]]) -> None:
    known: dict[str, Side] = {}
    for case_ids in scans:
        sides = hold_out(case_ids, known)

        assert set(sides) == set(case_ids)
        assert all(known.get(case, side) == side for case, side in sides.items())
        known |= sides


@given(cases, cases, st.randoms())
def test_the_order_of_the_cases_does_not_matter(first: list[str], later: list[str], random: Random) -> None:
    before = hold_out(first)
    later_twice = later * 2
    random.shuffle(later_twice)

    assert hold_out(sorted(first)) == before
    assert hold_out(later_twice, dict(reversed(before.items()))) == hold_out(later, before)


@given(cases)
def test_asking_again_changes_nothing(case_ids: list[str]) -> None:
    assert hold_out(case_ids, hold_out(case_ids)) == hold_out(case_ids)


def test_the_split_is_the_same_on_every_machine() -> None:
    held = [case for case, side in hold_out(f"BraTS-SSA-{n:05d}-000" for n in range(10)).items() if side == "validation"]

    # by hand: the lowest two of `printf BraTS-SSA-0000$N | sha256sum`
    assert held == ["BraTS-SSA-00004-000", "BraTS-SSA-00008-000"]


@pytest.mark.parametrize(("alias", "name"), SAME_PATIENT.items())
def test_one_patient_under_two_names_stays_together(alias: str, name: str) -> None:
    others = [f"BraTS2021_{number:05d}" for number in range(100, 140)]

    sides = hold_out([alias, name, *others])

    assert sides[alias] == sides[name]
    assert hold_out([name, *others], {alias: "train"})[name] == "train"
    assert hold_out([name, *others], {alias: "validation"})[name] == "validation"


def test_letter_case_does_not_make_two_patients_of_one() -> None:
    sides = hold_out(["brats-ssa-00002-001", "BraTS-SSA-00002-000", "BRATS2021_00758", "BraTS2021_00626", "other"])

    assert sides["brats-ssa-00002-001"] == sides["BraTS-SSA-00002-000"]
    assert sides["BRATS2021_00758"] == sides["BraTS2021_00626"]


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_two_patients_are_enough_for_two_sides_however_many_visits_they_have(visits: list[int]) -> None:
    cases = [f"BraTS-SSA-{patient:05d}-{visit:03d}" for patient, n in enumerate(visits) for visit in range(n)]

    assert set(hold_out(cases).values()) == {"train", "validation"}


@given(cases, st.integers(2, 6))
def test_folds_hold_every_case_once_and_no_patient_twice(case_ids: list[str], count: int) -> None:
    if len({patient_of(case) for case in case_ids}) < count:
        with pytest.raises(ConfigError, match=f"{count} folds of"):
            folds(case_ids, count)
        return
    dealt = folds(case_ids, count)

    assert sorted(case for fold in dealt for case in fold) == sorted(case_ids)
    assert all(dealt)
    homes = {(patient_of(case), number) for number, fold in enumerate(dealt) for case in fold}
    assert len(homes) == len({patient for patient, _ in homes})


def test_centres_are_told_by_the_case_number() -> None:
    assert by_centre(["BraTS-SSA-00123-000", "BraTS-SSA-00002-000"]) == {
        "CRV": ["BraTS-SSA-00002-000"],
        "NKDC": ["BraTS-SSA-00123-000"],
    }


@pytest.mark.parametrize(
    ("case_ids", "said"),
    [
        (["BraTS2021_00001", "BraTS-SSA-00002-000"], "tells no centre"),
        (["BraTS-SSA-00002-000"], "at least two, to leave one out"),
    ],
)
def test_what_has_no_centres_to_leave_out_is_refused(case_ids: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        by_centre(case_ids)


def test_a_patient_may_not_be_on_both_sides() -> None:
    ids = ["BraTS2021_00626", "BraTS2021_00758", "BraTS2021_00001"]

    with pytest.raises(ConfigError, match="BraTS2021_00626 on both sides"):
        split_by(SplitConfig(by="ids", cases=("BraTS2021_00758",)), ids)
