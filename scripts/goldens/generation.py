"""tests/golden/generation.json: greedy continuations by transformers' generate, one prompt at a time.

Once without an end token and once with one that appears in a continuation (it ends it and is part of it). At every
position the best logit must lead by a clear distance, so that no rounding can change a choice. Prompts of 1 to 9 ids and
12 new ones: more than any sliding window here.
"""

import torch
from common import GOLDEN, write_json
from cases import DIRECTORY, make_rows
from transformers import AutoModelForCausalLM

NEW_TOKENS = 12
LEAD = 1e-3
MODELS = [
    "gpt2-tiny", "gpt2-hub-names", "gpt2-bf16", "llama-tiny-gqa", "llama-tiny-tied", "gpt2-inverse", "llama-rope-llama3",
    "llama-biased", "mistral-window", "mistral-layers", "qwen2-tiny", "qwen3-tiny", "qwen3-sliding", "neox-parallel",
    "neox-serial", "opt-pre", "opt-post",
]


def greedy(model, prompt: list[int], eos: int | None) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=eos,
        pad_token_id=0, output_logits=True, return_dict_in_generate=True,
    )
    for logits in out.logits:
        best = logits[0].topk(2).values
        assert best[0] - best[1] > LEAD, "a tie; change the seed"
    return out.sequences[0, len(prompt):].tolist()


def make() -> None:
    cases = []
    for number, name in enumerate(MODELS):
        model = AutoModelForCausalLM.from_pretrained(DIRECTORY / name, dtype=torch.float32).eval()
        model.generation_config.eos_token_id = None
        prompts = [row[:9] for row in make_rows(min(96, model.config.vocab_size), 200 + number)] + [[5]]
        free = [greedy(model, prompt, None) for prompt in prompts]
        assert len({token for tokens in free for token in tokens}) > 4, "a model that repeats itself shows little"
        eos = free[0][4]
        cases.append({
            "model": name, "max_new_tokens": NEW_TOKENS, "prompts": prompts, "completions": free, "eos": eos,
            "completions_with_eos": [greedy(model, prompt, eos) for prompt in prompts],
        })
    write_json(GOLDEN / "generation.json", {"made_by": "transformers 5.23.0, scripts/goldens/generation.py", "models": cases})
