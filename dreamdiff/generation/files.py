"""Writes images, their sidecars and contact sheets to a folder, and replays a sidecar."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from dreamdiff.devices import choose_device, used
from dreamdiff.eeg_input import CapMatch
from dreamdiff.generation.aligned import AlignedPipeline
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.generate import GeneratedFrom, GeneratedImage, Maker, generate, generator_for, load_maker, render
from dreamdiff.generation.trials import TrialSet, open_trials
from dreamdiff.origin import (
    PictureOrigin,
    caption_strip,
    found_again,
    generator_name,
    picture_origin,
    portable,
    without_folders,
    write_png,
)
from dreamdiff.pairs.decoding import decode_image
from eegprep.errors import CheckpointError, DataError, UsageError
from eegprep.folders import require_free
from eegprep.provenance import fingerprint, installed, plain_json, sha256_array
from eegprep.recording import ProgressCallback
from eegprep.sealed import is_whole, write_sealed
from eegprep.settings import validated
from eegprep.sources.file_reading import FileReading

SIDECAR_VERSION = 2  # since then with a digest of itself

WRITERS = 2  # threads

SHEET_ROWS = 40  # trials on one contact sheet

SHEET_CELL = 128  # pixels

FOLDERS = ("sd", "adapter")  # settings that may name a folder


# ---------------------------------------------------------------------------------------------- on disk


def generate_to_folder(
    model: str | Path,
    eeg: str | Path,
    out: Path,
    config: GenerateConfig,
    *,
    select: str | None = None,
    trials: Sequence[int] | None = None,
    images: Path | None = None,
    cap: CapMatch = "name",
    strict_rate: bool = False,
    reading: FileReading | None = None,
    say: Callable[[str], None] | None = None,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Generate, write a PNG and a JSON sidecar per image and contact sheets; images that are there already are kept (`is_current`).

    Args:
        model: run of `dreamdiff train finetune`, pipeline folder, or run of `dreamdiff train align`. eeg, select, images: see `open_trials`.
        trials: numbers of trials in the source; default all that `select` leaves.
        cap, strict_rate, reading: see `open_trials`. say: is told what is not as it was for training.

    Returns:
        The contact sheets.
    """
    pipeline = load_maker(model, config)
    chosen = chosen_trials(pipeline, eeg, select, trials, images, cap, strict_rate, reading)
    for text in chosen.notes if say is not None else ():
        say(text)  # type: ignore[misc]
    origin = origin_of(pipeline, model, chosen)
    recipe = {"config": config.recipe(choose_device(config.device).type), "model": pipeline.fingerprint}
    key = fingerprint(recipe)
    _need_space(out, len(chosen) * config.samples, pipeline.image_size)

    sampler = pipeline.generator.scheduler if isinstance(pipeline, AlignedPipeline) else pipeline.scheduler
    schedule = fingerprint(plain_json(dict(sampler.config)))

    def there(job: GeneratedFrom) -> bool:
        return is_current(out, job, key, schedule)

    facts = used(choose_device(config.device), config.precision)

    def write(image: GeneratedImage) -> None:
        content = {
            "format": "dreamdiff-image", "version": SIDECAR_VERSION, "fingerprint": key, "trial": image.trial, "seed": image.seed,
            "name": image.name, "label": image.label, "image_sha256": sha256_array(image.image),
            "batch": {"size": config.batch_size, "row": image.row, "threads": torch.get_num_threads()},
            "computed": facts,
            "origin": {**origin.model_dump(mode="json"), "sentence": origin.sentence},
            "config": config.model_dump(mode="json") | {n: portable(v, out) for n in FOLDERS if (v := getattr(config, n))},
            "model": {"path": portable(model, out), "fingerprint": pipeline.fingerprint, "schedule": schedule},
            "eeg": {"source": portable(eeg, out), "kind": chosen.kind, "select": select, "sha256": image.eeg_sha256,
                    **({} if cap == "name" else {"cap": cap}), **({"reading": reading.given} if reading and reading.given else {}),
                    **({"notes": [without_folders(text) for text in chosen.notes]} if chosen.notes else {})},
            "software": installed("eeg-dreamdiff", "diffusers", "torch"),
        }  # fmt: skip
        write_png(out / f"{image.stem}.png", image.image, {"dreamdiff": f"{image.stem}.json", **origin.notes()})
        write_sealed(out / f"{image.stem}.json", content)  # last: an image counts when its sidecar is there

    with ThreadPoolExecutor(
        WRITERS, thread_name_prefix="images"
    ) as pool:  # PNGs are packed and synced while the next batch is made
        waiting: deque[Future[None]] = deque()
        for image in generate(pipeline, chosen, config, skip=there, progress=progress):
            waiting.append(pool.submit(write, image))
            while len(waiting) > 4 * config.batch_size or (waiting and waiting[0].done()):
                waiting.popleft().result()
        for written in waiting:
            written.result()
    return contact_sheets(out, chosen, config, origin)


