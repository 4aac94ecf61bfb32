"""What EEG a corpus holds, as a model keeps it: rates with their windows, length, band, electrodes, reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dreamdiff.eeg_input import SignalConfig, signal_of
from dreamdiff.rates import shares
from eegprep.corpus.rates import corpus_rates, several_rates
from eegprep.corpus.reader import Corpus
from eegprep.errors import DataError
from eegprep.signals.filters import same_rate


def signal_of_corpus(corpus: Corpus, strict: bool = False) -> SignalConfig:
    """What a model that is trained on these windows has to keep; its own rate is that of most windows.

    Args:
        strict: refuse a corpus of several rates.

    Raises:
        DataError: several rates under `strict`.
    """
    rates, counts = shares(corpus_rates(corpus)), corpus_rates(corpus)
    if strict and len(rates) > 1:
        raise DataError(
            f"{several_rates(corpus.url, counts)}, and --strict-rate refuses that",
            f"bring it to one rate (eegprep filter --resample {rates[0].sfreq:g}), or leave --strict-rate out",
        )
    if not rates:
        return SignalConfig()
    own = rates[0].sfreq
    records = [record for record in _records(corpus) if same_rate(float(record.get("sfreq") or 0), own)]
    bands = [record["band"] for record in records if record.get("band")]
    facts = [
        {**record, "pad_map": [] if max(record.get("pad_map") or [-1]) < 0 else record["pad_map"]} for record in _records(corpus)
    ]
    signal = signal_of([{"recordings": facts}])
    return signal.model_copy(
        update={
            "sfreq": own, "rates": rates, "window_ms": 1000 * corpus.samples / own,
            "band": (max(low for low, _ in bands), min(high for _, high in bands)) if bands else None,
        }
    )  # fmt: skip


def _records(corpus: Corpus) -> Iterator[Mapping[str, Any]]:
    """Recordings that the selection has windows of."""
    present = {(row.dataset, row.subject, row.session, row.run) for row in corpus.recordings.itertuples()}
    for key in corpus.keys:
        facts = corpus.attributes_of(key)
        for record in facts["recordings"]:
            if (facts["dataset"], facts["subject"], record.get("session"), record.get("run")) in present:
                yield record
