"""transformers' generate() on a job's prompts, in a process of its own: all of them in one batch, padded on the left.

Timed is the one call. Two processes, one of which samples one token, differ by the tokens after the first.
"""

import time

import child
import torch
import transformers


def main() -> None:
    job = child.job()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).to(job["device"])
    model.eval()
    # Nothing ends before the last token.
    model.generation_config.eos_token_id = None
    texts = [row["prompt"] for row in child.rows(job["rows"])]
    inputs = tokenizer(texts, padding=True, return_tensors="pt").to(job["device"])
    settings = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": tokenizer.pad_token_id}

    torch.manual_seed(0)
    begun = time.perf_counter()
    found = model.generate(**inputs, max_new_tokens=job["tokens"], **settings)
    if job["device"] != "cpu":
        torch.cuda.synchronize()
    whole = time.perf_counter() - begun
    length = found.shape[1] - inputs["input_ids"].shape[1]
    child.answer(job, {
        "whole": whole, "tokens": length * len(texts), "version": transformers.__version__,
        "device_peak_mb": child.device_peak_mb(job["device"]),
        "used": {"attention": model.config._attn_implementation, "dtype": str(model.dtype)},
    })


if __name__ == "__main__":
    main()
