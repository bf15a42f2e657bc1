//! Encoded rows on disk: the same rows, in the same order, with the same fingerprint as in memory.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]
use collimate::data::fingerprint::Encoded;
use collimate::data::{Loader, Message, Pair, Prompt, RowId, Rows, Sequence, fingerprint};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

fn id(file: &str, number: usize) -> RowId {
    RowId::line(Path::new(file), number)
}

/// Ids of every length that they are stored in.
fn ids(count: usize, from: i64) -> Vec<i64> {
    let sizes = [0, 127, 128, 16_383, 16_384, 49_151, 2_097_152, i64::from(u32::MAX), i64::MAX];
    (0..count).map(|i| sizes[i % sizes.len()].wrapping_sub(from).max(0)).collect()
}

fn sequences() -> Vec<Sequence> {
    let row = |i: usize| Sequence {
        tokens: ids(i % 23, i as i64),
        targets: vec![1..i % 5 + 1, i + 200..i + 20_000],
        id: if i.is_multiple_of(2) { id("a.jsonl", i + 1) } else { RowId::row(Path::new("b.parquet"), i * 1000) },
    };
    (0..50).map(row).collect()
}

fn pairs() -> Vec<Pair> {
    let row = |i: usize| Pair {
        prompt: ids(i % 3, 0),
        chosen: ids(i % 7 + 1, 3),
        rejected: ids(i % 4 + 1, 5),
        preference: [0.1, 1.0, f64::MIN_POSITIVE][i % 3],
        margin: [Some(-2.5), None, Some(1e300)][i % 3],
        id: id(["x", "y"][i / 8 % 2], i),
    };
    (0..40).map(row).collect()
}

fn prompts() -> Vec<Prompt> {
    let message = |text: &str| -> Message { json!({"role": "user", "content": text}).as_object().unwrap().clone() };
    let row = |i: usize| Prompt {
        tokens: ids(i % 5 + 1, 1),
        text: ["", "naïve 😀\n", "a\0b"][i % 3].repeat(i),
        messages: i.is_multiple_of(2).then(|| vec![message("hi\n\"x\""); i % 4]),
        id: id("p.jsonl", i),
    };
    (0..30).map(row).collect()
}

fn on_disk<E: Encoded>(rows: &[E]) -> Rows<E> {
    let mut disk = Rows::on_disk().unwrap();
    rows.iter().for_each(|row| disk.push(row.clone()).unwrap());
    disk.finish().unwrap();
    disk
}

fn same<E: Encoded + PartialEq + Debug>(rows: Vec<E>) {
    let disk = on_disk(&rows);
    let memory = Rows::from(rows.clone());
    assert_eq!((disk.len(), disk.is_empty(), memory.len()), (rows.len(), false, rows.len()));
    for (index, row) in rows.iter().enumerate().rev() {
        assert_eq!(*disk.get(index).unwrap(), *row);
        assert_eq!(*memory.get(index).unwrap(), *row);
    }
    for (row, read) in rows.iter().zip(disk.iter()) {
        assert_eq!(*read.unwrap(), *row);
    }
    assert_eq!(fingerprint(&[&disk, &memory]).unwrap(), fingerprint(&[&memory, &disk]).unwrap());
    assert_eq!(fingerprint(&[&disk]).unwrap(), fingerprint(&[&memory]).unwrap());
    assert_ne!(fingerprint(&[&disk]).unwrap(), fingerprint(&[&Rows::from(rows[1..].to_vec())]).unwrap());
}

#[test]
fn sequences_pairs_and_prompts_come_back_as_they_were() {
    same(sequences());
    same(pairs());
    same(prompts());
}

#[test]
fn the_fingerprint_is_a_hash_of_count_then_rows() {
    let mut hash = Sha256::new();
    for rows in [pairs(), Vec::new()] {
        hash.update((rows.len() as u64).to_le_bytes());
        for row in rows {
            for ids in [row.prompt, row.chosen, row.rejected] {
                hash.update((ids.len() as u64).to_le_bytes());
                ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            }
            hash.update(row.preference.to_le_bytes());
            hash.update(row.margin.unwrap_or(0.0).to_le_bytes());
        }
    }
    let want: [u8; 32] = hash.finalize().into();
    assert_eq!(fingerprint(&[&on_disk(&pairs()), &on_disk(&[])]).unwrap(), want);
}

#[test]
fn rows_can_be_read_between_writes_and_beyond_a_buffer() {
    let file: Arc<Path> = Path::new("big.jsonl").into();
    let row = |i: usize| Sequence {
        tokens: (0..2000).map(|t| (t * 7 + i as i64) % 50_000).collect(),
        targets: vec![1..2000],
        id: RowId::line(file.clone(), i + 1),
    };
    // Some 5 kB each: several buffers of a mebibyte.
    let mut disk = Rows::on_disk().unwrap();
    for i in 0..800 {
        disk.push(row(i)).unwrap();
        if i % 97 == 0 {
            assert_eq!(*disk.get(i).unwrap(), row(i), "from what is not written yet");
            assert_eq!(*disk.get(i / 2).unwrap(), row(i / 2));
        }
    }
    disk.finish().unwrap();
    let mut loader = Loader::new(disk.len(), 8, true, 5);
    for _ in 0..50 {
        for index in loader.next_batch() {
            assert_eq!(*disk.get(index).unwrap(), row(index));
        }
    }
}

#[test]
fn a_full_disk_is_named_with_what_it_holds() {
    let Ok(full) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/full") else { return };
    let mut disk = Rows::on_file(full, Path::new("TMP"));
    let row = Sequence { tokens: vec![300; 100_000], targets: vec![1..2], id: id("a", 1) };
    let error = (0..20).find_map(|_| disk.push(row.clone()).err()).unwrap();
    assert_eq!(
        error.to_string(),
        "TMP: is full: 6 encoded rows take 2 MiB here, and more are to come; free space, or set TMPDIR to a directory on a larger disk"
    );
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn bytes_that_changed_under_a_row_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows");
    let file = std::fs::File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    let mut disk = Rows::on_file(file, dir.path());
    sequences().into_iter().for_each(|row| disk.push(row).unwrap());
    disk.finish().unwrap();
    let length = std::fs::metadata(&path).unwrap().len() as usize;
    std::fs::write(&path, vec![0xff; length]).unwrap();
    let error = disk.get(3).unwrap_err().to_string();
    assert!(error.contains("the temporary file holds other bytes for row 3 than were written to it"), "{error}");
    std::fs::write(&path, b"").unwrap();
    assert!(disk.get(3).unwrap_err().to_string().contains("cannot read a temporary file in"));
}
