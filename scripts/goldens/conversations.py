"""tests/golden/conversations.json: what TRL 1.16's own dataset preparation makes of conversational rows, and the prompts
that transformers makes for generation.

Each variant is a tokenizer of pipelines.py with the chat template of its directory or another one; only templates that
are not in the tokenizer's directory are written to the file. TRL wants `{% generation %}` in the template for
`assistant_only_loss`. For templates without, its masks come from a twin that marks by hand what the assistant's turn adds
after its header, and renders every conversation here alike, which is checked.

Ranges are of positions in the ids, end excluded. TRL's first label is the first token's, which nothing predicts.
"""

import logging
from types import SimpleNamespace

from chat import DIRECTORY as TEMPLATES
from chat import talk
from common import GOLDEN, write_json
from datasets import Dataset, disable_progress_bars
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.sft_trainer import SFTTrainer

# Long enough for every row.
WHOLE = 1024
UNPAIRED = ("neox", "chatml-unmarked", "reasoning-unmarked")

Q, A, R, B = "Was it good?", "wonderful!", "And the music?", "less so."
THOUGHT, VOID = "<think>\nhm\n</think>\n\nYes.", "<think>\n\n</think>\n\nSure."
SYSTEM, EMPTY = "Be short.", ""
SPACES = ["  white space \n", " around \t\n"]
UNICODE = ["naïve 👩‍👧", "日本 👍🏽 e\u0301"]

MESSAGES = [
    talk(Q, A),
    talk(Q, A, R, B, first=SYSTEM),
    talk(Q, A, first=EMPTY),
    talk(*SPACES, "\n", "\n\ntwo\n", first="  system\n "),
    talk(*UNICODE, R, UNICODE[1]),
    talk(Q, THOUGHT, "Sure?", VOID),
    talk(Q, THOUGHT),
    talk(Q, A, R, B)[1:],
    talk(Q, A, R),
    talk(Q, first=SYSTEM),
    [*talk(Q), *talk(R, B)],
]
COMPLETIONS = [
    (talk(Q), talk(Q, A)[1:]),
    (talk(Q, first=SYSTEM), talk(Q, A)[1:]),
    (talk(Q, A, R, first=SYSTEM), talk(Q, B, R, A)[1:]),
    (talk(SPACES[0]), talk(Q, SPACES[1])[1:]),
    (talk(UNICODE[0], UNICODE[1], UNICODE[0], first=EMPTY), talk(Q, UNICODE[1])[1:]),
    (talk(Q, THOUGHT), talk(R, B)),
    (talk(Q), talk(Q, THOUGHT)[1:]),
    (talk(first=SYSTEM), talk(Q, A)),
    (talk(Q, A), talk(R)),
]
PAIRS = [
    (talk(Q), talk(Q, A)[1:], talk(Q, "No.")[1:]),
    (talk(Q, A, R, first=SYSTEM), talk(Q, A)[1:], talk(Q, B, R, "No.")[1:]),
    (talk(SPACES[0], first=EMPTY), talk(Q, SPACES[1])[1:], talk(Q, "  no ")[1:]),
    (talk(UNICODE[0]), talk(Q, UNICODE[1])[1:], talk(Q, UNICODE[0])[1:]),
    (talk(Q, THOUGHT), talk(R, B), talk(R, "No.")),
    (talk(Q), talk(Q, THOUGHT)[1:], talk(Q, A)[1:]),
]
IMPLICIT = [
    (talk(Q, A), talk(Q, "No.")),
    (talk(Q, A, R, B, first=SYSTEM), talk(Q, A, R, " No.\n", Q, A, first=SYSTEM)),
    (talk(Q, A), talk(Q, A, R, B)),
    # Nothing in common: only RewardTrainer, which splits off no prompt, takes it reliably.
    (talk(Q, A), talk(R, B)),
]
PROMPTS = [
    talk(Q),
    talk(Q, first=SYSTEM),
    talk(SPACES[0], first=EMPTY),
    talk(Q, THOUGHT, R),
    talk(UNICODE[0], UNICODE[1], UNICODE[0], first="  system\n "),
    # These go on where the assistant's words end.
    talk(Q, "wonder"),
    talk(Q, A, R, "Less  ", first=SYSTEM),
    talk(UNICODE[0], UNICODE[1]),
    talk(Q, "<think>\nh"),
]

