"""Data files in every format that is read, and their rows as pyarrow and `datasets` read them: tests/golden/data/.

The packed and Parquet files are made by their reference implementations (gzip and zlib of Python, zstd through Arrow,
pyarrow, datasets). `expected.json` holds the rows of each file as the reference reader returns them. Broken files are
not made here: the tests break these ones.
"""

import gzip
import io
import json
import struct
import tempfile
import zlib
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from common import GOLDEN, write_json

OUT = GOLDEN / "data"

TEXTS = ["plain", "two\nlines", "naïve — ünïcode 😀", "quotes \" and \\ slashes", "tab\tand\u2028separator", " spaces "]


def conversation(i: int) -> list[dict]:
    turns = [{"role": "user", "content": f"Question {i}: {TEXTS[i % len(TEXTS)]}"}]
    turns.append({"role": "assistant", "content": f"Answer {i}."})
    return [{"role": "system", "content": "Be brief."}, *turns] if i % 3 == 0 else turns


def text_rows(n: int = 12) -> list[dict]:
    return [{"text": f"{i} {TEXTS[i % len(TEXTS)]}", "label": i} for i in range(n)]


def preference_rows(n: int = 9) -> list[dict]:
    rows = []
    for i in range(n):
        shared = conversation(i)[:-1]
        rows.append(
            {
                "chosen": [*shared, {"role": "assistant", "content": f"Good {i}."}],
                "rejected": [*shared, {"role": "assistant", "content": f"Bad {i}."}],
                "preference": [1.0, 0.75, None][i % 3],
                "margin": [None, 2, -1][i % 3],
                "score": {"by": ["a", None][i % 2], "values": [1, 2][: i % 3]},
            }
        )
    return rows


def jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def gzip_of(data: bytes, name: str = "") -> bytes:
    """One member without a time, so that the file is the same on every run."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename=name, mode="wb", fileobj=buffer, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()


def zstd_of(data: bytes) -> bytes:
    """One frame, as Arrow's codec writes it."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def zstd_raw(data: bytes) -> bytes:
    """A frame of one raw block: written out from the format's description (RFC 8878)."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0xA0]) + struct.pack("<I", len(data))
    block = (len(data) << 3) | 1
    return header + struct.pack("<I", block)[:3] + data


def skippable(data: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(data)) + data


def lines_of(data: bytes) -> list[dict]:
    return [json.loads(line) for line in data.decode("utf-8-sig").split("\n") if line.strip()]


def packed() -> dict[str, list[dict]]:
    rows = text_rows()
    data = jsonl(rows)
    first, second = jsonl(rows[:5]), jsonl(rows[5:])
    files = {
        "plain.jsonl": data,
        "crlf-bom.jsonl": b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n\r\n").rstrip(),
        "one.jsonl.gz": gzip_of(data, "one.jsonl"),
        "members.jsonl.gz": gzip_of(first) + gzip_of(second) + gzip_of(b""),
        "one.jsonl.zst": zstd_of(data),
        "frames.jsonl.zst": zstd_of(first) + zstd_raw(second),
        "skippable.jsonl.zst": skippable(b"seek table") + zstd_of(data),
        "compact.json": json.dumps(rows).encode(),
        "indented.json": (" \n" + json.dumps(rows, indent=2, ensure_ascii=False) + "\n\n").encode(),
        "array.json.gz": gzip_of(json.dumps(rows).encode()),
        "empty-array.json": b"[ ]",
    }
    for name, content in files.items():
        (OUT / name).write_bytes(content)
    assert zlib.decompress(files["one.jsonl.gz"], 31) == data
    assert lines_of(gzip.decompress(files["members.jsonl.gz"])) == rows
    for name in ("one.jsonl.zst", "frames.jsonl.zst"):
        with pa.CompressedInputStream(pa.OSFile(str(OUT / name)), "zstd") as stream:
            unpacked = stream.read()
        assert lines_of(unpacked) == rows, name
    expected = {name: rows for name in files}
    expected["empty-array.json"] = []
    return expected


def written_by_datasets() -> dict[str, list[dict]]:
    """Parquet, JSON lines and an array as `datasets` writes them, and messages of mixed shapes (its Json type)."""
    rows = [{"messages": conversation(i), "id": i} for i in range(7)]
    set_of_rows = datasets.Dataset.from_list(rows)
    set_of_rows.to_parquet(OUT / "datasets.parquet")
    set_of_rows.to_json(OUT / "datasets.jsonl")
    set_of_rows.to_json(OUT / "datasets.json", lines=False, orient="records")
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    mixed = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
    ]
    features = datasets.Features({"messages": datasets.List(datasets.Json())})
    datasets.Dataset.from_list(mixed, features=features).to_parquet(OUT / "json-type.parquet")
    expected = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("datasets.parquet", "datasets.jsonl", "datasets.json", "json-type.parquet"):
            kind = "parquet" if name.endswith("parquet") else "json"
            read = datasets.load_dataset(kind, data_files=str(OUT / name), split="train", cache_dir=cache)
            expected[name] = list(read)
    return expected


def parquet() -> dict[str, list[dict]]:
    rows = preference_rows()
    table = pa.Table.from_pylist(rows)
    texts = pa.Table.from_pylist(text_rows(40))
    dictionary = pa.table({"text": pa.array([r["text"] for r in text_rows(40)]).dictionary_encode()})
    types = pa.table(
        {
            "text": pa.array(["a", None, "c"], pa.large_string()),
            "flag": pa.array([True, None, False]),
            "small": pa.array([-1, 2, None], pa.int8()),
            "unsigned": pa.array([2**64 - 1, 0, None], pa.uint64()),
            "half": pa.array([0.5, None, -2.0], pa.float16()),
            "single": pa.array([0.1, None, 3.5], pa.float32()),
            "nothing": pa.nulls(3),
            "empty": pa.array([[], None, [None, "x"]], pa.list_(pa.string())),
            "nested": pa.array([[[1], []], [], None], pa.list_(pa.list_(pa.int32()))),
            "fixed": pa.array([[1, 2], [3, 4], None], pa.list_(pa.int32(), 2)),
        }
    )
    write = {
        "preference-snappy.parquet": (table, {"compression": "snappy", "row_group_size": 2}),
        "preference-zstd.parquet": (table, {"compression": "zstd", "data_page_version": "2.0"}),
        "preference-gzip.parquet": (table, {"compression": "gzip", "use_dictionary": False}),
        "preference-brotli.parquet": (table, {"compression": "brotli"}),
        "preference-lz4.parquet": (table, {"compression": "lz4"}),
        "preference-plain.parquet": (table, {"compression": "none", "use_compliant_nested_type": False}),
        "pages.parquet": (texts, {"data_page_size": 64, "write_page_checksum": True, "row_group_size": 25}),
        "dictionary.parquet": (dictionary, {"row_group_size": 16}),
        "delta.parquet": (
            texts,
            {
                "use_dictionary": False,
                "column_encoding": {"text": "DELTA_BYTE_ARRAY", "label": "DELTA_BINARY_PACKED"},
            },
        ),
        "types.parquet": (types, {}),
        "empty.parquet": (texts.slice(0, 0), {}),
        "wrong-type.parquet": (pa.table({"text": pa.array([1, 2], pa.int64())}), {}),
        "binary.parquet": (pa.table({"text": pa.array([b"as text", b"\xff\xfe"], pa.binary())}), {}),
        "nan.parquet": (
            pa.table({"chosen": ["a"], "rejected": ["b"], "margin": pa.array([float("nan")], pa.float64())}),
            {},
        ),
    }
    for name, (content, options) in write.items():
        pq.write_table(content, OUT / name, **options)
    # A string column whose bytes are no UTF-8: Arrow does not look at them.
    raw = pa.array([b"good", b"\xff\xfe bad"], pa.binary())
    unchecked = pa.StringArray.from_buffers(2, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"text": unchecked}), OUT / "not-utf8.parquet")
    (OUT / "parquet-inside.gz").write_bytes(gzip_of((OUT / "wrong-type.parquet").read_bytes()))
    skipped = ("binary.parquet", "nan.parquet")
    return {name: pq.read_table(OUT / name).to_pylist() for name in write if name not in skipped}


def make() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    expected = packed() | written_by_datasets() | parquet()
    write_json(OUT / "expected.json", expected)


if __name__ == "__main__":
    make()
