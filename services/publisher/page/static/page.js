// Keeps the page up to date: the parts that change are fetched as the publisher renders them, and put in place.
"use strict";

const INTERVAL = 2000; // milliseconds
const SLOWEST = 30000;
const PARTS = ["overview", "images", "image", "layers"];

const freshness = document.getElementById("freshness");
let pause = INTERVAL;
let lastSeen = Date.now();

function isBusy() {
  // What somebody is selecting, to copy it, stays.
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed;
}

function put(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const id of PARTS) {
    const focused = document.activeElement?.closest(`#${id} a`)?.getAttribute("href");
    const part = document.getElementById(id);
    const successor = fresh.getElementById(id);
    if (part === null || successor === null) continue;
    part.replaceWith(document.adoptNode(successor));
    if (focused) successor.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
}

async function update() {
  try {
    const answer = await fetch(`${document.body.dataset.live}${location.search}`, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (answer.status >= 500) throw new Error(`HTTP ${answer.status}`);
    const html = await answer.text();
    if (!isBusy()) put(html);
    pause = INTERVAL;
    lastSeen = Date.now();
    document.body.classList.remove("stale");
    freshness.textContent = "Live";
  } catch {
    pause = Math.min(pause * 2, SLOWEST);
    document.body.classList.add("stale");
    const seconds = Math.round((Date.now() - lastSeen) / 1000);
    freshness.textContent = `No answer from the publisher for ${seconds} s`;
  }
  schedule();
}

let timer;
function schedule() {
  clearTimeout(timer);
  // Nobody looks at a hidden page; it is brought up to date when it is shown again.
  if (!document.hidden) timer = setTimeout(update, pause);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) update();
});
freshness.textContent = "Live";
schedule();
