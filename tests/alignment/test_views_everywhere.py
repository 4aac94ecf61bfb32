"""Pairs that are a view of a corpus serve every command that opens pairs: align, retrieve, generate, evaluate, figures, the page."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from eeg_files import write_edf
from PIL import Image
from tiny_alignment import small_config, vectors_file
from tiny_models import CLIP_WIDTH, CONTEXT_WIDTH, tiny_clip, tiny_stable_diffusion

import eegprep
from dreamdiff.alignment.prepare import align
from dreamdiff.certificates.check import check_report
from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig
from dreamdiff.diffusion.noise import make_scheduler
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline, PipelineConfig
from dreamdiff.diffusion.stable_diffusion import load_stable_diffusion
from dreamdiff.eeg_input import signal_of
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.evaluation.evaluate import evaluate
from dreamdiff.evaluation.report import write_report
from dreamdiff.evaluation.retrieve import retrieve
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pairs.importers.run import import_pairs
from dreamdiff.pretraining.probe import probe
from dreamdiff.protocols.config import EvaluateConfig, RetrieveConfig
from eegprep.errors import StoreError

RATE, TRIALS, CHANNELS, WINDOW = 128.0, 48, 8, 128
CLASSES = ("cat", "dog")
CAP = ("Fp1", "Fp2", "C3", "C4", "O1", "O2", "P3", "P4")


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    """Two people with a recording each, in which a picture evokes the pattern of its category; trials lie across windows."""
    folder = tmp_path_factory.mktemp("view")
    rng = np.random.default_rng(0)
    wave = 25 * np.sin(np.linspace(0, 12, 64))
    pattern = {"cat": rng.normal(size=(CHANNELS, 1)) * wave, "dog": rng.normal(size=(CHANNELS, 1)) * wave}
    rows = ["recording,onset,image,label,subject"]
    (folder / "pictures").mkdir()
    for name in CLASSES:
        for number in range(4):
            colour = (40 * number, 200 if name == "cat" else 20, 90)
            Image.new("RGB", (24, 16), colour).save(folder / "pictures" / f"{name}{number}.png")
    for person in ("sub-01", "sub-02"):
        samples = int(RATE * (2 + 1.25 * TRIALS + 2))
        noise = rng.normal(0, 10, (CHANNELS, samples))
        for trial in range(TRIALS):
            label, number = CLASSES[trial % 2], trial // 2 % 4
            onset = 2 + 1.25 * trial
            first = round(onset * RATE)
            noise[:, first : first + 64] += pattern[label]
            rows.append(f"{person}/0.view,{onset},{label}{number}.png,{label},{person}")
        (folder / "study" / person).mkdir(parents=True)
        write_edf(folder / "study" / person / "view.edf", noise.astype(np.float32), RATE, CAP, [(1.0, 1.0, "x")])
    settings = {"channels": CHANNELS, "window": WINDOW, "stride": WINDOW, "min_uv": 0.0, "low": 1.0, "high": 40.0}
    corpus = eegprep.build(str(folder / "study"), folder / "c.zarr", **settings)
    assert corpus.recordings == 2
    opened = eegprep.Corpus.open(folder / "c.zarr")
    runs = {key.rpartition("/")[2]: opened.attributes_of(key)["recordings"][0] for key in opened.keys}
    for person in ("sub-01", "sub-02"):
        record = runs.get(person) or runs[person.removeprefix("sub-")]
        name = f"{person if person in runs else person.removeprefix('sub-')}/{record['session']}.{record['run']}"
        rows = [row.replace(f"{person}/0.view", name) for row in rows]
    if "sub-01" not in runs:
        rows = [row.replace(",sub-0", ",0") for row in rows]
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    config = ImportConfig(
        kind="corpus", trials=str(folder / "t.csv"), images=str(folder / "pictures"), split_by="stimulus", simulated=True
    )
    import_pairs(folder / "c.zarr", folder / "p.zarr", config)
    return folder


@pytest.fixture(scope="module")
def aligned(view):
    target = vectors_file(view / "p.zarr", view / "vectors.npz")
    align(view / "p.zarr", view / "run", small_config("loop.epochs=6"), targets=[target])
    return view / "run"


@pytest.fixture(scope="module")
def pipeline(view):
    """A pipeline folder with random weights that reads these trials, and its CLIP."""
    from dreamdiff.pairs.reader import Pairs

    store = Pairs.open(view / "p.zarr")
    sd = load_stable_diffusion(str(tiny_stable_diffusion(view / "sd")))
    torch.manual_seed(0)
    encoder = EEGEncoder(EncoderConfig(channels=CHANNELS, window=WINDOW, patch=16, width=16, depth=1, heads=2))
    conditioner = Conditioner(
        ConditionerConfig(tokens_in=encoder.tokens, width_in=16, context_width=CONTEXT_WIDTH, clip_width=CLIP_WIDTH)
    )
    details = PipelineConfig(
        classes=CLASSES, signal=signal_of([store.attributes[name] for name in store.subjects]),
        training={"pairs": store.fingerprint, "split": "default", "provenance": store.provenance},
    )  # fmt: skip
    scheduler = make_scheduler("dpm-solver++", sd.scheduler.config)
    DreamDiffusionPipeline(sd.unet, sd.vae, scheduler, encoder, conditioner, details).save_pretrained(view / "model")
    return view / "model", tiny_clip(view / "clip")


def test_an_encoder_is_aligned_on_a_view_and_finds_its_pictures(view, aligned):
    """The pattern is strong: categories must be found, and the report must verify from its files."""
    found = retrieve(aligned, view / "p.zarr", view / "retrieval", RetrieveConfig(repetitions=("1",), device="cpu"))

    category = next(m for m in found.measurements if m.name.startswith("category/"))
    assert category.value > category.floor + 0.2
    assert check_report(view / "retrieval").accuracies > 0
    assert str(view) not in (view / "retrieval" / "report.html").read_text(encoding="utf-8")


def test_a_view_is_evaluated(view, pipeline):
    """Images, certificate, controls and carriers read the trials of the corpus."""
    model, clip = pipeline
    config = EvaluateConfig(
        samples=1, steps=1, trials=4, clip=str(clip), controls=True, control_trials=2, certificate_trials=2, device="cpu"
    )

    report = evaluate(model, view / "p.zarr", view / "evaluation", config)
    write_report(report, view / "evaluation" / "report.html")

    assert report.certificate is not None and len(report.measurements) > 0
    assert check_report(view / "evaluation").accuracies >= 0


def test_the_page_shows_trials_of_a_view(view, pipeline):
    """Trials, montage, seen picture, and images of them."""
    from dreamdiff.programs.app import Studio

    studio = Studio(pipeline[0], view / "p.zarr")

    assert studio.people() and studio.shown.montage(0).channels == CAP
    assert studio.seen(studio.shown, 0).ndim == 3 and "128 Hz, 1000 ms" in studio.facts(studio.shown, 0)
    made = studio.generate(studio.shown, 0, samples=1, first_seed=0, steps=1)
    assert made.origin.eeg == "simulated" and len(made.images_SHWC) == 1


def test_probe_of_a_view_names_the_corpus_behind_it(view, pipeline):
    """`probe` judges windows of a corpus; a view says which one that is."""
    with pytest.raises(StoreError, match=r"p\.zarr: EEG-image pairs, not a corpus") as caught:
        probe(pipeline[0] / "encoder", view / "p.zarr")

    assert "c.zarr" in caught.value.fix
