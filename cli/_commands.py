"""Registers the commands: importing a command file adds its command to the app."""

from __future__ import annotations

from importlib import import_module

from . import settings, version  # noqa: F401

CORPUS = (
    "build",
    "datasets",
    "doctor",
    "export",
    "fetch",
    "filter",
    "inspect",
    "merge",
    "pad",
    "report",
    "verify",
)
MODEL = (
    "ablate",
    "app",
    "convert",
    "demo",
    "doctor",
    "evaluate",
    "generate",
    "pairs_audit",
    "pairs_import",
    "pairs_simulate",
    "probe",
    "train_finetune",
    "train_msm",
)

ALIGNMENT = ("adapt", "retrieve", "train_align")

PAIRS = ("fetch", "table")

SHARING = ("push",)

for _room, _names in (("corpus", CORPUS), ("model", MODEL), ("alignment", ALIGNMENT), ("pairs", PAIRS), ("sharing", SHARING)):
    for _name in _names:
        import_module(f"{__package__}.{_room}.{_name}")
