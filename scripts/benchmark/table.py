"""The Markdown table of the side-by-side measurement, with all that is needed to read it and to measure again."""

import statistics

import cases

HEAD = ["case", "against", "unit", "theirs (best)", "collimate (best)", "speed (rounds)", "theirs, MB", "collimate, MB",
        "memory", "first and last loss: theirs", "collimate"]


def seconds(value: float) -> str:
    """Milliseconds where a unit is less than a second."""
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"


def median(records: list[dict], key: str) -> float | None:
    values = [record[key] for record in records]
    return None if None in values else statistics.median(values)


def times(records: list[dict]) -> str:
    values = [record["seconds"] for record in records]
    return f"{seconds(statistics.median(values))} ({seconds(min(values))})"


def losses(theirs: dict, ours: dict) -> list[str]:
    """Nothing where one of them has none: TRL's PPO logs its parts, and its samples are others."""
    both = theirs["losses"], ours["losses"]
    return [f"{found[0]:.5f}, {found[-1]:.5f}" if all(both) else "" for found in both]


def megabytes(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def row(case, measured) -> list[str]:
    if measured.failure:
        return [case.title, case.against, f"**FAILED**: {measured.failure}", *[""] * (len(HEAD) - 3)]
    theirs, ours = measured.theirs, measured.ours
    ratios = [measured.ratio(number) for number in range(len(ours))]
    memory = median(theirs, "peak_mb"), median(ours, "peak_mb")
    return [
        case.title, f"{case.against} {version(theirs)}".strip(), case.unit, times(theirs), times(ours),
        f"{statistics.median(ratios):.2f}x ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
        megabytes(memory[0]), megabytes(memory[1]), "" if None in memory else f"{memory[1] / memory[0]:.2f}x",
        *losses(theirs[0], ours[0]),
    ]


def default_row(case, measured) -> list[str]:
    """TRL without gradient_checkpointing=False, measured in the first round, against that round's collimate."""
    theirs, ours = measured.default, measured.ours[0]
    return [
        f"{case.title}, TRL with its default gradient checkpointing", f"{case.against} {version([theirs])}", case.unit,
        seconds(theirs["seconds"]), seconds(ours["seconds"]), f"{theirs['seconds'] / ours['seconds']:.2f}x",
        megabytes(theirs["peak_mb"]), megabytes(ours["peak_mb"]), f"{ours['peak_mb'] / theirs['peak_mb']:.2f}x",
        *losses(theirs, ours),
    ]


def version(records: list[dict]) -> str:
    return records[0]["raw"].get("version", "")


def used(measured: list, name: str) -> str:
    """What a side says it took, once for all cases that say the same."""
    values = {str(each.theirs[0]["raw"]["used"][name]) for _, each in measured
              if each.theirs and name in each.theirs[0]["raw"].get("used", {})}
    return ", ".join(sorted(values)) or "not run"


def notes(about: dict, measured: list) -> list[str]:
    rows, ppo = about["rows"], cases.names(cases.PPO, 1)
    memory = "at the peak on the device, as each counts it" if about["device"] != "cpu" else (
        "peak resident memory of the whole process, libraries included (getrusage; 10^6 bytes)"
    )
    low, high = cases.ROWS["completion_tokens"]
    return [
        f"Times: `train_runtime` over {about['steps']} steps of each program, loading and saving excluded, for DPO "
        "with the reference's log-probs; for TRL's PPO, which logs none, the time of `train()`. Median over the "
        "rounds, the best round in brackets. Speed: theirs over ours within a round, the median of the rounds.",
        f"Memory: {memory}; median over the rounds.",
        f"Rows from {about['reviews']}, the same for both, in file order, {about['batch']} a step, short enough that "
        f"neither side cuts: reviews of at most {cases.ROWS['sft_tokens']} tokens (in all {rows['sft_tokens']:.0f} a "
        f"step); pairs with prompts of about {rows['prompt_tokens']:.0f} tokens and completions of {low} to {high} "
        f"({rows['pair_tokens']:.0f} tokens a step with the prompt twice, each pair seen once).",
        "Both: float32, AdamW, learning rate 1e-5 falling linearly (PPO 1e-6), clipping at 1 (TRL's PPO does not "
        "clip), no dropout, no evaluation, no saving during the run, a log line a step.",
        f"TRL: the model by its path, optimizer {used(measured, 'optim')}, attention {used(measured, 'attention')}, "
        "`bf16=False`, `gradient_checkpointing=False`, which spares it the recomputation of its default True; that was "
        "measured once besides. No packing and no `padding_free` (which needs FlashAttention); DPO computes its "
        "reference within the step. "
        "All else as TRL has it.",
        "Held: losses of the first step within "
        f"{cases.FIRST:g}, of later ones within {cases.LATER:g}; the same count of tokens; DPO's log-probs within "
        f"{cases.LOGPROB:g} of their size. Sampling and PPO, whose samples differ: the count of sampled tokens; PPO's "
        f"mean log-prob within {cases.SAMPLED:.0%}.",
        f"PPO: {about['batch']} episodes of {ppo['max_new_tokens']} new tokens an iteration, {ppo['epochs']} epochs "
        "of one minibatch, a reward model of the policy's shape. TRL's value network is a second model of that shape; "
        "collimate's value head stands on the policy's backbone.",
        f"Sampling: {cases.NEW_TOKENS} tokens a prompt at temperature 1 from the whole vocabulary, all prompts in one "
        f"batch: time of {cases.NEW_TOKENS} tokens less that of one, by token, each in a process of its own.",
        "Start: from the start of the process to the first step, the model in the page cache, after one start that "
        "does not count.",
    ]


def markdown(about: dict, measured: list) -> str:
    lines = ["# collimate beside TRL and transformers", ""]
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    lines += [
        f"{about['date']}, {about['processor']}, {about['cores']} cores, {about['threads']} threads, "
        f"{about['device']}; {versions}.", "",
        f"Model {about['model']}: {about['parameters'] / 1e6:.1f} million parameters. Rounds in turn: "
        f"{about['rounds']}; {about['seconds'] / 60:.0f} minutes in all. Load of the machine when it began: "
        f"{about['load']:.1f}.", "",
        f"    {about['command']}", "",
        "| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD),
    ]
    for case, each in measured:
        lines.append("| " + " | ".join(row(case, each)) + " |")
        if each.default and not each.failure:
            lines.append("| " + " | ".join(default_row(case, each)) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(about, measured)), ""])
