"""The sampling rates in a corpus, and a sentence where there are several."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from eegprep.corpus.reader import Corpus
from eegprep.signals.filters import same_rate
from eegprep.store.commit import finished_groups

TOKEN = 4  # samples of a token of the paper's encoder


def corpus_rates(corpus: Corpus) -> dict[float, int]:
    """Windows of each sampling rate, Hz, of a corpus or selection; see `count_rates`."""
    table = corpus.recordings
    return count_rates(zip(table["sfreq"].tolist(), table["windows"].tolist(), strict=True))


def root_rates(node: Mapping[str, Any]) -> dict[float, int]:
    """The same of a finished corpus or view, from the node of its root alone."""
    records = (record for group in finished_groups(node).values() for record in group["recordings"])
    return count_rates((float(record.get("sfreq") or "nan"), int(record["windows"])) for record in records)


def count_rates(recordings: Iterable[tuple[float, int]]) -> dict[float, int]:
    """Rates, Hz, with their numbers of windows, the most common first, of equal numbers the higher rate; unknown rates are left out."""
    counts: dict[float, int] = {}
    for rate, windows in recordings:
        if windows and math.isfinite(rate):
            key = next((known for known in counts if same_rate(rate, known)), float(rate))
            counts[key] = counts.get(key, 0) + int(windows)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], -item[0])))


def several_rates(source: str, counts: Mapping[float, int]) -> str:
    """A sentence about windows of several rates; "" for one."""
    if len(counts) < 2:
        return ""
    listed = ", ".join(f"{rate:g} Hz ({windows:,} windows)" for rate, windows in counts.items())
    tokens = " and ".join(f"{1000 * TOKEN / rate:.3g}" for rate in counts)
    return f"{source} holds {len(counts)} sampling rates: {listed}; a token of {TOKEN} samples lasts {tokens} ms"


def rates_remark(source: str, counts: Mapping[float, int]) -> str:
    """`several_rates` for the end of `pad` and `build`, with what to do about it; "" for one rate."""
    sentence = several_rates(source, counts)
    return f"{sentence}; `eegprep filter --resample HZ` gives one rate" if sentence else ""
