"""tests/golden/tokenizer/: a byte-level BPE tokenizer in three variants, the ids of many texts, and what TRL 1.16's own
dataset preparation makes of prompts, completions and pairs.

The three variants share vocabulary and merges:
  plain   nothing added to a text, as GPT-2 does; EOS = BOS = <|endoftext|>, a pad token of its own
  bos     a post-processor puts <s> in front of every text, as Llama's does
  added   as `plain`, with special tokens <|user|> and <|assistant|> and an ordinary added word
"""

import json
import logging
import shutil
from types import SimpleNamespace

from common import GOLDEN, write_json
from datasets import Dataset, disable_progress_bars
from texts import BOUNDARY, IMPLICIT, PAIRS, PARAGRAPHS, TEXTS
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.sft_trainer import SFTTrainer

EOS, PAD, BOS = "<|endoftext|>", "<|pad|>", "<s>"
VOCABULARY = 400
DIRECTORY = GOLDEN / "tokenizer"
# Long enough for every row; short enough to cut some.
WHOLE, SHORT = 256, 24


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOS, PAD, BOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PARAGRAPHS.strip().split("\n\n"), trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY, tokenizer.get_vocab_size()
    return tokenizer


def save_variant(tokenizer: Tokenizer, name: str, config: dict) -> None:
    directory = DIRECTORY / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    variant = Tokenizer.from_str(tokenizer.to_str())
    if name == "bos":
        bos = variant.token_to_id(BOS)
        variant.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, bos)]
        )
    if name == "added":
        variant.add_special_tokens([AddedToken("<|user|>", normalized=False), AddedToken("<|assistant|>", rstrip=True)])
        variant.add_tokens([AddedToken("COLLIMATE", normalized=False)])
    variant.save(str(directory / "tokenizer.json"), pretty=False)
    base = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, "model_max_length": 64}
    (directory / "tokenizer_config.json").write_text(json.dumps(base | config, indent=2) + "\n")


def load(name: str):
    return AutoTokenizer.from_pretrained(DIRECTORY / name)


def texts(tokenizer) -> list[dict]:
    cases = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        cases.append({
            "text": text,
            "ids": ids,
            "bare": tokenizer(text, add_special_tokens=False)["input_ids"],
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True),
        })
    return cases


def sft_cases(tokenizer, max_length: int) -> list[dict]:
    """SFTTrainer's own preparation: EOS is appended to the text of a completion that does not end with it; prompt and
    prompt+completion are encoded (special tokens added) and the completion begins at the end of their longest common
    prefix; labels before it are -100; then the sequence is cut to its first max_length tokens (TRL's "keep_start") and
    rows left without labels are dropped."""
    args = SimpleNamespace(
        dataset_num_proc=None, max_length=max_length, truncation_mode="keep_start", shuffle_dataset=False,
        dataset_text_field="text", assistant_only_loss=False,
    )
    trainer = SimpleNamespace(_tokenizer=tokenizer, completion_only_loss=True, chat_template=None)
    cases = []
    for prompt, completion in BOUNDARY:
        row = Dataset.from_list([{"prompt": prompt, "completion": completion}])
        out = SFTTrainer._prepare_dataset(trainer, row, tokenizer, args, False, None, "train")
        if len(out) == 0:
            cases.append({"prompt": prompt, "completion": completion, "dropped": True})
            continue
        ids, labels = out[0]["input_ids"], out[0]["labels"]
        first = next(i for i, label in enumerate(labels) if label != -100)
        assert labels[first:] == ids[first:]
        cases.append({"prompt": prompt, "completion": completion, "ids": ids, "prompt_len": first})
    return cases


def text_cases(tokenizer, max_length: int) -> list[dict]:
    """Rows of whole texts: EOS appended, every token a label."""
    args = SimpleNamespace(
        dataset_num_proc=None, max_length=max_length, truncation_mode="keep_start", shuffle_dataset=False,
        dataset_text_field="text", assistant_only_loss=False,
    )
    trainer = SimpleNamespace(_tokenizer=tokenizer, completion_only_loss=False, chat_template=None)
    cases = []
    for text in TEXTS:
        row = Dataset.from_list([{"text": text}])
        out = SFTTrainer._prepare_dataset(trainer, row, tokenizer, args, False, None, "train")
        assert out[0]["labels"] == out[0]["input_ids"]
        cases.append({"text": text, "ids": out[0]["input_ids"]})
    return cases


def pair_cases(tokenizer, max_length: int, pairs: list[dict]) -> list[dict]:
    """DPOTrainer's own preparation and collator. The boundary is the shorter of the two longest common prefixes. A row
    whose prompt fills max_length is dropped; otherwise each sequence is cut to its first max_length tokens. Without a
    prompt column, extract_prompt first splits off the common beginning of the two texts.
    RewardTrainer encodes prompt + completion whole; where nothing is cut its ids are the same, which is checked."""
    args = SimpleNamespace(dataset_num_proc=None, max_length=max_length, truncation_mode="keep_start")
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    collate = DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id, max_length=max_length)
    cases = []
    for pair in pairs:
        out = DPOTrainer._prepare_dataset(trainer, Dataset.from_list([pair]), tokenizer, args, "train")
        if len(out) == 0:
            cases.append(pair | {"dropped": True})
            continue
        batch = collate([out[0]])
        sequences = [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"])]
        length = len(out[0]["prompt_ids"])
        reward = RewardTrainer._prepare_dataset(trainer, Dataset.from_list([pair]), tokenizer, args, "train")
        if len(reward):
            assert [reward[0]["chosen_ids"], reward[0]["rejected_ids"]] == sequences, pair
        cases.append(pair | {
            "prompt_ids": out[0]["prompt_ids"],
            "chosen_ids": sequences[0][length:],
            "rejected_ids": sequences[1][length:],
        })
        if "prompt" not in pair:
            cases[-1]["extracted_prompt"] = out[0]["prompt"]
    return cases


def make() -> None:
    disable_progress_bars()
    logging.getLogger("trl").setLevel(logging.ERROR)  # TRL warns of every boundary that moves: that is what we record
    tokenizer = train()
    plain = {"bos_token": EOS, "eos_token": EOS, "pad_token": PAD}
    save_variant(tokenizer, "plain", plain)
    save_variant(tokenizer, "bos", {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD})
    save_variant(tokenizer, "added", plain)
    pairs = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS]
    implicit = [{"chosen": c, "rejected": r} for c, r in IMPLICIT]
    for name in ("plain", "bos", "added"):
        tokenizer = load(name)
        value = {
            "made_by": "transformers 5.23.0 and TRL 1.16.0's _prepare_dataset, scripts/goldens/tokenization.py",
            "bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id,
            "size": len(tokenizer),
            "texts": texts(tokenizer),
            "implicit": pair_cases(tokenizer, WHOLE, implicit),
            "text_rows": text_cases(tokenizer, WHOLE),
        }
        value["sft"] = sft_cases(tokenizer, WHOLE)
        value["pairs"] = pair_cases(tokenizer, WHOLE, pairs)
        # Only rows that the shorter limit changes. Ours differs where the prompt is longer than half of it: TRL keeps
        # the start of the sequence, we keep the end of the prompt and the start of the completion.
        value["short_max_length"] = SHORT
        value["sft_short"] = [c for c in sft_cases(tokenizer, SHORT) if c not in value["sft"]]
        value["pairs_short"] = [c for c in pair_cases(tokenizer, SHORT, pairs) if c not in value["pairs"]]
        write_json(DIRECTORY / name / "cases.json", value)
