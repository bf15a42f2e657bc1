//! Flat batches: every index is checked against the sequences it was made from.
#![allow(clippy::unwrap_used)]
use collimate::data::{Flat, Pair, RowId, Sequence, Targets, lm_batch, pair_batch};
use std::path::Path;

fn id(line: usize) -> RowId {
    RowId::line(Path::new("d.jsonl"), line)
}

fn sequence(tokens: &[i64], prompt_len: usize) -> Sequence {
    Sequence::new(tokens.to_vec(), prompt_len, id(tokens.len()))
}

fn pair(prompt: &[i64], chosen: &[i64], rejected: &[i64], line: usize) -> Pair {
    Pair {
        prompt: prompt.to_vec(),
        chosen: chosen.to_vec(),
        rejected: rejected.to_vec(),
        preference: 0.5 + line as f64 / 100.0,
        margin: Some(line as f64),
        id: id(line),
    }
}

/// The tokens that a row sees, positions checked on the way.
fn row_tokens(flat: &Flat, row: usize) -> Vec<i64> {
    let indices = &flat.rows[row];
    for (t, &index) in indices.iter().enumerate() {
        assert_eq!(flat.positions[index as usize], t as i64, "position of token {t} in row {row}");
    }
    indices.iter().map(|&index| flat.tokens[index as usize]).collect()
}

/// The targets of one sequence, each checked to be predicted from the token before it in its own row.
fn sequence_targets(flat: &Flat, targets: &Targets, sequence: usize) -> Vec<i64> {
    let row = &flat.rows[sequence];
    let mine = (0..targets.len()).filter(|&m| targets.sequence[m] == sequence as i64);
    mine.map(|m| {
        let before = row.iter().position(|&index| index == targets.hidden[m]).expect("hidden index lies in the row");
        assert_eq!(flat.tokens[row[before + 1] as usize], targets.tokens[m]);
        targets.tokens[m]
    })
    .collect()
}

#[test]
fn sequences_written_out() {
    let batch = lm_batch(&[&sequence(&[1, 2, 3, 4], 2), &sequence(&[5, 6], 1)]);
    assert_eq!(batch.flat.tokens, [1, 2, 3, 4, 5, 6]);
    assert_eq!(batch.flat.positions, [0, 1, 2, 3, 0, 1]);
    assert_eq!(batch.flat.rows, [vec![0, 1, 2, 3], vec![4, 5]]);
    assert_eq!(batch.targets.hidden, [1, 2, 4]);
    assert_eq!(batch.targets.tokens, [3, 4, 6]);
    assert_eq!(batch.targets.sequence, [0, 0, 1]);
    assert_eq!(batch.targets.sequences, 2);
    assert_eq!(batch.ids, [id(4), id(2)]);
    assert_eq!((batch.flat.len(), batch.targets.len()), (6, 3));
    assert!(!batch.flat.is_empty() && !batch.targets.is_empty());
}

#[test]
fn the_first_token_is_never_a_target() {
    let batch = lm_batch(&[&sequence(&[7, 8], 0), &sequence(&[9], 0), &sequence(&[1, 2], 1)]);
    assert_eq!(batch.targets.hidden, [0, 3]);
    assert_eq!(batch.targets.tokens, [8, 2]);
    assert_eq!((batch.targets.sequence, batch.targets.sequences), (vec![0, 2], 3));
    assert!(lm_batch(&[]).flat.is_empty());
}

#[test]
fn pairs_written_out() {
    let batch = pair_batch(&[&pair(&[1, 2], &[3, 4], &[5], 1), &pair(&[], &[6, 7], &[8, 9, 10], 2)]);
    assert_eq!(batch.flat.tokens, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "the prompt stands once");
    assert_eq!(batch.flat.positions, [0, 1, 2, 3, 2, 0, 1, 0, 1, 2]);
    assert_eq!(batch.flat.rows, [vec![0, 1, 2, 3], vec![5, 6], vec![0, 1, 4], vec![7, 8, 9]]);
    assert_eq!(batch.targets.hidden, [1, 2, 5, 1, 7, 8], "the last prompt token predicts both first tokens");
    assert_eq!(batch.targets.tokens, [3, 4, 7, 5, 9, 10]);
    assert_eq!(batch.targets.sequence, [0, 0, 1, 2, 3, 3]);
    assert_eq!(batch.targets.sequences, 4);
    assert_eq!(batch.ends, [3, 6, 4, 9]);
    assert_eq!(batch.actions.indices, [2, 3, 5, 6, 4, 7, 8, 9]);
    assert_eq!(batch.actions.sequence, [0, 0, 1, 1, 2, 3, 3, 3]);
    assert_eq!(batch.actions.sequences, 4);
    assert_eq!((batch.preference, batch.margin), (vec![0.51, 0.52], vec![1.0, 2.0]));
    assert_eq!(batch.ids, [id(1), id(2)]);
}

#[test]
fn every_index_of_many_pairs_points_where_it_should() {
    // Prompts of 0 to 4 tokens, completions of 2 to 6; ids all differ, so a wrong index cannot hide.
    let mut next = 0..;
    let mut fresh = |n: usize| -> Vec<i64> { next.by_ref().take(n).collect() };
    let pairs: Vec<Pair> =
        (0..20).map(|i| pair(&fresh(i % 5), &fresh(2 + i % 3), &fresh(2 + (i * 7) % 5), i)).collect();
    let batch = pair_batch(&pairs.iter().collect::<Vec<_>>());
    let total: usize = pairs.iter().map(|p| p.prompt.len() + p.chosen.len() + p.rejected.len()).sum();
    assert_eq!(batch.flat.len(), total);
    for (i, pair) in pairs.iter().enumerate() {
        for (sequence, completion) in [(i, &pair.chosen), (i + pairs.len(), &pair.rejected)] {
            assert_eq!(row_tokens(&batch.flat, sequence), [pair.prompt.clone(), completion.clone()].concat());
            let first = usize::from(pair.prompt.is_empty());
            assert_eq!(sequence_targets(&batch.flat, &batch.targets, sequence), completion[first..]);
            assert_eq!(batch.flat.tokens[batch.ends[sequence] as usize], *completion.last().unwrap());
            let actions = batch.actions.indices.iter().zip(&batch.actions.sequence);
            let mine = actions.filter(|(_, s)| **s == sequence as i64).map(|(&i, _)| batch.flat.tokens[i as usize]);
            assert_eq!(mine.collect::<Vec<_>>(), *completion);
        }
    }
    let sequences: Vec<Sequence> =
        pairs.iter().map(|p| sequence(&[&p.prompt[..], &p.chosen].concat(), p.prompt.len())).collect();
    let alone = lm_batch(&sequences.iter().collect::<Vec<_>>());
    for (i, pair) in pairs.iter().enumerate() {
        let first = usize::from(pair.prompt.is_empty());
        assert_eq!(sequence_targets(&alone.flat, &alone.targets, i), pair.chosen[first..]);
    }
}
