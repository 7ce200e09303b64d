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

/** Show the picture whose turn it is; what the page says changes once it can be seen, and keys count from then on. */
async function showNext(state) {
  const [item, after] = state.queue;
  if (item) {
    byId("shown").src = await picture(item.sha256);
    await byId("shown").decode().catch(() => {}); // has no width then, which is said below
    const when = new Date(item.time * 1000).toLocaleString();
    const broken = byId("shown").naturalWidth ? "" : " This browser cannot show this kind of picture: skip it.";
    byId("about").textContent = `${when}.${item.disputed ? " Others disagree about this one." : ""}${broken}`;
  }
  queue = state.queue;
  byId("u").disabled = answered.length === 0;
  byId("task").classList.toggle("hidden", !item);
  showProgress(state);
  if (after) picture(after.sha256).catch(() => {}); // fetched ahead; an error is shown when its turn comes
}

async function progress() {
  return (await ask(`v1/review?${new URLSearchParams({ reviewer })}`)).json();
}

/** Do one thing after the other: a key pressed before the next picture is seen would answer for one nobody looked at. */
async function alone(work) {
  if (busy) return;
  busy = true;
  byId("task").setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    byId("status").textContent = error.message;
  } finally {
    busy = false;
    byId("task").removeAttribute("aria-busy");
  }
}

async function load() {
  const state = await progress();
  for (const id of ["back", "download"]) byId(id).classList.remove("hidden");
  byId("who").classList.add("hidden");
  await showNext(state);
  byId("r").focus();
}

async function say(label) {
  if (!reviewer || (label === "undo" ? !answered.length : !queue.length)) return;
  const sha256 = label === "undo" ? answered.at(-1) : queue[0].sha256;
  const body = JSON.stringify({ sha256, reviewer, label });
  await ask("v1/review", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (label === "undo") answered.pop();
  else if (answered.at(-1) !== sha256) answered.push(sha256); // sent twice where what comes next could not be fetched
  const state = await progress();
  // What was taken back is what the reviewer wants to see now.
  if (label === "undo") state.queue.sort((a, b) => (b.sha256 === sha256) - (a.sha256 === sha256));
  await showNext(state);
}

document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const label = KEYS[event.key.toLowerCase()];
  if (label) alone(() => say(label));
});
for (const [key, label] of Object.entries(KEYS)) byId(key).addEventListener("click", () => alone(() => say(label)));
byId("download").addEventListener("click", async (event) => {
  event.preventDefault();
  try {
    const blob = await (await ask("v1/review/export")).blob();
    make("a", { href: URL.createObjectURL(blob), download: "manifest.csv" }).click();
  } catch (error) {
    byId("status").textContent = error.message;
  }
});
byId("who").addEventListener("submit", (event) => {
  event.preventDefault();
  reviewer = byId("reviewer").value.trim();
  sessionStorage.setItem("workzone-reviewer", reviewer);
  alone(load);
});
withKey(
  async () => (await ask("v1/model")).json(),
  async (model) => {
    if (!model.review) {
      byId("status").textContent = "This server keeps no pictures for review. Start it with --keep-abstained FOLDER.";
    } else if (reviewer) {
      await alone(load);
    } else {
      byId("who").classList.remove("hidden");
      byId("reviewer").focus();
    }
  },
);
