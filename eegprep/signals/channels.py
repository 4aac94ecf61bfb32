"""Channel names: which are not EEG whatever the file says, which place on the head they mean, and in which order."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources

import numpy as np

from eegprep.errors import UsageError
from eegprep.signals.spectra import spread

# names that measure something else, whatever the file says: eyes, muscles, heart, mastoids and earlobes, breathing, triggers,
# motion, light, other devices
_NOT_EEG = re.compile(
    r"(h|v|r|l|x)?_?eo[gm].*|.*eog.*|.*emg.*|e[ck]g.*|.*ecg.*|[hv]eo[lrud]?|h?eo[lr]|veo[ud]|[lr]oc|[lr]?eye.*|[ils]o[12]|gaze.*|pupil.*|"
    r"m[12]|a[12]|ma[12]|lma|rma|[lr]mast|mastoid.*|exg\d*|ear.*|pg\d|nose|nas(al.*)?|"
    r"chin.*|.*(leg|tib|tibialis|deltoid|masseter|neck)|[lr]at\d?|plm.*|"
    r"sti.*|status|trig.*|marker.*|event.*|din\d*|annotations?|sync.*|.*counter.*|sample.*|index.*|packet.*|digital.*|analog.*|"
    r"acc.*|gyr.*|mag[xyz]|mag_.*|imu.*|(acc|gyro|quat)?_?[xyzw]|v[xyz]|roll|pitch|yaw|motion.*|position.*|body.*|"
    r"gsr.*|eda.*|scr|erg\d*|resp.*|breath.*|(air)?flow.*|snore.*|snoring|thor.*|abdo?.*|chest.*|effort.*|cpap.*|et?co2.*|co2|o2sat|"
    r"ppg.*|pg|pleth?.*|bvp.*|pulse.*|pr|hr|heart.*|temp.*|.*spo2.*|[os]a?o2|osat.*|sat|cvp|abp|art|ibp?|nibp|ibi|bpm|aux.*|.*_aux|aux_.*|"
    r"photo.*|photic.*|light.*|lux|optic.*|x_(gsr|optic|pulse|respi)|audio.*|sound.*|mic.*|dc\d*|bursts?|suppr.*|sr|"
    r"battery.*|time(stamp)?s?.*|target.*|pos[xyz].*|validity|nirs.*|fnirs.*|hbo.*|hbr.*",
    re.IGNORECASE,
)
# old names of the same places (10-20 system before 1991)
_ALIASES = {"t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8"}
# places of the 10-20, 10-10 and 10-5 systems and of the caps that went before: a region, then a number, or z for the midline
_ELECTRODE = re.compile(
    r"(?:n?fp|afp|af?f|af|faf|ff[ct]|f[ct]|ftt|fcc|cfc|[fctpoi]|ttp|ccp|pcp|[tc]p|tpp|cpp|ppo|poo?|opo|oi|cb)(?:z|\d{1,2}h?)",
    re.IGNORECASE,
)
# a channel of few that is only called what it is: `EEG`, `EEG 2`, `EEG(sec)`
_BARE_EEG = re.compile(r"eeg[ _]?\d{0,2}(\(\w+\))?", re.IGNORECASE)
# ours: so many names that differ in their number alone are a cap
_LEAST_NUMBERED = 16


@cache
def canonical_name(name: str) -> str:
    """The 10-05 name that `name` means, as spelt in `standard_1005`, or the cleaned name itself.

    Strips the dots of eegmmidb, the `EEG ` in front and the reference behind that EDF files carry.
    """
    short = _short(name)
    # what stands behind the name is the reference: against what was measured, not where
    short = re.sub(r"[ _-]+(ref|le|re|avg|av|cz|a1|a2|m1|m2)$", "", short, flags=re.IGNORECASE)
    key = short.casefold()
    return _standard_names().get(_ALIASES.get(key, key), short)


# the same names in recording after recording: asked anew, they took a tenth of the time that an EDF file takes
_remembered = lru_cache(maxsize=4096)


@_remembered
def _short(name: str) -> str:
    """A name without the `EEG` in front, dots and primes around it."""
    return re.sub(r"^(eeg)[ .:_-]+", "", name.strip().strip(".'*"), flags=re.IGNORECASE).strip("'* ")


def why_not_eeg(names: Sequence[str], declared: Sequence[bool] = (), located: Sequence[bool] = ()) -> list[str | None]:
    """Why each channel that a file or its reader types as EEG is none; None where it is EEG.

    Known names of electrodes are EEG, names of other organs and devices are not, whatever the file says. A name that is neither is
    EEG when the file states so, or gives it a place on the head, or when it belongs to a numbered cap, or when almost no name of the
    recording is known (a cap with names of its own).

    Args:
        declared: whether the file itself says that the channel is EEG. located: whether it gives its position.
    """
    numbered = _numbered_caps(names)
    known = [is_electrode(name) for name in names]
    excluded = [not numbered[i] and is_other(name) for i, name in enumerate(names)]
    open_ = [i for i in range(len(names)) if not (known[i] or excluded[i] or numbered[i])]
    # one chance hit among many own names does not make a 10-20 recording
    own_names = sum(known) == 0 or (sum(known) == 1 and len(open_) > 8)
    reasons: list[str | None] = []
    for i in range(len(names)):
        if excluded[i]:
            reasons.append("the name says that it measures something else")
        elif i not in open_ or own_names or (declared and declared[i]) or (located and located[i]):
            reasons.append(None)
        else:
            reasons.append("is no known electrode; if it is one, name the EEG channels with --channel-names")
    return reasons


def other_names(names: Sequence[str]) -> list[bool]:
    """Which names of a recording are those of something that is no EEG, see `is_other`."""
    return [is_other(name) and not cap for name, cap in zip(names, _numbered_caps(names), strict=True)]


@_remembered
def is_electrode(name: str) -> bool:
    """Whether a name is a place of the 10-05 system (or of its forerunners), alone or against another one: `C3-A2`, `EEG Fpz-Cz`."""
    if _BARE_EEG.fullmatch(name.strip()):
        return True
    first = re.split(r"[-:/_]", _short(name), maxsplit=1)[0].strip(" .'")
    if _not_eeg(first):
        return False
    # some files write the reference without a mark between
    first = re.sub(r"(?<=[0-9z])[am][12]$", "", first, flags=re.IGNORECASE)  # `C3A2`
    return first.casefold() in _standard_names() or _ELECTRODE.fullmatch(first) is not None


@_remembered
def is_other(name: str) -> bool:
    """Whether a name is that of something that is no EEG: eyes, muscles, mastoids, triggers, ..."""
    short = _short(name)
    first, *rest = re.split(r"[-:/]", short, maxsplit=1)
    return _not_eeg(short) is not None or (bool(rest) and _not_eeg(first.strip()) is not None) or _is_eye(first)


def _is_eye(name: str) -> bool:
    """`E1` and `E2` are eyes, unless they belong to a cap of E1 to E128, which is looked at first."""
    return name.strip().casefold() in ("e1", "e2")


_NUMBER = re.compile(r"([a-z]{0,10}[ ._-]?)0*(\d{1,3})", re.IGNORECASE)


def _numbered_caps(names: Sequence[str]) -> list[bool]:
    """Which names belong to a cap whose electrodes are only numbered.

    BioSemi (A1 to H32), electrodes around the ear (L1 to L10 and R1 to R10), and any name that is followed by 16 numbers or more.
    """
    parts = [_NUMBER.fullmatch(_short(name)) for name in names]
    keys = [None if part is None else part[1].strip(" ._-").casefold() for part in parts]
    count = Counter(key for key in keys if key is not None)
    numbers: dict[str, set[int]] = {key: set() for key in count}
    for key, part in zip(keys, parts, strict=True):
        if key is not None and part is not None:
            numbers[key].add(int(part[2]))
    # `f"{key}99"`: a numbered name of something else (`DC1` to `DC16`) is no cap, however long
    caps = {key for key, number in count.items() if number >= _LEAST_NUMBERED and not _not_eeg(f"{key}99")}
    if numbers.get("a", set()) - {1, 2} or len(numbers.get("b", ())) >= 4:  # A1 and A2 alone are earlobes
        caps |= set("abcdefgh")
    if numbers.get("e", set()) - {1, 2}:  # E1 and E2 alone are eyes
        caps.add("e")
    # electrodes around the ears come in pairs; a few channels called L and R may be anything
    if min(count["l"], count["r"]) >= 5:
        caps |= {"l", "r"}
    return [key in caps for key in keys]


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
    # caps of BioSemi: the only maker of whom MNE-Python has a montage in each of these sizes
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
        # half a rank: behind its neighbour, before the next name of the system
        return float(np.argmin(np.linalg.norm(places_N3 - place, axis=1))) + 0.5, index

    return sorted(range(len(names)), key=rank)


# ours: how far from the middle of the head an electrode can lie, m: every standard montage fits with room to spare
_HEAD = (0.04, 0.13)
# ours: electrodes closer than this are in one place, m
_APART = 1e-3


def misplaced(positions_N3: np.ndarray) -> list[str]:
    """Why a position cannot be an electrode's, "" where it can or none is given: at the origin, in one place, outside a head."""
    places_N3 = np.asarray(positions_N3, float).reshape(-1, 3)
    known = np.isfinite(places_N3).all(axis=1)
    reasons = [""] * len(places_N3)
    away_N = np.linalg.norm(places_N3 - _HEAD_CENTRE, axis=1)
    for index in np.flatnonzero(known).tolist():
        near = known & (np.linalg.norm(places_N3 - places_N3[index], axis=1) < _APART)
        if not places_N3[index].any():
            reasons[index] = "at the origin"
        elif near.sum() > 1:
            reasons[index] = "in the place of another one"
        elif not _HEAD[0] <= away_N[index] <= _HEAD[1]:
            reasons[index] = "outside a head"
    return reasons


