"""Tables 1 and 2 of the paper as runs: each row a configuration, resumable, side by side with what the paper printed.

A row is pre-training (shared by all rows with the same mask ratio and size), fine-tuning, and evaluation on held-out trials. It is
done when its `row.json` is there with the fingerprint of its settings; run the same command again to do the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from dreamdiff.baselines.features import Problem
from dreamdiff.baselines.run import run_baseline
from dreamdiff.devices import choose_device, resolved_precision
from dreamdiff.diffusion.stable_diffusion import load_stable_diffusion
from dreamdiff.encoders.encoder import EEGEncoder, parameter_count
from dreamdiff.evaluation.evaluate import choose_trials, evaluate, make_scorer
from dreamdiff.evaluation.report import write_report
from dreamdiff.evaluation.result import Evaluation
from dreamdiff.evaluation.scorer import load_networks
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.prepare import finetune
from dreamdiff.metrics.measurement import Measurement, units
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
from dreamdiff.pretraining.pretrain import pretrain
from dreamdiff.programs.ablate_config import ROWS, TABLE2, AblateConfig, Row, Size, row_of
from dreamdiff.programs.label_input import label_pairs
from dreamdiff.programs.tables import (
    ACCURACY,
    RowResult,
    measured_names,
    order_of,
    table1_rows,
    table1_text,
    table2_text,
)
from dreamdiff.protocols.config import EvaluateConfig
from dreamdiff.protocols.frame import SIMULATED
from dreamdiff.simulation.simulate import simulate
from eegprep import atomic
from eegprep.corpus.export import from_arrays
from eegprep.errors import DataError, UsageError
from eegprep.pool import Budget, run_jobs
from eegprep.provenance import fingerprint
from eegprep.recording import ProgressCallback
from eegprep.sealed import read_sealed, write_sealed
from eegprep.settings import merge, resolve, validated

# where a row runs, not what it is
LEFT_OUT_OF_IDENTITY = {"workers", "scheduler", "device"}


# what stands for the printed sizes: the paper's own (see `encoder_preset`), and a family of the same order for one machine
PAPER_SIZES: dict[Size, str] = {"458": "w1280", "297": "paper", "162": "w768", "74": "w512", "18.3": "w256"}

SMALL_SIZES: dict[Size, Mapping[str, Any]] = {
    "458": {"width": 192, "depth": 4, "heads": 4, "mlp_ratio": 2.0},
    "297": {"width": 144, "depth": 4, "heads": 4, "mlp_ratio": 2.0},
    "162": {"width": 112, "depth": 4, "heads": 4, "mlp_ratio": 2.0},
    "74": {"width": 72, "depth": 4, "heads": 4, "mlp_ratio": 2.0},
    "18.3": {"width": 32, "depth": 4, "heads": 4, "mlp_ratio": 2.0},
}


@dataclass(frozen=True)
class Place:
    """Where a run of the table keeps its parts."""

    out: Path

    @property
    def pairs(self) -> Path:
        return self.out / "pairs.zarr"

    @property
    def store(self) -> Path:
        return self.out / "corpus.zarr"

    def pretrained(self, mask: float, size: Size) -> Path:
        return self.out / "pretrained" / f"mask-{mask:g}-size-{size}"

    def row(self, name: str) -> Path:
        return self.out / "rows" / name


def ablate(
    out: str | Path, rows: Sequence[str] = TABLE2, config: AblateConfig | None = None, *, progress: ProgressCallback | None = None
) -> list[RowResult]:
    """Run rows of Table 2 and write `table2.json` and `table2.md`; finished rows are kept.

    Args:
        rows: names from `ROWS`.

    Returns:
        The table in the order of `rows`.

    Raises:
        UsageError: an unknown row, or `out` holds rows of other settings.
    """
    config, place = config or AblateConfig(), Place(Path(out))
    table, config = _run_rows(place, rows, config, progress)
    content = {
        "rows": table,
        "order": [order_of(table, name) for name in measured_names(table)],
        "config": config.model_dump(mode="json"),
    }
    _write_table(place, 2, content, table2_text(table), config)
    return table


def _run_rows(
    place: Place, rows: Sequence[str], config: AblateConfig, progress: ProgressCallback | None
) -> tuple[list[RowResult], AblateConfig]:
    """The rows, those run that are not finished, and the configuration with the pairs and corpus that they read."""
    chosen = [row_of(name) for name in rows]
    _claim(place, config)
    config = prepare(place, config, progress)
    masks = sorted({(row.mask, row.size) for row in chosen if row.mask is not None})
    plain = config.model_dump()
    _run([Training("pre-training", _pretrain_job, (str(place.out), mask, size, plain)) for mask, size in masks], config, progress)
    left = [row for row in chosen if not _done(place, row, config)]
    _run([Training("row", _row_job, (str(place.out), row.name, plain)) for row in left], config, progress)
    return [_finished_row(place, row) for row in chosen], config


def _write_table(place: Place, number: int, content: Mapping[str, object], text: str, config: AblateConfig) -> None:
    """JSON and Markdown of a table; both say where the EEG comes from."""
    provenance = Pairs.open(str(config.pairs)).provenance
    atomic.write_json(place.out / f"table{number}.json", {**content, "provenance": provenance})
    atomic.write_text(place.out / f"table{number}.md", f"{SIMULATED}\n\n{text}" if provenance == "simulated" else text)


def prepare(place: Place, config: AblateConfig, progress: ProgressCallback | None) -> AblateConfig:
    """Pairs and corpus, simulated and cut from them where none are given."""
    if config.pairs is None:
        simulate(place.pairs, config.simulate, progress=progress)
        config = config.model_copy(update={"pairs": str(place.pairs)})
    if config.store is None and not (place.store / "zarr.json").is_file():
        _corpus_of(Pairs.open(str(config.pairs)), config, place.store)
    return config.model_copy(update={"store": config.store or str(place.store)})


def _corpus_of(pairs: Pairs, config: AblateConfig, out: Path) -> None:
    """The EEG of training trials, one subject each, without labels: what pre-training may see of this data set."""
    parts, _ = choose_trials(pairs, EvaluateConfig(split=config.split))
    subjects = [
        {"windows": pairs.eeg(parts["train"][pairs.person[parts["train"]] == number]), "subject": name}
        for number, name in enumerate(pairs.subjects)
        if (pairs.person[parts["train"]] == number).any()
    ]
    sfreq = float(pairs.attributes[pairs.subjects[0]].get("sfreq") or 512.0)
    # a folder that is not finished must not pass for the corpus in the next run
    partial = out.with_name(f".{out.name}.partial")
    from_arrays(partial, subjects, sfreq=sfreq, dataset="training-trials", licence=pairs.licence)
    atomic.publish_folder(partial, out)


def encoder_settings(row: Row, scale: str) -> Mapping[str, Any] | str:
    """The encoder of a row: a preset's name (paper), or its shape (small)."""
    if scale == "paper":
        return "shallow2" if row.shallow else PAPER_SIZES[row.size]
    shape = dict(SMALL_SIZES[row.size])
    if row.shallow:  # "two layers" of the large width (paper, section 4.4)
        shape = {**SMALL_SIZES["297"], "depth": 2, "mlp_ratio": 1.0}
    return shape


