"""Whose EEG, which random numbers, and files that say how to make an image again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import CONTEXT_WIDTH, tiny_stable_diffusion
from tiny_pairs import CHANNELS, SAMPLES, tiny_pairs

from dreamdiff.diffusion import noise as ld_noise
from dreamdiff.diffusion import stable_diffusion as ld
from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline, PipelineConfig, SignalConfig
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.generation import files as gen_files
from dreamdiff.generation import generate as gen
from dreamdiff.generation import trials as gen_trials
from dreamdiff.generation.config import GENERATE_PRESETS, GenerateConfig
from dreamdiff.origin import caption_strip
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import CheckpointError, DataError, ModelError, SourceError, StoreError, UsageError
from eegprep.recording import Event, Recording
from eegprep.settings import resolve
from eegprep.sources.file_reading import FileReading

FAST = {"steps": 2, "batch_size": 3, "device": "cpu"}


def make_model(folder, sd, *, channels=CHANNELS, window=SAMPLES, scaling="robust", signal=None):
    torch.manual_seed(1)
    model = ld.load_stable_diffusion(sd)
    encoder = EEGEncoder(EncoderConfig(channels=channels, window=window, width=16, depth=1, heads=2, scaling=scaling))
    conditioner = Conditioner(ConditionerConfig(tokens_in=encoder.tokens, width_in=16, context_width=CONTEXT_WIDTH, clip_width=5))
    conditioner.calibrate(torch.randn(8, encoder.tokens, 16), 0.0, 1.0)
    details = PipelineConfig(signal=signal or SignalConfig(sfreq=128.0, t0=0.0, band=(5.0, 40.0)))
    scheduler = ld_noise.make_scheduler("dpm-solver++", model.scheduler.config)
    DreamDiffusionPipeline(model.unet, model.vae, scheduler, encoder, conditioner, details).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    tiny_stable_diffusion(folder / "sd")
    tiny_pairs(folder / "pairs.zarr", per_class=6)
    make_model(folder / "model", folder / "sd")
    return folder


@pytest.fixture(scope="module")
def made(parts, tmp_path_factory):
    """All test trials, two samples each."""
    out = tmp_path_factory.mktemp("made")
    gen_files.generate_to_folder(parts / "model", parts / "pairs.zarr", out, GenerateConfig(samples=2, **FAST), select="test")
    return out


def pixels(file):
    return np.asarray(Image.open(file).convert("RGB"))


# --- files


def test_every_image_has_a_sidecar_and_the_trials_are_those_asked_for(parts, made):
    """Two images for each test trial, and no other."""
    numbers = sorted(Pairs.open(parts / "pairs.zarr").split()["test"].tolist())

    stems = {file.stem for file in made.glob("trial-*.png")}

    assert stems == {f"trial-{n:06d}_seed-{s}" for n in numbers for s in (0, 1)}
    assert stems == {file.stem for file in made.glob("trial-*.json")}
    sidecar = json.loads((made / f"trial-{numbers[0]:06d}_seed-1.json").read_text())
    assert sidecar["label"] == Pairs.open(parts / "pairs.zarr").classes[Pairs.open(parts / "pairs.zarr").labels[numbers[0]]]
    assert sidecar["config"]["steps"] == 2


def test_a_replayed_image_is_the_same_pixel_for_pixel(made, tmp_path):
    """Each one, also the last of a batch that was filled up."""
    for sidecar in sorted(made.glob("trial-*.json"))[-4:]:
        file, same = gen_files.replay(sidecar, tmp_path)

        assert same
        np.testing.assert_array_equal(pixels(file), pixels(sidecar.with_suffix(".png")))


def test_images_do_not_depend_on_batch_size_or_selection(parts, made, tmp_path):
    """One generator per (trial, seed): alone, with other neighbours, in another order, at most one grey level of rounding."""
    numbers = sorted(Pairs.open(parts / "pairs.zarr").split()["test"].tolist())[::-1][:3]
    gen_files.generate_to_folder(
        parts / "model",
        parts / "pairs.zarr",
        tmp_path,
        GenerateConfig(samples=1, seed=1, **{**FAST, "batch_size": 2}),
        trials=numbers,
    )

    for number in numbers:
        stem = f"trial-{number:06d}_seed-1.png"
        assert np.abs(pixels(tmp_path / stem).astype(int) - pixels(made / stem)).max() <= 1


def test_another_seed_and_another_trial_give_other_noise():
    """And the same pair gives the same, on any machine."""
    first = torch.randn(3, generator=gen.generator_for(5, 0))

    assert torch.equal(first, torch.randn(3, generator=gen.generator_for(5, 0)))
    assert not torch.equal(first, torch.randn(3, generator=gen.generator_for(5, 1)))
    assert not torch.equal(first, torch.randn(3, generator=gen.generator_for(6, 0)))


def test_a_killed_command_goes_on_where_it_was(parts, made, tmp_path, monkeypatch):
    """Only what is missing is computed; what is there is not touched."""
    out = tmp_path / "out"
    shutil.copytree(made, out)
    last = sorted(out.glob("trial-*.json"))[-1]
    last.unlink()
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("trial-*.png")}
    calls = []
    render = gen.render
    monkeypatch.setattr(gen, "render", lambda *args: calls.append(1) or render(*args))

    gen_files.generate_to_folder(parts / "model", parts / "pairs.zarr", out, GenerateConfig(samples=2, **FAST), select="test")

    assert len(calls) == 1
    assert last.exists()
    assert sum(file.stat().st_mtime_ns == before[file.name] for file in out.glob("trial-*.png")) >= len(before) - 3


def test_other_settings_make_the_images_again(parts, made, tmp_path):
    """A file of another sampler must not pass for this one's."""
    out = tmp_path / "out"
    shutil.copytree(made, out)
    gen_files.generate_to_folder(
        parts / "model", parts / "pairs.zarr", out, GenerateConfig(samples=2, **{**FAST, "steps": 3}), select="test"
    )

    assert all(json.loads(file.read_text())["config"]["steps"] == 3 for file in out.glob("trial-*.json"))


