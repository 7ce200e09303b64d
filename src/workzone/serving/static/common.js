"use strict";

const byId = (id) => document.getElementById(id);

/** An element with attributes and children; text is never read as HTML. */
function make(name, attributes = {}, ...children) {
  const spaces = { svg: 1, rect: 1, line: 1, text: 1, title: 1, g: 1 };
  const element = spaces[name]
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

class Refused extends Error {
  constructor(status, error) {
    super(error.fix ? `${error.what}. ${error.fix[0].toUpperCase()}${error.fix.slice(1)}.` : `${error.what}.`);
    this.status = status;
  }
}

/** Fetch with the key; throws Refused with a sentence for people. */
async function ask(path, options = {}) {
  const key = sessionStorage.getItem("workzone-key");
  const headers = { ...options.headers, ...(key ? { "X-API-Key": key } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused(0, { what: "The server cannot be reached", fix: "check that it runs, then try again" });
  }
  if (response.ok) return response;
  const error = await response.json().then((b) => b.error, () => null);
  throw new Refused(response.status, error?.what ? error : { what: `The server answered ${response.status}` });
}

/** Ask for a key until one is accepted, then call `then`; also called when no key is needed. */
function withKey(first, then) {
  const form = byId("key-form");
  const attempt = async () => {
    try {
      const value = await first();
      form.classList.add("hidden");
      await then(value);
    } catch (error) {
      if (error.status !== 401) {
        byId("status").textContent = error.message;
        return;
      }
      form.classList.remove("hidden");
      byId("key-said").textContent = sessionStorage.getItem("workzone-key") ? "This key is not known." : "";
      byId("key").focus();
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("workzone-key", byId("key").value.trim());
    attempt();
  });
  attempt();
}

/** With one digit; with more where that would read as impossible or certain. */
const percent = (p) => `${p === 0 || p === 1 ? 100 * p : (100 * p).toFixed(p > 0.001 && p < 0.999 ? 1 : 2)} %`;
