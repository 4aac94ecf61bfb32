"""Figure 5 of the paper: rows of the ablation side by side, on the same trials with the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dreamdiff.evaluation.evaluate import choose_trials, evenly, read_images
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.origin import picture_origin
from dreamdiff.pairs.reader import Pairs
from dreamdiff.programs.ablate_config import ROWS, AblateConfig
from dreamdiff.programs.ablations import Place, evaluate_config, prepare
from dreamdiff.programs.tables import ACCURACY, RowResult
from eegprep.errors import StoreError
from eegprep.inspection.page import Page

SHOWN = 8  # trials


def figure5(out: Path, table: Sequence[RowResult], config: AblateConfig) -> Path:
    """Write `figure-5.html` from rows that `ablate` has run in `out`.

    Args:
        table: of `ablate`, in the order of the columns.

    Raises:
        StoreError: images of a row are missing.
    """
    place = Place(Path(out))
    config = prepare(place, config, None)
    judging = evaluate_config(config)
    store = Pairs.open(str(config.pairs))
    _, chosen = choose_trials(store, judging)
    some = evenly(chosen, store.labels, SHOWN, judging.seed)
    making = GenerateConfig(samples=judging.samples, seed=judging.seed)
    size, columns = 0, []
    for row in table:
        folder = place.row(row["row"]) / "evaluation" / "images"
        try:
            size = size or _size(folder)
            columns.append(read_images(folder, store.indices[some], making, size)[:, 0])
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{folder}: images of row {row['row']} are missing ({error})", "run the same command again"
            ) from None
    page = Page(
        "Figure 5: the ablation side by side",
        "One trial a line: what was shown, and what each row of Table 2 draws from its EEG, with the same seed.",
    )
    training = {"provenance": store.provenance, "licence": store.licence, "sd": config.sd}
    origin = picture_origin(training, model="rows of Table 2", generator=None, eeg=store.provenance, licence=store.licence)
    page.text(origin.sentence, "warning" if store.provenance == "simulated" else "")
    page.text(
        f"{len(some)} of {len(chosen)} trials of split {config.split!r}, evenly from all classes with seed {judging.seed}; the first sample of each."
    )
    page.table([_described(row) for row in table])
    truth = store.images(some, size=size)
    page.sets(
        [
            (truth[line], f"{store.classes[int(store.labels[some[line]])]}, shown"),
            *((images[line], row["row"]) for row, images in zip(table, columns, strict=True)),
        ]
        for line in range(len(some))
    )  # fmt: skip
    file = Path(out) / "figure-5.html"
    page.write(file)
    return file


def _size(folder: Path) -> int:
    from PIL import Image

    first = min(folder.glob("trial-*.png"), default=None)
    if first is None:
        raise ValueError("none is there")
    with Image.open(first) as image:
        return int(image.size[0])


def _described(row: RowResult) -> dict[str, object]:
    known, measured = ROWS[row["row"]], row["measured"].get(ACCURACY)
    return {
        "row": row["row"], "pre-training": "no" if known.mask is None else f"mask {known.mask:g}", "CLIP": "yes" if known.clip else "no",
        "tuned": known.tuned, "paper, %": known.paper,
        ACCURACY: "" if measured is None else f"{100 * measured['value']:.1f} % [{100 * measured['low']:.1f}, {100 * measured['high']:.1f}], n = {measured['n']}",
    }  # fmt: skip
