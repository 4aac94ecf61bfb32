"""What is EEG: known places of electrodes, numbered caps, what the file states, and what it never is."""

from __future__ import annotations

import pytest

from eegprep.signals.channels import why_not_eeg

CAP = ["Fp1", "Fp2", "C3", "C4", "O1", "O2"]


def left_out(names, **more):
    return [name for name, reason in zip(names, why_not_eeg(names, **more), strict=True) if reason]


@pytest.mark.parametrize(
    "name",
    ["ROC", "LOC", "E1", "E2", "PHOTIC", "PULSE", "PG1", "Chin1", "Roll", "Pitch", "EEG A2-A1", "M1", "EKG", "SaO2", "DC05", "Snore", "LEOG",
     "EEG ROC-A1", "hEOG", "BVP", "EOG:ch01", "Thor-Abdo", "Light", "PLMl", "Battery", "IBI", "Wheel_X", "something"],
)  # fmt: skip
def test_beside_a_cap_of_known_places_other_names_are_left_out(name):
    """In a sleep or epilepsy laboratory everything arrives in one file, all typed EEG."""
    assert left_out([*CAP, name]) == [name]


@pytest.mark.parametrize(
    "names",
    [
        [
            *CAP,
            "EEG Fpz-Cz",
            "Pz-Oz",
            "T3-T5",
            "C3-M2",
            "EEG T5-LE",
            "F7.",
            "EEG.AF3",
            "fcz",
            "CB1",
            "FTT9h",
            "PPO1",
            "FAF5",
            "C5'",
            "Oz-0",
        ],
        [f"E{i}" for i in range(1, 129)] + ["Cz"],
        [f"E{i}" for i in range(1, 5)],
        [f"EEG {i:03d}" for i in range(1, 61)],
        [str(i) for i in range(1, 65)],
        [f"A{i}" for i in range(1, 33)] + [f"B{i}" for i in range(1, 33)],
        [*CAP, *(f"X{i}" for i in range(1, 17))],
        ["L1", "L2", "L4", "L5", "L6", "R1", "R2", "R4", "R5", "R6", *CAP],
        ["front", "left", "right", "back"],
        ["EEG:C3", "EEG:Cz", "EEG:C4"],
        ["C3A2", "C4M1", "O2A1", "EEG", "EEG(sec)"],
        [*(f"EEG-{name}" for name in ("Fz", "C3", "Cz", "C4", "Pz")), *(f"EEG-{i}" for i in range(17))],
        [*(f"own {letter}" for letter in "abcdefghijk"), "C3"],
        [f"EXG Channel {i}" for i in range(8)],
    ],
)
def test_electrodes_of_every_kind_of_cap_are_kept(names):
    """10-05 and its forerunners, derivations, EGI, BioSemi, numbered caps, the ear, and caps with names of their own."""
    assert left_out(names) == []


def test_what_the_file_states_decides_about_names_that_nobody_knows():
    """A stated type or a measured place; not about names of other organs."""
    names = [*CAP, "mine", "yours", "PULSE"]

    assert left_out(names) == ["mine", "yours", "PULSE"]
    assert left_out(names, declared=[name in ("mine", "PULSE") for name in names]) == ["yours", "PULSE"]
    assert left_out(names, located=[name == "yours" for name in names]) == ["mine", "PULSE"]


def test_numbered_channels_of_other_organs_are_no_cap():
    """Sixteen EMG channels stay EMG; so do BioSemi's external ones beside its cap."""
    assert left_out([*CAP, *(f"EMG{i}" for i in range(1, 20))]) == [f"EMG{i}" for i in range(1, 20)]
    cap = [f"A{i}" for i in range(1, 17)]
    assert left_out([*cap, "EXG1", "EXG8", "GSR1", "Erg1", "Resp", "Plet", "Temp"]) == [
        "EXG1",
        "EXG8",
        "GSR1",
        "Erg1",
        "Resp",
        "Plet",
        "Temp",
    ]
