"""A trial is the same array whether it was imported as a pair or is cut from the recording, and another cap is never taken in silence."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from eeg_files import NAMES, eeg, write_edf
from PIL import Image

from dreamdiff.eeg_input import CapConfig, FilterConfig, SignalConfig, prepare_for, rows_for, signal_of
from dreamdiff.generation.trials import cut_events, open_trials
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pairs.importers.run import import_pairs
from eegprep.errors import DataError, ModelError
from eegprep.signals.channels import standard_positions
from eegprep.sources.reading import read_file

RATE, ONSETS = 256, [2.0 + 4.0 * k for k in range(6)]
CHANNELS = [*NAMES[:8], "VEOG", "Cz"]


def signal() -> np.ndarray:
    """Ten channels: eight of EEG, an EOG, a flat one."""
    made = eeg(10, 30 * RATE, RATE, seed=44)
    made[9] = 0.0
    return made


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A recording with six stimuli, its pairs, and what a model that was trained on them knows of its EEG."""
    folder = tmp_path_factory.mktemp("study")
    write_edf(folder / "rec.edf", signal(), RATE, CHANNELS, [(onset, 1.0, f"c{k % 2}") for k, onset in enumerate(ONSETS)])
    for name in ("c0", "c1"):
        Image.new("RGB", (8, 8), (9, 9, 9)).save(folder / f"{name}.png")
    rows = [{"recording": "rec.edf", "onset": t, "image": f"c{k % 2}.png", "label": f"c{k % 2}"} for k, t in enumerate(ONSETS)]
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    pairs = import_pairs(
        folder / "table.csv", folder / "p.zarr", ImportConfig(kind="table", split_by="trial", low=4.0, resample=200.0)
    )
    return SimpleNamespace(
        folder=folder, pairs=pairs, signal=signal_of([pairs.attributes[pairs.subjects[0]]], pairs.recipe["settings"])
    )


def model(signal: SignalConfig, **training):
    """What `open_trials` asks of a pipeline."""
    encoder = SimpleNamespace(config=SimpleNamespace(channels=128, window=512, scaling="robust"))
    return SimpleNamespace(details=SimpleNamespace(signal=signal, training=training), encoder=encoder)


def cap(*names: str, rows: int = 128) -> SignalConfig:
    places = tuple(tuple(float(v) for v in row) for row in standard_positions(names))
    return SignalConfig(caps=(CapConfig(channels=names, positions=places, rows=tuple(np.arange(rows) % len(names))),))


def test_a_pipeline_knows_electrodes_places_rate_band_filter_and_reference(study):
    """What another recording has to be given."""
    known = study.signal

    assert (known.sfreq, known.t0, known.unit) == (200.0, 0.0, "uV")
    assert known.filter == FilterConfig(low=4.0, high=95.0, nyquist="clip", resample=200.0)
    (only,) = known.caps
    assert only.channels == tuple(NAMES[:8]) and only.rows == tuple(np.arange(128) % 8)
    np.testing.assert_allclose(only.positions, standard_positions(NAMES[:8]), atol=1e-6)


def test_a_trial_is_the_same_from_the_recording_as_from_the_pairs(study):
    """EOG and flat channels left out, filtered at its own rate, resampled, rounded and padded alike: to the bit."""
    trials = cut_events(read_file(study.folder / "rec.edf"), study.signal, 128, 512)

    np.testing.assert_array_equal(trials.read(range(len(trials))), study.pairs.eeg())
    assert trials.notes == (
        f"{read_file(study.folder / 'rec.edf').name}: sampled at {RATE:g} Hz, the model was trained at 200 Hz: resampled to 200 Hz",
    )
    assert trials.montage is not None and trials.montage.channels[:9] == (*NAMES[:8], NAMES[0])


def test_other_channels_in_another_order_go_to_their_rows_by_name(study, tmp_path):
    """A cap with more electrodes, written from back to front, in capitals."""
    order = [9, 8, *range(7, -1, -1)]
    more = np.concatenate([signal()[order], eeg(3, 30 * RATE, RATE, seed=9)])
    names = [*[CHANNELS[row].upper() for row in order], "Pz", "P3", "P4"]
    write_edf(tmp_path / "other.edf", more, RATE, names, [(onset, 1.0, "x") for onset in ONSETS])

    trials = cut_events(read_file(tmp_path / "other.edf"), study.signal, 128, 512)

    np.testing.assert_allclose(trials.read(range(6)), study.pairs.eeg(), atol=0.2)
    assert any("8 of 11 channels" in note and "by name" in note for note in trials.notes)


