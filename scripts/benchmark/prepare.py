"""Makes what both sides read, in a process of its own: the model's directory without dropout and with a pad token that
is not EOS, a reward model of the same weights with a random head, and the rows of every case.

Nothing is cut by either side: rows are made short enough here, since TRL and collimate cut differently.
"""

import json
import random
import shutil
from importlib.metadata import version
from pathlib import Path

import child
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
DROPOUTS = ["resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "attention_dropout", "hidden_dropout", "layerdrop"]
WEIGHTS = {".safetensors"}
COPIED = {".json", ".txt", ".jinja", ".model"}


def model_directory(model: str) -> Path:
    """A directory as it is; of a hub id the snapshot in the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    found = Path(model)
    if not found.is_dir():
        if model.startswith(("/", ".")) or model.count("/") > 1:
            raise SystemExit(f"{model} is not a directory")
        try:
            found = Path(snapshot_download(model, local_files_only=True))
        except LocalEntryNotFoundError as error:
            remedy = f"collimate fetch {model}"
            raise SystemExit(f"{model} is neither a directory nor in the cache; get it with: {remedy}") from error
    if missing := [name for name in ("config.json", "tokenizer.json") if not (found / name).is_file()]:
        raise SystemExit(f"{found} has no {missing[0]}; give a model directory in Hugging Face's layout")
    return found


def edit(file: Path, **changes) -> None:
    known = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(known | changes, indent=1), encoding="utf-8")


def reviews(file: str | None, count: int, enough) -> list[str]:
    """The first `count` texts of the file that are long `enough`. Without one: data/sft.jsonl, whose reviews are one to
    five sentences long, so that two to eight of them make one of ours."""
    texts = (row.get("text", "") for row in child.rows(file or str(ROOT / "data" / "sft.jsonl")))
    if file is None:
        every, lengths, texts = list(texts), random.Random(0), []
        while len(every) >= 8:
            taken = lengths.randint(2, 8)
            texts.append(" ".join(every[:taken]))
            del every[:taken]
    found = []
    for text in texts:
        if enough(text):
            found.append(text)
        if len(found) == count:
            return found
    raise SystemExit(f"{file or 'data/sft.jsonl'} has {len(found)} long reviews, {count} are needed: fewer --steps")


def copy_model(source: Path, target: Path, texts: list[str]):
    """Weights by a link. The pad token is one that occurs in no row: with pad = EOS transformers would take a reward
    before the EOS, and TRL leave the EOS out of the loss. Returns the tokenizer."""
    target.mkdir()
    for file in source.iterdir():
        if file.suffix in WEIGHTS:
            (target / file.name).symlink_to(file.resolve())
        elif file.suffix in COPIED:
            shutil.copy(file, target / file.name)
    tokenizer = AutoTokenizer.from_pretrained(target)
    used = {i for ids in tokenizer(texts)["input_ids"] for i in ids} | {tokenizer.eos_token_id, tokenizer.bos_token_id}
    candidates = [tokenizer.pad_token_id, *sorted(tokenizer.get_added_vocab().values())]
    candidates += range(len(tokenizer) - 1, -1, -1)
    pad = next(i for i in candidates if i is not None and i not in used)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (target / name).is_file():
            edit(target / name, pad_token=tokenizer.convert_ids_to_tokens(pad))
    known = json.loads((target / "config.json").read_text(encoding="utf-8"))
    edit(target / "config.json", pad_token_id=pad, **{name: 0.0 for name in DROPOUTS if name in known})
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert tokenizer.pad_token_id == pad
    return tokenizer


def save_reward(causal: Path, reward: Path) -> int:
    """A classifier with one label; returns its number of parameters without the head."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        causal, num_labels=1, dtype=torch.float32, problem_type="regression"
    )
    model.save_pretrained(reward)
    for file in causal.iterdir():
        if not (reward / file.name).exists() and file.suffix in COPIED and "index" not in file.name:
            shutil.copy(file, reward / file.name)
    return sum(p.numel() for p in model.base_model.parameters())


class Words:
    """The words of a text, taken from the front by numbers of tokens."""

    def __init__(self, tokenizer, text: str):
        self.tokenizer, self.words = tokenizer, text.split()

    def take(self, tokens: int, front: str) -> str:
        """At least `tokens` tokens of whole words, with a space before each but the first, which has `front`."""
        taken = ""
        while self.words and self.count(taken) < tokens:
            taken += (" " if taken else front) + self.words.pop(0)
        return taken

    def count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def cut(tokenizer, text: str, length: int) -> tuple[str, list[int]]:
    """The text's beginning of at most `length` tokens, EOS included, and its ids with EOS."""
    for kept in range(length - 1, 0, -1):
        ids = tokenizer(text)["input_ids"][:kept]
        short = tokenizer.decode(ids, skip_special_tokens=True)
        if tokenizer(short)["input_ids"] == ids:
            return short, [*ids, tokenizer.eos_token_id]
    raise SystemExit("no beginning of a review encodes to the tokens that it was decoded from")


def pair(tokenizer, text: str, other: str, settings: dict, lengths: random.Random) -> dict:
    """A prompt, how its review goes on, and a piece of another review."""
    words, others = Words(tokenizer, text), Words(tokenizer, other)
    low, high = settings["completion_tokens"]
    others.take(settings["prompt_tokens"], "")
    return {
        "prompt": words.take(settings["prompt_tokens"], ""),
        "chosen": words.take(lengths.randint(low, high), " "),
        "rejected": others.take(lengths.randint(low, high), " "),
    }


def write(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    job = child.job()
    settings, directory = job["settings"], Path(job["directory"])
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    source, lengths = model_directory(job["model"]), random.Random(0)
    rows = job["steps"] * job["batch"]
    plain = AutoTokenizer.from_pretrained(source)
    least = settings["prompt_tokens"] + settings["completion_tokens"][1] + 10
    count = max(rows + 1, *settings["prompts"])
    texts = reviews(job["reviews"], count, lambda text: len(plain(text)["input_ids"]) > least)
    tokenizer = copy_model(source, directory / "causal", texts)
    parameters = save_reward(directory / "causal", directory / "reward")
    whole = [cut(tokenizer, text, settings["sft_tokens"]) for text in texts[:rows]]
    pairs = [pair(tokenizer, a, b, settings, lengths) for a, b in zip(texts[:rows], texts[1:])]
    prompts = [{"prompt": Words(tokenizer, text).take(settings["prompt_tokens"], "")} for text in texts]
    write(directory / "sft.jsonl", [{"text": text} for text, _ in whole])
    # GPT2LMHeadModel's loss in TRL counts the first label, which nothing predicts: so it is none.
    write(directory / "sft-encoded.jsonl", [{"input_ids": ids, "labels": [-100, *ids[1:]]} for _, ids in whole])
    write(directory / "pairs.jsonl", pairs)
    write(directory / "prompts.jsonl", prompts)
    for count in settings["prompts"]:
        write(directory / f"prompts-{count}.jsonl", prompts[:count])
    child.answer(job, {
        "parameters": parameters,
        "sft_tokens": sum(len(ids) for _, ids in whole) / job["steps"],
        "pair_tokens": sum(
            len(tokenizer(row["prompt"] + row[key])["input_ids"]) + 1 for row in pairs for key in ("chosen", "rejected")
        ) / job["steps"],
        "prompt_tokens": sum(len(tokenizer(row["prompt"])["input_ids"]) for row in prompts) / len(prompts),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
    })


if __name__ == "__main__":
    main()
