"""The page of a study: one file, no network, keys 1 to k or a click, and a CSV at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eegprep.inspection.page import data_uri, document
from eegprep.inspection.pictures import image_png


@dataclass(frozen=True)
class Question:
    """name: in the answers. target: the picture that is asked about. pictures: to choose from, in the order on the page."""

    name: str
    target: np.ndarray
    pictures: Sequence[np.ndarray]


STYLE = """
#ask { display: none; text-align: center; } #ask img { border: 1px solid var(--line); border-radius: 6px; background: #fff; }
#target { width: 256px; height: 256px; } #choices { display: flex; flex-wrap: wrap; justify-content: center; gap: 14px; margin-top: 1.2em; }
#choices button { border: 2px solid transparent; background: none; padding: 4px; border-radius: 8px; cursor: pointer; color: inherit; font: inherit; }
#choices button:hover, #choices button:focus { border-color: var(--mark); } #choices img { width: 148px; height: 148px; display: block; }
#end { display: none; } input, #start, #save { font: inherit; padding: .4em .8em; }
"""

_SCRIPT = """
const STUDY = JSON.parse(document.getElementById("questions").textContent);
let order = [], at = 0, since = 0, rater = "", rows = [];
const show = (id, yes) => { document.getElementById(id).style.display = yes ? "block" : "none"; };
function begin() {
  rater = document.getElementById("rater").value.trim();
  if (!rater) { document.getElementById("rater").focus(); return; }
  order = STUDY.questions.map((_, k) => k);
  for (let k = order.length - 1; k > 0; k--) { const j = Math.floor(Math.random() * (k + 1)); [order[k], order[j]] = [order[j], order[k]]; }
  show("intro", false); show("ask", true); next();
}
function next() {
  if (at >= order.length) { show("ask", false); show("end", true); return; }
  const q = STUDY.questions[order[at]];
  document.getElementById("count").textContent = (at + 1) + " of " + order.length;
  document.getElementById("target").src = q.target;
  const box = document.getElementById("choices"); box.replaceChildren();
  q.pictures.forEach((uri, k) => {
    const button = document.createElement("button"), image = document.createElement("img");
    image.src = uri; image.alt = "picture " + (k + 1);
    button.append(image, String(k + 1)); button.onclick = () => answer(k + 1); box.append(button);
  });
  since = performance.now();
}
function answer(choice) {
  const q = STUDY.questions[order[at]];
  rows.push([STUDY.study, rater, q.name, choice, at + 1, ((performance.now() - since) / 1000).toFixed(2)]); at++; next();
}
function save() {
  const cell = (text) => '"' + String(text).replaceAll('"', '""') + '"';
  const text = ["study,rater,question,choice,place,seconds", ...rows.map((row) => row.map(cell).join(","))].join("\\n") + "\\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "answers_" + rater.replace(/[^A-Za-z0-9_-]/g, "_") + ".csv"; link.click();
}
document.getElementById("start").onclick = begin; document.getElementById("save").onclick = save;
document.addEventListener("keydown", (event) => {
  const k = Number(event.key);
  if (document.getElementById("ask").style.display === "block" && k >= 1 && k <= STUDY.choices) answer(k);
});
"""


def study_page(study: str, questions: Sequence[Question], *, simulated: bool) -> str:
    """The whole page; the answers are not in it.

    Args:
        study: its identifier, which stands in every answer. simulated: the EEG behind the reconstructions is simulated; the page says so.
    """
    choices = len(questions[0].pictures)
    uris: dict[bytes, str] = {}

    def uri(image_HWC: np.ndarray) -> str:
        key = image_HWC.tobytes()
        if key not in uris:
            uris[key] = data_uri(image_png(image_HWC))
        return uris[key]

    content = {
        "study": study,
        "choices": choices,
        "questions": [
            {"name": one.name, "target": uri(one.target), "pictures": [uri(picture) for picture in one.pictures]}
            for one in questions
        ],
    }
    # `</` would end the script element
    plain = json.dumps(content).replace("</", "<\\/")
    remark = "<p class='warning'>The reconstructions come from simulated EEG.</p>" if simulated else ""
    body = f"""
<h1>Which picture is it?</h1>
<div id="intro">{remark}
<p>You will see {len(questions)} pictures, one after the other, each above {choices} others. Choose the one of the {choices} that the upper picture shows,
with a click or the keys 1 to {choices}. Some are hard: guess then. There is no way back, and nothing leaves this page until you save your answers at the end.</p>
<p><label>Your name or number: <input id="rater" autocomplete="off"></label> <button id="start">Begin</button></p></div>
<div id="ask"><p id="count"></p><img id="target" alt="the picture that is asked about"><div id="choices"></div></div>
<div id="end"><p>That was all. Please save your answers and send the file back.</p><button id="save">Save answers</button></div>
<script type="application/json" id="questions">{plain}</script>
<script>{_SCRIPT}</script>"""
    return document("Which picture is it?", body, STYLE)
