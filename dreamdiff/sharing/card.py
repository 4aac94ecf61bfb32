"""The card of a model: what it read, under which licences, how it was trained, what it was measured to do, and what nobody measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamdiff.certificates.check import check_report
from dreamdiff.lineage.seen import Entry
from dreamdiff.sharing.models import LOADERS, Model
from eegprep.errors import DataError
from eegprep.provenance import installed
from eegprep.sealed import read_object
from eegprep.sharing.card import front_matter, licence_section, section, table
from eegprep.sharing.licences import Verdict

SHOWN = 12  # measurements of a report; the report itself is in the repository
TITLES = {
    "encoder": "EEG encoder, pre-trained by masked signal modelling", "aligned": "EEG to image vectors",
    "pipeline": "EEG to images, a fine-tuned Stable Diffusion",
}  # fmt: skip
TAGS = {"encoder": "feature-extraction", "aligned": "feature-extraction", "pipeline": "image-to-image"}


@dataclass(frozen=True)
class Report:
    """A report of the model that is published, whose every accuracy was computed again. folder: where it lies."""

    folder: Path
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its folder in the repository."""
        return f"reports/{self.folder.resolve().name}"


def read_reports(folders: Sequence[Path], model: Model) -> list[Report]:
    """Reports of `dreamdiff evaluate` and `retrieve`, checked.

    Raises:
        DataError: a report of another model, or one that does not hold up to `dreamdiff evaluate --check`.
    """
    reports = []
    for given in folders:
        folder = given if given.is_dir() else given.parent
        check_report(folder)
        content = read_object(folder / "report.json") or {}
        stated = (content.get("identity") or {}).get("model", {}).get("sha256")
        if stated != model.digest:
            raise DataError(
                f"{folder}: is a report of a model with weights {str(stated)[:12]}, and {model.name} has {model.digest[:12]}",
                "evaluate this model, or leave the report out",
            )
        reports.append(Report(folder, content))
    return reports


def model_card(model: Model, verdict: Verdict, reports: Sequence[Report], to: str) -> str:
    """README.md of the repository."""
    provenance = str(model.training.get("provenance") or "")
    simulated = provenance == "simulated" or any(
        (r.content["identity"]["pairs"]).get("provenance") == "simulated" for r in reports
    )
    head = front_matter(
        {
            "license": verdict.licence, "library_name": "eeg-dreamdiff", "pipeline_tag": TAGS[model.kind],
            "tags": ["eeg", "brain-decoding", "eeg-dreamdiff", *(["simulated-eeg"] if simulated else [])],
        }
    )  # fmt: skip
    warning = (
        "> **The EEG is simulated.** Numbers here say that the software works, and nothing about brains.\n" if simulated else ""
    )
    return "\n".join(
        [
            head, f"# {to.rsplit('/', maxsplit=1)[-1]}\n", f"{TITLES[model.kind]}. Made with eeg-dreamdiff {installed('eeg-dreamdiff').get('eeg-dreamdiff', '')}.\n",
            warning, section("Use", _use(model, to)), _data(model), licence_section(verdict), _protocol(model), _results(reports),
            _limits(model, reports),
            section("Files", "`manifest.json` names every file with size and SHA-256; loading compares them. Weights are safetensors."),
        ]
    )  # fmt: skip


def _use(model: Model, to: str) -> str:
    calls = {
        "encoder": "tokens = model(eeg_BCT)  # uV", "aligned": "vectors = model.encode(eeg_BCT)  # uV, rate and channels as in config.json",
        "pipeline": "images = model(eeg_NCT, num_inference_steps=20).images  # uV",
    }  # fmt: skip
    return f'```python\nimport dreamdiff\n\nmodel = dreamdiff.{LOADERS[model.kind]}.from_pretrained("{to}", revision="main")\n{calls[model.kind]}\n```'


def _data(model: Model) -> str:
    rows: list[dict[str, Any]] = []
    for entry in model.seen:
        rows += _rows_of(entry)
    return section("Data", "What training read, of all stages:", table(rows))


