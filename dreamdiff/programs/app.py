"""The web page: choose a trial or upload a recording; see the EEG, its map over the head, and images for several seeds.

`Studio` is what the page does, without any widget; `page` puts widgets around it (gradio, the extra `app`).
Shapes: N trials, C channels, T samples.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.generate import generator_for, load_pipeline, render
from dreamdiff.generation.trials import Montage, TrialSet, open_trials
from dreamdiff.origin import without_folders
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import DataError, ToolkitError, UsageError
from eegprep.inspection.pictures import head_map, traces
from eegprep.settings import validated

# endings of recordings that MNE reads; the companions belong to BrainVision and EEGLAB
RECORDINGS = (".edf", ".bdf", ".gdf", ".vhdr", ".set", ".fif", ".cnt", ".mff")

COMPANIONS = (".eeg", ".vmrk", ".dat", ".fdt")

UPLOAD_LIMIT = "300mb"
UPLOADS = "dreamdiff-uploads-"  # how the folder of uploads begins

IMAGE_SIZE = 256  # pixels on the page


@dataclass(frozen=True)
class Shown:
    """Trials that can be chosen, and what is known of the rows of each."""

    trials: TrialSet
    montage: Callable[[int], Montage]


class Studio:
    """A model, and the trials that it can be shown.

    Args:
        model: run of `dreamdiff train finetune` or a pipeline folder.
        pairs: store whose test trials (all, if it has no test split) can be chosen; None for uploads only.
        device, precision: of the networks, see `GenerateConfig`.
    """

    def __init__(
        self, model: str | Path, pairs: str | Path | None = None, *, device: str = "auto", precision: str = "fp32"
    ) -> None:
        self.making = validated(GenerateConfig, {"device": device, "precision": precision})
        self.pipeline = load_pipeline(model, self.making)
        self.pairs: Pairs | None = None
        self.shown: Shown | None = None
        if pairs is not None:
            signal, window = self.pipeline.details.signal, self.pipeline.encoder.config.window
            store, _ = Pairs.open(pairs).at_model_rate(signal, window)
            select = "test" if "test" in store.splits else None
            self.pairs = store.select(split=select) if select else store
            self.shown = Shown(open_trials(pairs, self.pipeline, select), self._montage)

    @property
    def simulated(self) -> bool:
        """Whether anything shown comes from simulated EEG, which the page must say."""
        trained_on = str(self.pipeline.details.training.get("provenance", ""))
        return trained_on == "simulated" or (self.pairs is not None and self.pairs.provenance == "simulated")

    def people(self) -> list[str]:
        """Subjects of the pairs store."""
        return [] if self.pairs is None else [self.pairs.subjects[p] for p in np.unique(self.pairs.person)]

    def trials_of(self, person: str) -> list[tuple[str, int]]:
        """(text, position) of the trials of a person."""
        if self.pairs is None or self.shown is None:
            return []
        number, trials = self.pairs.subjects.index(person), self.shown.trials
        return [(f"{trials.names[p]}: {trials.labels[p]}", int(p)) for p in np.flatnonzero(self.pairs.person == number)]

    def upload(self, files: Sequence[str | Path]) -> Shown:
        """Trials of a recording that somebody uploaded, cut after its events as the model's training trials were.

        Args:
            files: the recording and, for formats of several files, its companions.

        Raises:
            UsageError: not exactly one recording.
            SourceError, DataError, ModelError: it cannot be read, or does not fit the model.
        """
        paths = [Path(file) for file in files]
        mains = [path for path in paths if path.suffix.lower() in RECORDINGS]
        strange = [path.name for path in paths if path.suffix.lower() not in RECORDINGS + COMPANIONS]
        if strange or len(mains) != 1:
            raise UsageError(
                f"{strange[0]}: not a kind of file that is read here"
                if strange
                else f"{len(mains)} recordings in the upload (1)",
                f"upload one recording ({', '.join(RECORDINGS)}) with its companion files ({', '.join(COMPANIONS)})",
            )
        with tempfile.TemporaryDirectory(prefix="dreamdiff-upload-") as folder:
            for path in paths:  # the companions must lie beside the header that names them
                shutil.copyfile(path, Path(folder) / path.name)
                _forget(path)
            trials = open_trials(Path(folder) / mains[0].name, self.pipeline)
            eeg_NCT = trials.read(range(len(trials)))
        names = tuple(f"{mains[0].name}: {name}" for name in trials.names)
        montage = trials.montage
        assert montage is not None
        kept = TrialSet(
            mains[0].name, "file", trials.numbers, names, trials.labels, lambda at: eeg_NCT[list(at)], None, None, trials.notes, montage
        )  # fmt: skip
        return Shown(kept, lambda position: montage)

    def _montage(self, position: int) -> Montage:
        """Of a trial of the pairs store."""
        assert self.pairs is not None
        facts = self.pairs.attributes[self.pairs.subjects[int(self.pairs.person[position])]]
        rows = np.asarray(facts.get("pad_map") or range(self.pipeline.encoder.config.channels))
        places = np.array([[np.nan if v is None else v for v in row] for row in facts.get("positions") or []], dtype=float)
        names = (
            tuple(str(facts["channels"][row]) for row in rows) if facts.get("channels") else tuple(f"row {row}" for row in rows)
        )
        known = places[rows] if len(places) else np.full((len(rows), 3), np.nan)
        return Montage(names, known, float(facts.get("sfreq") or 1.0), float(facts.get("t0") or 0.0))

    def picture(self, shown: Shown, position: int) -> Figure:
        """The EEG of a trial and its strength over the head."""
        eeg_CT, montage = shown.trials.read([position])[0], shown.montage(position)
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
        traces(left, eeg_CT, montage.sfreq, montage.channels, start=montage.start)
        head_map(right, eeg_CT.std(axis=1), montage.positions_C3, label="standard deviation (µV)", cmap="viridis")
        return figure

    def seen(self, shown: Shown, position: int) -> np.ndarray | None:
        """(H, W, 3) uint8 image that was shown in the trial, if it is known."""
        trials = shown.trials
        return None if trials.seen is None else trials.seen([position], IMAGE_SIZE)[0]

    def generate(
        self, shown: Shown, position: int, *, samples: int, first_seed: int, steps: int, guidance: float | None = None
    ) -> list[tuple[np.ndarray, str]]:
        """Images of one trial: (H, W, 3) uint8 and a caption, for seeds `first_seed`, `first_seed` + 1, ..."""
        config = self.making.model_copy(update={"steps": steps, "samples": samples, "seed": first_seed, "guidance": guidance})
        eeg_NCT = np.repeat(shown.trials.read([position]), samples, axis=0)
        seeds = [first_seed + k for k in range(samples)]
        number = int(shown.trials.numbers[position])
        made = render(self.pipeline, eeg_NCT, [generator_for(number, seed) for seed in seeds], config)
        return [(image, f"seed {seed}") for image, seed in zip(made, seeds, strict=True)]


def page(studio: Studio) -> Any:
    """The gradio page around a studio; `launch` serves it."""
    gr = _gradio()

    def guarded(action: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            try:
                return action(*arguments)
            except ToolkitError as error:
                text = without_folders(f"{error.problem}. {error.fix[:1].upper()}{error.fix[1:]}.")
                raise gr.Error(text, duration=None) from None

        return run

    def chosen(uploaded: Shown | None) -> Shown:
        shown = uploaded or studio.shown
        if shown is None:
            raise DataError("there is no trial yet", "upload a recording")
        return shown

    def choose_person(person: str) -> Any:
        options = studio.trials_of(person)
        return gr.update(choices=options, value=options[0][1] if options else None)

    def show(position: int | None, uploaded: Shown | None) -> tuple[Any, Any, list[Any]]:
        if position is None:
            return None, None, []
        shown = chosen(uploaded)
        return studio.seen(shown, position), studio.picture(shown, position), []

    def take_upload(files: list[str] | None) -> tuple[Shown | None, Any]:
        if not files:
            options = studio.trials_of(studio.people()[0]) if studio.people() else []
            return None, gr.update(choices=options, value=options[0][1] if options else None)
        shown = studio.upload(files)
        for text in shown.trials.notes:
            gr.Warning(text)
        return shown, gr.update(choices=[(name, n) for n, name in enumerate(shown.trials.names)], value=0)

    def make(position: int | None, uploaded: Shown | None, samples: int, seed: int, steps: int, guidance: float) -> list[Any]:
        if position is None:
            raise DataError("no trial is chosen", "choose a trial, or upload a recording")
        scale = guidance if studio.pipeline.details.guidance_trained else None
        return studio.generate(
            chosen(uploaded), position, samples=int(samples), first_seed=int(seed), steps=int(steps), guidance=scale
        )

    details = studio.pipeline.details
    people = studio.people()
    first = studio.trials_of(people[0]) if people else []
    with gr.Blocks(title="dreamdiff: images from EEG", analytics_enabled=False) as blocks:
        gr.Markdown("# Images from EEG")
        gr.Markdown(_explain(studio))
        uploaded = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                person = gr.Dropdown(people, value=people[0] if people else None, label="Person", visible=bool(people))
                trial = gr.Dropdown(first, value=first[0][1] if first else None, label="Trial", elem_id="trial")
                upload = gr.File(
                    label="Or your own recording (any format MNE reads, with events)", file_count="multiple", elem_id="upload"
                )
                samples = gr.Slider(1, 8, value=3, step=1, label="Images")
                seed = gr.Number(0, precision=0, minimum=0, label="First seed")
                steps = gr.Slider(2, 100, value=20, step=1, label="Steps")
                guidance = gr.Slider(1, 8, value=details.guidance, step=0.1, label="Guidance", visible=details.guidance_trained)
                button = gr.Button("Generate", variant="primary", elem_id="generate")
            with gr.Column(scale=3):
                eeg = gr.Plot(label="EEG, and its strength over the head", elem_id="eeg")
                with gr.Row():
                    truth = gr.Image(label="Seen", height=IMAGE_SIZE, interactive=False, elem_id="truth")
                    gallery = gr.Gallery(label="Generated", columns=4, elem_id="generated", object_fit="contain")
        person.change(guarded(choose_person), person, trial)
        upload.change(guarded(take_upload), upload, [uploaded, trial])
        trial.change(guarded(show), [trial, uploaded], [truth, eeg, gallery])
        blocks.load(guarded(show), [trial, uploaded], [truth, eeg, gallery])
        button.click(guarded(make), [trial, uploaded, samples, seed, steps, guidance], gallery)
    return blocks


def launch(
    studio: Studio, *, host: str = "127.0.0.1", port: int | None = None, open_browser: bool = False, block: bool = True,
    allowed_hosts: Sequence[str] = (),
) -> str:  # fmt: skip
    """Serve the page, by default to this machine only; returns its address (at once when `block` is False).

    A request whose Host header names neither the address served nor one of `allowed_hosts` is refused: otherwise a page elsewhere could
    talk to this one through a name that it controls (DNS rebinding). What is uploaded lies in a folder of its own, which is removed
    when the server ends; a recording is removed as soon as it was read.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    folder = Path(tempfile.mkdtemp(prefix=UPLOADS))
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    blocks = page(studio)  # after the folder is set: components remember it, and the server shows pictures from there only
    close = blocks.close

    def clean() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if os.environ.get("GRADIO_TEMP_DIR") == str(folder):
            os.environ.pop("GRADIO_TEMP_DIR")
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before

    def close_and_clean(*arguments: Any, **options: Any) -> None:
        close(*arguments, **options)
        clean()

    blocks.close = close_and_clean
    atexit.register(clean)
    try:
        _, address, _ = blocks.launch(
            server_name=host, server_port=port, inbrowser=open_browser, share=False, max_file_size=UPLOAD_LIMIT,
            prevent_thread_lock=not block, quiet=True, footer_links=[],
            app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=_hosts(host, allowed_hosts), www_redirect=False)]},
        )  # fmt: skip
    except BaseException:
        clean()
        raise
    if block:
        clean()
    return str(address)


def _hosts(host: str, more: Sequence[str]) -> list[str]:
    """Names under which the page may be asked for; served to everybody, also the names and addresses of this machine."""
    names = {"localhost", "127.0.0.1", "[::1]", host, *more}
    if host in ("0.0.0.0", "::"):
        names |= {socket.gethostname(), socket.getfqdn()}
        with contextlib.suppress(OSError):
            names |= {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    return sorted(names - {"0.0.0.0", "::"})


def _forget(path: Path) -> None:
    """Remove an uploaded file; a file of the person's own, given in a script, stays."""
    if any(part.startswith(UPLOADS) for part in path.parts):
        path.unlink(missing_ok=True)


def _explain(studio: Studio) -> str:
    lines = ["Choose a trial and press *Generate*; every seed is another image from the same EEG."]
    if studio.simulated:
        lines.append(
            "**The EEG that this model was trained on, or is shown here, is simulated.** It says nothing about real brains."
        )
    return "\n\n".join(lines)


def _gradio() -> Any:
    try:
        import gradio
    except ImportError:
        raise UsageError("the page needs gradio, which is not installed", "run: pip install 'eeg-dreamdiff[app]'") from None
    return gradio
