#!/usr/bin/env python3
"""Makes the review corpus in this directory: sft, eval, judge, judge_eval, prompts and eval_prompts (.jsonl).

Usage: python3 data/make_corpus.py [--output DIR] [--show N]

The grammar; the words are in lexicon.py. A review has a hidden mood; every clause draws its grade near that mood (with
enough noise for mixed feelings), and the label is the weighted mean of the grades that were drawn, in steps of 0.05
from 0 (very negative) to 1 (very positive). Openings carry no opinion in their first words, so that the beginning of a
review is a prompt that can be continued either way.

Standard library only. Only random.Random(int).random() is used: Python promises that sequence across versions.
"""

import argparse
import json
import random
import re
from pathlib import Path

import lexicon as lx

SEED = 20240607
SIZES = {"sft": 6000, "eval": 300, "judge": 3800, "judge_eval": 500, "prompts": 600, "eval_prompts": 150}


class Draw:
    """Random choices from the one primitive whose sequence Python keeps stable."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def index(self, n):
        return min(int(self.random() * n), n - 1)

    def pick(self, items):
        return items[self.index(len(items))]

    def chance(self, p):
        return self.random() < p

    def between(self, low, high):
        return low + (high - low) * self.random()

    def noise(self, width):
        """A bell-shaped value around 0: the sum of three uniform draws."""
        return width * (self.random() + self.random() + self.random() - 1.5)

    def shuffle(self, items):
        for i in range(len(items) - 1, 0, -1):
            j = self.index(i + 1)
            items[i], items[j] = items[j], items[i]

    def graded(self, items, target):
        """An item of [(phrase, grade)], likelier the nearer its grade is to the target. Exact arithmetic only."""
        weights = [1.0 / (1.0 + (2.5 * (grade - target)) ** 4) for _, grade in items]
        point = self.random() * sum(weights)
        for item, weight in zip(items, weights):
            point -= weight
            if point < 0.0:
                return item
        return items[-1]


def inflect(phrase, plural):
    """Chooses the singular or plural form of every [a|b] and of every [s]."""

    def choose(match):
        singular, _, other = match.group(1).partition("|")
        return other if plural else singular

    return re.sub(r"\[([^\]]*)\]", choose, phrase)


def article(phrase):
    return ("an " if phrase[0].lower() in "aeiou" else "a ") + phrase


def sentence(text):
    return text[0].upper() + text[1:]


class Review:
    """One review: what it is about, the sentences so far, and the grades with their weights."""

    def __init__(self, draw):
        self.draw = draw
        self.mood = draw.between(-1.7, 1.7)
        self.grades = []
        self.used = set()
        d = draw
        film, other = self.film_name(), self.film_name()
        while other == film:
            other = self.film_name()
        genre, genres = d.pick(lx.GENRES)
        place, place2 = self.two(lx.PLACES)
        role = d.pick(lx.ROLES)
        full_role = d.pick(lx.ROLE_ADJECTIVES) + " " + role if d.chance(0.35) else role
        self.names = {
            "film": film, "other": other, "genre": genre, "a_genre": article(genre), "genres": genres,
            "genre_adjective": d.pick(lx.GENRE_ADJECTIVES), "place": place, "place2": place2,
            "decade": d.pick(lx.DECADES), "length": d.pick(lx.LENGTHS), "ordinal": d.pick(lx.ORDINALS),
            "person": self.person_name(), "person2": self.person_name(), "role": role, "a_role": article(full_role),
            "event": d.pick(lx.EVENTS), "scene": d.pick(lx.SCENE_EVENTS), "company": d.pick(lx.COMPANY),
            "host": d.pick([c for c in lx.COMPANY if c != "a full house"]), "other_role": article(d.pick(lx.ROLES)),
        }
        self.names["occasion"] = d.pick(lx.OCCASIONS).replace("{place}", place2)

    def two(self, items):
        first = self.draw.pick(items)
        return first, self.draw.pick([item for item in items if item != first])

    def film_name(self):
        d = self.draw
        kind = d.index(10)
        if kind < 5:
            return "The " + d.pick(lx.FILM_ADJECTIVES) + " " + d.pick(lx.FILM_NOUNS)
        if kind < 7:
            return d.pick(lx.FILM_NUMBERS) + " " + d.pick(lx.FILM_PLURALS)
        if kind < 8:
            return "The " + d.pick(lx.FILM_NOUNS) + " of " + d.pick(lx.PLACES)
        if kind < 9:
            word = d.pick(lx.FILM_ADJECTIVES)
            title = word + " " + d.pick(lx.FILM_NOUNS) + " in " + d.pick(lx.PLACES)
            return sentence(article(title))
        return d.pick(lx.WOMEN + lx.MEN) + " and the " + d.pick(lx.FILM_NOUNS)

    def person_name(self):
        return self.draw.pick(lx.WOMEN + lx.MEN) + " " + self.draw.pick(lx.SURNAMES)

    def fill(self, text):
        return re.sub(r"\{(\w+)\}", lambda match: self.names[match.group(1)], text)

    def target(self):
        """The grade that the next clause aims at."""
        return max(-2.0, min(2.0, self.mood + self.draw.noise(1.2)))

    def graded(self, items, weight, target=None):
        phrase, grade = self.draw.graded(items, self.target() if target is None else target)
        self.grades.append((grade, weight))
        return self.fill(phrase)

    def label(self):
        """The weighted mean grade on [0, 1] in steps of 0.05."""
        total = sum(weight for _, weight in self.grades)
        mean = sum(grade * weight for grade, weight in self.grades) / total
        return round(max(0.0, min(1.0, 0.5 + mean / 3.6)) * 20) / 20

    # --- clauses about an aspect ------------------------------------------------------------------------------------

    def aspect(self, opening=False):
        """(name, noun phrase, plural) of an aspect that the review has not touched yet."""
        d = self.draw
        name = d.pick([name for name in lx.ASPECTS if name not in self.used])
        self.used.add(name)
        singular, plural, _ = lx.ASPECTS[name]
        phrases = [(np, False) for np in singular] + [(np, True) for np in plural]
        if opening:
            phrases = [(np, number) for np, number in phrases if len(np.split()) < 4]
        np, number = d.pick(phrases)
        return name, np, number

    def predicate(self, name, plural, target, weight):
        """What is said of an aspect: its own phrases, an adjective, or a negation."""
        kind = self.draw.random()
        if kind < 0.6:
            items = [(phrase, float(grade) * 0.95) for grade, group in lx.ASPECTS[name][2].items() for phrase in group]
            return inflect(self.graded(items, weight, target), plural)
        be = "are " if plural else "is "
        if kind < 0.85:
            return be + self.adjective(target, weight)
        return be + self.graded(lx.NEGATIONS, weight, target)

    def adjective(self, target, weight):
        """An adjective near the target, often with an adverb that moves its grade."""
        d = self.draw
        grade = min(lx.ADJECTIVES, key=lambda g: (abs(g - target), g))
        word = d.pick(lx.ADJECTIVES[grade])
        adverb, factor = "", 1.0
        if d.chance(0.6):
            adverb, factor = d.pick(lx.MILD_ADVERBS if abs(grade) == 1 else lx.STRONG_ADVERBS)
            adverb += " "
        scale = 0.9 if abs(grade) == 1 else 0.95
        self.grades.append((max(-2.0, min(2.0, grade * factor * scale)), weight))
        return adverb + word

    def clause(self, target, weight):
        name, np, plural = self.aspect()
        return np + " " + self.predicate(name, plural, target, weight)

    # --- sentences --------------------------------------------------------------------------------------------------

    def simple(self):
        return self.clause(self.target(), 1.0) + "."

    def contrast(self):
        """Mixed feelings: two clauses of opposite sign; what stands last, or in the main clause, weighs more."""
        target = self.target()
        away = -target if abs(target) > 0.6 else (1.0 if target < 0 else -1.0)
        join = self.draw.index(5)
        minor, major = self.clause(away * 0.8, 0.4), self.clause(target, 0.8)
        if join < 2:
            return minor + ", but " + major + "."
        if join == 2:
            return "although " + minor + ", " + major + "."
        if join == 3:
            return major + ", even if " + minor + "."
        return "it is true that " + minor + ", but " + major + "."

    def agreement(self):
        target = self.target()
        first, second = self.clause(target, 0.7), self.clause(target, 0.7)
        return first + ", and " + second + "."

    def pillar(self):
        _, np, plural = self.aspect()
        self.names["np"] = np
        return inflect(self.graded(lx.PILLARS, 0.9), plural)

    def whole(self):
        start = self.draw.pick(["the film is ", "on the whole it is ", "as a {genre} it is ", "the result is ",
                                "it is "])
        target = self.target()
        if self.draw.chance(0.5):
            return self.fill(start) + self.adjective(target, 1.1) + "."
        return self.fill(start) + self.graded(lx.NEGATIONS, 1.1, target) + "."

    def feeling(self):
        return self.graded(lx.FEELINGS, 1.0)

    def comparison(self):
        return self.graded(lx.COMPARISONS, 1.0)

    def neutral(self):
        return self.fill(self.draw.pick(lx.NEUTRAL_SENTENCES))

    def verdict(self):
        start = self.draw.pick(["", "", "", "in short, ", "all in all, ", "in the end, "])
        verdict = self.graded(lx.VERDICTS, 1.3, self.mood + self.draw.noise(0.6))
        return start + verdict if verdict.startswith(("it is ", "I ", "some ")) else verdict

    # --- openings: (neutral lead, rest of the sentence) -------------------------------------------------------------

    def opening(self):
        return self.draw.pick(OPENINGS)(self)

    def open_aspect(self):
        name, np, plural = self.aspect(opening=True)
        return np + (" in " if name in ("acting", "dialogue", "characters", "humour", "design") else " of ") + \
            self.names["film"], " " + self.predicate(name, plural, self.target(), 1.0) + "."

    def open_scene(self):
        return self.fill("there is a scene in {film} where {a_role} {scene}"), ", and it " + self.result()

    def open_company(self):
        verb = self.draw.pick(["I watched this with {company} {occasion}", "I saw {film} with {company} {occasion}",
                               "{host} took me to see this {genre} {occasion}", "I went to see {film} with {company}"])
        return self.fill(verb), ", and " + self.graded(lx.REACTIONS, 1.0) + "."

    def open_alone(self):
        lead = self.draw.pick(["I saw {film} {occasion}", "I watched this {genre} {occasion}",
                               "they showed {film} {occasion}"])
        reactions = [item for item in lx.REACTIONS if not item[0].startswith("we ")]
        return self.fill(lead), ", and " + self.graded(reactions, 1.0) + "."

    def open_role(self):
        lead = self.draw.pick(["{person} plays {a_role} who {event}",
                               "in this {genre} {person} plays {a_role} who {event}"])
        return self.fill(lead), ", and the result " + self.result()

    def result(self):
        return self.graded(lx.RESULTS, 1.0) + "."

    def open_fact(self):
        lead = self.draw.pick([
            "set in {place} in {decade}, {film} follows {a_role} who {event}",
            "{film} is {a_genre} about {a_role} who {event}",
            "most of {film} takes place in {place}, where {a_role} {event}",
            "this {genre_adjective} {genre} by {person} tells the story of {a_role} who {event}",
            "{person}'s {ordinal} film is set in {place} and runs for {length}",
            "the {ordinal} film by {person} follows {a_role} who {event}",
        ])
        self.used.add("setting")
        return self.fill(lead), "."

    def open_genre(self):
        lead = "for {a_genre} about {a_role} who {event}"
        start = ", this is " if self.draw.chance(0.6) else ", it is "
        return self.fill(lead), start + self.adjective(self.target(), 1.0) + "."

    def open_moment(self):
        lead = self.draw.pick(["by the time the {role} {scene}", "when the {role} {scene} halfway through {film}",
                               "towards the end of {film}, when the {role} {scene}"])
        return self.fill(lead), ", " + self.graded(lx.MOMENTS, 1.0) + "."

    def open_notice(self):
        lead = self.draw.pick(["the first thing you notice about {film}", "what I remember most about {film}"])
        return self.fill(lead), " is " + self.graded(lx.NOTICES, 1.0) + "."

    def open_taste(self):
        return self.fill("if you like {genre_adjective} {genres}"), ", this one " + self.graded(lx.TASTES, 1.0) + "."

    def open_running(self):
        return self.fill("with a running time of {length}, {film}"), " " + self.graded(lx.RUNNING, 1.0) + "."

    def open_rank(self):
        lead = self.draw.pick(["I have seen every film by {person}", "{person} has made {number} films so far"])
        self.names["number"] = self.draw.pick(["four", "five", "six", "seven", "ten"])
        return self.fill(lead), ", and this one " + self.graded(lx.RANKS, 1.0) + "."

    def open_hearsay(self):
        lead = self.draw.pick(["before I saw {film}, I knew nothing about {person}",
                               "I had read the book before I saw {film}",
                               "everyone at work was talking about {film}",
                               "I knew nothing about {film} when I sat down"])
        reactions = [item for item in lx.REACTIONS if not item[0].startswith("we ")]
        return self.fill(lead), ", and " + self.graded(reactions, 1.0) + "."

    # --- the whole --------------------------------------------------------------------------------------------------

    def write(self):
        """(text, number of words in the neutral lead)."""
        d = self.draw
        lead, rest = self.opening()
        sentences = [lead + rest]
        extra = d.pick([0, 1, 1, 1, 2, 2]) if self.grades else d.pick([1, 1, 2])
        if extra and d.chance(0.2) and "setting" not in self.used:
            sentences.append(self.neutral())
        kinds = [Review.simple] * 3 + [Review.contrast] * 4 + [Review.agreement, Review.pillar, Review.whole,
                                                            Review.feeling, Review.comparison]
        done = set()
        while extra:
            kind = d.pick([k for k in kinds if k not in done])
            done.add(kind)
            sentences.append(kind(self))
            extra -= 1
        if len(sentences) < 4 and d.chance(0.5):
            sentences.append(self.verdict())
        text = " ".join(sentence(s) for s in sentences)
        return text, len(lead.split())


OPENINGS = [Review.open_aspect] * 5 + [Review.open_fact] * 4 + [Review.open_company, Review.open_alone] * 2 + [
    Review.open_scene, Review.open_role, Review.open_genre, Review.open_moment, Review.open_notice, Review.open_taste,
    Review.open_running, Review.open_rank, Review.open_hearsay,
]


def reviews(draw, count):
    """`count` different reviews: (text, label, words in the neutral lead)."""
    seen, made = set(), []
    while len(made) < count:
        review = Review(draw)
        text, lead = review.write()
        if text not in seen and len(text.split()) <= 60:
            seen.add(text)
            made.append((text, review.label(), lead))
    return made


def prompt_of(draw, text, lead):
    """The first three to six words, never beyond the neutral lead."""
    words = text.split()
    longest = min(6, lead)
    return " ".join(words[: 3 + draw.index(longest - 2)]).rstrip(",")


def judge_pairs(draw, rows):
    """Reviews two by two: equal labels are ties; labels one step apart are too close to call and are left out.

    The empty prompt says that the reviews are whole: without it, what they begin with in common would be the prompt.
    """
    order = list(range(len(rows)))
    draw.shuffle(order)
    pairs = []
    for left, right in zip(order[0::2], order[1::2]):
        (first, a, _), (second, b, _) = rows[left], rows[right]
        if a < b:
            first, second, a, b = second, first, b, a
        if a == b:
            pairs.append({"prompt": "", "chosen": first, "rejected": second, "preference": 0.5})
        elif a - b > 0.07:
            pairs.append({"prompt": "", "chosen": first, "rejected": second, "preference": 1.0})
    return pairs


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--show", type=int, default=0, help="print this many reviews with their labels; write nothing")
    options = parser.parse_args()
    draw = Draw(SEED)
    if options.show:
        for text, label, lead in reviews(draw, options.show):
            print(f"{label:.2f}  [{prompt_of(draw, text, lead)}] {text}")
        return
    # Prompts must differ from each other, so some reviews are spare.
    made = reviews(draw, sum(SIZES.values()) + 1500)
    at = 0
    parts = {}
    for name in ("sft", "eval", "judge", "judge_eval"):
        parts[name] = made[at : at + SIZES[name]]
        at += SIZES[name]
    seen = set()
    for name in ("prompts", "eval_prompts"):
        parts[name] = []
        while len(parts[name]) < SIZES[name]:
            text, _, lead = made[at]
            at += 1
            prompt = prompt_of(draw, text, lead)
            if prompt not in seen:
                seen.add(prompt)
                parts[name].append({"prompt": prompt})
    options.output.mkdir(parents=True, exist_ok=True)
    for name in ("sft", "eval"):
        rows = [{"text": text, "label": label} for text, label, _ in parts[name]]
        write_rows(options.output / f"{name}.jsonl", rows)
    for name in ("judge", "judge_eval"):
        write_rows(options.output / f"{name}.jsonl", judge_pairs(draw, parts[name]))
    for name in ("prompts", "eval_prompts"):
        write_rows(options.output / f"{name}.jsonl", parts[name])


if __name__ == "__main__":
    main()