def _rows_of(entry: Entry) -> list[dict[str, Any]]:
    where, kind = str(entry.get("where", "")), str(entry.get("kind", "unknown"))
    if kind == "unknown":
        return [{"stage": "start", "store": where, "data set": "not recorded", "people": "", "recordings": ""}]
    stage = {"corpus": "pre-training", "pairs": "EEG-image pairs", "published": "published weights"}.get(kind, kind)
    sets: dict[str, list[Sequence[Any]]] = {}
    for row in entry.get("recordings", ()):
        sets.setdefault(str(row[0]), []).append(row)
    return [
        {
            "stage": stage, "store": where, "data set": name or "not named", "people": len({row[1] for row in own if row[1]}) or "",
            "recordings": len([row for row in own if row[2]]) or "",
        }
        for name, own in sets.items()
    ]  # fmt: skip


def _protocol(model: Model) -> str:
    facts = {key: value for key, value in model.training.items() if not isinstance(value, dict | list)}
    settings = json.dumps(model.run, indent=2, sort_keys=True, ensure_ascii=False) if model.run else ""
    return section(
        "Training", table([{"what": key, "value": value} for key, value in facts.items()]),
        f"<details><summary>All settings of the run</summary>\n\n```json\n{settings}\n```\n\n</details>" if settings else "",
    )  # fmt: skip


def _results(reports: Sequence[Report]) -> str:
    if not reports:
        return section("Results", "No evaluation is attached: nothing is claimed about what this model can decode.")
    return "\n".join(_result(report) for report in reports)


def _result(report: Report) -> str:
    content, identity = report.content, report.content["identity"]
    rows = []
    for m in content.get("measurements", ())[:SHOWN]:
        rows.append(
            {
                "measure": m["name"], "value": _figure(m["value"], m["unit"]), "95 % interval": f"{_figure(m['low'], m['unit'])} to {_figure(m['high'], m['unit'])}",
                "chance": _figure(m.get("floor"), m["unit"]), "n": m["n"],
            }
        )  # fmt: skip
    certificate = content.get("certificate") or {}
    measure = next(iter(certificate.get("measures", {})), "")
    parts = [
        {
            "part": row["name"], "accuracy": _figure(value["value"], "share"), "95 % interval": f"{_figure(value['low'], 'share')} to {_figure(value['high'], 'share')}",
            "what it is": row["description"],
        }
        for row in certificate.get("rows", ()) if (value := row.get("accuracy", {}).get(measure))
    ]  # fmt: skip
    more = len(content.get("measurements", ())) - SHOWN
    split, pairs = identity.get("split", {}), identity.get("pairs", {})
    return section(
        f"Results: {report.folder.resolve().name}",
        f"**{content.get('first_line', '')}**",
        f"{pairs.get('provenance', '')} EEG, split {split.get('name', '')}, {split.get('n_evaluated', '')} trials judged.",
        table(rows), f"{more} more in `{report.name}/report.json`." if more > 0 else "",
        "Certificate: which part earns it, on the same trials." if parts else "", table(parts),
        "\n".join(f"- {warning}" for warning in identity.get("warnings", ())),
        f"To compute every accuracy again from the predictions: `dreamdiff evaluate --check {report.name}`.",
    )  # fmt: skip


def _figure(value: Any, unit: str) -> str:
    if not isinstance(value, int | float):
        return ""
    return f"{value:.1%}" if unit == "share" else f"{value:.4g}"


def _limits(model: Model, reports: Sequence[Report]) -> str:
    lines = [
        "- It was trained on the people and the electrode cap named above; other caps, rates and people are untested unless a result says so.",
        "- It is a research artefact: no medical product, and no means to read thoughts.",
    ]
    if model.kind == "pipeline":
        lines.append(
            "- Pictures show what the generator draws for a condition, in its own style; look at the certificate before reading them as decoded."
        )
    people = model.config.get("people")
    if model.kind == "aligned" and people:
        lines.append(
            f"- It holds a map for each of {len(people)} people ({', '.join(people[:8])}{', ...' if len(people) > 8 else ''}); somebody new has none."
        )
    if not reports:
        lines.append("- Not evaluated.")
    return section("Limits", "\n".join(lines))
