"""Writes the demo's page: the result first, then which part earns it, then how it was made.

Written for somebody who has never seen EEG: every figure says what it shows, and every number stands beside chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

import eegprep
from dreamdiff.certificates.records import OTHERS, RANDOM, WHOLE, ZEROED
from dreamdiff.evaluation.retrieve import Retrieval
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pretraining.pretrain import read_validation
from dreamdiff.programs.demo_config import MANIFEST, SFREQ, STRIDE, WINDOW, DemoConfig, Folders
from dreamdiff.programs.demo_paper import PaperRoute
from dreamdiff.programs.demo_pictures import DemoPictures
from eegprep.inspection.page import Page
from eegprep.inspection.pictures import head_map, traces
from eegprep.recording import Recording
from eegprep.sources.reading import read_source
from eegprep.words import count

SIMULATED = (
    "The people on this page are simulated. The recordings, the corpus and the pre-training are genuine; the responses to pictures are "
    "simulated and added to genuine recordings, because public EEG with its pictures may not be shipped. What the pictures show is that the "
    "software finds an answer that is known to be there, not that brains can be read."
)
# plain names beside those of ImageNet
PLAIN = {
    "lycaenid": "butterfly", "capuchin": "monkey", "sorrel": "horse", "espresso maker": "coffee maker", "airliner": "aeroplane",
    "convertible": "open car", "canoe": "canoe", "anemone fish": "clownfish", "missile": "rocket", "revolver": "pistol",
}  # fmt: skip


def plain(name: str) -> str:
    """A category's name, with an everyday word beside it where it needs one."""
    word = PLAIN.get(name.lower())
    return name if word is None or word == name.lower() else f"{name} ({word})"


def write_page(folders: Folders, config: DemoConfig, pictures: DemoPictures, paper: PaperRoute, retrieval: Retrieval) -> str:
    """Write the page and give the result in one sentence."""
    pairs = Pairs.open(folders.pairs)
    says = result(pairs, pictures)
    page = Page("From EEG to pictures: the demo", says)
    page.text(SIMULATED, "warning")
    _pictures_part(page, pairs, pictures)
    _carries_part(page, pairs, pictures)
    _curve_part(page, pairs, pictures, config)
    _retrieval_part(page, retrieval)
    _paper_part(page, pairs, pictures, paper)
    page.heading("6. Where the signals come from")
    page.text("EEG is the voltage between places on the scalp, some ten millionths of a volt, read hundreds of times a second.")
    _recordings_part(page)
    _corpus_part(page, folders)
    _pretraining_part(page, folders)
    _pairs_part(page, pairs)
    page.heading("7. The same by hand")
    page.code(_commands(config))
    page.text(
        f"Every number above follows from stored predictions, and `dreamdiff evaluate --check FOLDER` computes it again: {folders.pictures.name} (parts 1 "
        f"to 3, with all pictures), {folders.retrieval.name} (part 4, with a page of its own) and {folders.paper.name} (part 5)."
    )
    page.write(folders.page)
    return says


def result(pairs: Pairs, pictures: DemoPictures) -> str:
    """The result, with chance, interval and the part that earns it."""
    whole, zeroed = pictures.row(WHOLE).pictures, pictures.row(ZEROED).pictures
    assert whole is not None and zeroed is not None  # both rows have pictures
    earned = (
        f"The learned EEG encoder earns it: with its output set to zero, {zeroed} are right."
        if whole.low > zeroed.high
        else f"No part is shown to earn it: with the learned EEG encoder's output set to zero, {zeroed} are right."
    )
    return (
        f"Simulated people looked at drawings; from {count(round(pictures.repetitions), 'repetition')} each, the right one of {len(pairs.classes)} "
        f"categories was drawn in {whole} (chance {100 / len(pairs.classes):.1f} %). {earned}"
    )


