"""Which files are a split's, by the Python library datasets: tests/golden/splits.json.

Every case is a directory of empty files with a card; datasets looks at names only to find splits.
"""

import tempfile
from pathlib import Path

import common
from datasets import load_dataset_builder
from datasets.data_files import EmptyDatasetError


def shards(prefix: str, count: int, end: str) -> list[str]:
    return [f"{prefix}-{i:05d}-of-{count:05d}{end}" for i in range(count)]


def configs(text: str) -> str:
    return f"---\nlicense: mit\nconfigs:\n{text}---\n# A data set\n"


ULTRA = configs(
    "- config_name: default\n  data_files:\n"
    "  - split: train_prefs\n    path: data/train_prefs-*\n  - split: test_prefs\n    path: data/test_prefs-*\n"
)
TWO = configs(
    "- config_name: main\n  data_files:\n  - split: train\n    path: main/train-*\n  - split: test\n    path: main/test-*\n"
    "- config_name: socratic\n  data_files:\n  - split: train\n    path: socratic/train-*\n"
    "  - split: test\n    path: socratic/test-*\n"
)
MATH = [*shards("main/train", 1, ".parquet"), *shards("main/test", 1, ".parquet"), *shards("socratic/train", 1, ".parquet")]

# Name, files, card, configuration.
CASES: list[tuple[str, list[str], str, str | None]] = [
    ("one file", ["rows.jsonl"], "", None),
    ("two files", ["b.jsonl", "a.jsonl"], "", None),
    ("named", ["train.jsonl", "test.jsonl"], "", None),
    ("aliases", ["training.jsonl", "dev.jsonl", "eval.jsonl", "evaluation_2.jsonl", "valid-1.jsonl", "val.jsonl"], "", None),
    ("words inside names", ["my_train_file.jsonl", "x.test.jsonl", "contest.jsonl", "trainer.jsonl"], "", None),
    ("compressed", ["harmless/train.jsonl.gz", "harmless/test.jsonl.gz", "helpful/train.jsonl.gz", "red/red.jsonl.gz"], "", None),
    ("data shards", [*shards("data/train", 3, ".parquet"), *shards("data/test", 1, "-0a1b2c3d4e5f6a7b.parquet")], "", None),
    ("odd data shards", [*shards("data/train_sft", 2, ".parquet"), *shards("data/test_sft", 1, ".parquet"), "train.jsonl"], "", None),
    ("shards elsewhere", shards("plain_text/train", 2, ".parquet") + shards("plain_text/test", 1, ".parquet"), "", None),
    ("directories", ["train/0.jsonl", "train/1.jsonl", "test/0.jsonl", "other/0.jsonl"], "", None),
    ("deep directories", ["data/v1/train/a/0.parquet", "data/v1/test-set/0.parquet", "my-validation/x.parquet"], "", None),
    ("directories before files", ["train/test.jsonl", "test.jsonl"], "", None),
    ("hidden and special", [".cache/train.jsonl", "__pycache__/train.jsonl", "train.jsonl", "a/.train.jsonl"], "", None),
    ("never data", ["config.json", "dataset_info.json", "dataset_infos.json", "rows.jsonl"], "", None),
    ("formats in one split", ["train/a.parquet", "train/b.jsonl", "train/c.jsonl"], "", None),
    ("a draw of formats", ["train/a.parquet", "train/b.jsonl"], "", None),
    ("several splits by card", [*shards("data/train_prefs", 2, ".parquet"), *shards("data/test_prefs", 1, ".parquet"), *shards("data/train_gen", 1, ".parquet")], ULTRA, None),
    ("two configurations", MATH + shards("socratic/test", 1, ".parquet"), TWO, "socratic"),
    ("two configurations, none chosen", MATH + shards("socratic/test", 1, ".parquet"), TWO, None),
    ("an unknown configuration", MATH + shards("socratic/test", 1, ".parquet"), TWO, "other"),
    ("default by flag", ["a/train.jsonl", "b/train.jsonl"], configs("- config_name: a\n  data_files: a/*\n- config_name: b\n  data_files: b/*\n  default: true\n"), None),
    ("default by name", ["a/train.jsonl", "b/x.jsonl"], configs("- config_name: a\n  data_files: a/*\n- config_name: default\n  data_files:\n  - b/*\n"), None),
    ("a directory by card", ["en/train.jsonl", "en/test.jsonl", "de/train.jsonl"], configs("- config_name: en\n  data_dir: en\n- config_name: de\n  data_dir: de\n"), "en"),
    ("a directory with patterns", ["en/x/1.jsonl", "en/y/2.jsonl", "x/3.jsonl"], configs("- config_name: en\n  data_dir: en\n  data_files:\n  - split: train\n    path: x/*\n"), "en"),
    ("lists of paths", ["b.jsonl", "a.jsonl", "c.jsonl", "d.jsonl"], configs("- config_name: default\n  data_files:\n  - split: train\n    path:\n    - b.jsonl\n    - a.jsonl\n  - split: test\n    path: [d.jsonl]\n"), None),
    ("two stars", ["x/1.jsonl", "x/y/2.jsonl", "x/y/z/3.jsonl", "w/4.jsonl"], configs("- config_name: default\n  data_files:\n  - split: train\n    path: x/**/*.jsonl\n  - split: test\n    path: x/**\n"), None),
    ("classes and question marks", ["a1.jsonl", "a2.jsonl", "a3.jsonl", "b1.jsonl", "a].jsonl"], configs("- config_name: default\n  data_files:\n  - split: train\n    path: \"a[12].jsonl\"\n  - split: test\n    path: \"[!a]?.jsonl\"\n  - split: odd\n    path: \"a[]].jsonl\"\n"), None),
    ("hidden by card", [".hidden/a.jsonl", "b.jsonl"], configs("- config_name: default\n  data_files: .hidden/*\n"), None),
    ("numbers as names", ["2024/a.jsonl", "2025/b.jsonl"], configs("- config_name: '2024'\n  data_files: 2024/*\n- config_name: '2025'\n  data_files: 2025/*\n"), "2025"),
    ("a card without configurations", ["train.jsonl"], "---\nlicense: mit\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n          0: neg\n          1: pos\n---\ntext\n", None),
    ("no front matter", ["train.jsonl"], "# Title\n---\nconfigs: none\n---\n", None),
    ("spaces in names", ["my data/the train set.jsonl", "my data/the test set.jsonl"], "", None),
]  # fmt: skip


def found(root: Path, config: str | None) -> dict:
    try:
        files = load_dataset_builder(str(root), config).config.data_files
    except (ValueError, EmptyDatasetError) as error:
        return {"refused": type(error).__name__}
    names = {str(split): [str(Path(name).relative_to(root)) for name in of] for split, of in files.items()}
    return {"splits": names}


def make() -> None:
    cases = []
    for name, files, card, config in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary).resolve() / "set"
            for file in files:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                # The names that datasets reads itself have to be JSON.
                (root / file).write_text("{}" if file.startswith("dataset_info") else "")
            if card:
                (root / "README.md").write_text(card)
            case = {"name": name, "files": files, "card": card, "config": config}
            cases.append(case | found(root, config))
    common.write_json(common.GOLDEN / "splits.json", {"cases": cases})


if __name__ == "__main__":
    make()