def pretrain_config(mask: float, size: Size, config: AblateConfig) -> PretrainConfig:
    """Masked signal modelling of one mask ratio and size."""
    extra = {"loop": _loop(config)}
    if config.scale == "paper":
        base = PRETRAIN_PRESETS[PAPER_SIZES[size]]
        return _merged(PretrainConfig, base, {"model": {"mask_ratio": mask}}, extra, _steps(config.pretrain_steps))
    model = {"encoder": SMALL_SIZES[size], "mask_ratio": mask}
    # at the 5e-3 of `tiny` the wider of these collapse to the mean of all windows; below 1e-3 hundreds of steps do not leave it
    optim = {"optim": {"lr": 2e-3}}
    return _merged(PretrainConfig, PRETRAIN_PRESETS["tiny"], {"model": model}, optim, extra, _steps(config.pretrain_steps))


def finetune_config(row: Row, config: AblateConfig) -> FinetuneConfig:
    """Fine-tuning of a row: the paper's losses and what they train, switched off where the row says so."""
    base: list[Mapping[str, Any]] = [
        FINETUNE_PRESETS["paper"],
        {"loop": _loop(config), "validation": {"preview_trials": 0, "select": "loss"}},
    ]
    if config.scale == "small":
        # ours: hundreds of steps have to do for the paper's 500 epochs, so they are many and large; h reads tau(y), as the paper's
        # section 3.3 has it, which brings L_clip to the tokens; and guidance makes up for a U-Net that has just begun to respond
        base.append(
            {
                "data": {"batch_size": 8},
                "what": {"clip_from": "tau"},
                "losses": {"guidance_dropout": 0.1, "guidance": 3.0},
                "optim": {"lr": 1e-3, "clip": 1.0},
            }
        )
    if config.finetune_epochs is not None:
        base.append({"loop": {"epochs": config.finetune_epochs}})
    switches: dict[str, object] = {"split": config.split.rpartition("/")[0] or "default"}
    switches["train_encoder"] = row.tuned != "A only"
    if row.tuned == "E only":
        switches["trains"] = "none"
    if not row.clip:
        switches |= {"w_clip": 0.0, "w_contrastive": 0.0}
    if row.labels:
        switches["w_class"] = 1.0
    merged = _merged(FinetuneConfig, *base).model_dump()
    return resolve(FinetuneConfig, base=merged, assignments=config.finetune, options=switches)