def _pictures_part(page: Page, pairs: Pairs, pictures: DemoPictures) -> None:
    page.heading("1. What was shown, and what came out")
    page.text(
        "Each set of four belongs together: the drawing that was shown, the picture made from the average of its repetitions, the picture "
        "made from a single repetition, and the picture that the same generator makes of the true drawing, which is as good as it can get. "
        "These drawings were not used in training. They are the first of every category, none is left out and none is chosen."
    )
    page.sets(
        [
            (shown.seen, f"shown: {plain(pairs.classes[shown.label])}"),
            (shown.made[WHOLE], f"from EEG, {count(shown.repetitions, 'repetition')}"),
            *([(shown.made["single"], "from EEG, one")] if "single" in shown.made else []),
            (shown.made["truth"], "from the true drawing"),
        ]
        for shown in pictures.shown
    )


def _carries_part(page: Page, pairs: Pairs, pictures: DemoPictures) -> None:
    page.heading("2. Which part earns the accuracy")
    chance = 100 / len(pairs.classes)
    page.text(
        f"EEG becomes a vector, the vector becomes a picture. Both are judged: is the vector nearest to its own category, and does the picture "
        f"look like its own category to a network that took no part ({chance:.1f} % by chance)? If the accuracy stays when a part is taken out, that part "
        "did not earn it. In brackets: 95 % intervals over drawings. The network that judges pictures also drives the simulated sources; vectors are "
        "judged without it."
    )
    rows = [
        {"made from": row.says, "vectors right": _cell(row.vectors), "pictures right": _cell(row.pictures)}
        for row in pictures.rows
    ]
    page.table(rows)
    whole, oracle = pictures.row(WHOLE), pictures.row("truth")
    if whole.vectors and oracle.vectors and whole.pictures and oracle.pictures:
        page.text(
            f"As a share of the upper limit: {100 * whole.vectors.value / max(oracle.vectors.value, 1e-9):.0f} % of the vectors and "
            f"{100 * whole.pictures.value / max(oracle.pictures.value, 1e-9):.0f} % of the pictures. The row with the pull towards training "
            "drawings is a soft choice of the nearest of them: it makes pictures clearer and takes away what belongs to the one drawing."
        )
    names = {ZEROED: "zeroed", OTHERS: "swapped between trials", RANDOM: "untrained"}
    outcome = ", ".join(f"{name} {_cell(pictures.row(key).vectors)}" for key, name in names.items() if _has(pictures, key))
    page.text(f"The learned encoder's vectors: {_cell(whole.vectors)}; {outcome}.", "verdict")


def _has(pictures: DemoPictures, name: str) -> bool:
    return any(row.name == name and row.vectors is not None for row in pictures.rows)


def _cell(share: Any) -> str:
    return "" if share is None else str(share)