# A header that ends with a space, which merges with the word behind it.
SPOKEN = """{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{- 'Assistant: ' -}}
{% generation %}{{- message.content + eos_token + '\\n' -}}{% endgeneration %}
{%- else -%}
{{- (message.role | capitalize) + ': ' + message.content + '\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant: ' -}}{%- endif -%}
"""
# A generation prompt that ends with an empty thought, which whole conversations lack.
THOUGHTLESS = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}{%- endif %}
"""


def replaced(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert text.count(old) == 1, (old, text)
        text = text.replace(old, new)
    return text


def unmarked(text: str) -> str:
    for tag in ("{%- generation %}", "{%- generation -%}", "{% generation %}"):
        text = text.replace(tag, "").replace(tag.replace("generation", "endgeneration"), "")
    assert "generation " not in text.replace("add_generation_prompt ", "")
    return text


def variants() -> list[tuple[str, str, str | None, str | None]]:
    """Name, tokenizer, template where it is not the tokenizer's own, marked twin where it marks nothing. Those in UNPAIRED
    have no pairs and prompts: others have the same tokenizer, or render alike."""
    chatml, inst, reasoning, zephyr = (
        (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8") for name in ("chatml", "inst", "reasoning", "zephyr")
    )
    # The twins mark what the templates write behind the header: the end of the turn, and the white space that follows.
    chatml_twin = replaced(
        chatml,
        ("        {%- endgeneration -%}", "        {{- '\\n' -}}\n        {%- endgeneration -%}"),
        ("    {{- '\\n' -}}\n{% endfor %}", "    {%- if message['role'] != 'assistant' -%}{{- '\\n' -}}{%- endif -%}\n{% endfor %}"),
    )
    reasoning_twin = replaced(
        reasoning, ("{%- endgeneration %}\n        {{- '\\n' }}", "{{- '\\n' }}\n        {%- endgeneration %}")
    )
    said = "{{- ' ' + turn.content.strip() + eos_token }}"
    inst_twin = replaced(inst, (said, "{%- generation %}" + said + "{%- endgeneration %}"))
    said = "{{ '<|assistant|>\\n'  + message['content'] + eos_token }}"
    zephyr_twin = replaced(zephyr, (
        said, "{{ '<|assistant|>\\n' -}}{%- generation -%}{{- message['content'] + eos_token + '\\n' -}}{%- endgeneration %}"
    ))
    return [
        *((name, name, None, None) for name in ("qwen2", "qwen3", "llama3", "smollm2", "neox")),
        ("thoughtless", "qwen3", THOUGHTLESS, None),
        ("chatml-unmarked", "qwen2", unmarked(chatml), chatml_twin),
        ("reasoning-unmarked", "qwen3", unmarked(reasoning), reasoning_twin),
        ("inst-unmarked", "llama3", inst, inst_twin),
        ("zephyr-unmarked", "smollm2", zephyr, zephyr_twin),
        ("spoken-unmarked", "neox", unmarked(SPOKEN), SPOKEN),
    ]


def runs(bits: list[bool]) -> list[list[int]]:
    found = []
    for at, bit in enumerate(bits):
        if bit and found and found[-1][1] == at:
            found[-1][1] = at + 1
        elif bit:
            found.append([at, at + 1])
    return found


def prepared(row: dict, tokenizer, template: str | None, completion_only: bool, assistant_only: bool) -> dict:
    """SFTTrainer's own preparation: ids and ranges of labels; or that it drops or refuses the row."""
    args = SimpleNamespace(
        dataset_num_proc=None, max_length=WHOLE, truncation_mode="keep_start", shuffle_dataset=False,
        dataset_text_field="text", assistant_only_loss=assistant_only,
    )
    trainer = SimpleNamespace(_tokenizer=tokenizer, completion_only_loss=completion_only, chat_template=template)
    try:
        out = SFTTrainer._prepare_dataset(trainer, Dataset.from_list([row]), tokenizer, args, False, None, "train")
    except TemplateError:
        return {"ids": None, "targets": "refused"}
    except RuntimeError as error:
        assert "at least one example has no assistant" in str(error)
        return {"ids": None, "targets": "no assistant"}
    if len(out) == 0:
        return {"ids": None, "targets": "dropped"}
    ids, labels = out[0]["input_ids"], out[0]["labels"]
    assert len(ids) < WHOLE and all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    return {"ids": ids, "targets": runs([label != -100 for label in labels])}