def _pretrain_job(out: str, mask: float, size: Size, plain: Mapping[str, Any]) -> None:
    config, place = validated(AblateConfig, plain), Place(Path(out))
    torch.set_num_threads(1)
    pretrain(str(config.store), place.pretrained(mask, size), pretrain_config(mask, size, config))


def _row_job(out: str, name: str, plain: Mapping[str, Any]) -> None:
    """Fine-tune and evaluate one row, and write its `row.json` last."""
    config, place, row = validated(AblateConfig, plain), Place(Path(out)), ROWS[name]
    torch.set_num_threads(1)
    folder = place.row(name)
    encoder = _encoder_of(row, config, place)
    run = folder / "finetuned"
    if row.label_input:
        config = config.model_copy(update={"pairs": str(label_pairs(Pairs.open(str(config.pairs)), folder / "pairs.zarr"))})
    finetune(str(config.pairs), encoder, config.sd, config.clip, run, finetune_config(row, config), offline=True)
    result = evaluate(run, str(config.pairs), folder / "evaluation", evaluate_config(config))
    write_report(result, folder / "evaluation" / "report.html")
    write_sealed(
        folder / "row.json",
        _row_result(row, config, result, parameter_count(EEGEncoder.from_pretrained(run / "pipeline" / "encoder"))),
    )


def _encoder_of(row: Row, config: AblateConfig, place: Place) -> str:
    """The pre-trained run of a row, or a fresh encoder of the same shape, written once."""
    if row.mask is not None:
        return str(place.pretrained(row.mask, row.size))
    shape = encoder_settings(row, config.scale)
    if isinstance(shape, str):
        return f"random:{shape}"
    folder = place.row(row.name) / "encoder"
    if not (folder / "config.json").is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            tiny = pretrain_config(0.75, row.size, config).model.encoder
            encoder = EEGEncoder(tiny.model_copy(update=shape))
        encoder.save_pretrained(folder)
    return str(folder)


def evaluate_config(config: AblateConfig) -> EvaluateConfig:
    """The same evaluation for all rows."""
    return EvaluateConfig(
        split=config.split, samples=config.samples, trials=config.trials, steps=config.steps, seed=0, classifier=config.classifier,
        inception=config.inception, lpips=config.lpips, device=config.device,
        precision=resolved_precision(config.precision, choose_device(config.device)),
    )  # fmt: skip


def _row_result(row: Row, config: AblateConfig, evaluation: Evaluation, parameters: int) -> RowResult:
    names = [m.name for m in evaluation.measurements]
    stricter = next((name for name in names if "-centroid-top-1" in name), None) or next(
        (n for n in names if "-shown-top-1" in n), None
    )
    shown = [ACCURACY, *([stricter] if stricter else [])]
    return {
        "row": row.name, "msm": row.mask is not None, "clip": row.clip, "mask": row.mask, "tuned": row.tuned,
        "params_paper": f"{row.size} M", "params": parameters, "paper": row.paper, "fingerprint": _identity(row, config),
        "measured": {name: evaluation[name].to_json() for name in shown if name in names},
        "values": {name: [round(float(v), 6) for v in evaluation[name].values_N] for name in shown if name in names},
        "groups": units(evaluation.material.labels_N, evaluation.material.person_N, evaluation.material.image_N).tolist(),
        "first_line": evaluation.first_line, "measurements": [m.to_json() for m in evaluation.measurements],
    }  # fmt: skip


# Table 1


