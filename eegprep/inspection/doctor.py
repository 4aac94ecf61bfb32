"""What is wrong with this installation, before it costs a night: versions, foreign packages, folders, and a loader that is tried.

Opens no socket and writes only into a temporary folder.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from packaging.requirements import Requirement

from eegprep.catalogue import moabb as catalogue
from eegprep.folders import default_data_dir, free_bytes
from eegprep.inspection.loader_check import check_reader
from eegprep.provenance import installed_version
from eegprep.signals.filters import band_pass

DISTRIBUTION = "eeg-dreamdiff"

PATIENCE_S = 60.0  # a reader that has not answered by then hangs

REINSTALL = "reinstall into a new environment; if it stays, report it with this output"

# what MOABB's classes and MNE's readers want beyond their own requirements, and for what
OPTIONAL_MODULES = {
    "curryreader": "Wu2020, Curry files",
    "mffpy": "EGI .mff files",
    "antio": "ANT Neuro .cnt files",
    "distributed": "build --scheduler (Dask)",
}

OPTIONAL_PROGRAMS = {("unrar", "unar", "7z", "7zz", "bsdtar"): "RAR archives: Rozado2015, Zhang2017, Lenaig2026"}


@dataclass(frozen=True)
class Check:
    """One line of the report. `failed` makes the command fail, `warning` does not."""

    name: str
    state: Literal["ok", "warning", "failed"]
    found: str
    fix: str = ""


def examine(data_dir: Path | None = None, *, requirements: Iterable[str] | None = None) -> list[Check]:
    """All checks, in the order in which a person would ask.

    Args:
        data_dir: where MOABB's data sets lie.
        requirements: requirement strings; those of the installed distribution when left out.
    """
    return [
        _system(),
        *_packages(requirements),
        _foreign(),
        _catalogue(),
        _data_folder(data_dir or default_data_dir()),
        _offline(),
        _threads(),
        *_optional(),
        _filter(),
        *_loader(),
    ]


def _system() -> Check:
    return Check(
        "system", "ok", f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {sys.executable}"
    )


def _packages(requirements: Iterable[str] | None) -> list[Check]:
    """The distribution, and each requirement with the version that is there against the one that is needed."""
    if requirements is None:
        try:
            requirements = metadata.requires(DISTRIBUTION) or []
        except metadata.PackageNotFoundError:
            return [Check(DISTRIBUTION, "failed", "it is not installed, only imported from a folder", "pip install -e .")]
    checks = [Check(DISTRIBUTION, "ok", installed_version(DISTRIBUTION) or "from a folder")]
    for text in requirements:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        present = installed_version(needed.name)
        if present is None:
            checks.append(Check(needed.name, "failed", f"not installed (needs {needed.specifier})", f"pip install '{text}'"))
        elif not needed.specifier.contains(present, prereleases=True):
            checks.append(Check(needed.name, "failed", f"{present} (needs {needed.specifier})", f"pip install '{text}'"))
        else:
            checks.append(Check(needed.name, "ok", present))
    return checks


def _foreign() -> Check:
    """Another distribution owns the import name `eegprep`: whichever was installed last wins, silently."""
    other, here = installed_version("eegprep"), Path(__file__).resolve().parents[1]
    if other:
        return Check(
            "foreign eegprep",
            "failed",
            f"the distribution 'eegprep' {other} is installed as well; Python now imports {here}",
            f"pip uninstall eegprep, then pip install --force-reinstall --no-deps {DISTRIBUTION}",
        )
    return Check("foreign eegprep", "ok", f"none; imported from {here}")


def _catalogue() -> Check:
    try:
        entries = catalogue.entries()
    except Exception as error:  # whatever importing MOABB raises here is the answer
        return Check("catalogue", "failed", f"MOABB cannot be read: {type(error).__name__}: {error}", "pip install -U moabb")
    return Check("catalogue", "ok", f"{len(entries)} data sets of MOABB {catalogue.moabb_version()}")


def _data_folder(folder: Path) -> Check:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = catalogue.format_bytes(free_bytes(folder))
    if not os.access(existing, os.W_OK):
        return Check(
            "data folder", "warning", f"{folder} cannot be written, {free} free", "set MNE_DATA or --data-dir to download"
        )
    return Check("data folder", "ok", f"{folder}{'' if folder.exists() else ' (not there yet)'}, {free} free")


def _offline() -> Check:
    names = ("MOABB_DOWNLOAD_PROVIDER", "EEGPREP_MIRRORS", "HTTPS_PROXY", "https_proxy", "REQUESTS_CA_BUNDLE", "HF_HUB_OFFLINE")
    # a proxy's address may hold a password
    present = [f"{name}={re.sub(r'//[^/@]*@', '//***@', os.environ[name])}" for name in names if os.environ.get(name)]
    return Check("network", "ok", ", ".join(present) or "no proxy, mirror or offline variable is set; nothing was asked for here")


def _threads() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("processors", "ok", f"{cores} usable; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")


def _optional() -> list[Check]:
    checks = [
        Check(name, "ok", installed_version(name) or "installed")
        if find_spec(name)
        else Check(name, "warning", f"not installed; needed for {what}", f"pip install {name}")
        for name, what in OPTIONAL_MODULES.items()
    ]
    for programs, what in OPTIONAL_PROGRAMS.items():
        there = [name for name in programs if shutil.which(name)]
        fix = "" if there else f"install one of: {', '.join(programs)}"
        checks.append(Check("unpacker", "ok" if there else "warning", ", ".join(there) or f"none; needed for {what}", fix))
    return checks


def _filter() -> Check:
    """A 20 Hz rhythm must pass a 5-95 Hz filter unmoved, slow drift must not."""
    time_T = np.arange(2560) / 256.0
    rhythm_T, drift_T = np.sin(2 * np.pi * 20 * time_T), 50 * np.sin(2 * np.pi * 0.2 * time_T)
    try:
        out_T = band_pass((rhythm_T + drift_T)[None].astype(np.float32), 256.0, 5.0, 95.0)[0]
    except Exception as error:  # a broken installation breaks in any way
        return Check("filter self-test", "failed", f"{type(error).__name__}: {error}", REINSTALL)
    wrong = float(np.abs(out_T - rhythm_T)[512:-512].max())
    if not wrong < 0.05:
        return Check("filter self-test", "failed", f"a 20 Hz rhythm of 1 uV came out {wrong:.3g} uV wrong", REINSTALL)
    return Check("filter self-test", "ok", f"a 20 Hz rhythm of 1 uV comes out within {wrong:.1g} uV")


def _loader() -> list[Check]:
    """Read a small corpus in threads and in processes of every kind; none may hang."""
    try:
        tried = check_reader(PATIENCE_S)
    except Exception as error:  # a broken installation breaks in any way
        return [Check("loader self-test", "failed", f"{type(error).__name__}: {error}", REINSTALL)]
    return [
        Check(f"loader, {one.name}", "ok", one.detail)
        if one.ok
        else Check(f"loader, {one.name}", "failed", one.detail, REINSTALL)
        for one in tried
    ]