def sft_case(row: dict, tokenizer, twin: str | None) -> dict:
    """`targets`: labels; `assistant`: with assistant_only_loss; `anywhere`: that without completion_only_loss, where the
    row has a completion; `moved`: that the completion begins before the end of the prompt as it is generated for."""
    case = prepared(row, tokenizer, None, True, False)
    wholes = [prepared(row, tokenizer, None, False, False), prepared(row, tokenizer, twin, True, True)]
    case["assistant"] = wholes[1]["targets"]
    if "completion" in row:
        wholes.append(prepared(row, tokenizer, twin, False, True))
        case["anywhere"] = wholes[2]["targets"]
    if case["ids"] is None:
        return {"refused": True}
    assert wholes[0] == {"ids": case["ids"], "targets": [[0, len(case["ids"])]]}
    assert all(whole["ids"] in (None, case["ids"]) for whole in wholes)
    if "prompt" in row:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        case["moved"] = case["targets"][0][0] < len(prompt)
    return case


def pair_case(row: dict, tokenizer) -> dict:
    """DPOTrainer's own preparation. RewardTrainer encodes prompt + completion whole; its ids are the same, which is
    checked. Where the two conversations begin with different messages there are only RewardTrainer's."""
    args = SimpleNamespace(dataset_num_proc=None, max_length=WHOLE, truncation_mode="keep_start")
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    try:
        reward = RewardTrainer._prepare_dataset(trainer, Dataset.from_list([row]), tokenizer, args, "train")[0]
        wholes = [reward["chosen_ids"], reward["rejected_ids"]]
        if "prompt" not in row and row["chosen"][0] != row["rejected"][0]:
            return {"prompt_ids": [], "chosen_ids": wholes[0], "rejected_ids": wholes[1]}
        out = DPOTrainer._prepare_dataset(trainer, Dataset.from_list([row]), tokenizer, args, "train")[0]
    except TemplateError:
        return {"refused": True}
    assert wholes == [out["prompt_ids"] + out["chosen_ids"], out["prompt_ids"] + out["rejected_ids"]], row
    return {key: out[key] for key in ("prompt_ids", "chosen_ids", "rejected_ids")}


def prompt_case(messages: list[dict], tokenizer) -> dict:
    goes_on = messages[-1]["role"] == "assistant"
    ending = {"continue_final_message": True} if goes_on else {"add_generation_prompt": True}
    try:
        return {"ids": tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **ending)["input_ids"]}
    except (TemplateError, ValueError):
        return {"refused": True}


def make() -> None:
    disable_progress_bars()
    logging.getLogger("trl").setLevel(logging.ERROR)  # TRL warns of every boundary that moves: that is what we record
    sft = [{"messages": messages} for messages in MESSAGES]
    sft += [{"prompt": prompt, "completion": completion} for prompt, completion in COMPLETIONS]
    pairs = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS]
    pairs += [{"chosen": c, "rejected": r} for c, r in IMPLICIT]
    value = {
        "made_by": "TRL 1.16.0's _prepare_dataset and transformers 5.23.0's apply_chat_template, scripts/goldens/conversations.py",
        "variants": [
            {"name": name, "tokenizer": tokenizer, "template": template, "marked": twin is None}
            for name, tokenizer, template, twin in variants()
        ],
        "sft": sft, "pairs": pairs, "prompts": [{"prompt": prompt} for prompt in PROMPTS],
    }
    for name, directory, template, twin in variants():
        tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "tokenizer" / directory)
        if template is not None:
            tokenizer.chat_template = template
        value[f"{name} sft"] = [sft_case(row, tokenizer, twin) for row in sft]
        if name in UNPAIRED:
            continue
        value[f"{name} pairs"] = [pair_case(row, tokenizer) for row in pairs]
        value[f"{name} prompts"] = [prompt_case(prompt, tokenizer) for prompt in PROMPTS]
    write_json(GOLDEN / "conversations.json", value)