def table1(
    out: str | Path, config: AblateConfig | None = None, *, progress: ProgressCallback | None = None
) -> list[dict[str, object]]:
    """Table 1's columns: the full model (row `full`) beside the two forms of Brain2Image, on the same trials; `table1.json`, `.md`."""
    config, place = config or AblateConfig(), Place(Path(out))
    (full,), config = _run_rows(place, ["full"], config, progress)  # not `ablate`, which would leave a Table 2 of one row
    store = Pairs.open(str(config.pairs))
    judging = evaluate_config(config)
    parts, chosen = choose_trials(store, judging)
    sd = load_stable_diffusion(config.sd, offline=True)
    size = sd.image_size
    systems: dict[str, Sequence[Mapping[str, Any]]] = {"DreamDiffusion": full["measurements"]}
    trials: dict[str, Mapping[str, Any]] = {}
    scorer = None
    for kind in ("vae", "gan"):
        file = place.out / "baselines" / f"brain2image-{kind}.json"
        key = fingerprint({"kind": kind, "config": _shared(config), "pairs": store.content_sha256})
        kept = read_sealed(file) or {}
        if kept.get("fingerprint") != key or "trials" not in kept:
            scorer = scorer or make_scorer(store, parts["train"], chosen, size, load_networks(judging, None), judging)
            problem = Problem(store, parts["train"], chosen, size, samples=config.samples, seed=config.seed)
            made = run_baseline(
                f"brain2image-{kind}", problem, generator=None, clip=None, epochs=config.baseline_epochs,
                device=choose_device(config.device), progress=progress,
            )  # fmt: skip
            result = scorer.measure(made.images_NSHWC)
            kept = {
                "fingerprint": key,
                "told": made.told,
                "measurements": [m.to_json() for m in result],
                "trials": {m.name: trials_of(m) for m in result if m.unit == "share"},
            }
            write_sealed(file, kept)
        systems[f"Brain2Image-{kind.upper()}"] = kept["measurements"]
        trials[f"Brain2Image-{kind.upper()}"] = kept.get("trials", {})
    table = table1_rows(systems)
    _write_table(place, 1, {"rows": table, "systems": systems, "trials": trials}, table1_text(table), config)
    return table


def trials_of(m: Measurement) -> dict[str, object]:
    """Values of single trials of a share, and which of them are resampled together, so that `dreamdiff evaluate --check` can make it again."""
    return {"values": m.values_N.tolist(), "groups": None if m.groups_N is None else m.groups_N.tolist()}


# running


@dataclass(frozen=True)
class Training:
    """One training for the pool: `work` with its arguments, the first of them the folder, the second what names the job."""

    what: str
    work: Callable[..., None]
    arguments: tuple[Any, ...]
    bytes: int = 0  # all jobs read the same pairs, so none has to begin before another
    memory: int = 0  # there is no --max-memory here

    @property
    def name(self) -> str:
        return f"{self.what}: {self.arguments[1]}"

    def run(self) -> None:
        self.work(*self.arguments)


def _run(jobs: Sequence[Training], config: AblateConfig, progress: ProgressCallback | None) -> None:
    """All jobs, on a Dask cluster, in processes of their own, or here."""
    threads = torch.get_num_threads()
    run_jobs(jobs, Budget(config.workers, config.scheduler), progress)
    torch.set_num_threads(threads)  # a job that ran in this process takes one


def _claim(place: Place, config: AblateConfig) -> None:
    """Rows of one folder must be comparable: same data, same lengths."""
    file = place.out / "ablate.json"
    expected = _shared(config)
    if file.is_file():
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise UsageError(f"{file}: damaged", "remove it if the rows beside it have the settings of this command")
        if content != expected:
            different = sorted(k for k in expected if content.get(k) != expected[k])
            raise UsageError(
                f"{place.out}: holds rows of other settings ({', '.join(different)}: {content.get(different[0])!r} there, {expected[different[0]]!r} now)",
                "choose another --out, or the settings of the first run",
            )
    else:
        atomic.write_json(file, expected)


def _shared(config: AblateConfig) -> dict[str, object]:
    plain: dict[str, Any] = json.loads(config.model_dump_json(exclude=LEFT_OUT_OF_IDENTITY))
    if plain["pairs"] is not None:
        # by name: the folder may move, and the content is in the fingerprint of each row
        plain["pairs"] = Path(plain["pairs"]).name
    plain["store"] = None if plain["store"] is None else Path(plain["store"]).name
    return plain


def _identity(row: Row, config: AblateConfig) -> str:
    content = None if config.pairs is None else Pairs.open(str(config.pairs)).content_sha256
    return fingerprint({"row": {k: v for k, v in vars(row).items() if k != "paper"}, "config": _shared(config), "pairs": content})


def _done(place: Place, row: Row, config: AblateConfig) -> bool:
    content = read_sealed(place.row(row.name) / "row.json")
    return content is not None and content.get("fingerprint") == _identity(row, config)


def _finished_row(place: Place, row: Row) -> RowResult:
    content = read_sealed(place.row(row.name) / "row.json")
    if content is None:
        raise DataError(f"{place.row(row.name)}: its row.json is gone or altered", "run the same command again")
    return cast(RowResult, content)


def _loop(config: AblateConfig) -> dict[str, object]:
    return {"seed": config.seed, "tracker": "none", "device": config.device, "precision": config.precision}


def _steps(steps: int | None) -> dict[str, object]:
    # so many epochs that the number of steps decides
    return {} if steps is None else {"loop": {"max_steps": steps, "epochs": 1_000_000}}


def _merged(schema: Any, *parts: Mapping[str, Any]) -> Any:
    merged: dict[str, Any] = {}
    for part in parts:
        merge(merged, part)
    return validated(schema, merged)