def chosen_trials(
    pipeline: Maker, eeg: str | Path, select: str | None, trials: Sequence[int] | None, images: Path | None, cap: CapMatch,
    strict_rate: bool, reading: FileReading | None,
) -> TrialSet:  # fmt: skip
    """The trials that pictures are made of; see `generate_to_folder`."""
    chosen = open_trials(eeg, pipeline, select, images, cap, strict_rate=strict_rate, reading=reading)
    return chosen if trials is None else _numbered(chosen, trials)


def trained_on(pipeline: Maker) -> Mapping[str, Any]:
    """What a model says of its training: pairs, their provenance and licence, and more."""
    return pipeline.aligned.config.training if isinstance(pipeline, AlignedPipeline) else pipeline.details.training


def origin_of(pipeline: Maker, model: str | Path, trials: TrialSet) -> PictureOrigin:
    """What the pictures of these trials have to say of themselves."""
    aligned = isinstance(pipeline, AlignedPipeline)
    return picture_origin(
        trained_on(pipeline), model=generator_name(Path(model).resolve() if Path(model).exists() else model),
        generator=pipeline.generator.source if aligned else None, eeg=trials.provenance, licence=trials.licence,
    )  # fmt: skip


def is_current(out: Path, job: GeneratedFrom, key: str, schedule: str) -> bool:
    """Whether an image is there, made from this EEG by this model with these settings, and unchanged since.

    An image of 0.1.0, whose sidecar does not say where its EEG came from, is made again.
    What counts is content, never a path: the digests of the EEG and of the pixels, which the sidecar holds, are compared with what is
    there now. So an image of other EEG at the same path, and one that was altered, exchanged, cut short or deleted, are made again.
    """
    stem = f"trial-{job.trial:06d}_seed-{job.seed}"
    content = _sidecar_or_none(out / f"{stem}.json")
    if (
        content is None
        or "origin" not in content
        or content.get("fingerprint") != key
        or content.get("eeg", {}).get("sha256") != job.eeg_sha256
    ):
        return False
    # None: sidecars of 0.1.0 do not say
    stated = content.get("model", {}).get("schedule")
    if (content.get("name"), content.get("label")) != (job.name, job.label) or stated not in (None, schedule):
        return False
    try:
        return sha256_array(decode_image((out / f"{stem}.png").read_bytes(), stem)) == content.get("image_sha256")
    except (OSError, DataError):
        return False


def _numbered(trials: TrialSet, numbers: Sequence[int]) -> TrialSet:
    place = {int(number): position for position, number in enumerate(trials.numbers)}
    missing = [number for number in numbers if number not in place]
    if missing:
        raise UsageError(
            f"--trials names {missing[0]}, which is not among the {len(trials)} trials of {trials.source}",
            f"use numbers such as {', '.join(str(n) for n in trials.numbers[:5])}",
        )
    return trials.take([place[number] for number in numbers])


def replay(
    sidecar: Path,
    out: Path | None = None,
    *,
    model: str | None = None,
    eeg: str | None = None,
    images: Path | None = None,
    device: str | None = None,
) -> tuple[Path, bool]:
    """Make the image of a sidecar again.

    Args:
        sidecar: JSON file beside a PNG. out: folder; default the sidecar's own.
        model, eeg: where they are now, if they have moved. device: to make it on, if not that of then.

    Returns:
        The new PNG, and whether its pixels are the same as then.

    Raises:
        CheckpointError: the model is another one. DataError: the EEG is another.
    """
    content = _sidecar_or_none(sidecar)
    if content is None:
        raise CheckpointError(
            f"{sidecar}: not a sidecar of `dreamdiff generate`, or damaged", "give the .json file beside an image"
        )
    try:
        return _replay(sidecar, content, out, model, eeg, images, device)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{sidecar}: does not have the parts of a sidecar ({type(error).__name__}: {error})",
            "give the .json file beside an image",
        ) from None


