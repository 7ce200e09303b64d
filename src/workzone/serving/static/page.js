"use strict";

const NAMES = { roadwork: "Roadwork", no_roadwork: "No roadwork", abstain: "Undecided: a person should look" };
const STATES = {
  certified: "The certificate holds.",
  not_certified: "No promise is made about the error rate of these answers.",
  void: "The certificate is void: nothing is promised about these answers.",
};
/** What a measure of uncertainty is measured in; one without an entry is a bare number. */
const UNITS = { entropy: "(0 certain, 0.693 open)", view_spread: "log-odds" };
let served = null;
let told;
/** Fulfilled once the server has said what it serves; pictures wait for it, as they wait for a key. */
const ready = new Promise((resolve) => { told = resolve; });

function showPromise(certificate) {
  const state = byId("promise-state");
  state.textContent = STATES[certificate.status];
  state.className = certificate.status === "void" ? "bad" : "";
  byId("promise-text").textContent = certificate.sentence;
}

function begin(model) {
  served = model;
  showPromise(model.certificate);
  const megabytes = (model.limits.bytes / 1048576).toFixed(0);
  byId("limits").textContent = `Up to ${megabytes} MB each.`;
  byId("served").textContent = `Bundle ${model.bundle.name}, ${model.engine}, ${model.bundle.sha256.slice(0, 12)}`;
  byId("to-review").classList.toggle("hidden", !model.review);
  const columns = byId("columns");
  columns.replaceChildren();
  for (const name of model.columns) {
    const id = `column-${name}`;
    columns.append(make("label", { for: id }, `${name} (empty: unknown) `), make("input", { id, "data-column": name }));
  }
  columns.classList.toggle("hidden", model.columns.length === 0);
  told();
}

function sameBundle(answer) {
  return answer.bundle.sha256 === served.bundle.sha256;
}

/** Probability on a line from 0 to 1, with the thresholds of the policy. */
function bar(answer) {
  const width = 300;
  const x = (p) => 10 + p * (width - 20);
  // Another bundle may have answered, whose thresholds are not known here.
  const thresholds = sameBundle(answer) ? [...new Set(Object.values(served.thresholds))] : [];
  const at = thresholds.map(percent).join(" and ");
  const label = `Probability of roadwork ${percent(answer.probability)}${at ? `; thresholds at ${at}` : ""}`;
  const drawing = make("svg", { class: "bar", viewBox: `0 0 ${width} 46`, role: "img", "aria-label": label });
  drawing.append(
    make("rect", { x: 10, y: 18, width: width - 20, height: 10, rx: 5, fill: "currentColor", opacity: 0.18 }),
    make("rect", { x: 10, y: 18, width: Math.max(3, x(answer.probability) - 10), height: 10, rx: 5, fill: "currentColor" }),
  );
  for (const t of thresholds) {
    const anchor = t < 0.12 ? "start" : t > 0.88 ? "end" : "middle";
    drawing.append(
      make("line", { x1: x(t), x2: x(t), y1: 12, y2: 34, stroke: "currentColor", "stroke-width": 2 }),
      make("text", { x: x(t), y: thresholds.indexOf(t) ? 10 : 45, "text-anchor": anchor }, percent(t)),
    );
  }
  return drawing;
}

/** What the marks on the line mean, where this page knows them. */
function marks(answer) {
  const { t_low: low, t_high: high } = sameBundle(answer) ? served.thresholds : {};
  if (low === undefined || high === undefined || low >= high) return [];
  const text = `The marks are the thresholds of the policy: no roadwork below ${percent(low)}, roadwork from ${percent(high)}, a person in between.`;
  return [make("p", { class: "soft" }, text)];
}