def _curve_part(page: Page, pairs: Pairs, pictures: DemoPictures, config: DemoConfig) -> None:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    names = {WHOLE: "learned convolution", "paper": "the paper's encoder", "ridge whitened": "ridge, whitened (closed form)"}
    for colour, (name, points) in zip(("#0b6bcb", "#9a5b00", "#5b6575"), pictures.curve.items(), strict=True):
        if not points:
            continue
        x = np.array([float(size) for size, _ in points])
        share = [value for _, value in points]
        axes.plot(x, [100 * s.value for s in share], marker="o", color=colour, label=names[name])
        axes.fill_between(x, [100 * s.low for s in share], [100 * s.high for s in share], color=colour, alpha=0.12)
    axes.axhline(100 / len(pairs.classes), color="#1d2430", lw=1, ls=":", label="chance")
    axes.set_xscale("log", base=2)
    ticks = sorted({float(size) for points in pictures.curve.values() for size, _ in points}) or [1.0]
    axes.set_xticks(ticks, [f"{t:.0f}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("repetitions that are averaged")
    axes.set_ylabel("vectors in the right category, %")
    axes.set_ylim(0, None)
    upper = axes.secondary_xaxis("top")
    upper.set_xticks(ticks, [f"{config.snr + 10 * np.log10(t):.0f}" for t in ticks])
    upper.minorticks_off()
    upper.set_xlabel("response against background after averaging, dB")
    axes.legend(frameon=False)
    page.heading("3. One repetition is rarely enough; averages are what the field shows")
    page.text(
        "A single response is far smaller than the ongoing EEG around it. Published pictures from EEG are averages of up to 80 repetitions; so are "
        "the pictures above, of fewer. The curve shows what each repetition adds."
    )
    page.figure(figure, "Share of right vectors against the number of averaged repetitions, with 95 % intervals.")
    against = {name: "; ".join(str(gain) for gain in pictures.gains if gain.name == name) for name in (WHOLE, "paper")}
    page.text(
        "Is learning better than a formula? Ridge regression on whitened trials is the best linear map, fitted in closed form. The sources here answer "
        f"to the pictures through a map that is not linear. Learned convolution against ridge, {against[WHOLE]}. The paper's encoder against ridge, "
        f"{against['paper']}. In brackets: 95 % intervals of the paired difference; learning is shown to be better only where the interval lies above 0."
    )


def _retrieval_part(page: Page, retrieval: Retrieval) -> None:
    page.heading("4. Finding the very drawing")
    page.text(
        "Harder than the category: is the drawing that was shown the nearest (top 1) or among the nearest five (top 5) of all test drawings? "
        "The name of each number says what was compared."
    )
    page.text(retrieval.first_line, "verdict")
    page.table([
        {"measurement": m.name, "value": f"{100 * m.value:.0f} %", "interval": f"{100 * m.low:.0f} to {100 * m.high:.0f} %",
         "chance": "" if m.floor is None else f"{100 * m.floor:.1f} %", "n": m.n}
        for m in retrieval.measurements
    ])  # fmt: skip


def _paper_part(page: Page, pairs: Pairs, pictures: DemoPictures, paper: PaperRoute) -> None:
    page.heading("5. The paper's route beside it")
    page.text(
        "DreamDiffusion fine-tunes the EEG encoder and the generator's cross-attention together, towards the pictures themselves. Here it starts from "
        "the encoder that was pre-trained on the genuine corpus and, which is ours and not the paper's, from a linear map that is fitted in closed form. "
        f"On the same averages {paper.whole} pictures are right. With the encoder's output set to zero it is {paper.zeroed}: what is left then is the "
        "closed form's, not the encoder's."
    )
    count = min(12, len(pictures.shown), len(paper.made))
    page.sets(
        [
            (pictures.shown[i].seen, f"shown: {plain(pairs.classes[pictures.shown[i].label])}"),
            (paper.made[i], "the paper's route"),
        ]
        for i in range(count)
    )


def _recordings_part(page: Page) -> None:
    first: Recording = next(iter(read_source(MANIFEST)))
    band = (5.0, 0.45 * first.sfreq)
    filtered_CT = eegprep.band_pass(first.signal_CT, first.sfreq, *band)
    start = 10 * int(first.sfreq)
    stretch = slice(start, start + 512)
    figure = Figure(figsize=(11, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1)
    traces(upper, first.signal_CT[:, stretch], first.sfreq, first.channels, start=10.0, most=12)
    traces(lower, filtered_CT[:, stretch], first.sfreq, first.channels, start=10.0, most=12)
    upper.set_title("as recorded", loc="left")
    lower.set_title(f"after the {band[0]:g}-{band[1]:g} Hz band-pass", loc="left")
    page.text(
        f"{first.name}: {len(first.channels)} channels at {first.sfreq:g} Hz, from the PhysioNet EEG Motor Movement/Imagery Dataset "
        f"(ODC-BY 1.0; Schalk et al. 2004, Goldberger et al. 2000). At this rate 95 Hz cannot be represented, so the upper edge is "
        f"clipped to {band[1]:g} Hz and the corpus says so."
    )
    page.figure(figure, "512 samples of 12 of the channels, before and after filtering.")


def _corpus_part(page: Page, folders: Folders) -> None:
    corpus = eegprep.Corpus.open(folders.corpus)
    page.text(
        f"The corpus for pre-training: {len(corpus)} windows of {corpus.channels} rows and {corpus.samples} samples, one second at {SFREQ:g} Hz, in a "
        "zarr store that plain zarr opens. Rows from 64 on repeat the 64 channels, as the paper fills up missing ones."
    )
    page.table([{k: v for k, v in row.items() if k != "windows_shape"} for row in _rows(corpus.subjects)])


def _pretraining_part(page: Page, folders: Folders) -> None:
    content = read_validation(folders.pretrained)
    page.text(
        "Pre-training hides three quarters of each window, in pieces, and has the paper's encoder guess them. Errors are mean squared errors on hidden "
        "pieces of recordings that were not trained on; the simple guesses beside it fill in from the neighbours or with the mean."
    )
    page.table([{"guess": key, "error": value} for key, value in content.items() if isinstance(value, int | float)])
    page.png(
        (folders.pretrained / "reconstruction.png").read_bytes(), "Original, hidden and guessed signal of a held-out window."
    )


def _pairs_part(page: Page, pairs: Pairs) -> None:
    subject = pairs.subjects[0]
    facts = pairs.attributes[subject]
    train = pairs.select(split="train", subjects=[subject])
    mean_CT = train.eeg().mean(axis=0)
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    time_T = float(facts["t0"]) + np.arange(mean_CT.shape[1]) / float(facts["sfreq"])
    left.plot(1000 * time_T, mean_CT.T, lw=0.5, color="#1d2430", alpha=0.5)
    left.axvline(0, color="#0b6bcb", lw=1)
    left.set_xlabel("time after the picture appears (ms)")
    left.set_ylabel("µV")
    peak = int(np.argmax(mean_CT.std(axis=0)))
    places = np.array([[np.nan if v is None else v for v in row] for row in facts["positions"]], dtype=float)
    head_map(right, mean_CT[:, peak], places, label=f"µV at {1000 * time_T[peak]:.0f} ms")
    page.text(
        f"Simulated: {len(pairs)} trials of {len(pairs.subjects)} people and {len(pairs.classes)} categories. Sources at the back and the lower sides of the "
        f"brain answer to each drawing, driven by an image network (EfficientNet-Lite0) other than the one that is decoded, through a map that is not linear. "
        f"The response is added to a genuine recording before it is filtered; in one trial it has {facts['snr_db']:g} dB of the background's power. "
        "Test trials show drawings that training never shows.",
        "warning",
    )
    page.figure(
        figure,
        f"Mean of {len(train)} training trials of {subject} (simulated): one line for each electrode, the picture appears at 0; right, the "
        "voltage over the head, seen from above, at the largest response.",
    )


def _rows(table: Any) -> list[dict[str, object]]:
    return [{str(k): v for k, v in row.items()} for row in table.reset_index().to_dict("records")]


def _commands(config: DemoConfig) -> str:
    pretrain = " ".join(f"--set {a}" for a in (f"model.encoder.window={WINDOW}", f"augment.shift={STRIDE}", *config.pretrain))
    return (
        f"eegprep build sample.toml --out corpus.zarr --window {WINDOW} --stride {STRIDE} --resample {SFREQ:g}\n"
        f"dreamdiff train msm --store corpus.zarr --out pretrained --preset tiny {pretrain}\n"
        f"dreamdiff pairs simulate --out pairs.zarr --people {config.people} --trials {config.trials} --test-share {config.test_share:g} "
        f"--snr {config.snr:g} --sfreq {SFREQ:g} --seed {config.seed}\n"
        "dreamdiff train align --pairs pairs.zarr --out aligned --encoder conv --target embedded --preset jitter\n"
        "dreamdiff train align --pairs pairs.zarr --out aligned-paper --encoder msm:pretrained --target embedded --preset jitter\n"
        "dreamdiff generate --model aligned --eeg pairs.zarr --select test --sd embedded --out pictures\n"
        "dreamdiff retrieve --model aligned --pairs pairs.zarr --out retrieval\n"
        "dreamdiff train finetune --pairs pairs.zarr --encoder pretrained --sd embedded --clip embedded --out finetuned --preset demo\n"
        "dreamdiff app --model aligned --pairs pairs.zarr"
    )
