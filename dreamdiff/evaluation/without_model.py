"""Baselines by themselves: trained and measured on the pairs of a split, with no model of ours beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamdiff.baselines.features import Problem
from dreamdiff.baselines.published import PUBLISHED
from dreamdiff.baselines.run import chosen_baselines
from dreamdiff.devices import choose_device, used
from dreamdiff.evaluation.evaluate import choose_trials, frozen_generator, make_scorer, measure_baselines
from dreamdiff.evaluation.result import BaselineResult
from dreamdiff.evaluation.scorer import load_networks
from dreamdiff.origin import portable_settings
from dreamdiff.pairs.audit import Audit
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.config import EvaluateConfig
from dreamdiff.protocols.frame import not_computed, pairs_identity, report_page
from eegprep.provenance import software_versions
from eegprep.recording import ProgressCallback
from eegprep.sealed import write_sealed

FORMAT, VERSION = "dreamdiff-baselines", 1
PAGE = "report.html"
SIZE = 64  # pixels, where there is no generator that says


@dataclass(frozen=True)
class Baselines:
    """What baselines reached on one split."""

    identity: Mapping[str, Any]
    results: tuple[BaselineResult, ...]
    not_computed: dict[str, str]
    audit: Audit

    @property
    def first_line(self) -> str:
        """What the audit says of the split, before any number."""
        return {
            "leaks": f"NOT EVIDENCE OF DECODING: {self.audit.leaks[0] if self.audit.leaks else ''}",
            "unknown": f"UNKNOWN whether this is decoding: {self.audit.unknown[0] if self.audit.unknown else ''}",
            "clean": "the audit of the split found no leak",
        }[self.audit.verdict]

    def table(self) -> list[dict[str, object]]:
        """One row per number of every baseline."""
        return [
            {"baseline": result.name, "name": m.name, "value": m.value, "interval": m.between(), "floor": m.floor, "n": m.n, "protocol": m.protocol}
            for result in self.results
            for m in result.measurements
        ]  # fmt: skip

    def to_json(self) -> Mapping[str, object]:
        """The content of report.json."""
        return {
            "format": FORMAT, "version": VERSION, "first_line": self.first_line, "identity": self.identity,
            "baselines": [result.to_json() for result in self.results], "not_computed": self.not_computed, "audit": self.audit.to_dict(),
        }  # fmt: skip


def evaluate_baselines(
    names: tuple[str, ...], pairs: str | Path, out: Path, config: EvaluateConfig | None = None, *, images: Path | None = None,
    progress: ProgressCallback | None = None,
) -> Baselines:  # fmt: skip
    """Train baselines on the training trials of a split, measure them on another part, and write report.json and report.html.

    Args:
        names: of `baselines.run.NAMES`, or `all`.

    Raises:
        UsageError: unknown name. DataError: the part holds no trials.
    """
    config = config or EvaluateConfig()
    names = chosen_baselines(names)
    store = Pairs.open(pairs, images=images)
    parts, chosen = choose_trials(store, config)
    networks = load_networks(config, None)
    device = choose_device(config.device)
    source = "embedded" if config.sd == "auto" else config.sd
    generator, problem = frozen_generator(source, networks.clip, device)
    size = SIZE if generator is None else generator.sd.image_size
    scorer = make_scorer(store, parts["train"], chosen, size, networks, config)
    if problem:
        scorer.not_computed["frozen generator"] = problem
    trials = Problem(store, parts["train"], chosen, size, samples=config.samples, seed=config.seed, steps=config.steps)
    results = measure_baselines(names, trials, scorer, generator, config, device, progress)
    identity = {
        "pairs": pairs_identity(store, out),
        "split": {"name": config.split, "n_train": len(parts["train"]), "n_evaluated": len(chosen)}, "generator": source,
        "networks": networks.files, "config": portable_settings(config.model_dump(mode="json"), out), **used(device, config.precision),
        "software": software_versions(),
    }  # fmt: skip
    report = store.audit(config.split.rpartition("/")[0] or "default", parts=(parts["train"], chosen))
    result = Baselines(identity, tuple(results), scorer.not_computed, report)
    out.mkdir(parents=True, exist_ok=True)
    write_sealed(out / "report.json", result.to_json())
    _write_page(out / PAGE, result, names, store)
    return result


def _write_page(file: Path, result: Baselines, names: tuple[str, ...], store: Pairs) -> None:
    page = report_page("Baselines on the same trials", result.first_line, store.provenance)
    split = result.identity["split"]
    page.text(
        f"Trained on {split['n_train']} trials, judged on {split['n_evaluated']} of split {split['name']}, seed {result.identity['config']['seed']}. "
        "The printed figures are of other data and other protocols: they say what each system is known for, not what it should reach here."
    )
    page.table([{"baseline": name, "printed elsewhere": PUBLISHED.get(name, "none")} for name in names])
    rows = [
        {**row, "value": _shown(row["value"]), "floor": "" if row["floor"] is None else _shown(row["floor"])}
        for row in result.table()
    ]
    page.heading("Measured here")
    page.table(rows)
    not_computed(page, result.not_computed)
    page.write(file)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
