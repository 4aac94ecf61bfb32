"""Lists of sources: which data sets, which people, under which licence, and how many windows of each.

A manifest is a TOML file::

    title = "Sample"
    description = "what it is for"
    target_windows = 120000             # optional: a balanced draw over people, see `balanced_caps`
    seed = 0                            # of that draw

    [[source]]
    spec = "files:sample/*.edf"         # or "moabb:PhysionetMI", "openneuro:ds003825", "nemar:nm000232", "bids:ROOT"; paths are relative to the manifest
    dataset = "PhysionetMI"             # group name in the store; default: class name, or the folder's name
    subjects = "1-10,12"                # optional; a list of ids is right as well
    files = ["a.edf", "b.edf"]          # files: only, and optional; names inside the folder of the spec
    scale = 1e-6                        # optional: values are multiplied by this, and a finding says so
    bad = "reject"                      # optional: stretches marked BAD are taken as not recorded (default: "keep")
    sfreq = 250                         # optional, as are unit = "uV" and channel_names = ["Fp1", ...]: of files that do not say
    pattern = 'S(?P<subject>\\d+)R(?P<run>\\d+)'   # files: only; named groups subject, session, run of the file name
    subject_pattern = '^[^_]+'          # files: only; what it matches (its first group) is the person
    session_pattern = 'ses(\\d+)'       # files: only; the same of the session
    options = { imagined = true }       # moabb: constructor arguments of the class; nemar: { copy = "originals" } or { copy = "ranges" }
    person_family = "PhysionetMI"       # people of one family with the same id are one person; default: from the catalogue
    licence = "ODC-By-1.0"              # for files: and bids:; MOABB's classes declare theirs
    doi = "10.13026/C28G6P"
    citation = "..."
    max_per_subject = 237               # optional
    sha256 = { "a.edf" = "..." }        # optional: what a file must be; lock files have it

    [recipe]                            # optional: settings of the recipe, below what the command line says
    [software]                          # optional: versions that made a lock file
"""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from eegprep import patterns
from eegprep.atomic import write_text
from eegprep.catalogue import licences
from eegprep.catalogue import moabb as catalogue
from eegprep.catalogue.paths import bare_sources, data_set_name, is_bare
from eegprep.catalogue.subjects import parse_subjects, subject_tokens
from eegprep.errors import SourceError, UsageError
from eegprep.folders import fixed_part, is_there
from eegprep.readers.content import Reading, uv_of
from eegprep.settings import Settings, read_toml, suggest, validated

Kind = Literal["moabb", "bids", "files", "openneuro", "nemar"]
MANIFEST_ENDINGS = (".toml", ".lock")

KINDS: tuple[str, ...] = get_args(Kind)
# data sets by id: form of the id, and what it looks like
ARCHIVES = {"openneuro": (r"ds\d{6}", "ds003825"), "nemar": (r"(nm|on|ds)\d{6}", "nm000232")}


class Source(Settings):
    """One `[[source]]` of a manifest, or a SOURCE of the command line."""

    kind: Kind
    target: str  # MOABB class name, id in an archive, BIDS root, or glob; paths are absolute once loaded
    dataset: str
    subjects: tuple[str, ...] | None = None  # of local sources: ids and ranges, resolved when the ids are known
    files: tuple[str, ...] = ()  # names inside the folder `target`, where only some are meant
    pattern: str = ""
    subject_pattern: str = ""
    session_pattern: str = ""
    options: dict[str, object] = Field(default_factory=dict)
    scale: float | None = Field(default=None, gt=0)
    bad: Literal["keep", "reject"] = "keep"
    sfreq: float | None = Field(default=None, gt=0)
    unit: str = ""
    channel_names: tuple[str, ...] = ()
    person_family: str = ""
    licence: str = ""
    doi: str = ""
    citation: str = ""
    max_per_subject: int | None = Field(default=None, ge=1)
    sha256: dict[str, str] = Field(default_factory=dict)

    @property
    def spec(self) -> str:
        """`kind:target`."""
        return f"{self.kind}:{self.target}"

    @property
    def reading(self) -> Reading:
        """What a person says of its files."""
        return Reading(self.bad, self.sfreq, self.unit, self.channel_names)


class Manifest(Settings):
    """A loaded manifest."""

    title: str = ""
    description: str = ""
    target_windows: int | None = Field(default=None, ge=1)
    seed: int = 0
    sources: tuple[Source, ...] = ()
    recipe: dict[str, object] = Field(default_factory=dict)
    software: dict[str, str] = Field(default_factory=dict)