def spread_channels(names: Sequence[str], positions_C3: np.ndarray, keep: int) -> tuple[list[int], str]:
    """`keep` of more channels, the same for every recording of a cap, and how they were chosen.

    Over the head, each next one as far as possible from those that are taken; without known places evenly in channel order. Standard
    names count before places that were measured on a person, so that people of one cap keep the same electrodes.

    Returns:
        indices in the order of the channels, and a phrase for people.
    """
    standard_C3 = standard_positions(names)
    places_C3 = np.where(np.isfinite(standard_C3), standard_C3, positions_C3)
    if np.isfinite(positions_C3).all():
        places_C3 = _places_of_makers(names, places_C3)
    known = np.flatnonzero(np.isfinite(places_C3).all(axis=1))
    if len(known) < keep:
        return spread(len(names), keep).tolist(), "evenly spaced in channel order, because their places are not known"
    unit_N3 = directions(places_C3[known])
    # the highest electrode begins, so that the choice does not depend on the order of the file
    chosen = [int(np.argmax(unit_N3[:, 2]))]
    nearest_N = unit_N3 @ unit_N3[chosen[0]]
    while len(chosen) < keep:
        # cosines: the smallest is the farthest, and what is taken must not be found again
        nearest_N[chosen] = np.inf
        chosen.append(int(np.argmin(nearest_N)))
        nearest_N = np.maximum(nearest_N, unit_N3 @ unit_N3[chosen[-1]])
    return sorted(known[chosen].tolist()), "spread over the head"


def _places_of_makers(names: Sequence[str], measured_C3: np.ndarray) -> np.ndarray:
    """Places of the cap that numbered names belong to (EGI's E1 to E256, BioSemi's A1 to H32) instead of those measured on a person."""
    patterns = {"GSN-HydroCel-257": r"E\d+", "biosemi256": r"[A-H]\d+"}
    montage = next((cap for cap, pattern in patterns.items() if all(re.fullmatch(pattern, name) for name in names)), None)
    if montage is None:
        return measured_C3
    import mne

    table = mne.channels.make_standard_montage(montage).get_positions()["ch_pos"]
    return np.array([table[name] for name in names]) if set(names) <= set(table) else measured_C3
