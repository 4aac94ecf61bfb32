"""The page: what the studio does, and the page itself in a real browser."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import mne
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_aligned import aligned_run
from tiny_models import CONTEXT_WIDTH, tiny_stable_diffusion
from tiny_pairs import tiny_pairs

from dreamdiff.certificates.check import model_digest
from dreamdiff.diffusion import stable_diffusion as ld
from dreamdiff.diffusion.adapters import load_adapter
from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline, PipelineConfig, SignalConfig
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.files import generate_to_folder
from dreamdiff.origin import without_folders
from dreamdiff.programs.app import IMAGE_SIZE, Studio
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.images import ImageSet
from dreamdiff.simulation.simulate import simulate
from eegprep.errors import DataError, SourceError, UsageError
from eegprep.sources.file_reading import FileReading

SFREQ = 640.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A pipeline folder of tiny size that reads 128 rows of 512 samples."""
    folder = tmp_path_factory.mktemp("app")
    torch.manual_seed(0)
    sd = ld.load_stable_diffusion(tiny_stable_diffusion(folder / "sd"))
    encoder = EEGEncoder(EncoderConfig(channels=128, window=512, patch=32, width=16, depth=1, heads=2))
    conditioner = Conditioner(ConditionerConfig(tokens_in=16, width_in=16, context_width=CONTEXT_WIDTH, clip_width=5))
    details = PipelineConfig(signal=SignalConfig(sfreq=None, t0=0.0, band=(5.0, 95.0)), training={"provenance": "simulated"})
    DreamDiffusionPipeline(sd.unet, sd.vae, sd.scheduler, encoder, conditioner, details).save_pretrained(folder / "pipeline")
    return folder / "pipeline"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two simulated people, three categories."""
    rng = np.random.default_rng(0)
    images = ImageSet(
        images_NHWC=rng.integers(0, 255, (9, 16, 16, 3), dtype=np.uint8),
        labels_N=np.repeat(np.arange(3), 3),
        names=tuple(f"image-{n}" for n in range(9)),
        held_out_N=np.tile([False, False, True], 3),
        classes=("cat", "piano", "tent"),
        features_ND=rng.normal(size=(9, 8)),
    )
    path = tmp_path_factory.mktemp("pairs") / "pairs.zarr"
    simulate(path, SimulateConfig(sources="linear", people=2, trials=6, background="pink"), images=images)
    return path


@pytest.fixture(scope="module")
def studio(model, pairs):
    return Studio(model, pairs)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """An 8-channel recording with two events, as somebody would upload it."""
    rng = np.random.default_rng(1)
    names = ["Fz", "C3", "Cz", "C4", "Pz", "PO7", "Oz", "PO8"]
    raw = mne.io.RawArray(2e-5 * rng.normal(size=(8, 2000)), mne.create_info(names, 250.0, "eeg"), verbose="error")
    raw.set_montage("standard_1005")
    raw.set_annotations(mne.Annotations([1.0, 4.0], 0.5, ["cat", "piano"]))
    file = tmp_path_factory.mktemp("upload") / "mine_raw.fif"
    raw.save(file, verbose="error")
    return file


def test_trials_are_those_held_out_from_training(studio, pairs):
    """A page that shows training trials would flatter every model."""
    held_out = {int(i) for i in studio.pairs.indices}
    from dreamdiff.pairs.reader import Pairs

    assert held_out == {int(i) for i in Pairs.open(pairs).splits["test"]}
    assert sum(len(studio.trials_of(person)) for person in studio.people()) == len(held_out)


def test_one_seed_gives_one_image_whatever_the_number_of_images(studio):
    """Somebody who notes a seed must find the image again."""
    alone = studio.generate(studio.shown, 0, samples=1, first_seed=5, steps=2)
    told: list[tuple[int, int]] = []
    three = studio.generate(
        studio.shown, 0, samples=3, first_seed=3, steps=2, progress=lambda done, total: told.append((done, total))
    )

    assert alone.seeds == (5,) and three.seeds == (3, 4, 5) and told == [(0, 3), (1, 3), (2, 3)]
    assert (alone.images_SHWC[0] == three.images_SHWC[2]).all()


def test_what_is_downloaded_holds_images_seeds_and_settings(studio):
    """Enough to make the same image again."""
    made = studio.generate(studio.shown, 1, samples=2, first_seed=7, steps=2)

    with zipfile.ZipFile(io.BytesIO(made.archive())) as file:
        assert sorted(file.namelist()) == ["seed-7.png", "seed-8.png", "settings.json"]
        said = json.loads(file.read("settings.json"))
        with Image.open(io.BytesIO(file.read("seed-8.png"))) as image:
            assert (np.asarray(image) == made.images_SHWC[1]).all()
            assert image.info["provenance"] == "simulated EEG; trained on simulated EEG" and "licence" in image.info
    assert said["seeds"] == [7, 8] and said["steps"] == 2 and said["trial"] == studio.shown.trials.names[1]
    assert said["model_fingerprint"] == studio.pipeline.fingerprint and said["provenance"] == "simulated"
    assert said["origin"]["sentence"].startswith("simulated EEG; model pipeline, trained on simulated EEG; generator")
    assert set(said["origin"]["licences"]) == {"EEG", "training pairs", "generator"}
    assert str(studio.model.parent) not in json.dumps(said)


def test_the_guess_is_the_category_whose_training_pictures_are_nearest(studio):
    """Pictures of a category must be taken for it; probabilities add up to one."""
    train = studio.store.splits["train"]
    for label in range(3):
        picture = studio.store.load_images(studio.store.image[train][studio.store.labels[train] == label][:1], size=64)
        guess = studio.guess(picture)
        assert max(guess, key=guess.get) == studio.store.classes[label] and abs(sum(guess.values()) - 1) < 1e-6


def test_the_page_says_how_often_the_model_is_right(studio, model):
    """From the report of this very model beside it; another model's report is not taken."""
    assert "has not been measured here. Chance is 33.3% (3 categories)" in studio.accuracy()
    folder = model.parent / "evaluation"
    folder.mkdir()
    report = {
        "first_line": "no leak found",
        "second_line": "40-way 55 % [45, 65]",
        "identity": {"model": {"sha256": "other"}},
    }
    (folder / "report.json").write_text(json.dumps(report))
    assert "has not been measured" in studio.accuracy()
    report["identity"]["model"]["sha256"] = model_digest(model)
    (folder / "report.json").write_text(json.dumps(report))
    assert studio.accuracy() == "no leak found. 40-way 55 % [45, 65]."