class _SourceFile(Settings):
    """A `[[source]]` table as it is written."""

    spec: str
    dataset: str = ""
    subjects: str | int | list[str | int] | None = None
    files: list[str] = Field(default_factory=list)
    pattern: str = ""
    subject_pattern: str = ""
    session_pattern: str = ""
    options: dict[str, object] = Field(default_factory=dict)
    scale: float | None = Field(default=None, gt=0)
    bad: Literal["keep", "reject"] = "keep"
    sfreq: float | None = Field(default=None, gt=0)
    unit: str = ""
    channel_names: list[str] = Field(default_factory=list)
    person_family: str = ""
    licence: str = ""
    doi: str = ""
    citation: str = ""
    max_per_subject: int | None = Field(default=None, ge=1)
    sha256: dict[str, str] = Field(default_factory=dict)


class _ManifestFile(Settings):
    """A manifest as it is written."""

    title: str = ""
    description: str = ""
    target_windows: int | None = Field(default=None, ge=1)
    seed: int = 0
    source: list[_SourceFile] = Field(default_factory=list)
    recipe: dict[str, object] = Field(default_factory=dict)
    software: dict[str, str] = Field(default_factory=dict)


def load(names: str | Path | Sequence[str | Path], root: Path | None = None) -> Manifest:
    """Manifest files (a path, or the name of a shipped one) and SOURCE strings, joined in the order given.

    Title, target and recipe are those of the first manifest that has any. Relative paths in SOURCE strings start at `root`
    (default: the current folder), those in a manifest at the manifest's folder.

    Raises:
        SourceError: no such file, folder or manifest.
        UsageError: an unknown key, kind, data set or subject, or the same data set name for two sources.
    """
    listed = [names] if isinstance(names, str | Path) else list(names)
    if not listed:
        raise UsageError("no source was given", f"name a manifest ({', '.join(shipped())}), or for instance moabb:PhysionetMI")
    root = root or Path.cwd()
    # a shell turns `*.edf` into names: together they are one source
    bare = [str(name) for name in listed if is_path(str(name), root)]
    parts = []
    for name in (str(item) for item in listed):
        if name not in bare:
            parts.append(_load_one(name, root))
        elif name == bare[0]:  # files that are named one by one are one source, where the first of them stands
            parts.append(
                Manifest(sources=tuple(_source(validated(_SourceFile, table), root) for table in bare_sources(bare, root)))
            )
    merged = Manifest(
        title=next((p.title for p in parts if p.title), ""),
        description=next((p.description for p in parts if p.description), ""),
        target_windows=next((p.target_windows for p in parts if p.target_windows), None),
        seed=next((p.seed for p in parts if p.seed), 0),
        sources=tuple(source for p in parts for source in p.sources),
        recipe=next((p.recipe for p in parts if p.recipe), {}),
        software=next((p.software for p in parts if p.software), {}),
    )
    _require_distinct(merged.sources)
    return merged


def is_path(name: str, root: Path) -> bool:
    """Whether a SOURCE is a bare path: no manifest, nothing with a kind in front."""
    if re.match(r"[A-Za-z]+:", name) or (Path(name).suffix in MANIFEST_ENDINGS and (root / name).is_file()):
        return False
    return (_shipped(name) is None or name.startswith((".", "/")) or name.endswith("/")) and is_bare(name, root)


def _shipped(name: str) -> Path | None:
    """The manifest of the package that `name` means."""
    shipped = shipped_folder() / f"{Path(name).stem}.toml"
    return shipped if Path(name).suffix in ("", ".toml") and len(Path(name).parts) <= 2 and shipped.is_file() else None


def shipped() -> list[str]:
    """Names of the manifests in the package."""
    return sorted(path.name for path in shipped_folder().glob("*.toml"))


def shipped_folder() -> Path:
    """Where they are: in an editable install the folder stands beside the package, in a wheel inside it."""
    inside = Path(str(resources.files("eegprep"))) / "data_manifests"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "data_manifests"


def parse_source(text: str, root: Path | None = None) -> Source:
    """A SOURCE string: `moabb:PhysionetMI`, `openneuro:ID`, `nemar:ID`, `bids:ROOT` or `files:GLOB`."""
    return _source(_SourceFile(spec=text), root or Path.cwd())


def with_subjects(source: Source, text: str | None) -> Source:
    """The source limited to the subjects of `--subjects`; checked against the catalogue where it can be."""
    if text is None:
        return source
    known = [str(s) for s in catalogue.entry(source.target).subjects] if source.kind == "moabb" else None
    return source.model_copy(update={"subjects": _subjects(text, known)})