def test_the_contact_sheet_shows_what_was_seen_beside_what_was_made(made):
    """A row per trial; seen plus two samples in it."""
    rows = len(list(made.glob("trial-*_seed-0.png")))
    height = gen_files.SHEET_CELL + 28 + 4

    width = 3 * (gen_files.SHEET_CELL + 4) + 4
    words = caption_strip(json.loads(next(made.glob("trial-*.json")).read_text())["origin"]["sentence"], width)
    assert Image.open(made / "contact-sheet.png").size == (width, len(words) + rows * height)
    np.testing.assert_array_equal(pixels(made / "contact-sheet.png")[: len(words)], words)


def test_pictures_say_where_they_come_from_and_name_no_folder_of_the_machine(parts, made):
    """In the text of the PNG, in the sidecar, and over the sheet: these are the files that people pass on."""
    sidecar = json.loads(next(made.glob("trial-*.json")).read_text())
    text, sheet = Image.open(next(made.glob("trial-*.png"))).info, Image.open(made / "contact-sheet.png").info

    assert sidecar["origin"]["eeg"] == "simulated" and sidecar["origin"]["training"] == "unknown"  # this model does not say
    assert sidecar["origin"]["licences"]["EEG"] == "CC0-1.0" and "simulated EEG" in sidecar["origin"]["sentence"]
    assert text["provenance"] == sheet["provenance"] == "simulated EEG; trained on unknown EEG"
    assert {"generator", "model", "licence"} <= set(text) and "CC0-1.0" in text["licence"]
    assert not Path(sidecar["model"]["path"]).is_absolute() and not Path(sidecar["eeg"]["source"]).is_absolute()
    for file in made.glob("trial-*.json"):
        assert str(parts) not in file.read_text() and str(made) not in file.read_text()


