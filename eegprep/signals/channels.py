"""Channel names: which are not EEG whatever the file says, which place on the head they mean, and in which order."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np

from eegprep.errors import UsageError

# typed as EEG by some loader of a public data set, but measuring something else: eyes, muscles, heart, mastoids and earlobes,
# triggers, motion, other devices
_NOT_EEG = re.compile(
    r"(h|v|r|l|x)?_?eo[gm].*|.*eog.*|.*emg.*|e[ck]g.*|.*ecg.*|[hv]eo[lrud]?|h?eo[lr]|veo[ud]|"
    r"m[12]|a[12]|ma[12]|lma|rma|mastoid.*|exg\d*|ear.*|"
    r"sti.*|status|trig.*|marker.*|event.*|din\d*|"
    r"acc.*|gyr.*|mag[xyz]|imu.*|(acc|gyro|quat)?_?[xyzw]|v[xyz]|"
    r"gsr.*|eda.*|resp.*|ppg.*|pleth.*|temp.*|spo2.*|aux.*|photo.*|audio.*|"
    r"battery.*|counter.*|time(stamp)?.*|target.*|pos[xyz].*",
    re.IGNORECASE,
)

# old names of the same places (10-20 system before 1991)
_ALIASES = {"t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8"}


@cache
def canonical_name(name: str) -> str:
    """The 10-05 name that `name` means, as spelt in `standard_1005`, or the cleaned name itself.

    Strips the dots of eegmmidb, the `EEG ` in front and the reference behind that EDF files carry.
    """
    short = re.sub(r"^(eeg)[ _-]+", "", name.strip().strip("."), flags=re.IGNORECASE)
    short = re.sub(r"[ _-]+(ref|le|re|avg|av|cz|a1|a2|m1|m2)$", "", short, flags=re.IGNORECASE)
    key = short.casefold()
    return _standard_names().get(_ALIASES.get(key, key), short)


def is_eeg_name(name: str, channels: Sequence[str] = ()) -> bool:
    """Whether a channel called `name` can be EEG.

    `A1` and `A2` are earlobes, unless the recording's other names say that it is a BioSemi cap (A1 to A32, B1 ...).
    """
    short = re.sub(r"^(eeg)[ _-]+", "", name.strip().strip("."), flags=re.IGNORECASE)
    if short.casefold() in ("a1", "a2") and {"A3", "B1"} & {other.upper() for other in channels}:
        return True
    return _not_eeg(short) is None


@cache
def _not_eeg(short: str) -> re.Match[str] | None:
    return re.fullmatch(_NOT_EEG, short)


def standard_positions(names: Sequence[str]) -> np.ndarray:
    """(len(names), 3) m in head coordinates from `standard_1005`; NaN for names that are not in it."""
    table = _standard_table()
    return np.array([table.get(canonical_name(name), (np.nan,) * 3) for name in names], float).reshape(len(names), 3)


@cache
def _standard_table() -> dict[str, tuple[float, float, float]]:
    """Names and places of the 10-05 system as MNE-Python has them (`colin27_1005`), so that it need not be imported for this."""
    text = resources.files("eegprep").joinpath("data/standard_1005.json").read_text(encoding="utf-8")
    return {name: (place[0], place[1], place[2]) for name, place in json.loads(text).items()}


def mne_positions() -> dict[str, tuple[float, float, float]]:
    """The same table from MNE-Python: what `data/standard_1005.json` was made from."""
    import mne

    known = mne.channels.get_builtin_montages()
    # MNE 1.13 gave the montage another name, and the old one warns
    montage = mne.channels.make_standard_montage("colin27_1005" if "colin27_1005" in known else "standard_1005")
    info = mne.create_info(montage.ch_names, 100.0, "eeg").set_montage(montage, verbose="error")
    return {channel["ch_name"]: tuple(float(v) for v in channel["loc"][:3]) for channel in info["chs"]}  # type: ignore[misc]


@cache
def _standard_names() -> dict[str, str]:
    return {name.casefold(): name for name in _standard_table()}


# ours: the middle of the head in head coordinates, m; directions of electrodes are taken from here
_HEAD_CENTRE = np.array([0.0, 0.0, 0.04])


def directions(positions_N3: np.ndarray) -> np.ndarray:
    """Unit vectors from the middle of the head to the electrodes."""
    centred = positions_N3 - _HEAD_CENTRE
    unit: np.ndarray = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return unit


def montage_directions(channels: int) -> np.ndarray:
    """Directions of a fixed montage with so many electrodes: (channels, 3) unit vectors.

    Raises:
        UsageError: there is no montage of that size.
    """
    name = {16: "biosemi16", 32: "biosemi32", 64: "biosemi64", 128: "biosemi128", 160: "biosemi160", 256: "biosemi256"}.get(
        channels
    )
    if name is None:
        raise UsageError(f"there is no fixed montage of {channels} electrodes", "use --channels 128, or --mode replicate")
    import mne

    places = np.array(list(mne.channels.make_standard_montage(name).get_positions()["ch_pos"].values()))
    unit: np.ndarray = places / np.linalg.norm(places, axis=1, keepdims=True)
    return unit


def canonical_order(names: Sequence[str], positions_C3: np.ndarray) -> list[int]:
    """Channels from front to back and left to right: in the order of the 10-05 system, others beside their nearest neighbour.

    Channels without a known name or place come last, in the order they had.
    """
    table = _standard_table()
    ranks = {name: rank for rank, name in enumerate(table)}
    places_N3 = np.array(list(table.values()))

    def rank(index: int) -> tuple[float, int]:
        known = ranks.get(canonical_name(names[index]))
        if known is not None:
            return known, index
        place = positions_C3[index]
        if not np.isfinite(place).all():
            return len(ranks), index
        return float(np.argmin(np.linalg.norm(places_N3 - place, axis=1))) + 0.5, index

    return sorted(range(len(names)), key=rank)
