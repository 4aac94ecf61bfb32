"""Masked-signal pre-training on the EEG of pairs, without their labels and pictures: training trials behind the front end as a corpus.

An encoder that will read whitened stretches of trials has to be pre-trained on such stretches; one that saw raw windows at another
rate starts from little.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dreamdiff.alignment.config import FrontChoice
from dreamdiff.alignment.data import fit_front, front_config, front_end_of, person_numbers
from dreamdiff.alignment.prepare import DEFAULT_RATE
from dreamdiff.encoders.frontend import FrontEnd, FrontEndConfig
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
from dreamdiff.pretraining.pretrain import pretrain
from dreamdiff.training.task import FitResult
from eegprep.atomic import partial_path, publish_folder
from eegprep.corpus.export import from_arrays
from eegprep.recording import ProgressCallback
from eegprep.settings import resolve, validated

WINDOWS = "windows.zarr"


def windows_of_pairs(
    pairs: str | Path | Pairs, out: str | Path, config: PretrainConfig, *, choice: FrontChoice | None = None,
    split: str = "default", progress: ProgressCallback | None = None,
) -> tuple[Path, PretrainConfig]:  # fmt: skip
    """The training trials of everybody as a corpus beside the run folder `out`, and `config` with an encoder that reads them."""
    store = pairs if isinstance(pairs, Pairs) else Pairs.open(pairs)
    windows = Path(out).with_name(f"{Path(out).name}.{WINDOWS}")
    front = unlabelled_corpus(
        store, windows, choice or FrontChoice(), patch=config.model.encoder.patch, split=split, progress=progress
    )
    shape = {"channels": front.channels, "window": front.window, "scaling": "none"}
    plain = config.model_dump()
    plain["model"]["encoder"] |= shape
    return windows, validated(PretrainConfig, plain)


def pretrain_on_pairs(
    pairs: str | Path | Pairs, out: str | Path, config: PretrainConfig | None = None, *,
    progress: ProgressCallback | None = None,
) -> FitResult:  # fmt: skip
    """Pre-train on the training trials of everybody in a store; run again to continue.

    Args:
        out: run folder. config: default the preset `trials`.
    """
    config = config or resolve(PretrainConfig, presets=PRETRAIN_PRESETS, preset="trials")
    windows, fitted = windows_of_pairs(pairs, out, config, progress=progress)
    return pretrain(windows, out, fitted, progress=progress)


def unlabelled_corpus(
    pairs: Pairs, out: Path, choice: FrontChoice, *, patch: int, split: str = "default", progress: ProgressCallback | None = None
) -> FrontEndConfig:
    """Write the training trials behind the front end as a corpus, one subject a person; a finished one is left alone."""
    config = front_config(pairs, choice, rate=DEFAULT_RATE, patch=patch)
    # it was renamed into place when whole, and holds nothing that a second run would change
    if out.is_dir():
        return config
    train = pairs.parts(split)["train"]
    people = tuple(name for number, name in enumerate(pairs.subjects) if (pairs.person[train] == number).any())
    front = FrontEnd(config, people)
    fit_front(front, pairs, train)
    person = person_numbers(pairs, people)
    subjects = []
    for number, name in enumerate(people):
        if progress:
            progress(number, len(people), f"trials of {name}")
        own = train[person[train] == number]
        subjects.append({"windows": front_end_of(pairs, own, front, person).numpy(), "subject": name})
    partial = partial_path(out)
    shutil.rmtree(partial, ignore_errors=True)
    from_arrays(partial, subjects, sfreq=config.rate, dataset="trials", licence=pairs.licence, pad_to=config.channels)
    publish_folder(partial, out)
    return config
