"""tests/golden/chat/: what transformers renders from chat templates of ours, written in the manner of those in use.

The *.jinja files there are written by hand; this script only reads them. cases.json has for each template, conversation
and ending the text and the character ranges of its {% generation %} blocks, or that it is refused, and in which words
where the template itself refuses (`raise_exception`).
"""

from datetime import datetime

from common import GOLDEN, write_json
from jinja2.exceptions import TemplateError
from transformers.utils import chat_template_utils

DIRECTORY = GOLDEN / "chat"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
ENDINGS = ("nothing", "generation_prompt", "continue_final")
MOMENT = datetime(2024, 7, 6, 13, 5, 9, 12)


class Clock(datetime):
    """A datetime whose now is always the same."""

    @classmethod
    def now(cls, tz=None):
        return MOMENT


def talk(*contents, first=None) -> list[dict]:
    """User and assistant in turn, behind an optional system message."""
    messages = [] if first is None else [{"role": "system", "content": first}]
    return messages + [
        {"role": "assistant" if index % 2 else "user", "content": content} for index, content in enumerate(contents)
    ]


def conversations() -> list[list[dict]]:
    question, answer = "Was the film good?", "Yes. The ending was wonderful!"
    thinking = "<think>\nthe ending was good\n</think>\n\nYes."
    return [
        talk(question),
        talk(question, answer),
        talk(question, answer, "And the music?", "Less so.", first="Answer in few words."),
        talk("  white space \n", "\n\n around \t", first="  system\n "),
        talk("", "", "STOP", "never seen"),
        talk("naïve café — “quotes” 'single' \"double\" <b>&amp;</b>", "日本語 👩‍👩‍👧‍👦 e\u0301\u200b\n\x1f line two"),
        talk(question, thinking, "Sure?", "<think>\n\n</think>\n\nSure."),
        [*talk(question), {"role": "assistant", "content": "Yes.", "reasoning_content": "\nthe ending was good\n"}],
        [*talk(question), {"role": "assistant", "content": "Yes.", "thinking": "older name", "weight": 0.5, "train": True}],
        [*talk(question), {"role": "assistant", "content": None, "score": 3, "tags": ["a", None, {"b": 1e16}]}],
        [{"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image"}]}, *talk(question, answer)[1:]],
        [{"role": "user", "content": [{"type": "sound"}]}],
        [*talk(question), {"role": "tool", "content": "{}"}, {"role": "assistant", "content": answer}],
        talk(question, answer)[1:],
        [{"role": "narrator", "content": "Fade in."}],
        [{"role": "user", "content": 5}],
        [],
    ]


def render(template: str, messages: list[dict], ending: str) -> dict:
    """As apply_chat_template calls the renderer."""
    continued = ending == "continue_final"
    if not messages:
        return {"refused": None}
    messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
    try:
        texts, spans = chat_template_utils.render_jinja_template(
            conversations=[messages], chat_template=template, return_assistant_tokens_mask=not continued,
            continue_final_message=continued, add_generation_prompt=ending == "generation_prompt", **SPECIAL,
        )
    except TemplateError as error:
        return {"refused": str(error) if type(error) is TemplateError else None}
    except (TypeError, ValueError):
        return {"refused": None}
    return {"text": texts[0]} | ({} if continued else {"spans": spans[0]})


def make() -> None:
    chat_template_utils.datetime = Clock
    value = {
        "made_by": "transformers 5.23.0's render_jinja_template, scripts/goldens/chat.py",
        "special": SPECIAL,
        "moment": MOMENT.isoformat(),
        "conversations": conversations(),
    }
    for path in sorted(DIRECTORY.glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        value[path.stem] = [
            {"conversation": index, "ending": ending} | render(template, messages, ending)
            for index, messages in enumerate(value["conversations"])
            for ending in ENDINGS
        ]
    chat_template_utils.datetime = datetime
    write_json(DIRECTORY / "cases.json", value)
