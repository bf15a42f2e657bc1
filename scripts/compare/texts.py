"""The rows that are compared on: from data/ or from the user's files, cut short, and their ids. Knows no model."""

from pathlib import Path

from binary import ROOT, read_rows

SFT, PREFERENCES = ROOT / "data" / "sft.jsonl", ROOT / "data" / "preferences.jsonl"


def cut(text: str, words: int, split: int, mid_word: bool) -> dict:
    """The first `words` words as prompt and completion. `mid_word`: the prompt ends two characters into a word, where
    tokens may merge across the boundary."""
    kept = text.split()[:words]
    split = min(split, len(kept) - 1)
    prompt = " ".join(kept[:split])
    rest = " " + " ".join(kept[split:])
    at = 3 if mid_word and len(kept[split]) > 4 else 0
    return {"prompt": prompt + rest[:at], "completion": rest[at:]}


def completions(count: int, source: Path | None = None, words: int = 24) -> list[dict]:
    """Rows {"prompt", "completion"} out of rows of that kind or of {"text"}; every fifth text is cut inside a word."""
    rows = []
    for number, row in enumerate(read_rows(source or SFT)):
        if "prompt" in row and "completion" in row:
            rows.append({"prompt": row["prompt"], "completion": row["completion"]})
        elif len(row.get("text", "").split()) > 4:
            rows.append(cut(row["text"], words, words // 3, number % 5 == 4))
        if len(rows) == count:
            return rows
    raise SystemExit(f"parity: {source or SFT} has {len(rows)} rows of use, {count} are needed")


def pairs(count: int, source: Path | None = None, rows: Path | None = None, words: int = 14) -> list[dict]:
    """Rows {"prompt", "chosen", "rejected"}, completions cut to `words`. Without a file of pairs but with one of rows,
    `rejected` is the completion of the row after: the arithmetic of the losses does not ask which one is better."""
    if source is None and rows is not None:
        texts = completions(count + 1, rows, words + words // 2)
        return [
            {"prompt": row["prompt"], "chosen": row["completion"], "rejected": after["completion"]}
            for row, after in zip(texts, texts[1:])
        ]
    found = []
    for row in read_rows(source or PREFERENCES):
        short = {key: " " + " ".join(row[key].split()[:words]) for key in ("chosen", "rejected")}
        if row.get("preference", 1) == 1 and short["chosen"] != short["rejected"]:
            found.append({"prompt": row["prompt"], **short})
        if len(found) == count:
            return found
    raise SystemExit(f"parity: {source or PREFERENCES} has {len(found)} pairs of use, {count} are needed")


def encode(tokenizer, row: dict) -> tuple[list[int], int]:
    """Ids of prompt and completion, EOS at the end, and where the completion begins: where the prompt's own ids and
    those of the whole part."""
    prompt = tokenizer(row["prompt"])["input_ids"]
    whole = tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"]
    shared = 0
    while shared < min(len(prompt), len(whole)) and prompt[shared] == whole[shared]:
        shared += 1
    return whole, shared