def test_an_aligned_run_draws_through_a_frozen_generator_with_the_map_of_each_person(tmp_path):
    """The page shows what `dreamdiff generate` writes, from the model that the demo's pictures come from."""
    reads = load_adapter("embedded").reads
    run = aligned_run(tmp_path / "run", {"name": "embedded", "fingerprint": reads.fingerprint, "width": reads.width})
    tiny_pairs(tmp_path / "pairs.zarr", per_class=6)
    studio = Studio(run, tmp_path / "pairs.zarr")
    settings = {"steps": 2, "seed": 5, "device": "cpu", "batch_size": 1}
    generate_to_folder(run, tmp_path / "pairs.zarr", tmp_path / "out", GenerateConfig(**settings), select="test")

    for position in (0, len(studio.shown.trials) - 1):
        made = studio.generate(studio.shown, position, samples=1, first_seed=5, steps=2)
        number = int(studio.shown.trials.numbers[position])
        with Image.open(tmp_path / "out" / f"trial-{number:06d}_seed-5.png") as image:
            assert np.abs(made.images_SHWC[0].astype(int) - np.asarray(image.convert("RGB")).astype(int)).max() <= 1
    assert "has not been measured" in studio.accuracy()
    (tmp_path / "retrieval").mkdir()
    report = {"first_line": "carried by: the encoder", "identity": {"model": {"sha256": model_digest(run)}}}
    (tmp_path / "retrieval" / "report.json").write_text(json.dumps(report))
    assert studio.accuracy() == "carried by: the encoder."