/** Boxes of the views over the picture: the more a view weighs, the more it is filled. */
function overlay(views) {
  const drawing = make("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  const most = Math.max(...views.map((v) => v.weight), 1e-9);
  for (const view of [...views].sort((a, b) => a.weight - b.weight)) {
    const [x0, y0, x1, y1] = view.box.map((v) => 100 * v);
    if (x1 - x0 > 99 && y1 - y0 > 99) continue; // the whole picture would hide the rest
    const share = view.weight / most;
    drawing.append(
      make("rect", {
        x: x0, y: y0, width: x1 - x0, height: y1 - y0,
        class: view.log_odds > 0 ? "for" : "against",
        "stroke-opacity": (0.25 + 0.75 * share).toFixed(2),
        "fill-opacity": (0.3 * share).toFixed(2),
      }),
    );
  }
  return drawing;
}

function viewTable(views) {
  const body = make("tbody");
  const order = views.map((v, i) => [v, i]).sort((a, b) => b[0].weight - a[0].weight);
  for (const [view, i] of order) {
    const [x0, y0, x1, y1] = view.box.map((v) => (100 * v).toFixed(0));
    const place = i === 0 ? "whole picture" : `${x0} to ${x1} % across, ${y0} to ${y1} % down`;
    body.append(make("tr", {}, make("td", {}, percent(view.weight)), make("td", {}, view.log_odds.toFixed(2)), make("td", {}, place)));
  }
  const head = make("tr", {}, ...["Weight", "Log-odds", "Place"].map((h) => make("th", { scope: "col" }, h)));
  return make("details", {}, make("summary", {}, `${views.length} views as a table`), make("table", {}, make("thead", {}, head), body));
}

function card(file) {
  const element = make("section", {}, make("h2", {}, file.name || "Pasted picture"), make("p", { class: "soft" }, "Waiting for the answer."));
  byId("results").prepend(element);
  return element;
}

function showAnswer(element, file, answer, seconds) {
  const image = make("img", { alt: `The picture ${file.name}` });
  const frame = make("div", { class: "picture" }, image);
  image.src = URL.createObjectURL(file);
  image.addEventListener("error", () => frame.replaceChildren(make("p", { class: "soft" }, "This browser cannot show this kind of picture.")));
  const layer = overlay(answer.views);
  frame.append(layer);
  const toggle = make("input", { type: "checkbox", checked: "" });
  toggle.addEventListener("change", () => layer.classList.toggle("hidden", !toggle.checked));
  const facts = make("dl");
  const sets = answer.prediction_set.map((s) => NAMES[s].toLowerCase()).join(", ") || "none";
  const rows = [
    ["Why", answer.reason],
    ["Not excluded", sets],
    ["Views looked at", String(answer.views.length)],
    ...(answer.stage === undefined ? [] : [["Stopped after stage", String(answer.stage)], ["Cost", `${percent(answer.cost)} of looking at everything`]]),
    ...Object.entries(answer.uncertainty).map(([k, v]) => [k[0].toUpperCase() + k.slice(1).replaceAll("_", " "), `${v.toFixed(3)} ${UNITS[k] ?? ""}`]),
    ["Time", `${seconds.toFixed(2)} s`],
    ...(sameBundle(answer) ? [] : [["Answered by", `${answer.bundle.name} (${answer.bundle.role})`]]),
  ];
  for (const [name, value] of rows) facts.append(make("dt", {}, name), make("dd", {}, value));
  element.replaceChildren(
    make("h2", {}, file.name || "Pasted picture"),
    make(
      "div", { class: "two" },
      make(
        "div", {}, frame,
        make("p", {}, make("label", {}, toggle, " Views: orange speaks for roadwork, blue against; fuller weighs more")),
      ),
      make(
        "div", {},
        make("p", { class: `verdict ${answer.decision}` }, NAMES[answer.decision]),
        make("p", {}, `Probability of roadwork ${percent(answer.probability)}`),
        bar(answer), ...marks(answer), make("p", { class: answer.certificate.status === "void" ? "bad" : "soft" }, STATES[answer.certificate.status]),
        facts, viewTable(answer.views),
      ),
    ),
  );
}

async function predict(file) {
  const element = card(file);
  await ready;
  const query = new URLSearchParams({ views: "1" });
  for (const input of document.querySelectorAll("[data-column]")) {
    query.append("slice", `${input.dataset.column}=${input.value.trim()}`);
  }
  const began = performance.now();
  try {
    if (file.size > served.limits.bytes) throw new Error("The picture is larger than the server accepts. Make it smaller.");
    const headers = { "Content-Type": "application/octet-stream" };
    const answer = await (await ask(`v1/predict?${query}`, { method: "POST", body: file, headers })).json();
    showAnswer(element, file, answer, (performance.now() - began) / 1000);
    if (sameBundle(answer)) showPromise(answer.certificate);
    return true;
  } catch (error) {
    element.replaceChildren(make("h2", {}, file.name || "Pasted picture"), make("p", { class: "bad" }, error.message));
    return false;
  }
}

async function predictAll(files) {
  let done = 0, answered = 0;
  for (const file of files) {
    byId("status").textContent = `Picture ${++done} of ${files.length}`;
    answered += Number(await predict(file));
  }
  if (!files.length) return;
  const said = files.length === 1 ? (answered ? "Answered." : "") : `${answered} of ${files.length} pictures answered.`;
  byId("status").textContent = said;
}

byId("files").addEventListener("change", (event) => {
  predictAll([...event.target.files]);
  event.target.value = "";
});
document.addEventListener("paste", (event) => predictAll([...event.clipboardData.files]));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") predictAll([...event.dataTransfer.files]);
  });
}
withKey(async () => (await ask("v1/model")).json(), begin);
