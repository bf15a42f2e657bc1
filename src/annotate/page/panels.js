// Everything beside the pair: the welcome, the end, the statistics, the notice. Owns their elements.
import { element } from "./pair.js";

const byId = (id) => document.getElementById(id);
const REFRESH = 3000;

/** Which of the screens is shown: "loading", "welcome", "pair" or "end". */
export function screen(name) {
  document.documentElement.dataset.screen = name;
}

/** A line above the pair for what went wrong; none where `words` is empty. */
export function notice(words) {
  const line = byId("notice");
  if (line.textContent === words && line.hidden === !words) return;
  line.textContent = words;
  line.hidden = !words;
}

/** Asks for a name; `known` are the names of those who have judged before. */
export function welcome(known, last) {
  screen("welcome");
  const input = byId("name");
  input.value = last ?? "";
  byId("known").hidden = known.length === 0;
  return new Promise((resolve) => {
    const take = (name) => {
      const trimmed = name.trim();
      if (trimmed) resolve(trimmed);
    };
    byId("known-names").replaceChildren(
      ...known.map((name) => {
        const button = element("button", "", name);
        button.type = "button";
        button.addEventListener("click", () => take(name));
        return button;
      }),
    );
    byId("name-form").onsubmit = (event) => {
      event.preventDefault();
      take(input.value);
    };
    input.focus();
    input.select();
  });
}

/** A time in words that do not pretend to more than is known. */
export function duration(seconds) {
  if (seconds < 60) return "under 1 min";
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** How far the work has come. */
export function progress({ done, left, pace }) {
  const total = done + left;
  const bar = byId("progress");
  bar.max = Math.max(total, 1);
  bar.value = done;
  byId("count").textContent = `${done} of ${total}`;
  byId("time-left").textContent = pace !== null && left > 0 ? `${duration(pace * left)} left` : "";
}

/** The page after the last pair. */
export function end({ done, pace }, about) {
  screen("end");
  const judged = done === 1 ? "1 pair" : `${done} pairs`;
  const median = pace === null ? "" : `, at a median of ${pace.toFixed(1)} s`;
  byId("end-words").textContent =
    `You have been through ${judged}${median}. Every vote is on the disk. Pairs that others still have on their screens ` +
    "may come back to you.";
  byId("end-command").textContent = `collimate annotate ${about.pairs} --export preferences.jsonl`;
  byId("end").focus({ preventScroll: true });
}

const percent = (share) => `${Math.round(share * 100)} %`;

function row(person, name) {
  const line = element("tr");
  const head = element("th", "", name);
  head.scope = "row";
  const range = person.left_interval?.map((share) => Math.round(share * 100)).join("–");
  const cells = [
    person.votes,
    person.left,
    person.right,
    person.ties,
    person.both_bad,
    person.skipped,
    person.left_share === null ? "–" : `${percent(person.left_share)} (${range})`,
    person.pace === null ? "–" : `${person.pace.toFixed(1)} s`,
    person.repeated === 0 ? "–" : `${person.consistent} of ${person.repeated}`,
  ];
  line.append(head, ...cells.map((value) => element("td", "", String(value))));
  return line;
}

function agreement({ pairs, alpha, same }) {
  if (pairs === 0) return "No pair has been judged by two people yet.";
  const judged = pairs === 1 ? "1 pair" : `${pairs} pairs`;
  const words = `${judged} judged by two or more: ${percent(same)} of their judgements are the same`;
  if (alpha === null) return `${words}; Krippendorff’s α is not defined while everybody says the same.`;
  return `${words}, Krippendorff’s α = ${alpha.toFixed(2)}.`;
}

/** Shows the statistics, and keeps them fresh while they are shown. */
export async function statistics(fetchThem) {
  const dialog = byId("statistics");
  const draw = async () => {
    const { annotators, all, agreement: between } = await fetchThem();
    const rows = annotators.map((person) => row(person, person.name));
    if (annotators.length !== 1) rows.push(row(all, "all"));
    byId("statistics-rows").replaceChildren(...rows);
    byId("agreement").textContent = agreement(between);
  };
  await draw();
  if (dialog.open) return;
  dialog.showModal();
  const timer = setInterval(() => draw().catch(() => {}), REFRESH);
  dialog.addEventListener("close", () => clearInterval(timer), { once: true });
}

/** Says something to who does not see the page. */
export function say(words) {
  byId("live").textContent = words;
}