def _replay(
    sidecar: Path, content: Mapping[str, Any], out: Path | None, model: str | None, eeg: str | None, images: Path | None,
    device: str | None,
) -> tuple[Path, bool]:  # fmt: skip
    here = sidecar.parent
    folders = {name: found_again(value, here) for name in FOLDERS if (value := content["config"].get(name))}
    own = {} if device is None else {"device": device}
    config = validated(GenerateConfig, {**content["config"], **folders, **own})
    pipeline = load_maker(model or found_again(content["model"]["path"], here), config)
    if pipeline.fingerprint != content["model"]["fingerprint"]:
        raise CheckpointError(
            f"{sidecar}: the image was made by model {content['model']['fingerprint'][:12]}, this is {pipeline.fingerprint[:12]}",
            "give the folder of that model with --model",
        )
    trials = open_trials(
        eeg or found_again(content["eeg"]["source"], here),
        pipeline,
        content["eeg"]["select"],
        images,
        content["eeg"].get("cap", "name"),
        reading=validated(FileReading, content["eeg"].get("reading", {})),
    )
    trials = _numbered(trials, [int(content["trial"])])
    eeg_NCT = trials.read([0])
    digest = sha256_array(eeg_NCT[0])
    if digest != content["eeg"]["sha256"]:
        raise DataError(
            f"{sidecar}: the EEG of trial {content['trial']} has SHA-256 {digest[:12]}, it was {content['eeg']['sha256'][:12]}",
            "give the store that the image was made from with --eeg",
        )
    # the same shape of batch: sums of another shape round differently
    size = int(content["batch"]["size"])
    generators = [generator_for(int(content["trial"]), int(content["seed"])) for _ in range(size)]
    image = render(
        pipeline, np.repeat(eeg_NCT, size, axis=0), generators, config, [trials.people[0]] * size if trials.people else None
    )[int(content["batch"]["row"])]
    target = (out or here) / f"{sidecar.stem}.replay.png"
    write_png(target, image, {"dreamdiff": sidecar.name, **origin_of(pipeline, content["model"]["path"], trials).notes()})
    return target, sha256_array(image) == content["image_sha256"]


def _sidecar_or_none(file: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("format") != "dreamdiff-image":
        return None
    known = content.get("version") == 1 or (content.get("version") == SIDECAR_VERSION and is_whole(content))
    return content if known else None


def contact_sheets(out: Path, trials: TrialSet, config: GenerateConfig, origin: PictureOrigin) -> list[Path]:
    """One row per trial: the image that was seen, if known, then the generated ones, with the label above; over all, their origin."""
    sheets = []
    for number, start in enumerate(range(0, len(trials), SHEET_ROWS)):
        rows = [_sheet_row(out, trials, position, config) for position in range(start, min(start + SHEET_ROWS, len(trials)))]
        file = out / ("contact-sheet.png" if number == 0 else f"contact-sheet-{number + 1}.png")
        write_png(file, np.concatenate([caption_strip(origin.sentence, rows[0].shape[1]), *rows]), origin.notes())
        sheets.append(file)
    return sheets


def _sheet_row(out: Path, trials: TrialSet, position: int, config: GenerateConfig) -> np.ndarray:
    cells = [] if trials.seen is None else [("seen", Image.fromarray(trials.seen([position], SHEET_CELL)[0]))]
    stem = f"trial-{int(trials.numbers[position]):06d}_seed-"
    for k in range(config.samples):
        with Image.open(out / f"{stem}{config.seed + k}.png") as image:
            cells.append(
                (f"seed {config.seed + k}", image.convert("RGB").resize((SHEET_CELL, SHEET_CELL), Image.Resampling.NEAREST))
            )
    gap, head = 4, 28
    row = Image.new("RGB", (len(cells) * (SHEET_CELL + gap) + gap, SHEET_CELL + head + gap), "white")
    draw = ImageDraw.Draw(row)
    title = f"{trials.names[position]}{': ' + str(trials.labels[position]) if trials.labels[position] else ''}"
    draw.text((gap, 2), title, fill="black")
    for column, (text, cell) in enumerate(cells):
        x = gap + column * (SHEET_CELL + gap)
        draw.text((x, 14), text, fill="grey")
        row.paste(cell, (x, head))
    return np.asarray(row)


def _need_space(out: Path, images: int, size: int) -> None:
    fix = "free disk space, generate fewer images, or choose another --out"
    require_free(out, images * size * size * 3, f"{images} images", fix)
