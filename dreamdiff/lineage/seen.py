"""What a model has seen before it was judged, and whether the judged trials are among it.

An encoder that was pre-trained on the recordings from which the test trials are cut, or on other recordings of the same people, does not meet
anything new there. Every run keeps a list of what it read (`seen.json`, or `training.seen` of an aligned encoder and of a pipeline):

    {"kind": "corpus" or "pairs", "where", "content", "licences": {data set: licence},
     "recordings": [[data set, person, recording, [first 16 digits of SHA-256 of its files]]]}

`where` is the name of the store, without its folder: a run may be shared. Where it lies is kept in the user's cache, by content.
`overlaps` compares such lists with the judged trials, by files, then by data set and person, and, where the corpus is still there, by the signal
itself (`sameness.same_signal`), which finds a recording under another name and in another file format. Names of people alone say nothing: there is
a `sub-01` in every study. What was never written down is said to be unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from dreamdiff.pairs.reader import Pairs
from dreamdiff.sameness.same_signal import recordings_heard
from eegprep import atomic
from eegprep.corpus.reader import Corpus
from eegprep.errors import ToolkitError
from eegprep.folders import cache_folder
from eegprep.provenance import sha256
from eegprep.sealed import read_object

SEEN_FILE = "seen.json"
DIGITS = 16  # of a SHA-256: enough to tell files apart
TABLES = {".csv", ".tsv", ".parquet", ".json", ".txt"}  # of trials, not of EEG

PUBLISHED: dict[str, tuple[str, ...]] = {
    "labram": ("PhysionetMI", "SEED", "TUEG", "Emobrain", "Siena"),
    "eegpt": ("PhysionetMI", "Schirrmeister2017", "Wang2016", "SEED", "M3CV"),
    "cbramod": ("TUEG",),
    "bendr": ("TUEG",),
}
"""Data sets that published encoders were pre-trained on, as their papers name them; incomplete, so that absence proves nothing."""

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Overlaps:
    """found: sentences on what the judged trials share with what the model saw earlier. unknown: what nobody wrote down."""

    found: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of them, findings first."""
        return (*self.found, *self.unknown)


def seen_in_corpus(corpus: Corpus) -> Entry:
    """What training on these windows reads."""
    everything = np.arange(len(corpus))
    cells = np.unique(np.stack([corpus.group_of(everything), corpus.column("recording")]), axis=1).T
    rows, licences = [], dict[str, set[str]]()
    for group, number in cells.tolist():
        attributes = corpus.attributes_of(corpus.keys[group])
        recording = attributes["recordings"][number]
        licences.setdefault(attributes["dataset"], set()).add(str(recording.get("licence") or "unknown"))
        files = [str(source["sha256"])[:DIGITS] for source in recording.get("sources", ())]
        name = f"{recording.get('session', '0')}.{recording.get('run', '0')}"
        rows.append([attributes["dataset"], attributes["person"], name, files])
    return {
        "kind": "corpus", "where": _remember(corpus.identity, corpus.url), "content": corpus.identity,
        "licences": {name: ", ".join(sorted(texts)) for name, texts in sorted(licences.items())}, "recordings": rows,
    }  # fmt: skip


def seen_in_pairs(pairs: Pairs, positions: np.ndarray) -> Entry:
    """What training on these trials reads."""
    rows = []
    for number in np.unique(pairs.person[positions]):
        name = pairs.subjects[int(number)]
        rows.append([data_set(pairs), name, "", sorted(eeg_files(pairs, name))])
    return {
        "kind": "pairs", "where": pairs.path.resolve().name, "content": pairs.fingerprint,
        "licences": {data_set(pairs): pairs.licence}, "recordings": rows,
    }  # fmt: skip


def _remember(content: str, url: str) -> str:
    """Keep where a corpus lies for this machine; returns the name that a run may tell others."""
    if not Path(url).exists():
        return url  # an address
    with suppress(OSError):  # a home folder that cannot be written only costs the comparison by signal
        atomic.write_json(_place(content), {"where": str(Path(url).resolve())})
    return Path(url).resolve().name


def _place(content: str) -> Path:
    return cache_folder("corpora", f"{sha256(content)[:32]}.json")


def seen_by_outsider(name: str, encoder: object) -> Entry:
    """What an encoder that was not made here says of itself (`pretrained_on`: names of data sets), or its paper."""
    description = getattr(encoder, "pretrained_on", None)
    sets = (
        list(description) if description is not None else next((list(v) for k, v in PUBLISHED.items() if k in name.lower()), None)
    )
    if sets is None:
        return {"kind": "unknown", "where": name}
    return {"kind": "published", "where": name, "recordings": [[str(one), "", "", []] for one in sets]}


