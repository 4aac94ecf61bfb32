"""`index`: all that `build` does, without keeping the windows: they are made from the recordings when they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eegprep.pool import Budget
from eegprep.readers.frames import Frames, find_frames
from eegprep.readers.integers import find_integers
from eegprep.readers.ranges import find_ranges
from eegprep.recording import LeftOut, ProgressCallback, Recording, Unreadable
from eegprep.signals.recipe import Recipe
from eegprep.sources import reading as sources
from eegprep.sources.companions import read_brainvision
from eegprep.sources.listing import who_is_who
from eegprep.steps.inputs import build_jobs, load_sources, plain_settings, recipe_from, store_folder, subject_tasks
from eegprep.steps.jobs import BuildJob, Outcome, about
from eegprep.steps.origin import StoreOrigin, choose
from eegprep.steps.run import run_step
from eegprep.steps.subject import cut_subject, run_subject
from eegprep.steps.summary import Summary
from eegprep.steps.target import CorpusTarget
from eegprep.store.format import VIEW_FORMAT
from eegprep.store.view import ViewWriter


@dataclass(frozen=True)
class IndexJob(BuildJob):
    """Source files into a view."""

    def run(self) -> Outcome:
        recipe = self.recipe
        assert recipe is not None
        left_out: list[LeftOut] = []
        shape = {"channels": recipe.channels, "samples": recipe.window}
        with ViewWriter(Path(self.root), self.dataset, self.subject, **shape, reading=self.task.to_json()) as writer:
            items = run_subject(self._placed(writer), recipe, left_out)
            good, facts = cut_subject(items, recipe, writer, left_out)
            facts += [record.facts for record in left_out if record.facts is not None]
            if writer.windows:
                made = replace(about(self.task), left_out=tuple(left_out), facts=tuple(facts))
                writer.commit(self.key(facts), made.to_json())
            return self.outcome(writer.windows, good, left_out, facts)

    def inputs(self) -> dict[str, object]:
        """A view depends on where the recordings lie, too."""
        return {**super().inputs(), "root": self.task.root}

    def _placed(self, writer: ViewWriter) -> Iterator[Recording | Unreadable]:
        """The recordings; those that EDF, BDF and BrainVision files and zarr copies hold as they are, with the place of their integers."""
        mains = {(listed.session, listed.run): Path(self.task.root) / listed.main for listed in self.task.recordings}
        for item in sources.read_task(self.task):
            main = mains.get((item.session, item.run)) if isinstance(item, Recording) else None
            if isinstance(item, Recording) and main is not None and item.signal_CT.size:
                result = find_integers(item, main) or _frames(item, main) or find_ranges(item, main)
                if result is not None:
                    writer.know(item.session, item.run, item.channels, *result)
            yield item


def _frames(recording: Recording, main: Path) -> tuple[Frames, np.ndarray] | None:
    """The place of a BrainVision recording in its data file; None for other formats and layouts."""
    if main.suffix.lower() not in (".vhdr", ".ahdr"):
        return None
    header = read_brainvision(main)
    if header.data is None or not header.value_type:
        return None
    return find_frames(recording, header.data, header.value_type, header.channels)


def index(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    subjects: str | None = None,
    dataset: str | None = None,
    scale: float | None = None,
    bad: str | None = None,
    sfreq: float | None = None,
    unit: str | None = None,
    channel_names: Sequence[str] | None = None,
    subject_pattern: str | None = None,
    session_pattern: str | None = None,
    data_dir: str | Path | None = None,
    accept: Sequence[str] = (),
    offline: bool = False,
    workers: int = 1,
    max_memory: str | int | None = None,
    rebuild: bool = False,
    progress: ProgressCallback | None = None,
    **settings: Any,
) -> Summary:
    """A view of recordings: `Corpus.open` and `WindowStream` read it as the corpus that `build` would make of them.

    Windows are filtered when they are read. One window of an EDF, BDF or BrainVision file, or of a zarr copy, takes the data records or
    chunks that it lies in, with the margin of the filter; other formats, other rates (`resample`) and `notch` take the whole recording, which is kept in memory
    for the windows that follow. Values agree with those of `build` within 1e-5 of a channel's standard deviation.

    Args:
        as for `build`. The recordings must stay where they are: a window of a file that was altered is refused.

    Returns:
        what was done, with every finding of the gates.

    Example:
        >>> import eegprep
        >>> eegprep.index("sample.toml", "view.zarr").windows
        148
        >>> eegprep.Corpus.open("view.zarr")[0].shape
        (128, 512)
    """
    budget = Budget.make(workers, None, max_memory)
    choice = choose(subjects, dataset, scale, bad, sfreq, unit, channel_names, subject_pattern, session_pattern)
    origin = StoreOrigin("index", plain_settings(source), store_folder(data_dir), offline, False, choice)
    manifest = load_sources(source, choice)
    recipe = recipe or recipe_from(manifest, settings)
    tasks = subject_tasks(manifest, origin, accept, progress, recipe)
    jobs = build_jobs(tasks, manifest, recipe, out, kind=IndexJob)
    target = CorpusTarget.of(Path(out), recipe, [job.name for job in jobs], kind=VIEW_FORMAT)
    summary = run_step(jobs, target, budget, progress, origin, rebuild=rebuild)
    return replace(summary, names=who_is_who(tasks))
