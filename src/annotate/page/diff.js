// Which words of two texts stand in one of them only. Pure functions on strings; must not know the page.

// Longest table of a comparison word by word; longer texts are first cut at words that occur once in both.
const MOST_CELLS = 4_000_000;
// Below this share of common words, marks would cover everything and tell nothing.
const ALIKE = 0.15;
// So few words in common between two larger changes are chance.
const CHANCE = 2;

const segmenter = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;

/** The text cut into words, spaces and signs; put together they are the text again. */
export function words(text) {
  if (segmenter) {
    return Array.from(segmenter.segment(text), (part) => part.segment);
  }
  return text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
}

const isSpace = (word) => word.trim() === "";

/**
 * Compares two lists of words. `left[i]` is true where word i of the left list is not in the right one, in order;
 * `alike` is false where so little is common that nothing is marked.
 */
export function compare(leftWords, rightWords) {
  const left = indices(leftWords);
  const right = indices(rightWords);
  const [ours, theirs] = [left.map((i) => leftWords[i]), right.map((i) => rightWords[i])];
  const pairs = tidy(slide(match(ours, theirs), ours, theirs), left.length, right.length);
  const longest = Math.max(left.length, right.length);
  if (longest > 0 && pairs.length / longest < ALIKE) {
    return { alike: false, left: leftWords.map(() => false), right: rightWords.map(() => false) };
  }
  return {
    alike: true,
    left: marks(leftWords, left, new Set(pairs.map(([i]) => i))),
    right: marks(rightWords, right, new Set(pairs.map(([, j]) => j))),
  };
}

function indices(list) {
  const found = [];
  list.forEach((word, at) => isSpace(word) || found.push(at));
  return found;
}

// Words that are not matched are marked, and the space between two of them.
function marks(list, solid, matched) {
  const marked = list.map(() => false);
  solid.forEach((at, nth) => {
    marked[at] = !matched.has(nth);
    const before = nth > 0 ? solid[nth - 1] : null;
    if (marked[at] && before !== null && marked[before]) {
      marked.fill(true, before + 1, at);
    }
  });
  return marked;
}

// Matching words of two lists, as pairs of positions in rising order.
function match(left, right, fromLeft = 0, fromRight = 0) {
  let start = 0;
  while (start < left.length && start < right.length && left[start] === right[start]) start += 1;
  let end = 0;
  const most = Math.min(left.length, right.length) - start;
  while (end < most && left[left.length - 1 - end] === right[right.length - 1 - end]) end += 1;
  const pairs = Array.from({ length: start }, (_, i) => [fromLeft + i, fromRight + i]);
  const innerLeft = left.slice(start, left.length - end);
  const innerRight = right.slice(start, right.length - end);
  // Not push(...): a long text has more words than a call may have arguments.
  for (const pair of inner(innerLeft, innerRight, fromLeft + start, fromRight + start)) pairs.push(pair);
  for (let i = end; i > 0; i -= 1) {
    pairs.push([fromLeft + left.length - i, fromRight + right.length - i]);
  }
  return pairs;
}

function inner(left, right, fromLeft, fromRight) {
  if (left.length === 0 || right.length === 0) return [];
  if (left.length * right.length <= MOST_CELLS) {
    return table(left, right).map(([i, j]) => [fromLeft + i, fromRight + j]);
  }
  const anchors = rising(unique(left, right));
  // Without an anchor nothing would be smaller than before: such stretches differ.
  if (anchors.length === 0) return [];
  let pairs = [];
  let [l, r] = [0, 0];
  for (const [i, j] of anchors) {
    pairs = pairs.concat(match(left.slice(l, i), right.slice(r, j), fromLeft + l, fromRight + r));
    pairs.push([fromLeft + i, fromRight + j]);
    [l, r] = [i + 1, j + 1];
  }
  return pairs.concat(match(left.slice(l), right.slice(r), fromLeft + l, fromRight + r));
}

// The longest common subsequence by dynamic programming.
function table(left, right) {
  const wide = right.length + 1;
  const lengths = new Uint16Array((left.length + 1) * wide);
  for (let i = left.length - 1; i >= 0; i -= 1) {
    for (let j = right.length - 1; j >= 0; j -= 1) {
      const at = i * wide + j;
      lengths[at] =
        left[i] === right[j] ? lengths[at + wide + 1] + 1 : Math.max(lengths[at + wide], lengths[at + 1]);
    }
  }
  const pairs = [];
  for (let i = 0, j = 0; i < left.length && j < right.length; ) {
    const at = i * wide + j;
    if (left[i] === right[j]) {
      pairs.push([i, j]);
      i += 1;
      j += 1;
    } else if (lengths[at + wide] >= lengths[at + 1]) {
      i += 1;
    } else {
      j += 1;
    }
  }
  return pairs;
}

// Words that occur once in each list: where they stand in both.
function unique(left, right) {
  const once = (list) => {
    const places = new Map();
    list.forEach((word, at) => places.set(word, places.has(word) ? -1 : at));
    return places;
  };
  const inRight = once(right);
  const both = [];
  for (const [word, i] of once(left)) {
    const j = inRight.get(word);
    if (i >= 0 && j !== undefined && j >= 0) both.push([i, j]);
  }
  return both.sort((a, b) => a[0] - b[0]);
}

// The longest run of pairs that rises in both positions.
function rising(pairs) {
  const ends = [];
  const before = pairs.map(() => -1);
  pairs.forEach(([, j], at) => {
    let low = 0;
    let high = ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (pairs[ends[middle]][1] < j) low = middle + 1;
      else high = middle;
    }
    if (low > 0) before[at] = ends[low - 1];
    ends[low] = at;
  });
  const run = [];
  for (let at = ends.length ? ends[ends.length - 1] : -1; at >= 0; at = before[at]) run.push(pairs[at]);
  return run.reverse();
}

// A sentence that was put in begins after the full stop before it and takes its own along, not the other way round.
function slide(pairs, left, right) {
  for (let at = 1; at < pairs.length; at += 1) {
    const [[i, j], [k, l]] = [pairs[at - 1], pairs[at]];
    if (!/^\p{P}$/u.test(left[k])) continue;
    if (k === i + 1 && l > j + 1 && right[j + 1] === right[l]) pairs[at] = [k, j + 1];
    if (l === j + 1 && k > i + 1 && left[i + 1] === left[k]) pairs[at] = [i + 1, l];
  }
  return pairs;
}

// Takes out islands: very few matched words between larger changes make a patchwork that nobody can read.
function tidy(pairs, leftLength, rightLength) {
  const runs = [];
  for (const pair of pairs) {
    const run = runs[runs.length - 1];
    const last = run?.[run.length - 1];
    if (last && last[0] + 1 === pair[0] && last[1] + 1 === pair[1]) run.push(pair);
    else runs.push([pair]);
  }
  const kept = [];
  let end = [-1, -1];
  runs.forEach((run, nth) => {
    const next = runs[nth + 1]?.[0] ?? [leftLength, rightLength];
    const last = run[run.length - 1];
    const before = Math.max(run[0][0] - end[0], run[0][1] - end[1]) - 1;
    const after = Math.max(next[0] - last[0], next[1] - last[1]) - 1;
    if (run.length <= CHANCE && before > run.length && after > run.length) return;
    for (const pair of run) kept.push(pair);
    end = last;
  });
  return kept;
}
