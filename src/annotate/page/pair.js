// Shows a pair. Model text enters the document as text nodes and in no other way. Owns the three panels.
import { compare, words } from "./diff.js";

const panels = ["prompt", "left", "right"].map((id) => document.getElementById(id));
const differences = document.getElementById("differences");
// By the pair itself: under one key two people may see other sides.
const compared = new WeakMap();
let shown = null;

/** Whether differences are marked. */
export const marking = () => differences.getAttribute("aria-pressed") === "true";

/** Marks differences, or stops marking them. */
export function mark(on) {
  differences.setAttribute("aria-pressed", String(on));
  if (shown) show(shown);
}

/** Compares a pair ahead of time, so that it shows at once. */
export function prepare(pair) {
  if (pair && marking()) comparison(pair);
}

/** Shows a pair, from its beginning where it is a new one. */
export function show(pair) {
  const isNew = shown !== pair;
  shown = pair;
  const [prompt, left, right] = panels;
  const found = marking() ? comparison(pair) : null;
  fill(prompt, blocks(pair.prompt), null);
  fill(left, blocks(pair.left, true), found?.left);
  fill(right, blocks(pair.right, true), found?.right);
  const note = found && !found.alike ? "almost nothing in common" : "";
  for (const panel of [left, right]) {
    panel.querySelector("small").textContent = note;
    panel.classList.toggle("marked", Boolean(found?.alike));
  }
  if (!isNew) return;
  for (const panel of panels) {
    panel.scrollTop = 0;
    const text = panel.querySelector(".text");
    text.scrollTop = 0;
    // Of a long conversation, what is to be answered stands last.
    const last = panel.id === "prompt" && text.querySelector(".turn + .turn:last-child");
    if (last) text.scrollTop = last.offsetTop - text.offsetTop - 8;
    text.getAnimations().forEach((animation) => animation.cancel());
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
      text.animate([{ opacity: 0.4 }, { opacity: 1 }], { duration: 120, easing: "ease-out" });
    }
  }
  window.scrollTo(0, 0);
}

/** Scrolls panels, by `lines` of text or by `pages`; on a narrow screen the page as a whole. */
export function scroll(which, lines, pages = 0) {
  const chosen = which === "prompt" ? [panels[0]] : panels.slice(1);
  const texts = chosen.map((panel) => panel.querySelector(".text"));
  const inside = texts.some((text) => getComputedStyle(text).overflowY === "auto");
  for (const text of inside ? texts : [document.scrollingElement]) {
    text.scrollBy({ top: lines * 28 + pages * Math.max(text.clientHeight - 56, 28), behavior: "instant" });
  }
}

// A text is one block, a conversation one a turn. An answer that is one turn of the assistant needs no name over it.
function blocks(content, isAnswer) {
  if (!content) return [];
  if (!content.turns) return [{ text: content.text }];
  const plain = isAnswer && content.turns.length === 1 && content.turns[0].role === "assistant";
  return content.turns.map((turn) => ({ ...turn, plain }));
}

function comparison(pair) {
  if (!compared.has(pair)) {
    const [left, right] = [pair.left, pair.right].map((content) => blocks(content).map((block) => words(block.text)));
    const found = compare(left.flat(), right.flat());
    const split = (lists, marked) => {
      let at = 0;
      return lists.map((list) => list.map((word) => ({ word, only: marked[at++] })));
    };
    compared.set(pair, {
      alike: found.alike,
      left: split(left, found.left),
      right: split(right, found.right),
    });
  }
  return compared.get(pair);
}

function fill(panel, list, marked) {
  const text = panel.querySelector(".text");
  text.replaceChildren();
  list.forEach((block, at) => text.append(turn(block, marked?.[at])));
}

function turn(block, marked) {
  const box = element("div", "turn");
  if (block.role !== undefined && !block.plain) {
    box.dataset.role = ["system", "user", "assistant"].includes(block.role) ? block.role : "other";
    box.append(element("h3", "role", block.role));
  }
  const said = element("p", "said");
  said.dir = "auto";
  if (marked) runs(marked).forEach((node) => said.append(node));
  else said.textContent = block.text;
  box.append(said);
  if (block.more !== undefined) box.append(element("pre", "more", block.more));
  return box;
}

// Words that are marked alike stand in one element.
function runs(list) {
  const nodes = [];
  for (let at = 0; at < list.length; ) {
    let end = at;
    while (end < list.length && list[end].only === list[at].only) end += 1;
    const text = list.slice(at, end).map(({ word }) => word).join("");
    nodes.push(list[at].only ? element("mark", "only", text) : document.createTextNode(text));
    at = end;
  }
  return nodes;
}

/** An element with a class and, where there is one, a text. */
export function element(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}
