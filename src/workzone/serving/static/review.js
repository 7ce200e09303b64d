"use strict";

const KEYS = { r: "roadwork", n: "none", s: "skip", u: "undo" };
const WORDS = { roadwork: "roadwork", none: "none", skip: "skipped" };
let reviewer = sessionStorage.getItem("workzone-reviewer") || "";
let queue = [];
let answered = [];
let busy = false;
const urls = new Map();

async function picture(sha256) {
  if (!urls.has(sha256)) {
    const blob = await (await ask(`v1/review/picture/${sha256}`)).blob();
    urls.set(sha256, URL.createObjectURL(blob));
  }
  return urls.get(sha256);
}

function showProgress(state) {
  const full = state.full ? " The folder is full: no further pictures are kept." : "";
  byId("status").textContent = state.left
    ? `${reviewer}: ${state.left} to look at, ${state.settled} of ${state.pictures} settled.${full}`
    : `${reviewer}: nothing left to look at. ${state.settled} of ${state.pictures} pictures are settled.${full}`;
  const list = state.disagreements.map((item) => {
    const said = Object.entries(item.labels).map(([name, label]) => `${name}: ${WORDS[label]}`).join(", ");
    const link = make("a", { href: "#" }, item.sha256.slice(0, 12));
    link.addEventListener("click", async (event) => {
      event.preventDefault();
      window.open(await picture(item.sha256), "_blank", "noopener");
    });
    return make("li", {}, link, ` ${said}`);
  });
  byId("disputed").replaceChildren(...list);
  byId("disputes").classList.toggle("hidden", list.length === 0);
}

async function showNext() {
  byId("u").disabled = answered.length === 0;
  byId("task").classList.toggle("hidden", queue.length === 0);
  if (!queue.length) return;
  const item = queue[0];
  const when = new Date(item.time * 1000).toLocaleString();
  byId("about").textContent = `${when}.${item.disputed ? " Others disagree about this one." : ""}`;
  byId("shown").src = await picture(item.sha256);
  if (queue[1]) picture(queue[1].sha256).catch(() => {}); // fetched ahead; an error is shown when its turn comes
}

async function load() {
  const state = await (await ask(`v1/review?${new URLSearchParams({ reviewer })}`)).json();
  for (const id of ["back", "download"]) byId(id).classList.remove("hidden");
  queue = state.queue;
  showProgress(state);
  await showNext();
}

async function say(label) {
  if (busy || !reviewer || (label === "undo" ? !answered.length : !queue.length)) return;
  busy = true;
  try {
    const sha256 = label === "undo" ? answered.at(-1) : queue[0].sha256;
    const body = JSON.stringify({ sha256, reviewer, label });
    await ask("v1/review", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (label === "undo") answered.pop();
    else answered.push(sha256);
    const state = await (await ask(`v1/review?${new URLSearchParams({ reviewer })}`)).json();
    queue = state.queue;
    if (label === "undo") {
      // What was taken back is what the reviewer wants to see now.
      queue.sort((a, b) => (b.sha256 === sha256) - (a.sha256 === sha256));
    }
    showProgress(state);
    await showNext();
  } catch (error) {
    byId("status").textContent = error.message;
  } finally {
    busy = false;
  }
}

document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const label = KEYS[event.key.toLowerCase()];
  if (label) say(label);
});
for (const [key, label] of Object.entries(KEYS)) byId(key).addEventListener("click", () => say(label));
byId("shown").addEventListener("error", () => {
  byId("about").textContent += " This browser cannot show this kind of picture: skip it.";
});
byId("download").addEventListener("click", async (event) => {
  event.preventDefault();
  try {
    const blob = await (await ask("v1/review/export")).blob();
    make("a", { href: URL.createObjectURL(blob), download: "manifest.csv" }).click();
  } catch (error) {
    byId("status").textContent = error.message;
  }
});
byId("who").addEventListener("submit", async (event) => {
  event.preventDefault();
  reviewer = byId("reviewer").value.trim();
  sessionStorage.setItem("workzone-reviewer", reviewer);
  try {
    await load();
    byId("who").classList.add("hidden");
    byId("r").focus();
  } catch (error) {
    byId("status").textContent = error.message;
  }
});
withKey(
  async () => (await ask("v1/model")).json(),
  async (model) => {
    if (!model.review) {
      byId("status").textContent = "This server keeps no pictures for review. Start it with --keep-abstained FOLDER.";
    } else if (reviewer) {
      await load();
    } else {
      byId("who").classList.remove("hidden");
      byId("reviewer").focus();
    }
  },
);
