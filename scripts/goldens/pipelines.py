"""tests/golden/tokenizer/: small byte-level tokenizers with the pipelines of the families, and what transformers makes of
texts and conversations with them.

  neox     NFC, runs of spaces as ordinary added tokens; transformers' class drops the post-processor of tokenizer.json
  opt      made by transformers from vocab.json and merges.txt with add_bos_token, as the line does that we recommend
  llama3   a regular expression that splits digits by three, ignore_merges, BOS by a template, many special tokens
  smollm2  every digit alone; the chat markers are the first ids
  qwen2    NFC, a regular expression that splits every digit, no BOS
  qwen3    as qwen2, with added tokens that are not special (<think>)
  flags    tokenizer_config.json changes what tokenizer.json says of its added tokens

Those with a chat template (from tests/golden/chat/) have the masks of `apply_chat_template(return_assistant_tokens_mask)`.
"""

import json
import shutil
from pathlib import Path

from chat import DIRECTORY as TEMPLATES
from chat import talk
from common import GOLDEN, write_json
from texts import PARAGRAPHS, TEXTS
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as SPLIT

DIRECTORY = GOLDEN / "tokenizer"
VOCABULARY = 380
MORE_TEXTS = [
    "<|im_start|>user\nWas it good?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nYes.<|im_end|>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "</s>The film</s>",
    "12345678 films, 1,234.50 each; 007",
    "two  three   four    five     and" + " " * 24 + "twenty-four" + " " * 60 + "sixty",
    "e\u0301 \u212b \ufb01 \u1e9b\u0323 \uac00\u0301",
    " unmergeable, unmergeable unmergeables",
    "IT'S I'M we'Ll",
    "<think>a</think> < think > <tool_call> <|reserved_special_token_3|>",
]
CONVERSATIONS = [
    talk("Was the film good?", "Yes."),
    talk("Was the film good?", "Yes.", "And the music?", " Less so. ", "Why?", "", first="Answer."),
    talk("naïve 👩‍👩‍👧‍👦", "日本語 👍🏽e\u0301", "\n", "\n\ntwo\n"),
    talk("2+2?", "<think>\nfour\n</think>\n\nFour.", "3+3?", "<think>\n\n</think>\n\nSix."),
]


def train(normalizer, pre_tokenizer, first: list[str] = ()) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(first), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(PARAGRAPHS.strip().split("\n\n"), trainer)
    return tokenizer


def special(*texts: str) -> list[AddedToken]:
    return [AddedToken(text, normalized=False, special=True) for text in texts]


def split(expression: str):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), behavior="isolated"), byte_level])


def save(name: str, tokenizer: Tokenizer, config: dict, template: str | None = None) -> Path:
    directory = DIRECTORY / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    if template is not None:
        shutil.copy(TEMPLATES / f"{template}.jinja", directory / "chat_template.jinja")
    return directory


def neox() -> None:
    tokenizer = train(normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>", "<|padding|>"])
    tokenizer.add_tokens([AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)])
    # A post-processor that the class does not keep.
    end = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", end)])
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    save("neox", tokenizer, names | {"pad_token": "<|padding|>", "add_prefix_space": False, "tokenizer_class": "GPTNeoXTokenizer"}, "chatml")


def opt() -> None:
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    model = json.loads(train(None, pre_tokenizers.ByteLevel(add_prefix_space=False), first).to_str())["model"]
    directory = DIRECTORY / "opt"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = [" ".join(pair) for pair in model["merges"]]
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": False, "errors": "replace",
        "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for path in directory.iterdir():
        path.unlink()
    tokenizer.save_pretrained(directory)