def test_images_without_an_origin_are_made_again(parts, tmp_path):
    """Images of 0.1.0 do not say whether their EEG was simulated."""
    config = GenerateConfig(samples=1, **FAST)
    gen_files.generate_to_folder(parts / "model", parts / "pairs.zarr", tmp_path, config, select="test")
    (first, *_) = sorted(tmp_path.glob("trial-*.json"))
    content = json.loads(first.read_text())
    first.write_text(json.dumps({k: v for k, v in content.items() if k not in ("origin", "sha256")} | {"version": 1}))

    gen_files.generate_to_folder(parts / "model", parts / "pairs.zarr", tmp_path, config, select="test")

    assert json.loads(first.read_text())["origin"] == content["origin"]


# --- sources


def test_windows_of_a_corpus_are_a_source(parts, tmp_path):
    """The corpus of pre-training, or of new recordings without images."""
    import eegprep

    rng = np.random.default_rng(0)
    windows = (10 * rng.normal(size=(4, CHANNELS, SAMPLES))).astype(np.float32)
    eegprep.from_arrays(tmp_path / "c.zarr", windows, sfreq=128.0, pad_to=CHANNELS)
    pipe = DreamDiffusionPipeline.from_pretrained(parts / "model")

    trials = gen_trials.open_trials(tmp_path / "c.zarr", pipe)

    assert (trials.kind, len(trials)) == ("corpus", 4)
    np.testing.assert_array_equal(trials.read([2]), windows[2:3])


def recording(events, sfreq=128.0, seconds=4.0, channels=3):
    rng = np.random.default_rng(0)
    signal = (10 * rng.normal(size=(channels, int(seconds * sfreq)))).astype(np.float32)
    return Recording(
        signal, sfreq, tuple(f"E{c}" for c in range(channels)), "d", "s", "0", "r", np.full((channels, 3), np.nan), sfreq,
        events=tuple(Event(onset, 0.0, label) for onset, label in events),
    )  # fmt: skip


def test_windows_start_at_the_events_and_are_padded_like_the_corpus():
    """x[arange(128) % n]; an event too near the end is left out."""
    rec = recording([(0.5, "panda"), (1.25, "phone"), (3.9, "late")])
    trials = gen_trials.cut_events(rec, SignalConfig(sfreq=128.0, t0=0.0), CHANNELS, SAMPLES)

    np.testing.assert_array_equal(trials.read([1])[0], rec.signal_CT[np.arange(CHANNELS) % 3, 160 : 160 + SAMPLES])
    assert trials.labels == ("panda", "phone")
    assert trials.names[0] == "panda at 0.500 s"
    assert any("1 of 3 events" in note for note in trials.notes) and any(
        "does not say which electrodes" in note for note in trials.notes
    )


def test_windows_are_filtered_over_the_whole_recording_first():
    """Filtering single windows would ring at their edges, which training pairs don't have."""
    from eegprep.signals.filters import band_pass

    rec = recording([(1.0, "panda")])
    trials = gen_trials.cut_events(rec, SignalConfig(sfreq=128.0, t0=-0.25, band=(5.0, 40.0)), CHANNELS, SAMPLES)

    np.testing.assert_allclose(trials.read([0])[0, :3], band_pass(rec.signal_CT, 128.0, 5.0, 40.0)[:, 96 : 96 + SAMPLES])


def test_an_eeg_file_with_events_is_a_source(parts, tmp_path):
    """From the file of an EEG system to an image, through eegprep's reader."""
    import mne

    rng = np.random.default_rng(0)
    raw = mne.io.RawArray(1e-5 * rng.normal(size=(3, 1024)), mne.create_info(["Oz", "O1", "O2"], 128.0, "eeg"), verbose="error")
    raw.set_annotations(mne.Annotations([1.0, 3.0], [0, 0], ["panda", "phone"]))
    raw.save(tmp_path / "test_raw.fif", verbose="error")

    sheets = gen_files.generate_to_folder(
        parts / "model", tmp_path / "test_raw.fif", tmp_path / "out", GenerateConfig(**FAST), select="phone"
    )  # fmt: skip

    assert [file.name for file in (tmp_path / "out").glob("trial-*.png")] == ["trial-000001_seed-0.png"]
    assert sheets[0].is_file()


# --- bad input