def test_an_upload_is_cut_after_its_events_and_padded(studio, recording):
    """8 channels become 128 rows; the names and places of the rows are those of the channels they repeat."""
    shown = studio.upload([recording])

    assert shown.trials.labels == ("cat", "piano")
    assert shown.trials.read([0, 1]).shape == (2, 128, 512)
    assert shown.montage(0).channels[:9] == ("Fz", "C3", "Cz", "C4", "Pz", "PO7", "Oz", "PO8", "Fz")
    assert np.isfinite(shown.montage(0).positions_C3).all()
    said = studio.facts(shown, 0)
    assert said.startswith("8 channels (Fz, C3, Cz, C4, Pz, PO7, Oz, PO8), 250 Hz, 2048 ms from +0 ms.")


def test_an_upload_that_does_not_say_its_rate_is_read_as_it_is_said(studio, tmp_path):
    """A headset's table has a column of markers, and often neither rate nor unit."""
    rng = np.random.default_rng(0)
    names = ("Fz", "C3", "Cz", "C4", "Pz", "PO7", "Oz", "PO8")
    marker = np.zeros((2000, 1))
    marker[500:510] = 3
    table = np.hstack([20 * rng.standard_normal((2000, 8)), marker])
    np.savetxt(tmp_path / "headset.csv", table, delimiter=",", header=",".join([*names, "marker"]), comments="", fmt="%.3f")

    with pytest.raises(SourceError):
        studio.upload([tmp_path / "headset.csv"])
    shown = studio.upload([tmp_path / "headset.csv"], FileReading(sfreq=250.0, unit="uV"))

    assert shown.trials.labels == ("3",) and shown.montage(0).sfreq == 250.0
    assert studio.origin(shown).eeg == "recorded"
    double = studio.upload([tmp_path / "headset.csv"], FileReading(sfreq=250.0, unit="uV", scale=2.0))
    np.testing.assert_allclose(double.trials.read([0]), 2 * shown.trials.read([0]), rtol=1e-4, atol=1e-3)


def test_broken_and_strange_uploads_are_explained(studio, recording, tmp_path):
    """An upload is somebody else's bytes."""
    (tmp_path / "broken_raw.fif").write_bytes(b"not a recording")
    (tmp_path / "model.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")

    with pytest.raises(SourceError, match=r"broken_raw\.fif"):
        studio.upload([tmp_path / "broken_raw.fif"])
    with pytest.raises(UsageError, match=r"model\.pkl: not a kind of file"):
        studio.upload([tmp_path / "model.pkl"])
    with pytest.raises(UsageError, match=r"2 recordings in the upload \(1\)"):
        studio.upload([recording, recording])


def test_a_recording_without_events_is_explained(studio, tmp_path):
    """Without events nobody knows when an image was seen."""
    raw = mne.io.RawArray(np.zeros((8, 2000)), mne.create_info(8, 250.0, "eeg"), verbose="error")
    raw.save(tmp_path / "still_raw.fif", verbose="error")

    with pytest.raises(DataError, match="has no events"):
        studio.upload([tmp_path / "still_raw.fif"])


# ------------------------------------------------------------------------------------------------ the page itself


def test_neighbours_are_the_training_pictures_that_look_most_like_it(studio):
    """A generated picture that is a training picture has itself beside it."""
    train = studio.store.splits["train"]
    copy = studio.store.load_images([int(studio.store.image[train[0]])], size=IMAGE_SIZE)

    near = studio.neighbours(copy, 3)
    assert len(near) == 3 and np.array_equal(near[0][0], copy[0])
    assert near[0][1] == studio.store.classes[int(studio.store.labels[train[0]])]