def with_options(source: Source, given: Mapping[str, Any]) -> Source:
    """The source with what a command says for all of its sources: `dataset`, `scale`, and what `Reading` holds; None says nothing."""
    given = {key: value for key, value in given.items() if value is not None}
    if "dataset" in given:
        require_group_name(given["dataset"], "--dataset")
    for key, example in (("scale", "1e-6"), ("sfreq", "250")):
        value = given.get(key)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"--{key} {value:g} is not a number above 0", f"give for instance --{key} {example}")
    if given.get("bad", "keep") not in ("keep", "reject"):
        raise UsageError(f"--bad {given['bad']} is not known", "use keep or reject")
    _require_voltage(given.get("unit", ""), "--unit")
    for key in ("subject_pattern", "session_pattern"):
        if given.get(key):
            option = f"--{key.replace('_', '-')}"
            patterns.compiled(given[key])
            if source.kind != "files":
                raise UsageError(
                    f"{option} is for names of files, and {source.spec} names its people itself", f"leave {option} out"
                )
    if "channel_names" in given:
        given["channel_names"] = tuple(given["channel_names"])
    return source.model_copy(update=given)


def _require_voltage(unit: str, where: str) -> None:
    if unit and uv_of(unit) is None:
        raise UsageError(f"{where} {unit!r} is no voltage", "use uV, mV or V")


def require_group_name(dataset: str, where: str) -> None:
    """Raise UsageError unless `dataset` can name a group of a store."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", dataset) is None:
        raise UsageError(f"{where}: {dataset!r} cannot name a group", "set dataset to letters, digits, '.', '_' and '-'")


def person(source: Source, subject: str) -> str:
    """Identity of `subject` across data sets: equal for the same person in several classes."""
    if source.person_family:
        return f"{source.person_family}/{subject}"
    if source.kind == "moabb":
        return catalogue.person_of(source.target, subject)
    return f"{source.dataset}/{subject}"


def render(
    chosen: Iterable[catalogue.Entry],
    *,
    title: str,
    description: str,
    target_windows: int | None = None,
    min_channels: int | None = None,
) -> str:
    """A manifest of MOABB classes as TOML text, with what each declares as a comment.

    Args:
        min_channels: recordings in which fewer EEG channels are observed are left out.
    """
    lines = [f'title = "{title}"', f'description = """\n{description.strip()}\n"""']
    if target_windows:
        lines += [f"target_windows = {target_windows}", "seed = 0"]
    for e in chosen:
        facts = [e.paradigm, f"{e.n_subjects} subjects", f"{e.channels} channels", f"{e.sfreq:g} Hz", e.licence]
        size = catalogue.format_bytes(e.bytes)
        lines += ["", "[[source]]", f'spec = "moabb:{e.name}"', f"# {', '.join(facts + ([size] if size else []))}"]
        if e.note:
            lines.append(f"# {e.note}")
    if min_channels:
        lines += ["", "[recipe]", f"min_channels = {min_channels}  # observed in the recording, whatever is declared"]
    return "\n".join(lines) + "\n"


def write(path: Path, chosen: Sequence[catalogue.Entry], min_channels: int | None = None) -> None:
    """Write MOABB classes as a manifest of one's own; `min_channels` as in `render`."""
    if path.suffix != ".toml":
        raise UsageError(f"{path} is not named like a manifest", f"write it to {path.with_suffix('.toml')}")
    if not chosen:
        raise UsageError(f"{path}: no data set fits, the manifest would be empty", "loosen the filters")
    description = f"{catalogue.totals(chosen)}."
    write_text(path, render(chosen, title=f"{len(chosen)} data sets", description=description, min_channels=min_channels))


def _load_one(name: str, root: Path) -> Manifest:
    # a file may have a colon in its name
    if re.match(r"[A-Za-z]+:", name) and not Path(name).is_file():
        return Manifest(sources=(parse_source(name, root),))
    path = _find(name, root)
    written = validated(_ManifestFile, read_toml(path))
    try:
        sources = tuple(_source(item, path.resolve().parent) for item in written.source)
    except UsageError as error:
        raise UsageError(f"{path.name}: {error.problem}", error.fix) from None
    if not sources:
        raise UsageError(f"{path.name} lists no source", "add a [[source]] table with a spec")
    content = written.model_dump(exclude={"source"})
    return validated(Manifest, content | {"sources": sources})


def _find(name: str, root: Path) -> Path:
    path = Path(name) if Path(name).is_absolute() else root / name
    if path.is_file() and path.suffix in MANIFEST_ENDINGS:
        return path
    packaged = _shipped(name)
    if packaged is not None:
        return packaged
    folded = {e.name.lower(): e.name for e in catalogue.entries()} if not name.endswith(".toml") else {}
    if name.lower() in folded:
        raise UsageError(f"there is no manifest {name!r}", f"for the MOABB data set write moabb:{folded[name.lower()]}")
    hint = suggest(Path(name).stem, [Path(known).stem for known in shipped()])
    raise SourceError(
        f"there is no file, folder or manifest {name!r}{hint}", f"give a path, one of {', '.join(shipped())}, or moabb:NAME"
    )