def write_seen(folder: Path, entries: Sequence[Entry]) -> None:
    """Write `seen.json`."""
    atomic.write_json(folder / SEEN_FILE, {"seen": list(entries)})


def read_seen(folder: Path) -> list[Entry]:
    """What the run in `folder` read; one entry of kind `unknown` for runs that did not write it down."""
    for place in (folder, *([folder.parent.parent] if folder.parent.name == "checkpoints" else [])):
        try:
            return list(json.loads((place / SEEN_FILE).read_text(encoding="utf-8"))["seen"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return [{"kind": "unknown", "where": folder.name}]


def data_set(pairs: Pairs) -> str:
    """Name of the data set that pairs come from; empty for a table of one's own that does not say."""
    kind = str(pairs.recipe.get("kind", ""))
    return str(pairs.recipe.get("dataset") or ("" if kind in ("table", "simulated") else kind))


def eeg_files(pairs: Pairs, subject: str) -> dict[str, str]:
    """Digest -> name of the files that a subject's trials were cut from."""
    attributes = pairs.attributes[subject]
    files = {
        str(digest)[:DIGITS]: str(name)
        for name, _, digest in (row for row in attributes.get("sources") or () if len(row) == 3)
        if PurePath(str(name)).suffix.lower() not in TABLES
    }
    recordings = " ".join(str(fact.get("name", "")) for fact in attributes.get("recordings") or ())
    own = {digest: name for digest, name in files.items() if PurePath(name).stem in recordings}
    return own or files


def overlaps(entries: Iterable[Entry], pairs: Pairs, test: np.ndarray) -> Overlaps:
    """What the judged trials share with what a model saw in earlier stages.

    Training trials of the judged store itself are the business of the split's audit and are left out here.
    """
    matches: list[str] = []
    unknown: list[str] = []
    people = [pairs.subjects[int(number)] for number in np.unique(pairs.person[test])]
    files = {name: eeg_files(pairs, name) for name in people}
    own_set = data_set(pairs)
    for entry in entries:
        kind, where = entry.get("kind"), PurePath(str(entry.get("where", ""))).name
        if kind == "unknown":
            unknown.append(
                f"what {where} was pre-trained on is not recorded: whether it saw the judged recordings or people is unknown"
            )
            continue
        if kind == "pairs" and entry.get("content") == pairs.fingerprint:
            continue
        stage = "trained on pairs of" if kind == "pairs" else "pre-trained on"
        rows = entry.get("recordings", ())
        digests = {digest for row in rows for digest in row[3]}
        same = {name: sorted({file for digest, file in mine.items() if digest in digests}) for name, mine in files.items()}
        same = {name: names for name, names in same.items() if names}
        if not same and kind == "corpus":
            same = _by_signal(entry, pairs, test)
        if same:
            named = "; ".join(f"{name}: {', '.join(names[:2])}" for name, names in list(same.items())[:5])
            more = f"; and {len(same) - 5} more" if len(same) > 5 else ""
            matches.append(
                f"the model was {stage} the very recordings that judged trials of {len(same)} of {len(people)} people were cut from "
                f"({where}; {named}{more})"
            )
            continue
        sets = {_plain(str(row[0])) for row in rows}
        if not own_set or _plain(own_set) not in sets:
            continue
        known = [name for name in people if any(_plain(str(row[0])) == _plain(own_set) and str(row[1]) == name for row in rows)]
        if known:
            matches.append(
                f"the model was {stage} other recordings of {len(known)} of {len(people)} judged people of {own_set} "
                f"({where}; {', '.join(known[:5])}{', ...' if len(known) > 5 else ''})"
            )
        elif not any(row[1] for row in rows):
            matches.append(
                f"the model was {stage} {own_set}, which the judged trials belong to, according to its paper ({where})"
            )
    return Overlaps(tuple(dict.fromkeys(matches)), tuple(dict.fromkeys(unknown)))


def _by_signal(entry: Entry, pairs: Pairs, test: np.ndarray) -> dict[str, list[str]]:
    kept = read_object(_place(str(entry.get("content")))) or {}
    try:
        # runs of release 0.1 name the place itself
        corpus = Corpus.open(str(kept.get("where") or entry.get("where")))
    except (ToolkitError, OSError):
        return {}  # it is not on this machine; files and names were compared
    return recordings_heard(corpus, pairs, test)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
