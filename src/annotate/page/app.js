// The page's course: who judges, the pair, the vote, the next pair. Owns requests, keys and time; what is shown is
// pair.js's and panels.js's.
import * as panels from "./panels.js";
import { mark, marking, prepare, scroll, show } from "./pair.js";

const byId = (id) => document.getElementById(id);
// A key that is still held down from the last pair must not judge this one.
const BLIND_MS = 120;
const PATIENCE_MS = [500, 1000, 2000, 4000];
// After a sleep or a change of network a request may wait for an answer that never comes.
const ANSWER_MS = 8000;
const WORDS = { left: "Left", right: "Right", tie: "Tie", both_bad: "Both bad", skip: "Skipped" };

const state = { annotator: null, about: null, current: null, upcoming: null, last: null, busy: false, done: 0, left: 0 };

// --- Requests ------------------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function post(route, body) {
  const answer = await fetch(`api/${route}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body ?? {}),
    cache: "no-store",
    credentials: "same-origin",
    redirect: "error",
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  if (answer.ok) return answer.json();
  const text = await answer.text();
  let words = text;
  try {
    words = JSON.parse(text).error ?? text;
  } catch {
    // Not every refusal comes as JSON.
  }
  throw new Refused(answer.status, words);
}

const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));

// Sends the same request until the server has answered it; a vote carries an id, so that it counts once.
async function insist(route, body) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await post(route, body);
      panels.notice("");
      return answer;
    } catch (error) {
      if (error instanceof Refused && error.status < 500) throw error;
      const reason = error instanceof Refused ? error.message : "the server does not answer";
      panels.notice(`Not saved yet: ${reason}. Trying again; leave this page open.`);
      await sleep(PATIENCE_MS[Math.min(attempt, PATIENCE_MS.length - 1)]);
    }
  }
}

// Not crypto.randomUUID: that needs a secure context, which an address of the local network is not.
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- Time ----------------------------------------------------------------------------------------------------------

// Seconds that the pair was on a visible page.
const clock = {
  spent: 0,
  since: null,
  start() {
    this.spent = 0;
    this.since = document.hidden ? null : performance.now();
  },
  toggle() {
    if (document.hidden && this.since !== null) {
      this.spent += performance.now() - this.since;
      this.since = null;
    } else if (!document.hidden && this.since === null) {
      this.since = performance.now();
    }
  },
  seconds() {
    return (this.spent + (this.since === null ? 0 : performance.now() - this.since)) / 1000;
  },
};
document.addEventListener("visibilitychange", () => clock.toggle());

// --- The course ----------------------------------------------------------------------------------------------------

function take(answer, saying) {
  const known = [state.upcoming, state.last, state.current].find((pair) => pair?.key === answer.current?.key);
  const current = answer.current?.left ? answer.current : known;
  state.last = state.current;
  state.current = answer.current ? current : null;
  state.upcoming = answer.upcoming;
  [state.done, state.left] = [answer.done, answer.left];
  panels.progress(answer);
  document.querySelectorAll('[data-do="undo"]').forEach((button) => {
    button.disabled = answer.done === 0;
  });
  if (!state.current) {
    panels.end(answer, state.about);
    panels.say(`${saying} That was all.`);
    return;
  }
  panels.screen("pair");
  show(state.current);
  clock.start();
  // Where the reading begins: the keys scroll, and no button is pressed by accident.
  byId("pair").focus({ preventScroll: true });
  panels.say(`${saying} Pair ${answer.done + 1} of ${answer.done + answer.left}.`);
  setTimeout(() => prepare(state.upcoming), 0);
}

// Runs one request at a time; what the server refuses is said, and where the work stands is asked for again.
async function exclusively(request, saying, button) {
  if (state.busy) return;
  state.busy = true;
  document.documentElement.dataset.busy = "";
  button?.classList.add("pressed");
  try {
    take(await request(), saying);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    panels.notice(`Not saved: ${error.message}`);
    if (error.status === 409) {
      const words = error.message;
      take(await insist("next", { annotator: state.annotator }), "");
      panels.notice(words);
    }
  } finally {
    state.busy = false;
    delete document.documentElement.dataset.busy;
    button?.classList.remove("pressed");
  }
}

const buttonOf = (action) => document.querySelector(`.actions [data-do="${action}"]`);
const have = () => state.upcoming?.key;

function vote(choice) {
  if (!state.current || clock.seconds() * 1000 < BLIND_MS) return;
  const ballot = {
    annotator: state.annotator,
    vote: newId(),
    key: state.current.key,
    choice,
    seconds: clock.seconds(),
    have: have(),
  };
  exclusively(() => insist("vote", ballot), `${WORDS[choice]}.`, buttonOf(choice));
}

function undo() {
  if (state.done === 0) return;
  const request = { annotator: state.annotator, undo: newId(), have: state.last?.key };
  exclusively(() => insist("undo", request), "Taken back.", buttonOf("undo"));
}

function act(action) {
  if (action === "undo") undo();
  else vote(action);
}

const statistics = () => panels.statistics(() => post("statistics")).catch((error) => panels.notice(error.message));

// --- Keys ----------------------------------------------------------------------------------------------------------

const KEYS = {
  ArrowLeft: "left",
  1: "left",
  ArrowRight: "right",
  2: "right",
  t: "tie",
  b: "both_bad",
  s: "skip",
  u: "undo",
  Backspace: "undo",
};

const SCROLLS = {
  ArrowUp: (shift) => scroll(shift ? "prompt" : "answers", -2),
  ArrowDown: (shift) => scroll(shift ? "prompt" : "answers", 2),
  " ": (shift) => scroll("answers", 0, shift ? -1 : 1),
  PageDown: () => scroll("answers", 0, 1),
  PageUp: () => scroll("answers", 0, -1),
};

const OPENS = {
  d: () => mark(!marking()),
  i: statistics,
  "?": () => byId("keys").showModal(),
};

function onKey(event) {
  const screen = document.documentElement.dataset.screen;
  const open = document.querySelector("dialog[open]");
  if (open || event.altKey || !["pair", "end"].includes(screen)) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key !== "z" || event.shiftKey) return;
    event.preventDefault();
    undo();
    return;
  }
  // A button that has the focus takes the space bar for itself.
  if (!byId("use-keys").checked || (key === " " && event.target.closest("button, summary, a, input"))) return;
  if (SCROLLS[key] && screen === "pair") {
    SCROLLS[key](event.shiftKey);
  } else if (event.repeat) {
    return;
  } else if (OPENS[key]) {
    OPENS[key]();
  } else if (KEYS[key] && !event.shiftKey) {
    act(KEYS[key]);
  } else {
    return;
  }
  event.preventDefault();
}

// --- Start ---------------------------------------------------------------------------------------------------------

function remember(storage, key, value) {
  try {
    if (value !== undefined) storage.setItem(key, value);
    return storage.getItem(key);
  } catch {
    // Without storage a name lasts as long as the page.
    return value ?? null;
  }
}

async function begin(name) {
  state.annotator = name;
  byId("who").textContent = name;
  byId("who").setAttribute("aria-label", `Annotator: ${name}; change`);
  [state.current, state.upcoming, state.last] = [null, null, null];
  try {
    take(await insist("next", { annotator: name }), "");
    remember(sessionStorage, "collimate-annotator", name);
    remember(localStorage, "collimate-annotator", name);
  } catch (error) {
    panels.notice(error.message);
    await ask();
  }
}

async function ask() {
  state.current = null;
  const { annotators } = await insist("about");
  await begin(await panels.welcome(annotators, remember(localStorage, "collimate-annotator")));
}

async function start() {
  state.about = await insist("about");
  byId("file").textContent = state.about.pairs;
  document.documentElement.dataset.prompts = state.about.prompts;
  document.addEventListener("keydown", onKey);
  document.querySelectorAll("[data-do]").forEach((button) => {
    button.addEventListener("click", () => act(button.dataset.do));
  });
  byId("differences").addEventListener("click", () => mark(!marking()));
  for (const id of ["open-statistics", "end-statistics"]) byId(id).addEventListener("click", statistics);
  byId("open-keys").addEventListener("click", () => byId("keys").showModal());
  byId("look-again").addEventListener("click", () => begin(state.annotator));
  byId("who").addEventListener("click", () => state.busy || ask());
  byId("use-keys").checked = remember(localStorage, "collimate-keys") !== "off";
  byId("use-keys").addEventListener("change", () => {
    remember(localStorage, "collimate-keys", byId("use-keys").checked ? "on" : "off");
  });
  window.addEventListener("beforeunload", (event) => {
    // A vote that is still on its way would be lost.
    if (state.busy && !byId("notice").hidden) event.preventDefault();
  });
  const name = remember(sessionStorage, "collimate-annotator");
  await (name ? begin(name) : ask());
}

start().catch((error) => panels.notice(error.message));
