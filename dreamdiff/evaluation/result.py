"""Records of an evaluation and their JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamdiff.arrays import Array, Ints
from dreamdiff.certificates.records import Certificate
from dreamdiff.estimators.carriers import Carriers
from dreamdiff.evaluation.decoding_controls import DecodingControls
from dreamdiff.evaluation.generation_controls import GenerationControl
from dreamdiff.metrics.measurement import Measurement
from dreamdiff.pairs.audit import Audit

FORMAT, VERSION = "dreamdiff-evaluation", 1

SCHEMA = Path(__file__).parent / "templates" / "evaluate.schema.json"


# one evaluation


@dataclass(frozen=True)
class Material:
    """What the report shows besides numbers: images and scores of the evaluated trials."""

    truth_NHWC: Array
    images_NSHWC: Array
    labels_N: Ints
    classes: list[str]
    names_N: list[str]
    quality_N: Array
    judged_NSC: Array | None
    neighbours_NK: Ints | None
    gallery_GHWC: Array
    image_N: Ints
    person_N: Ints


@dataclass(frozen=True)
class BaselineResult:
    """A baseline, measured like the model on the same trials."""

    name: str
    told: str
    measurements: tuple[Measurement, ...]

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return {"name": self.name, "told": self.told, "measurements": [m.to_json() for m in self.measurements]}


@dataclass(frozen=True)
class Evaluation:
    """Everything an evaluation found."""

    identity: dict[str, Any]
    measurements: tuple[Measurement, ...]
    not_computed: dict[str, str]
    audit: Audit
    controls: DecodingControls | None
    generation: tuple[GenerationControl, ...]
    material: Material
    confusion: Array | None
    baselines: tuple[BaselineResult, ...] = ()
    certificate: Certificate | None = None
    predictions: dict[str, str] | None = None
    carriers: Carriers | None = None

    @property
    def first_line(self) -> str:
        """What to know before any number."""
        if self.controls is not None:
            return self.controls.sentence
        text = {
            "leaks": f"NOT EVIDENCE OF DECODING: {self.audit.leaks[0] if self.audit.leaks else ''}",
            "unknown": f"UNKNOWN whether this is decoding: {self.audit.unknown[0] if self.audit.unknown else ''}",
            "clean": "the audit of the split found no leak",
        }[self.audit.verdict]
        return f"{text}; controls were not run (--controls)"

    @property
    def second_line(self) -> str:
        """The part that earns the accuracy, then the strictest accuracy that was measured, which is the lowest, against its floor."""
        earns = "" if self.certificate is None else f"{self.certificate.sentence}. "
        accuracies = [
            m for m in self.measurements if m.name.endswith("-top-1") and m.unit == "share" and "retrieval" not in m.name
        ]
        if not accuracies:
            return f"{earns}The accuracy of the generated images was not measured: there was no classifier"
        m = min(accuracies, key=lambda measurement: measurement.value)
        says = "above" if m.above_floor else "not above"
        return (
            f"{earns}The generated images: {m.name} {m.value:.1%} {m.interval()}, {says} the {m.floor:.1%} of a guesser "
            f"without EEG (n = {m.n})"
        )

    def __getitem__(self, name: str) -> Measurement:
        for result in self.measurements:
            if result.name == name:
                return result
        raise KeyError(name)

    def figures(self) -> dict[str, Measurement]:
        """Every share outside the certificate, under the name that `certificates.check.stated_figures` gives it."""
        named = {m.name: m for m in self.measurements}
        for baseline in self.baselines:
            named |= {f"baselines/{baseline.name}/{m.name}": m for m in baseline.measurements}
        for control in self.generation:
            named |= {f"generation_controls/{control.name}/{m.name}": m for m in control.measurements}
        if self.controls is not None:
            named |= {f"decoders/{decoder.name}": decoder.measurement for decoder in self.controls.controls}
            named |= {f"time_distance/{part.near:g}-{part.far:g}": part.measurement for part in self.controls.distances}
        return {name: m for name, m in named.items() if m.unit == "share"}

    def to_json(self) -> dict[str, object]:
        """The content of report.json; see templates/evaluate.schema.json."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "first_line": self.first_line,
            "second_line": self.second_line,
            "identity": self.identity,
            "measurements": [m.to_json() for m in self.measurements],
            "not_computed": self.not_computed,
            "audit": self.audit.to_dict(),
            "controls": None if self.controls is None else self.controls.to_json(),
            "generation_controls": [g.to_json() for g in self.generation],
            "baselines": [b.to_json() for b in self.baselines],
            "certificate": None if self.certificate is None else self.certificate.to_json(),
            "predictions": self.predictions,
            "carriers": None if self.carriers is None else self.carriers.to_json(),
            "confusion": None
            if self.confusion is None
            else {"classes": self.material.classes, "rows": np.round(self.confusion, 6).tolist()},
        }