def _source(written: _SourceFile, root: Path) -> Source:
    kind, colon, target = written.spec.partition(":")
    if kind not in KINDS or not colon or not target:
        raise UsageError(
            f"source {written.spec!r} is not of a known kind{suggest(kind, KINDS)}",
            "write moabb:NAME, openneuro:ID, nemar:ID, bids:ROOT or files:GLOB",
        )
    _require_fits(kind, written)
    dataset, licence, doi, known = written.dataset, written.licence, written.doi, None
    if kind == "moabb":
        declared = catalogue.entry(target)
        target, dataset = declared.name, dataset or declared.name
        licence, doi = licence or declared.licence, doi or declared.doi
        known = [str(subject) for subject in declared.subjects]
    elif kind in ARCHIVES:
        target = _archive_id(kind, target)
        dataset = dataset or target
    else:
        target = str(_absolute(target, root))
        dataset = dataset or data_set_name(kind, target)
    require_group_name(dataset, f"source {written.spec!r}")
    content = written.model_dump(exclude={"spec", "subjects", "dataset", "licence", "doi"})
    fixed = {"kind": kind, "target": target, "dataset": dataset, "licence": licences.spdx(licence), "doi": doi}
    return validated(Source, content | fixed | {"subjects": _subjects(written.subjects, known)})


def _archive_id(kind: str, text: str) -> str:
    form, example = ARCHIVES[kind]
    name = text.lower()
    if re.fullmatch(form, name) is None:
        raise UsageError(f"{kind}:{text} is no id of a data set", f"write for instance {kind}:{example}")
    # NEMAR's own ids of OpenNeuro's data sets
    return f"on{name[2:]}" if kind == "nemar" and name.startswith("ds") else name


def _require_fits(kind: str, written: _SourceFile) -> None:
    _require_voltage(written.unit, f"source {written.spec!r}: unit")
    if written.files and kind != "files":
        raise UsageError(f"source {written.spec!r} has files, which only files: sources know", "remove files")
    if kind == "nemar" and written.options not in ({}, {"copy": "originals"}, {"copy": "ranges"}):
        raise UsageError(
            f"source {written.spec!r} has options that nemar: does not know",
            'write options = { copy = "originals" } or { copy = "ranges" }',
        )
    if written.options and kind not in ("moabb", "nemar"):
        raise UsageError(f"source {written.spec!r} has options, which only moabb: and nemar: sources know", "remove options")
    for key in ("pattern", "subject_pattern", "session_pattern"):
        if getattr(written, key) and kind != "files":
            raise UsageError(f"source {written.spec!r} has a {key}, which only files: sources know", f"remove {key}")
    try:
        patterns.compiled(written.subject_pattern), patterns.compiled(written.session_pattern)
        groups = set(patterns.compiled(written.pattern).groupindex)
    except UsageError as error:
        raise UsageError(f"source {written.spec!r}: {error.problem}", error.fix) from None
    if written.pattern and (not groups or groups - {"subject", "session", "run"}):
        raise UsageError(
            f"source {written.spec!r}: pattern {written.pattern!r} has the named groups {sorted(groups)}",
            "use (?P<subject>...), (?P<session>...) and (?P<run>...)",
        )


def _subjects(written: str | int | list[str | int] | None, known: Sequence[str] | None) -> tuple[str, ...] | None:
    if written is None:
        return None
    text = ",".join(str(item) for item in written) if isinstance(written, list) else str(written)
    return subject_tokens(text) if known is None else parse_subjects(text, known)


def _absolute(target: str, root: Path) -> Path:
    """An absolute path or glob: beside the manifest, or in the package where nothing of that name stands beside it."""
    path = Path(target).expanduser()
    if path.is_absolute():
        return path
    here = root.resolve() / path
    inside = shipped_folder() / path
    return inside if not is_there(_anchor(here)) and is_there(_anchor(inside)) else here


def _anchor(path: Path) -> Path:
    """What has to be there for a path or glob to name anything."""
    return fixed_part(str(path)) if glob.has_magic(str(path)) else path


def _require_distinct(sources: Iterable[Source]) -> None:
    """A MOABB class shares its group name with nobody, unless they name different subjects; local sources are merged when listed."""
    seen: dict[str, Source] = {}
    for source in sources:
        other = seen.setdefault(source.dataset, source)
        if other is source or "moabb" not in (source.kind, other.kind):
            continue
        disjoint = source.subjects and other.subjects and not set(source.subjects) & set(other.subjects)
        if not disjoint:
            raise UsageError(
                f"{other.spec} and {source.spec} would both be stored as {source.dataset!r}", "give one of them another dataset"
            )