def test_missing_electrodes_are_refused_or_interpolated_when_asked_for():
    """Never accepted in silence; names, both numbers and the option are in the error."""
    wanted, there = cap(*NAMES[:20]), tuple(name for name in NAMES[:32] if name != "Cz")
    places_C3 = standard_positions(there)

    with pytest.raises(ModelError, match=r"1 of the 20 electrodes .* missing \(Cz\)") as raised:
        rows_for(there, places_C3, wanted, 128, "rec")
    plan, note = rows_for(there, places_C3, wanted, 128, "rec", "spline")
    of_itself, said = rows_for(there, places_C3, wanted, 128, "rec", "auto")
    with pytest.raises(ModelError, match="missing"):
        rows_for(there, np.full_like(places_C3, np.nan), wanted, 128, "rec", "auto")
    assert said == note and np.array_equal(of_itself.weights, plan.weights)

    assert "--cap spline" in raised.value.fix and "1 of 20 electrodes" in note
    # a field that is linear in space is carried to the missing electrode nearly exactly
    field = standard_positions(NAMES[:20]) @ [1.0, -2.0, 0.5]
    out = np.empty((128, 1), np.float32)
    plan.fill((places_C3 @ [1.0, -2.0, 0.5])[:, None].astype(np.float32), out)
    np.testing.assert_allclose(out[:20, 0], field, atol=0.02)


def test_interpolation_needs_places():
    """Eight at least, and those of the model."""
    with pytest.raises(ModelError, match="0 of 8 channels have a known place"):
        rows_for(tuple("abcdefgh"), np.full((8, 3), np.nan), cap("Cz", "Pz"), 128, "rec", "spline")
    unknown = SignalConfig(caps=(CapConfig(channels=("Q1",), positions=((None, None, None),), rows=(0,) * 128),))
    with pytest.raises(ModelError, match="places of the model's electrodes"):
        rows_for(tuple(NAMES[:9]), standard_positions(NAMES[:9]), unknown, 128, "rec", "spline")


def test_a_model_of_several_caps_takes_the_one_that_fits():
    """Each person was trained with a cap of their own."""
    both = SignalConfig(caps=(*cap(*NAMES[:16]).caps, *cap(*NAMES[:8]).caps))

    plan, note = rows_for(NAMES[:8], standard_positions(NAMES[:8]), both, 128, "rec")

    assert plan.pad_map == tuple(np.arange(128) % 8) and note == ""


def test_a_model_that_does_not_know_its_electrodes_says_so():
    """Pipelines of 0.1.0, and pairs without names."""
    plan, note = rows_for(NAMES[:4], standard_positions(NAMES[:4]), SignalConfig(), 128, "rec")

    assert plan.pad_map == tuple(np.arange(128) % 4) and "does not say which electrodes" in note


def test_rows_of_a_store_with_another_order_are_moved_and_those_of_another_cap_refused(study):
    """Pairs of somebody else, for a model of this cap."""
    turned = SignalConfig(sfreq=200.0, caps=(CapConfig(channels=tuple(NAMES[:8]), rows=tuple(np.arange(128)[::-1] % 8)),))

    moved = open_trials(study.folder / "p.zarr", model(turned))

    np.testing.assert_array_equal(moved.read([0, 3]), study.pairs.eeg([0, 3])[:, np.arange(128)[::-1] % 8])
    with pytest.raises(ModelError, match=r"subject rec: 2 of the 10 electrodes"):
        open_trials(study.folder / "p.zarr", model(SignalConfig(sfreq=200.0, caps=cap(*NAMES[:8], "Oz", "Pz").caps)))


def test_the_pairs_that_a_model_was_trained_on_are_read_as_they_are(study):
    """Whatever their attributes say."""
    strange = model(cap("Oz"), pairs=study.pairs.fingerprint)

    np.testing.assert_array_equal(open_trials(study.folder / "p.zarr", strange).read([1]), study.pairs.eeg([1]))


def test_a_recording_that_a_gate_keeps_out_is_refused_with_its_reason(tmp_path):
    """Volts called microvolts would be noise to the model."""
    write_edf(tmp_path / "a.edf", 1e-2 * eeg(8, 30 * RATE, RATE), RATE, events=[(1.0, 1.0, "x")])

    with pytest.raises(DataError, match=r"a factor of .* would fit"):
        prepare_for(read_file(tmp_path / "a.edf"), SignalConfig(band=(5.0, 40.0)))
