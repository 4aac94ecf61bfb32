"""Lists of sources: which data sets, which people, under which licence, and how many windows of each.

A manifest is a TOML file::

    title = "Sample"
    description = "what it is for"
    target_windows = 120000             # optional: a balanced draw over people, see `balanced_caps`
    seed = 0                            # of that draw

    [[source]]
    spec = "files:sample/*.edf"         # or "moabb:PhysionetMI", "bids:ROOT"; paths are relative to the manifest
    dataset = "PhysionetMI"             # group name in the store; default: class name, or the folder's name
    subjects = "1-10,12"                # optional; a list of ids is right as well
    pattern = 'S(?P<subject>\\d+)R(?P<run>\\d+)'   # files: only; named groups subject, session, run of the file name
    options = { imagined = true }       # moabb: only; constructor arguments of the class
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
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from eegprep.atomic import write_text
from eegprep.catalogue import licences
from eegprep.catalogue import moabb as catalogue
from eegprep.errors import UsageError
from eegprep.settings import Settings, read_toml, suggest, validated

Kind = Literal["moabb", "bids", "files"]

KINDS: tuple[str, ...] = get_args(Kind)


class Source(Settings):
    """One `[[source]]` of a manifest, or a SOURCE of the command line."""

    kind: Kind
    target: str  # MOABB class name, BIDS root, or glob; paths are absolute once loaded
    dataset: str
    subjects: tuple[str, ...] | None = None
    pattern: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
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


class Manifest(Settings):
    """A loaded manifest."""

    title: str = ""
    description: str = ""
    target_windows: int | None = Field(default=None, ge=1)
    seed: int = 0
    sources: tuple[Source, ...] = ()
    recipe: dict[str, Any] = Field(default_factory=dict)
    software: dict[str, str] = Field(default_factory=dict)


class _SourceFile(Settings):
    """A `[[source]]` table as it is written."""

    spec: str
    dataset: str = ""
    subjects: str | int | list[str | int] | None = None
    pattern: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
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
    recipe: dict[str, Any] = Field(default_factory=dict)
    software: dict[str, str] = Field(default_factory=dict)


def load(names: str | Path | Sequence[str | Path], root: Path | None = None) -> Manifest:
    """Manifest files (a path, or the name of a shipped one) and SOURCE strings, joined in the order given.

    Title, target and recipe are those of the first manifest that has any. Relative paths in SOURCE strings start at `root`
    (default: the current folder), those in a manifest at the manifest's folder.

    Raises:
        UsageError: no such manifest, an unknown key, kind, data set or subject, or the same data set name for two sources.
    """
    listed = [names] if isinstance(names, str | Path) else list(names)
    if not listed:
        raise UsageError("no source was given", f"name a manifest ({', '.join(shipped())}), or for instance moabb:PhysionetMI")
    parts = [_load_one(str(name), root or Path.cwd()) for name in listed]
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


def shipped() -> list[str]:
    """Names of the manifests in the package."""
    return sorted(path.name for path in shipped_folder().glob("*.toml"))


def shipped_folder() -> Path:
    """Where they are: in an editable install the folder stands beside the package, in a wheel inside it."""
    inside = Path(str(resources.files("eegprep"))) / "data_manifests"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "data_manifests"


def parse_source(text: str, root: Path | None = None) -> Source:
    """A SOURCE string: `moabb:PhysionetMI`, `bids:ROOT` or `files:GLOB`."""
    return _source(_SourceFile(spec=text), root or Path.cwd())


def parse_subjects(text: str, known: Sequence[str] | None = None) -> tuple[str, ...]:
    """`"1-3,7"` as `("1", "2", "3", "7")`; `"01-03"` keeps its zeros.

    Args:
        known: the ids there are. A range leaves out what is not among them (ids have gaps), a single id must be there.

    Raises:
        UsageError: an empty or backward range, nothing left, or an id that is not known.
    """
    chosen: list[str] = []
    for token in filter(None, (part.strip() for part in text.split(","))):
        span = re.fullmatch(r"(\d+)-(\d+)", token)
        if span is None:
            if known is not None and token not in known:
                raise _unknown_subject(token, known)
            chosen.append(token)
            continue
        first, last = int(span[1]), int(span[2])
        if last < first:
            raise UsageError(f"subjects {token!r}: {first} comes after {last}", f"write {last}-{first}")
        width = len(span[1]) if span[1].startswith("0") else 0
        inside = [str(number).zfill(width) for number in range(first, last + 1)]
        if known is not None:
            inside = [subject for subject in inside if subject in set(known)]
            if not inside:
                raise _unknown_subject(token, known)
        chosen += inside
    if not chosen:
        raise UsageError(f"subjects {text!r} names nobody", "write for instance --subjects 1-10,12")
    return tuple(dict.fromkeys(chosen))


def with_subjects(source: Source, text: str | None) -> Source:
    """The source limited to the subjects of `--subjects`; checked against the catalogue where it can be."""
    if text is None:
        return source
    known = [str(s) for s in catalogue.entry(source.target).subjects] if source.kind == "moabb" else None
    return source.model_copy(update={"subjects": parse_subjects(text, known)})


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
    if path.is_file() and path.suffix == ".toml":
        return path
    beside = shipped_folder() / f"{Path(name).stem}.toml"
    if Path(name).suffix in ("", ".toml") and len(Path(name).parts) <= 2 and beside.is_file():
        return beside
    if path.exists():
        kind = f"bids:{name}" if path.is_dir() else f"files:{name}"
        raise UsageError(f"{name} is no manifest (a TOML file)", f"for recordings write {kind}")
    folded = {e.name.lower(): e.name for e in catalogue.entries()} if not name.endswith(".toml") else {}
    if name.lower() in folded:
        raise UsageError(f"there is no manifest {name!r}", f"for the MOABB data set write moabb:{folded[name.lower()]}")
    hint = suggest(Path(name).stem, [Path(known).stem for known in shipped()])
    raise UsageError(f"there is no manifest {name!r}{hint}", f"give a path, one of {', '.join(shipped())}, or moabb:NAME")


def _source(written: _SourceFile, root: Path) -> Source:
    kind, colon, target = written.spec.partition(":")
    if kind not in KINDS or not colon or not target:
        raise UsageError(
            f"source {written.spec!r} is not of a known kind{suggest(kind, KINDS)}", "write moabb:NAME, bids:ROOT or files:GLOB"
        )
    _require_fits(kind, written)
    dataset, licence, doi, known = written.dataset, written.licence, written.doi, None
    if kind == "moabb":
        declared = catalogue.entry(target)
        target, dataset = declared.name, dataset or declared.name
        licence, doi = licence or declared.licence, doi or declared.doi
        known = [str(subject) for subject in declared.subjects]
    else:
        target = str(_absolute(target, root))
        dataset = dataset or _default_name(kind, target)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", dataset) is None:
        raise UsageError(
            f"source {written.spec!r}: {dataset!r} cannot name a group", "set dataset to letters, digits, '.', '_' and '-'"
        )
    content = written.model_dump(exclude={"spec", "subjects", "dataset", "licence", "doi"})
    fixed = {"kind": kind, "target": target, "dataset": dataset, "licence": licences.spdx(licence), "doi": doi}
    return validated(Source, content | fixed | {"subjects": _subjects(written.subjects, known)})


def _require_fits(kind: str, written: _SourceFile) -> None:
    if written.options and kind != "moabb":
        raise UsageError(f"source {written.spec!r} has options, which only moabb: sources know", "remove options")
    if written.pattern and kind != "files":
        raise UsageError(f"source {written.spec!r} has a pattern, which only files: sources know", "remove pattern")
    try:
        groups = set(re.compile(written.pattern).groupindex)
    except re.error as error:
        raise UsageError(
            f"source {written.spec!r}: pattern {written.pattern!r} is no regular expression ({error})", "mend the pattern"
        ) from None
    if written.pattern and (not groups or groups - {"subject", "session", "run"}):
        raise UsageError(
            f"source {written.spec!r}: pattern {written.pattern!r} has the named groups {sorted(groups)}",
            "use (?P<subject>...), (?P<session>...) and (?P<run>...)",
        )


def _subjects(written: str | int | list[str | int] | None, known: Sequence[str] | None) -> tuple[str, ...] | None:
    if written is None:
        return None
    text = ",".join(str(item) for item in written) if isinstance(written, list) else str(written)
    return parse_subjects(text, known)


def _absolute(target: str, root: Path) -> Path:
    """An absolute path or glob; only the folder in front of the first wildcard is looked at."""
    path = Path(target).expanduser()
    return path if path.is_absolute() else root.resolve() / path


def _default_name(kind: str, target: str) -> str:
    """The folder's name: of a BIDS root, or the last one in front of a wildcard."""
    parts = Path(target).parts
    if kind == "files":
        plain = [part for part in parts if not glob.has_magic(part)]
        parts = tuple(plain[:-1] if len(plain) == len(parts) else plain)
    name = re.sub(r"[^A-Za-z0-9_.\-]+", "_", parts[-1] if len(parts) > 1 else kind).strip("_.-")
    return name or kind


def _require_distinct(sources: Iterable[Source]) -> None:
    """Two sources may share a group name only when they name different subjects, for example two folders of one study."""
    seen: dict[str, Source] = {}
    for source in sources:
        other = seen.setdefault(source.dataset, source)
        if other is source:
            continue
        disjoint = source.subjects and other.subjects and not set(source.subjects) & set(other.subjects)
        if not disjoint:
            raise UsageError(
                f"{other.spec} and {source.spec} would both be stored as {source.dataset!r}", "give one of them another dataset"
            )


def _unknown_subject(token: str, known: Sequence[str]) -> UsageError:
    return UsageError(f"there is no subject {token!r}{suggest(token, known)}", f"choose among the {len(known)}: {_spans(known)}")


def _spans(known: Sequence[str]) -> str:
    """`1-4, 6-8` for numbers, a list for other ids."""
    if not all(re.fullmatch(r"[1-9]\d*|0", subject) for subject in known):
        return ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
    numbers = sorted(int(subject) for subject in known)
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