def pipe_for(tmp_path, parts, **changes):
    return DreamDiffusionPipeline.from_pretrained(make_model(tmp_path / "model", parts / "sd", **changes))


def test_the_wrong_number_of_channels_is_named(parts, tmp_path):
    """Before the U-Net runs; both numbers and the command that mends it."""
    with pytest.raises(ModelError, match=r"windows of 6 channels and 64 samples, the model reads 8 and 64"):
        gen_trials.open_trials(parts / "pairs.zarr", pipe_for(tmp_path, parts, channels=8))


def test_another_rate_is_named(parts, tmp_path):
    """A window of 64 samples at 256 Hz is another stretch of time."""
    pipe = pipe_for(tmp_path, parts, signal=SignalConfig(sfreq=256.0))

    with pytest.raises(ModelError, match="sampled at 128 Hz, the model was trained at 256 Hz"):
        gen_trials.open_trials(parts / "pairs.zarr", pipe, strict_rate=True)

    trials = gen_trials.open_trials(parts / "pairs.zarr", pipe)
    assert any("128 Hz" in note and "resampled to 256 Hz" in note for note in trials.notes)
    assert trials.read([0]).shape[2] == SAMPLES


def test_windows_that_are_too_short_at_the_rate_of_the_model_are_refused(parts, tmp_path):
    """64 samples at 128 Hz are 500 ms; at 32 Hz the model reads 2,000 ms, and nothing is invented for the rest."""
    pipe = pipe_for(tmp_path, parts, signal=SignalConfig(sfreq=32.0))

    with pytest.raises(ModelError, match=r"64 samples \(500 ms\) are shorter than the model's 64 \(2000 ms\)") as raised:
        gen_trials.open_trials(parts / "pairs.zarr", pipe)
    assert "at least 256 samples" in raised.value.fix


def test_another_unit_is_named_when_the_scaling_has_one(parts, tmp_path):
    """Whitened EEG for a model of microvolts."""
    tiny_pairs(tmp_path / "p.zarr", per_class=6, unit="standard deviations")

    with pytest.raises(ModelError, match="in 'standard deviations', the model was trained on 'uV'"):
        gen_trials.open_trials(tmp_path / "p.zarr", pipe_for(tmp_path, parts, scaling="none"))


def test_a_missing_source_is_named(parts):
    """A typing error in --eeg."""
    with pytest.raises(StoreError, match=r"nowhere.zarr does not exist"):
        gen_trials.open_trials("nowhere.zarr", DreamDiffusionPipeline.from_pretrained(parts / "model"))


def test_a_folder_of_something_else_is_named(parts):
    """A model folder given as --eeg."""
    with pytest.raises(StoreError, match="neither a pairs store nor a corpus"):
        gen_trials.open_trials(parts / "model", DreamDiffusionPipeline.from_pretrained(parts / "model"))


def test_a_file_that_is_not_eeg_is_named(parts, tmp_path):
    """Through eegprep's reader, which knows the formats."""
    (tmp_path / "notes.txt").write_text("hello")

    with pytest.raises(Exception, match=r"notes.txt"):
        gen_trials.open_trials(tmp_path / "notes.txt", DreamDiffusionPipeline.from_pretrained(parts / "model"))


def test_what_a_file_does_not_say_is_said_by_options_and_remembered_for_a_replay(parts, tmp_path):
    """A table of a headset has markers, and neither rate nor unit; a sidecar that forgot them could not be replayed."""
    rows = 20 * np.random.default_rng(0).standard_normal((1024, CHANNELS))
    marker = np.zeros((1024, 1))
    marker[300:304] = 2
    names = ",".join([*("Fz", "C3", "Cz", "C4", "Pz", "Oz", "P3", "P4")[:CHANNELS], "marker"])
    np.savetxt(tmp_path / "own.csv", np.hstack([rows, marker]), delimiter=",", header=names, comments="", fmt="%.3f")
    reading, config = FileReading(sfreq=128.0, unit="uV", scale=0.5), GenerateConfig(**FAST)
    with pytest.raises(SourceError):
        gen_files.generate_to_folder(parts / "model", tmp_path / "own.csv", tmp_path / "out", config)

    gen_files.generate_to_folder(parts / "model", tmp_path / "own.csv", tmp_path / "out", config, reading=reading)

    (sidecar,) = (tmp_path / "out").glob("*.json")
    assert json.loads(sidecar.read_text())["eeg"]["reading"] == {"sfreq": 128.0, "unit": "uV", "scale": 0.5}
    assert gen_files.replay(sidecar, tmp_path / "again")[1]


