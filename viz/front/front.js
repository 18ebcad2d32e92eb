// @ts-check
// Front: start traces, follow or cancel them, and open their graphs.
"use strict";

const EVERY = 300; // milliseconds between two polls of a trace

/** @typedef {{number: number, what: string, state: string, stage: string, part: number, made: string | null, error: string | null}} Job */

/** @param {string} id */
const place = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @param {string} path @param {RequestInit} [asked] */
async function answer(path, asked) {
  const found = await fetch(path, asked).catch(() => null);
  if (!found) throw new Error("The server does not answer: start it again, and open the address that it prints.");
  const data = await found.json();
  if (!found.ok) throw new Error(data.error ?? found.statusText);
  return data;
}

/** @param {string} name */
function graphLink(name) {
  const link = document.createElement("a");
  link.href = `/graphs/${encodeURIComponent(name)}`;
  link.textContent = name;
  return link;
}

async function listGraphs() {
  const names = /** @type {string[]} */ (await answer("/graphs"));
  const lines = names.map((name) => {
    const line = document.createElement("li");
    line.append(graphLink(name));
    return line;
  });
  place("graphs").replaceChildren(...lines);
  place("no-graphs").hidden = lines.length > 0;
}

/** @param {HTMLElement} line @param {Job} job */
function showJob(line, job) {
  const prompt = document.createElement("bdi");
  prompt.textContent = job.what;
  const status = document.createElement("span");
  status.textContent = job.error ?? ({ running: job.stage, waiting: "queued" }[job.state] ?? job.state);
  status.className = job.error ? "fails" : "quiet";
  line.replaceChildren(prompt, status);
  if (job.state === "waiting" || job.state === "running") {
    const bar = document.createElement("progress");
    if (job.part > 0) bar.value = job.part;
    const cancel = document.createElement("button");
    cancel.textContent = "Cancel";
    cancel.addEventListener("click", () => answer(`/jobs/${job.number}`, { method: "DELETE" }));
    line.append(bar, cancel);
  }
  if (job.made) line.append(graphLink(job.made));
}

/** @param {Job} job */
async function follow(job) {
  const line = document.createElement("li");
  place("jobs").prepend(line);
  for (showJob(line, job); ["waiting", "running"].includes(job.state); showJob(line, job)) {
    await new Promise((resolve) => setTimeout(resolve, EVERY));
    job = await answer(`/jobs/${job.number}`);
  }
  await listGraphs();
}

/** @param {string} id */
const field = (id) => /** @type {HTMLInputElement} */ (place(id));

/** What is asked for; what is left empty is not said. */
function request() {
  const { value: most } = field("max-features");
  return {
    prompt: field("prompt").value, chat: field("chat").checked, target: field("target").value ? [field("target").value] : [],
    against: field("against").value || null, max_features: most ? Number(most) : null,
  };
}

for (const button of place("examples").querySelectorAll("button")) {
  button.addEventListener("click", () => {
    field("prompt").value = button.textContent ?? "";
    field("prompt").focus();
  });
}

place("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const line = document.createElement("li");
  try {
    const body = JSON.stringify(request());
    await follow(await answer("/traces", { method: "POST", headers: { "content-type": "application/json" }, body }));
  } catch (error) {
    line.className = "fails";
    line.textContent = error instanceof Error ? error.message : String(error);
    place("jobs").prepend(line);
  }
});

listGraphs();
