"""The texts of the goldens: paragraphs to train the tokenizer on, texts to encode, rows for the training curves."""

import random

PARAGRAPHS = """
The film opens in a small harbour town, where the fog never quite lifts and nobody says what they mean. It is a slow
start, and I was ready to dislike it. But the story gathers, scene after scene, until the last half hour is wonderful.
The acting is good throughout; the music, less so. I would see it again, and I would take my sister with me.

This movie was not good. The plot makes no sense, the jokes are old, and the ending is the worst part of a bad evening.
There is one scene in a kitchen that works, because the two actors finally stop shouting and start listening to each
other. The rest of the film is noise. I cannot recommend it to anyone who values their time.

An honest little comedy about a bakery and the people who keep it alive. It was made for next to nothing in 1994, and it
shows, but what it lacks in money it has in warmth. The director knows when to hold a shot and when to let go. I laughed
more than I thought I would, and the ending was not what I expected at all.

A documentary about lighthouses should not be this exciting. The camera work is excellent, the interviews are short, and
the history is told without any fuss. There are some boring stretches in the middle, about 20 minutes of them, and the
narrator is too loud. Still: a very good film, and one that I have been thinking about ever since I saw it.

What a terrible waste of a great cast. Nothing happens for an hour, and then everything happens at once, and none of it
matters. The dialogue is dreadful, the pacing is worse, and the special effects look like they were made in an afternoon.
I wanted to like this movie. I really did. I did not like this movie.
"""

# What a tokenizer must get right: unicode, emoji, runs of white space, special tokens inside text, digits, nothing at all.
TEXTS = [
    "",
    " ",
    "a",
    "The film was good.",
    " The film was good.",
    "the film  was   good",
    "The movie was not good, but the ending was wonderful!",
    "I can't, won't and shouldn't've; it's they're we'll I'd you've",
    "I CAN'T WON'T IT'S",
    "one\ntwo\n\nthree\r\nfour\tfive",
    "    four spaces and a tab\t",
    "trailing space ",
    "trailing spaces   ",
    "\n",
    "\n\n\n",
    " \n \t \n",
    "1994 was 20 years ago; 3.14159, 1,000,000 and 7e-3",
    "naïve café résumé — “quotes” ‘single’ … and an en–dash",
    "Grüße aus München, straße ÄÖÜ ß",
    "Ελληνικά και русский текст",
    "日本語のテキストと中文字符。",
    "한국어 텍스트",
    "العربية نص قصير",
    "हिन्दी में पाठ",
    "😀😃😄 emoji 👩‍👩‍👧‍👦 family 🇩🇪 flag 👍🏽 skin",
    "e\u0301 is not é (combining accent)",
    "zero\u200bwidth\u200djoiners\ufeff and BOM",
    "non\u00a0breaking\u2009thin\u3000ideographic",
    "control \x00\x01\x7f characters",
    "a<|endoftext|>b",
    "<|endoftext|>",
    "<|endoftext|><|endoftext|>",
    "ends with it<|endoftext|>",
    "<s>starts with it",
    "<|endoftex|> is not a token, <| endoftext |> neither",
    "<|pad|> in <|pad|>text",
    "<|user|>Was it good?<|assistant|> Yes.",
    "  <|user|>  spaces around  <|assistant|>  ",
    "COLLIMATE is an added word, not special; xCOLLIMATEx too",
    "https://example.org/a?b=c&d=%20#e_f-g",
    "def f(x):\n    return x ** 2  # squared\n",
    "wonderfulwonderfulwonderful",
]

# Prompts and completions. In several of them the tokenizer merges across the boundary ("wonder" + "ful").
BOUNDARY = [
    ("The film was", " good."),
    ("The film was ", "good."),
    ("The film was", "n't good."),
    ("The ending was wonder", "ful."),
    ("I tho", "ught it was good."),
    ("A mov", "ie about the sea."),
    ("Line one\n", "\nline two"),
    ("spaces  ", "  more spaces"),
    ("", "The film was good."),
    ("", " "),
    ("Was it good?", "<|endoftext|>"),
    ("Was it good?", " Yes.<|endoftext|>"),
    ("Was it good?<|endoftext|>", " Yes."),
    ("I saw 199", "4 films"),
    ("caf", "é au lait"),
    ("half of an emoji 👍", "🏽 joins"),
    ("<|user|>Was it good?<|assistant|>", " Yes, very good."),
    ("<s>The film", " was bad."),
    ("x", "y"),
    ("The", "re is one scene"),
    ("The film", " opens in a small harbour town, where the fog never quite lifts and nobody says what they mean."),
]

# Prompt, chosen, rejected: completions that share a beginning, merge differently, or meet the prompt differently.
PAIRS = [
    ("The film was", " wonderful.", " terrible."),
    ("The film was ", "good.", "bad."),
    ("The ending was wonder", "ful.", " less."),
    ("The ending was wonder", " less.", "ful."),
    ("The movie was", " not good, but not bad.", " not good, and it was long."),
    ("", "A good film.", "A bad film."),
    ("Was it good?", " Yes.<|endoftext|>", " No."),
    ("I tho", "ught so.", "ugh not."),
    ("A mov", "ie.", "e."),
    ("What a", " waste!", "n honest little comedy about a bakery and the people who keep it alive"),
]

# Preference rows without a prompt. TRL 1.16's extract_prompt compares characters; where one text is a prefix of the
# other it leaves the last common character to the completions, and it gives a space before the difference to them.
IMPLICIT = [
    ("The film was good.", "The film was bad."),
    ("The film was not good", "The film was nothing"),
    ("The film", "The film was good."),
    ("The film was good.", "The film"),
    ("Good.", "Bad."),
    ("I liked it a lot. The end.", "I liked it a little. The end."),
]

_OPENINGS = ["The film was", "This movie is", "I thought the ending was", "The acting was", "What a", "It is a", "The plot was"]
_GOOD = ["wonderful", "good", "excellent", "warm and honest", "very exciting", "a joy to see", "funny, and short too"]
_BAD = ["terrible", "bad", "dreadful", "boring", "too long and too loud", "a waste of time", "the worst part of it"]
_TAILS = [".", "!", " at all.", ", and I would see it again.", ", but not the music.", "; nobody says why.", "."]


def preference_rows(count: int, seed: int = 7) -> list[dict]:
    """Rows {"prompt", "chosen", "rejected"} of different lengths."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        prompt, good, bad = rng.choice(_OPENINGS), rng.choice(_GOOD), rng.choice(_BAD)
        rows.append({
            "prompt": prompt,
            "chosen": f" {good}{rng.choice(_TAILS)}",
            "rejected": f" {bad}{rng.choice(_TAILS)}",
        })
    return rows


def sft_rows(count: int, seed: int = 11) -> list[dict]:
    """Rows {"prompt", "completion"} of different lengths."""
    return [{"prompt": r["prompt"], "completion": r["chosen"]} for r in preference_rows(count, seed)]