def llama3() -> None:
    tokenizer = train(None, split(SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)))
    content = json.loads(tokenizer.to_str())
    content["model"]["ignore_merges"] = True
    content["model"]["vocab"]["Ġunmergeable"] = len(content["model"]["vocab"])  # no merges lead there
    tokenizer = Tokenizer.from_str(json.dumps(content))
    reserved = [f"<|reserved_special_token_{i}|>" for i in range(20)]
    tokenizer.add_special_tokens(special(
        "<|begin_of_text|>", "<|end_of_text|>", *reserved[:2], "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", *reserved[2:],
    ))
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", special_tokens=[("<|begin_of_text|>", bos)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    listed = {str(i): {k: getattr(t, k) for k in FLAGS} for i, t in tokenizer.get_added_tokens_decoder().items()}
    save("llama3", tokenizer, {
        "added_tokens_decoder": listed, "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "model_max_length": 64,
        "clean_up_tokenization_spaces": True, "tokenizer_class": "PreTrainedTokenizerFast",
    }, "headers")


FLAGS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def smollm2() -> None:
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer = train(None, digits, ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<jupyter_start>"])
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>", "pad_token": "<|im_end|>"}
    save("smollm2", tokenizer, names | {
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "add_prefix_space": False, "tokenizer_class": "GPT2Tokenizer",
    }, "chatml")


def qwen(name: str, more: list[AddedToken], template: str) -> None:
    tokenizer = train(normalizers.NFC(), split(SPLIT))
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tokenizer.add_tokens(more)
    listed = {str(i): {k: getattr(t, k) for k in FLAGS} for i, t in tokenizer.get_added_tokens_decoder().items()}
    save(name, tokenizer, {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": listed, "bos_token": None,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False, "errors": "replace", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }, template)


def flags() -> None:
    """tokenizer_config.json makes <|user|> special and greedy, and names a special token that is only in the vocabulary."""
    tokenizer = train(None, pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)  # white space belongs to no token
    tokenizer.add_tokens([AddedToken("<|user|>", normalized=False), AddedToken("<|assistant|>", rstrip=True)])
    content = json.loads(tokenizer.to_str())
    content["model"]["vocab"]["<think>"] = tokenizer.get_vocab_size()
    tokenizer = Tokenizer.from_str(json.dumps(content))
    listed = {str(i): {k: getattr(t, k) for k in FLAGS} for i, t in tokenizer.get_added_tokens_decoder().items()}
    listed[str(tokenizer.token_to_id("<|user|>"))] |= {"special": True, "lstrip": True, "rstrip": True}
    save("flags", tokenizer, {
        "added_tokens_decoder": listed, "eos_token": "<|endoftext|>", "pad_token": "<think>", "add_bos_token": True,
        "bos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast",
    }, "chatml")


def texts(tokenizer) -> list[dict]:
    cases = []
    for text in TEXTS + MORE_TEXTS:
        ids = tokenizer(text)["input_ids"]
        bare = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        cases.append({
            "text": text, "ids": ids, "bare": bare["input_ids"], "offsets": bare["offset_mapping"],
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True),
        })
    return cases


def masks(tokenizer) -> list[dict]:
    cases = []
    for messages in CONVERSATIONS:
        out = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        cases.append({"messages": messages, "ids": out["input_ids"], "mask": out["assistant_masks"]})
    return cases


def make() -> None:
    neox()
    opt()
    llama3()
    smollm2()
    qwen("qwen2", [], "chatml")
    qwen("qwen3", [AddedToken(t, normalized=False, special=False) for t in ("<think>", "</think>", "<tool_call>")], "reasoning")
    flags()
    for name in ("neox", "opt", "llama3", "smollm2", "qwen2", "qwen3", "flags"):
        tokenizer = AutoTokenizer.from_pretrained(DIRECTORY / name)
        value = {
            "made_by": "transformers 5.23.0, scripts/goldens/pipelines.py",
            "bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id,
            "size": len(tokenizer), "texts": texts(tokenizer),
        }
        if tokenizer.chat_template is not None:
            value["masks"] = masks(tokenizer)
        write_json(DIRECTORY / name / "cases.json", value)
