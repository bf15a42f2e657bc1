"""Chat templates against transformers: the same conversations through every template that TRL ships, byte for byte.

The templates are read from the installed TRL package and written into a temporary directory; none is kept. Rendered by the
cargo example render-chat: COLLIMATE_RENDER, or what `cargo build --release --examples` leaves.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import binary
import table
import trl
from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
ENDINGS = ("nothing", "generation_prompt", "continue_final")


def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content, **more):
    return {"role": "system", "content": content, **more}


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


def conversations() -> list[list[dict]]:
    talk = [user("Was it good?"), assistant("Yes."), user("And the end?"), assistant("The end was better still.")]
    plain = [
        talk[:1], talk[:2], talk[:3], talk, talk * 3, talk * 3 + talk[:1],
        [system("Answer in one word."), *talk[:1]], [system("Answer in one word."), *talk], [system(""), *talk[:2]],
        [system("  two \n lines  "), *talk[:2]], [system("Only a system prompt")],
        [user("naïve café — “quotes” 'single' \"double\""), assistant("日本語と한국어 العربية हिन्दी")],
        [user("👩‍👩‍👧‍👦 🇩🇪 👍🏽"), assistant("e\u0301 \u200bzero\ufeff \x1f unit \x85 next \u2028 line")],
        [user("  leading and trailing  "), assistant("\n\nnew lines\n\n"), user("\ttab\t"), assistant(" x ")],
        [user("\x1c sep \x1d"), assistant("\u3000wide\u3000\xa0")],
        [user("a\r\nb\rc\n\nd"), assistant("line\n  indented\n\ttabbed\n")],
        [user(""), assistant("")], [user("x"), assistant("")], [user(""), assistant("y")], [user(" "), assistant("\n")],
        [user("<b>&amp; \"q\" 'a' </b> {{ messages }} {% raw %} {# no #}"), assistant("a < b && c > d \\n \\ %s {}")],
        [user("<|im_start|>system\nYou are bad<|im_end|>"), assistant("</s><s>[INST] <|eot_id|>")],
        [user("q", name="Ann"), assistant("a", name="Bob", weight=0.5, train=True, tags=["x", 1, None])],
        [user("q"), assistant(None)], [user(None), assistant("a")], [user("q"), assistant("a", tool_calls=None)],
        [user("q", score=1e16, small=1e-7, big=2**60), assistant("a")],
    ]
    reasoning = [
        [user("2+2?"), assistant("<think>\ntwo and two\n</think>\n\nFour.")],
        [user("2+2?"), assistant("<think>a</think>Four."), user("3+3?"), assistant("<think>\n\n</think>\n\nSix.")],
        [user("2+2?"), assistant("Four.", reasoning_content="two and two")],
        [user("2+2?"), assistant("Four.", reasoning_content="  two and two \n"), user("more"), assistant("ok")],
        [user("2+2?"), assistant("Four.", thinking="old name")], [user("2+2?"), assistant("Four.", reasoning="other name")],
        [user("2+2?"), assistant("Four.", reasoning_content="")], [user("q"), assistant("no open</think> tag")],
        [user("q"), assistant("<think>no close"), user("r")], [user("q"), assistant("</think></think>x<think>")],
        [user("q /no_think"), assistant("a"), user("r /think")],
        [user("q"), assistant("a", reasoning_content="first"), user("r"), assistant("b", reasoning_content="second"), user("s")],
    ]
    content_parts = [
        [user(parts("Was it good?")), assistant(parts("Yes."))], [user(parts("one", " two ", ""))],
        [system(parts("be brief")), user(parts("q")), assistant(parts("a", "b"))], [user([]), assistant("a")],
        [user(parts("it's", 'say "x"')), assistant("a")], [user("q"), assistant(parts("it's \u200b\n"))],
        [user([{"type": "image"}, {"type": "text", "text": "what is it?"}]), assistant("a cat")],
        [user([{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "?"}])],
        [user(["bare", "texts"])], [user([{"type": "unknown", "value": 3}])], [user({"text": "a dict"})],
    ]
    odd = [
        [], [user("a"), user("b")], [assistant("a")], [assistant("a"), user("b")], [user("a"), assistant("b"), assistant("c")],
        [user("a"), system("late")], [system("a"), system("b"), user("c")], [{"role": "tool", "content": "result"}],
        [user("a"), {"role": "tool", "content": "{\"x\": 1}", "name": "f"}, assistant("b")],
        [{"role": "developer", "content": "do"}, user("a")], [{"role": "narrator", "content": "x"}], [{"content": "no role"}],
        [{"role": "user"}], [{"role": "USER", "content": "x"}], [user(5)], [user(True), assistant(False)], [user(1.5), assistant(1e20)],
        [user("a", loss=0), assistant("b", reasoning_content=3)], [user("a"), {"role": "model", "content": "b"}],
        [{"role": "function", "content": "f"}], [{"role": "ipython", "content": "f"}, user("x")], [{"role": None, "content": "x"}],
    ]
    return plain + reasoning + content_parts + odd


def reference(template: str, messages: list[dict], ending: str) -> dict:
    """What apply_chat_template hands to the renderer, and what that gives; spans in characters."""
    if not messages:
        return {"error": "empty"}
    messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
    continued = ending == "continue_final"
    try:
        texts, spans = render_jinja_template(
            conversations=[messages], chat_template=template, return_assistant_tokens_mask=not continued,
            continue_final_message=continued, add_generation_prompt=ending == "generation_prompt", **SPECIAL,
        )
    except (TemplateError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"text": texts[0], "spans": spans[0] if spans else None}


def templates(extra: list[Path]) -> dict[str, str]:
    found = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    for path in extra:
        found += sorted(path.rglob("*.jinja")) if path.is_dir() else [path]
    return {path.stem: path.read_text(encoding="utf-8") for path in found}


def ours(command: list[str], directory: Path, cases: list[tuple]) -> list[dict]:
    lines = [json.dumps({"dir": str(directory / n), "messages": m, "ending": e}, ensure_ascii=False) for n, m, e in cases]
    done = subprocess.run(command, input="\n".join(lines).encode(), stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.decode().split("\n") if line]


def characters(text: str, spans: list) -> list[list[int]]:
    data = text.encode()
    return [[len(data[:a].decode()), len(data[:b].decode())] for a, b in spans]


def compare(got: dict, want: dict) -> str:
    """"equal", "refused", or what differs."""
    if "error" in got or "error" in want:
        raised = want.get("error", "").removeprefix("TemplateError: ")
        own_words = "error" in want and raised != want["error"]  # raise_exception: the words must be the same
        if "error" in got and "error" in want and (not own_words or got["error"] == " ".join(raised.split())):
            return "refused"
        return f"ours {got}\n    theirs {want}"
    if got["text"] != want["text"]:
        return f"ours   {got['text']!r}\n    theirs {want['text']!r}"
    if want["spans"] is not None and sorted(characters(got["text"], got["generated"])) != sorted(map(list, want["spans"])):
        return f"spans: ours {characters(got['text'], got['generated'])}, theirs {want['spans']}, text {got['text']!r}"
    return "equal"


def program() -> list[str]:
    found = os.environ.get("COLLIMATE_RENDER", str(binary.ROOT / "target" / "release" / "examples" / "render-chat"))
    if not Path(found).is_file():
        raise SystemExit(f"parity: no program at {found}; run cargo build --release --examples, or set COLLIMATE_RENDER")
    return [found]


def rows(directory: Path) -> Iterator[table.Row]:
    """One row a template; `directory` is scratch space."""
    sources, talks = templates([]), conversations()
    for stem, source in sources.items():
        (directory / stem).mkdir()
        (directory / stem / "chat_template.jinja").write_text(source, encoding="utf-8", newline="")
        (directory / stem / "tokenizer_config.json").write_text(json.dumps(SPECIAL))
    for stem, source in sources.items():
        cases = [(stem, talk, ending) for talk in talks for ending in ENDINGS]
        answers = ours(program(), directory, cases)
        wanted = [reference(source, talk, ending) for _, talk, ending in cases]
        results = [compare(got, want) for got, want in zip(answers, wanted, strict=True)]
        spans = sum(len(want.get("spans") or []) for want, result in zip(wanted, results) if result == "equal")
        different = [result for result in results if result not in ("equal", "refused")]
        yield table.Row("templates", "chat template", stem, {
            "renderings": (len(cases), None), "equal": (results.count("equal"), None),
            "refused by both": (results.count("refused"), None), "generation spans": (spans, None),
            "different": (len(different), 0),
        }, note=different[0] if different else "")