def test_what_carries_the_result_is_drawn_from_the_report_of_this_model(studio, model):
    row = {
        "name": "everything",
        "kind": "whole",
        "first": 0.0,
        "last": 0.5,
        "accuracy": 0.5,
        "low": 0.4,
        "high": 0.6,
        "chance_low": 0.2,
        "chance_high": 0.4,
    }
    rows = [
        row,
        {**row, "name": "0.00 to 0.10 s", "kind": "window", "last": 0.1},
        {**row, "name": "alpha, 8 to 13 Hz", "kind": "band"},
    ]
    folder = model.parent / "evaluated"
    folder.mkdir()
    report = {
        "identity": {"model": {"sha256": model_digest(model)}},
        "first_line": "a",
        "second_line": "b",
        "carriers": {"rows": rows},
    }
    try:
        assert studio.carried() is None
        (folder / "report.json").write_text(json.dumps(report))
        assert [axis.get_title() for axis in studio.carried().axes] == ["when", "where", "in which band"]
        (folder / "report.json").write_text(json.dumps({**report, "identity": {"model": {"sha256": "another"}}}))
        assert studio.carried() is None
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no chromium and chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--window-size=1400,1200", "--disable-dev-shm-usage",
    ):  # fmt: skip
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def wait_for(driver, found, seconds=60):
    """Poll until `found(driver)` is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = found(driver)
        if value:
            return value
        time.sleep(0.25)
    pytest.fail(f"not seen within {seconds} s; the page says: {driver.find_element('tag name', 'body').text[:2000]}")


def loaded_images(selector):
    """Images under a selector that the browser has really drawn."""
    script = f"return [...document.querySelectorAll('{selector} img')].filter(i => i.complete && i.naturalWidth > 0).length"
    return lambda driver: driver.execute_script(script)


@pytest.mark.slow
def test_in_a_browser_choose_generate_and_upload(browser, studio, recording, tmp_path):
    """Load, choose, generate, see the picture; a broken upload shows why; a good one can be used."""
    pytest.importorskip("gradio")
    from selenium.webdriver.common.keys import Keys

    from dreamdiff.web.page import launch

    browser.get(launch(studio, block=False))

    wait_for(browser, loaded_images("#eeg"))
    wait_for(browser, loaded_images("#truth"))
    assert "simulated" in browser.find_element("tag name", "body").text
    eeg = browser.find_element("css selector", "#eeg img")  # white on a dark page too, with a margin that shows it is meant
    assert eeg.value_of_css_property("padding") == "10px" and "255, 255, 255" in eeg.value_of_css_property("background-color")

    browser.find_element("css selector", "#generate").click()
    wait_for(browser, loaded_images("#generated"))
    wait_for(browser, lambda d: "%" in d.find_element("css selector", "#guess").text)
    wait_for(browser, lambda d: "images-seed-0" in d.find_element("css selector", "#download").get_attribute("innerHTML"))

    def trial_shown(driver):
        return driver.find_element("css selector", "#trial input").get_attribute("value")

    def picture(driver, name):
        return [image.get_attribute("src") for image in driver.find_elements("css selector", f"#{name} img")]

    before, eeg = trial_shown(browser), picture(browser, "eeg")
    browser.find_element("css selector", "#next").click()
    wait_for(browser, lambda d: trial_shown(d) != before and picture(d, "eeg") not in ([], eeg))
    browser.find_element("css selector", "#previous").click()
    wait_for(browser, lambda d: trial_shown(d) == before and picture(d, "eeg") == eeg)

    assert "What am I looking at?" in browser.find_element("tag name", "body").text
    wait_for(browser, lambda d: picture(d, "near") == [])  # those of another trial go with its pictures
    browser.find_element("tag name", "body").send_keys(Keys.ARROW_RIGHT)
    wait_for(browser, lambda d: trial_shown(d) != before and picture(d, "eeg") not in ([], eeg))
    browser.find_element("tag name", "body").send_keys(Keys.ARROW_LEFT)
    wait_for(browser, lambda d: trial_shown(d) == before and picture(d, "eeg") == eeg)
    browser.find_element("tag name", "body").send_keys("g")
    wait_for(browser, loaded_images("#generated"))
    wait_for(browser, loaded_images("#near"))

    browser.find_element("css selector", "#upload input[type=file]").send_keys(str(recording))  # position 0 follows position 0
    wait_for(browser, lambda d: recording.name in trial_shown(d) and picture(d, "eeg") not in ([], eeg))
    assert "not known for an upload" in browser.find_element("css selector", "#truth").text and not picture(browser, "truth")
    assert "8 channels (Fz" in browser.find_element("css selector", "#facts").text
    browser.save_screenshot(str(tmp_path / "upload.png"))

    (tmp_path / "broken_raw.fif").write_bytes(b"not a recording")
    browser.find_element("css selector", "#upload input[type=file]").send_keys(str(tmp_path / "broken_raw.fif"))
    wait_for(browser, lambda d: "Not taken. 2 recordings in the upload" in d.find_element("css selector", "#facts").text)
    assert picture(browser, "eeg") == [] and "Error" not in browser.find_element("tag name", "body").text
    browser.save_screenshot(str(tmp_path / "broken.png"))


def test_messages_name_files_but_not_where_they_lie_on_the_server():
    """The page may be read by somebody who has no account there."""
    text = "/tmp/dreamdiff-upload-x1/own.vhdr: cannot be read (/home/ana/a.eeg). Choose 3/4 of it, or https://x.org/y."

    assert without_folders(text) == "own.vhdr: cannot be read (a.eeg). Choose 3/4 of it, or https://x.org/y."


def test_foreign_hosts_are_refused_and_uploads_do_not_stay(studio, monkeypatch):
    """DNS rebinding; and nothing of anybody's recording is left when the server has closed."""
    gradio = pytest.importorskip("gradio")
    from dreamdiff.programs.app import UPLOADS
    from dreamdiff.web.page import launch

    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("no_proxy", "*")
    port = int(launch(studio, block=False).rstrip("/").rpartition(":")[2])
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    assert folder.name.startswith(UPLOADS)

    def status(host, method="GET", path="/config", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path, body, {"Host": host, **headers})
        return connection.getresponse().status

    assert [status(host) for host in ("evil.example", f"evil.example:{port}", "169.254.169.254")] == [400, 400, 400]
    assert status(f"127.0.0.1:{port}") == status(f"localhost:{port}") == 200
    body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="own.edf"\r\n\r\nnot an EDF\r\n--b--\r\n'
    assert status("localhost", "POST", "/gradio_api/upload", body, **{"Content-Type": "multipart/form-data; boundary=b"}) == 200
    assert list(folder.rglob("own.edf"))
    gradio.close_all()
    assert not folder.exists()


@pytest.mark.parametrize(
    "hidden",
    ["sys.modules['gradio'] = None", "sys.meta_path.insert(0, Refusing())"],
    ids=["not installed", "refused by an import hook"],
)
def test_without_gradio_the_app_stops_before_anything_is_trained_or_loaded(tmp_path, hidden):
    """A minute of training, and only then the news that the page cannot be shown."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import sys\n"
        "class Refusing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'gradio':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        f"{hidden}\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), root]), "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }  # fmt: skip
    code = "import sys; from cli.main import run\nfrom cli.main import dreamdiff_app as a\n"
    code += "status = run(a, 'dreamdiff', ['app']); sys.exit(9 if 'torch' in sys.modules else status)"

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2 and done.stdout == ""
    error, fix = done.stderr.splitlines()
    assert error == "error: the page needs gradio, which is not installed"
    assert fix.startswith("  fix: run: pip install 'eeg-dreamdiff[app]'")
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
