"""The web page around a `Studio` (gradio, the extra `app`), and its server."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dreamdiff.estimators.carriers_figure import CAPTION
from dreamdiff.origin import without_folders
from dreamdiff.programs.app import IMAGE_SIZE, UPLOADS, Shown, Studio
from eegprep.errors import DataError, ToolkitError
from eegprep.sources.file_reading import FileReading

UPLOAD_LIMIT = "300mb"
WHAT_EEG = (
    "*What am I looking at?* Left: one line an electrode, in µV; time 0 is when the picture appeared. Right: the head from above, nose up; bright "
    "is where the signal is strong, which eyes and muscles are as well."
)
WHAT_PICTURES = (
    "*What am I looking at?* Left: the picture that the person saw. Right: what the generator draws from this EEG, one picture a seed, in its own style. "
    "A likeness of one trial proves nothing: the line at the top says how often the category is right."
)
WHAT_NEAR = "*What am I looking at?* Pictures of the training part, by a classifier's features. One that equals a generated picture may have been copied."
# → and ← change the trial, g generates; not while somebody types
KEYS = """() => {
  if (window.dreamdiffKeys) return;
  window.dreamdiffKeys = true;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, [contenteditable=true]")) return;
    const id = {ArrowRight: "next", ArrowLeft: "previous", g: "generate"}[event.key];
    const button = id && document.getElementById(id);
    if (button) { event.preventDefault(); (button.querySelector("button") || button).click(); }
  });
}"""
# plots are white as in print; on a dark page without an edge they look like a fault
STYLE = """<style>
#eeg img, #carried img { background: #fff; padding: 10px; border-radius: 8px; border: 1px solid var(--border-color-primary); box-sizing: border-box; }
</style>"""
GUESSES = 5  # categories that are shown with their probability


def page(studio: Studio) -> Any:
    """The gradio page around a studio; `launch` serves it."""
    import gradio as gr

    def said(error: ToolkitError) -> str:
        return without_folders(f"{error.problem}. {error.fix[:1].upper()}{error.fix[1:]}.")

    def guarded(action: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            try:
                return action(*arguments)
            except ToolkitError as error:
                raise gr.Error(said(error), duration=None, print_exception=False) from None

        return run

    def chosen(uploaded: Shown | None) -> Shown:
        shown = uploaded or studio.shown
        if shown is None:
            raise DataError("there is no trial yet", "upload a recording")
        return shown

    def options_of(person: str | None, uploaded: Shown | None) -> list[tuple[str, int]]:
        if uploaded is not None:
            return [(name, number) for number, name in enumerate(uploaded.trials.names)]
        return studio.trials_of(person) if person else []

    def drawn(position: int | None, uploaded: Shown | None) -> tuple[Any, ...]:
        """Everything that shows a trial: seen image, EEG, facts; and what was made of another one goes."""
        if position is None:
            return gr.update(value=None, label="Seen"), None, "", [], None, None, "", []
        shown = chosen(uploaded)
        label = "Seen (not known for an upload)" if shown.uploaded else "Seen"
        seen = gr.update(value=studio.seen(shown, position), label=label)
        return seen, studio.picture(shown, position), studio.facts(shown, position), [], None, None, "", []

    def choose_person(person: str) -> tuple[Any, ...]:
        options = studio.trials_of(person)
        first = options[0][1] if options else None
        return gr.update(choices=options, value=first), *drawn(first, None)

    def take_upload(
        files: list[str] | None, person: str | None, rate: float | None, unit: str | None, names: str | None, scale: float | None
    ) -> tuple[Any, ...]:
        # draws by itself: position 0 may follow position 0, and then the list of trials tells nobody
        reading = FileReading(
            sfreq=rate or None, unit=unit or "", scale=scale or None,
            channel_names=tuple(name.strip() for name in (names or "").split(",") if name.strip()),
        )  # fmt: skip
        try:
            shown = studio.upload(files, reading) if files else None
        except ToolkitError as error:
            return refused(error)
        options = options_of(person, shown)
        first = options[0][1] if options else None
        return (
            shown,
            gr.update(choices=options, value=first),
            gr.update(visible=shown is None and bool(people)),
            *drawn(first, shown),
        )

    def refused(error: ToolkitError) -> tuple[Any, ...]:
        """Nothing is shown beside a recording that cannot be taken, and the reason stays on the page."""
        text = said(error)
        gr.Warning(text)
        seen, plot, _, *rest = drawn(None, None)
        return (
            None,
            gr.update(choices=[], value=None),
            gr.update(visible=bool(people)),
            seen,
            plot,
            f"**Not taken.** {text}",
            *rest,
        )

    def step(position: int | None, person: str | None, uploaded: Shown | None, by: int) -> tuple[Any, ...]:
        numbers = [number for _, number in options_of(person, uploaded)]
        if not numbers:
            raise DataError("there is no trial yet", "upload a recording")
        there = numbers.index(position) if position in numbers else -by
        there = numbers[(there + by) % len(numbers)]
        return there, *drawn(there, uploaded)

    def make(
        position: int | None, uploaded: Shown | None, samples: int, seed: int, steps: int, guidance: float, progress: Any
    ) -> tuple[Any, ...]:  # fmt: skip
        if position is None:
            raise DataError("no trial is chosen", "choose a trial, or upload a recording")
        scale = guidance if studio.pipeline.details.guidance_trained else None
        made = studio.generate(
            chosen(uploaded), position, samples=int(samples), first_seed=int(seed), steps=int(steps), guidance=scale,
            progress=lambda done, total: progress((done, total), desc=f"image {done + 1} of {total}, {int(steps)} steps"),
        )  # fmt: skip
        folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
        archive = folder / f"images-seed-{made.seeds[0]}.zip"
        archive.write_bytes(made.archive())
        gallery = [(image, f"seed {number}") for image, number in zip(made.images_SHWC, made.seeds, strict=True)]
        origin = made.origin.sentence
        return (
            gallery, studio.guess(made.images_SHWC) or None, str(archive), f"{origin[:1].upper()}{origin[1:]}.", studio.neighbours(made.images_SHWC),
        )  # fmt: skip

    def run_make(
        position: int | None, uploaded: Shown | None, samples: int, seed: int, steps: int, guidance: float, progress: Any = gr.Progress()
    ) -> Any:  # fmt: skip
        return guarded(make)(position, uploaded, samples, seed, steps, guidance, progress)

    details, people = studio.pipeline.details, studio.people()
    first = studio.trials_of(people[0]) if people else []
    with gr.Blocks(title="dreamdiff: images from EEG", analytics_enabled=False) as blocks:
        gr.HTML(STYLE, padding=False)
        gr.Markdown("# Images from EEG")
        gr.Markdown(_explain(studio))
        # what surrounds the page (host names, uploads, files of the server) is tried without a model
        known = getattr(studio, "model", None) is not None
        gr.Markdown(studio.accuracy() if known else "", elem_id="accuracy")
        carried = studio.carried() if known else None
        if carried is not None:
            with gr.Accordion("What carries the result: when, where, in which band", open=False, elem_id="carried"):
                gr.Plot(carried, show_label=False)
                gr.Markdown(CAPTION)
        uploaded = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                person = gr.Dropdown(people, value=people[0] if people else None, label="Person", visible=bool(people))
                trial = gr.Dropdown(first, value=first[0][1] if first else None, label="Trial", elem_id="trial")
                with gr.Row():
                    previous = gr.Button("Previous trial", size="sm", elem_id="previous")
                    following = gr.Button("Next trial", size="sm", elem_id="next")
                upload = gr.File(
                    label="Or your own recording, with events (EDF, BDF, BrainVision, CSV, ...)",
                    file_count="multiple",
                    elem_id="upload",
                )
                with gr.Accordion("No rate or unit in the file?", open=False, elem_id="reading"):
                    gr.Markdown("Fill in before you upload.")
                    rate = gr.Number(None, label="Sampling rate, Hz", minimum=0)
                    unit = gr.Dropdown(["", "uV", "mV", "V"], value="", label="Unit")
                    names = gr.Textbox("", label="Names of channels, separated by commas")
                    scale = gr.Number(None, label="Factor for all values", minimum=0)
                samples = gr.Slider(1, 8, value=3, step=1, label="Images")
                seed = gr.Number(0, precision=0, minimum=0, label="First seed")
                steps = gr.Slider(2, 100, value=20, step=1, label="Steps")
                guidance = gr.Slider(1, 8, value=details.guidance, step=0.1, label="Guidance", visible=details.guidance_trained)
                button = gr.Button("Generate", variant="primary", elem_id="generate")
            with gr.Column(scale=3):
                gr.Markdown("EEG, and its strength over the head")  # a label would lie over the first trace
                eeg = gr.Plot(show_label=False, elem_id="eeg")
                gr.Markdown(WHAT_EEG, elem_classes="what")
                facts = gr.Markdown(elem_id="facts")
                with gr.Row():
                    truth = gr.Image(label="Seen", height=IMAGE_SIZE, interactive=False, elem_id="truth")
                    gallery = gr.Gallery(
                        label="Generated", columns=3, height=IMAGE_SIZE, elem_id="generated", object_fit="contain"
                    )
                gr.Markdown(WHAT_PICTURES, elem_classes="what")
                origin = gr.Markdown(elem_id="origin")
                with gr.Row():
                    guess = gr.Label(
                        label="Guess from the generated images (not calibrated)", num_top_classes=GUESSES, elem_id="guess"
                    )
                    download = gr.File(label="Images, seeds and settings", interactive=False, elem_id="download")
                near = gr.Gallery(
                    label="Training pictures that look most like them", columns=5, height=140, elem_id="near", object_fit="contain",
                    visible=bool(people),
                )  # fmt: skip
                gr.Markdown(WHAT_NEAR, elem_classes="what", visible=bool(people))
        shows = [truth, eeg, facts, gallery, guess, download, origin, near]
        person.input(guarded(choose_person), person, [trial, *shows])
        upload.change(guarded(take_upload), [upload, person, rate, unit, names, scale], [uploaded, trial, person, *shows])
        trial.input(guarded(drawn), [trial, uploaded], shows)
        previous.click(guarded(lambda now, who, file: step(now, who, file, -1)), [trial, person, uploaded], [trial, *shows])
        following.click(guarded(lambda now, who, file: step(now, who, file, 1)), [trial, person, uploaded], [trial, *shows])
        blocks.load(guarded(drawn), [trial, uploaded], shows)
        button.click(run_make, [trial, uploaded, samples, seed, steps, guidance], [gallery, guess, download, origin, near])
        blocks.load(None, None, None, js=KEYS)
    return blocks


def launch(
    studio: Studio, *, host: str = "127.0.0.1", port: int | None = None, open_browser: bool = False, block: bool = True,
    allowed_hosts: Sequence[str] = (), tell: Callable[[str], None] | None = None,
) -> str:  # fmt: skip
    """Serve the page, by default to this machine only; returns its address (at once when `block` is False, else after Ctrl-C or SIGTERM).

    tell: called with the address once the page can be opened.

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
            prevent_thread_lock=True, quiet=True, footer_links=[],
            app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=_hosts(host, allowed_hosts), www_redirect=False)]},
        )  # fmt: skip
    except BaseException:
        clean()
        raise
    if tell is not None:
        tell(str(address))
    if block:
        try:
            _wait_for_the_end()
        finally:
            blocks.close()
    return str(address)


def _wait_for_the_end() -> None:
    """Until Ctrl-C or SIGTERM."""
    ended = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with contextlib.suppress(KeyboardInterrupt):
        while not ended.wait(0.2):
            pass


def _hosts(host: str, more: Sequence[str]) -> list[str]:
    """Names under which the page may be asked for; served to everybody, also the names and addresses of this machine."""
    names = {"localhost", "127.0.0.1", "[::1]", host, *more}
    if host in ("0.0.0.0", "::"):
        names |= {socket.gethostname(), socket.getfqdn()}
        with contextlib.suppress(OSError):
            names |= {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    return sorted(names - {"0.0.0.0", "::"})


def _explain(studio: Studio) -> str:
    lines = ["Choose a trial (keys ← and →) and press *Generate* (key g); every seed is another image from the same EEG."]
    if studio.simulated:
        lines.append(
            "**The EEG that this model was trained on, or is shown here, is simulated.** It says nothing about real brains."
        )
    return "\n\n".join(lines)
