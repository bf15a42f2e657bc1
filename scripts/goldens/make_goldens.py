"""Writes tests/golden/: reference values from PyTorch, transformers, TRL, SciPy and choix, by topic.

Each topic is one file beside this one and owns one part of tests/golden/. Later topics read what earlier ones wrote
(models need the tokenizer, curves need both), so the order below matters. See tests/golden/README.md.
"""

import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import agreement  # noqa: E402
import chat  # noqa: E402
import conversations  # noqa: E402
import curves  # noqa: E402
import data_files  # noqa: E402
import distill  # noqa: E402
import families  # noqa: E402
import generation  # noqa: E402
import losses  # noqa: E402
import models  # noqa: E402
import optimizer  # noqa: E402
import pipelines  # noqa: E402
import ppo  # noqa: E402
import rank  # noqa: E402
import sampling  # noqa: E402
import splits  # noqa: E402
import tokenization  # noqa: E402
import torch  # noqa: E402

TOPICS = {
    "chat": chat.make,
    "pipelines": pipelines.make,
    "conversations": conversations.make,
    "tokenizer": tokenization.make,
    "models": models.make,
    "families": families.make,
    "losses": losses.make,
    "distill": distill.make,
    "optimizer": optimizer.make,
    "sampling": sampling.make,
    "generation": generation.make,
    "curves": curves.make,
    "data": data_files.make,
    "splits": splits.make,
    "ppo": ppo.make,
    "rank": rank.make,
    "agreement": agreement.make,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topics", nargs="*", choices=[*TOPICS, []], metavar="TOPIC", help=", ".join(TOPICS))
    topics = parser.parse_args().topics or list(TOPICS)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, make in TOPICS.items():
        if name in topics:
            print(f"goldens: {name}", flush=True)
            make()


if __name__ == "__main__":
    main()