def test_options_for_a_file_are_refused_for_a_store(parts):
    """They would be passed over in silence: a store says its own rate."""
    pipe = DreamDiffusionPipeline.from_pretrained(parts / "model")

    with pytest.raises(UsageError, match=r"--sfreq: .* is a store"):
        gen_trials.open_trials(parts / "pairs.zarr", pipe, reading=FileReading(sfreq=128.0))


def test_a_recording_without_events_is_named():
    """Nobody knows when an image was seen."""
    with pytest.raises(DataError, match="has no events"):
        gen_trials.cut_events(recording([]), SignalConfig(), CHANNELS, SAMPLES)


def test_events_without_room_behind_them_are_named():
    """All in the last half second."""
    with pytest.raises(DataError, match="none of 1 events is followed by 64 samples"):
        gen_trials.cut_events(recording([(3.9, "late")]), SignalConfig(), CHANNELS, SAMPLES)


def test_a_recording_in_microvolts_for_a_model_of_something_else_is_named():
    """A model trained on whitened pairs cannot read a raw file."""
    with pytest.raises(ModelError, match="trained on EEG in 'z'"):
        gen_trials.cut_events(recording([(1.0, "x")]), SignalConfig(unit="z"), CHANNELS, SAMPLES)


def test_a_trial_that_is_not_there_is_named(parts, tmp_path):
    """--trials 9999."""
    with pytest.raises(UsageError, match="--trials names 9999"):
        gen_files.generate_to_folder(parts / "model", parts / "pairs.zarr", tmp_path, GenerateConfig(**FAST), trials=[9999])


def test_a_label_that_is_not_there_is_named(tmp_path, parts):
    """The known ones are listed."""
    with pytest.raises(DataError, match=r"no trial has the label 'lion'"):
        gen_trials._with_label(["panda", None], "lion", "x.fif")


def test_a_replay_with_another_model_is_refused(parts, made, tmp_path):
    """It would make another image and call it the same."""
    torch.manual_seed(9)
    other = make_model(tmp_path / "model", tiny_stable_diffusion(tmp_path / "sd", seed=4))

    with pytest.raises(CheckpointError, match="the image was made by model"):
        gen_files.replay(sorted(made.glob("*.json"))[0], tmp_path, model=str(other))


def test_a_replay_with_other_eeg_is_refused(parts, made, tmp_path):
    """The same trial number in another store."""
    tiny_pairs(tmp_path / "p.zarr", per_class=6, seed=7)

    with pytest.raises(DataError, match=r"the EEG of trial .* has SHA-256"):
        gen_files.replay(sorted(made.glob("*.json"))[0], tmp_path, eeg=str(tmp_path / "p.zarr"))


def test_a_file_that_is_not_a_sidecar_is_refused(tmp_path):
    """Any other JSON."""
    (tmp_path / "x.json").write_text("{}")

    with pytest.raises(CheckpointError, match="not a sidecar"):
        gen_files.replay(tmp_path / "x.json")


def test_a_full_disk_is_seen_first(parts, tmp_path, monkeypatch):
    """Before an hour of sampling."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10}))

    with pytest.raises(StoreError, match="images need about"):
        gen_files.generate_to_folder(parts / "model", parts / "pairs.zarr", tmp_path / "out", GenerateConfig(**FAST))


@pytest.mark.parametrize("preset", sorted(GENERATE_PRESETS))
def test_every_preset_is_a_valid_configuration(preset):
    """The paper's: 250 PLMS steps, 5 samples."""
    resolve(GenerateConfig, presets=GENERATE_PRESETS, preset=preset)
