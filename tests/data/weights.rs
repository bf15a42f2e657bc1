//! Sources with weights: how often rows are seen, in which order, and that a state is enough to go on.
#![allow(clippy::unwrap_used)]
use collimate::data::{Loader, LoaderState};
use std::collections::BTreeMap;

/// The rows of one epoch after the other.
fn epochs(sources: &[(usize, f64)], shuffle: bool, seed: u64, count: usize) -> Vec<Vec<usize>> {
    let mut loader = Loader::weighted(sources, 7, shuffle, seed);
    let steps = loader.steps_per_epoch();
    (0..count).map(|_| (0..steps).flat_map(|_| loader.next_batch()).collect()).collect()
}

fn counts(rows: &[usize]) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    rows.iter().for_each(|row| *counts.entry(*row).or_default() += 1);
    counts
}

#[test]
fn weights_of_one_leave_the_order_as_it_is_without_weights() {
    for shuffle in [true, false] {
        let mut plain = Loader::new(57, 8, shuffle, 3);
        let mut weighted = Loader::weighted(&[(20, 1.0), (7, 1.0), (30, 1.0)], 8, shuffle, 3);
        assert_eq!(plain.steps_per_epoch(), weighted.steps_per_epoch());
        for _ in 0..40 {
            assert_eq!(plain.next_batch(), weighted.next_batch());
            assert_eq!((plain.state(), plain.epochs()), (weighted.state(), weighted.epochs()));
        }
    }
}

#[test]
fn the_shuffled_order_is_the_one_of_earlier_versions() {
    // Taken from the first version of the loader: a changed order would make resumed runs other runs.
    let mut loader = Loader::new(10, 10, true, 0);
    assert_eq!(loader.next_batch(), [4, 2, 1, 8, 5, 6, 0, 9, 7, 3]);
    assert_eq!(loader.next_batch(), [7, 5, 3, 4, 1, 8, 9, 2, 6, 0]);
}

#[test]
fn a_row_is_seen_as_often_as_its_weight_says() {
    let sources = [(10, 2.0), (10, 0.5), (10, 1.0), (8, 1.25), (10, 0.3)];
    for shuffle in [true, false] {
        for (at, epoch) in epochs(&sources, shuffle, 11, 8).iter().enumerate() {
            let seen = counts(epoch);
            let of = |range: std::ops::Range<usize>| range.map(|row| seen.get(&row).copied().unwrap_or(0));
            assert_eq!(epoch.len(), 20 + 5 + 10 + 10 + 3, "epoch {at}: every epoch is as long");
            assert!(of(0..10).all(|n| n == 2), "epoch {at}: {seen:?}");
            assert!(of(10..20).all(|n| n <= 1) && of(10..20).sum::<usize>() == 5, "epoch {at}: {seen:?}");
            assert!(of(20..30).all(|n| n == 1), "epoch {at}: {seen:?}");
            assert!(of(30..38).all(|n| n == 1 || n == 2) && of(30..38).sum::<usize>() == 10, "epoch {at}: {seen:?}");
            assert!(of(38..48).all(|n| n <= 1) && of(38..48).sum::<usize>() == 3, "epoch {at}: {seen:?}");
        }
    }
}

#[test]
fn half_of_the_rows_is_another_half_in_the_next_epoch() {
    for seed in 0..20 {
        let seen: Vec<_> = epochs(&[(10, 0.5)], true, seed, 4).iter().map(|epoch| counts(epoch)).collect();
        for pair in [&seen[..2], &seen[2..]] {
            let both: Vec<usize> = pair.iter().flat_map(|epoch| epoch.keys().copied()).collect();
            assert_eq!(counts(&both).len(), 10, "two epochs see all rows once");
        }
    }
    // Over many epochs every row is drawn about as often: 300 draws of 3 in 10, mean 90, standard deviation below 8.
    let rows: Vec<usize> = epochs(&[(10, 0.3)], true, 5, 300).concat();
    assert!(counts(&rows).values().all(|n| (55..=125).contains(n)), "{:?}", counts(&rows));
    let first = |seed| epochs(&[(100, 0.5)], true, seed, 1).concat();
    assert_ne!(first(1), first(2));
    assert_eq!(first(1), first(1));
}

#[test]
fn without_shuffling_the_rows_come_source_by_source() {
    assert_eq!(epochs(&[(2, 2.0), (3, 1.0)], false, 0, 2), [[0, 1, 0, 1, 2, 3, 4], [0, 1, 0, 1, 2, 3, 4]]);
    for epoch in epochs(&[(3, 1.0), (8, 0.5)], false, 9, 5) {
        assert!(epoch.is_sorted() && epoch[..3] == [0, 1, 2] && epoch.len() == 7, "{epoch:?}");
    }
}

#[test]
fn a_small_weight_still_takes_a_row_an_epoch() {
    let mut loader = Loader::weighted(&[(3, 0.001)], 8, true, 0);
    assert_eq!(loader.steps_per_epoch(), 1);
    let rows: Vec<usize> = (0..6).flat_map(|_| loader.next_batch()).collect();
    assert_eq!((counts(&rows).len(), rows.len()), (3, 6), "{rows:?}");
}

#[test]
fn draws_of_one_source_do_not_depend_on_the_others() {
    let second = |first: (usize, f64)| -> Vec<Vec<usize>> {
        let own =
            |epoch: Vec<usize>| epoch.into_iter().filter(|row| *row >= first.0).map(|row| row - first.0).collect();
        let sources = [first, (12, 0.5)];
        epochs(&sources, false, 4, 6).into_iter().map(own).collect()
    };
    assert_eq!(second((5, 1.0)), second((9, 2.5)));
}

#[test]
fn a_weighted_loader_restored_anywhere_goes_on_as_if_never_stopped() {
    let sources = [(9, 1.5), (6, 0.5)];
    let new = || Loader::weighted(&sources, 4, true, 7);
    let mut loader = new();
    let whole: Vec<Vec<usize>> = (0..40).map(|_| loader.next_batch()).collect();
    for at in 0..30 {
        let mut first = new();
        (0..at).for_each(|_| drop(first.next_batch()));
        let saved = serde_json::to_string(&first.state()).unwrap();
        let mut second = new();
        second.next_batch();
        second.restore(serde_json::from_str(&saved).unwrap()).unwrap();
        assert_eq!((at..40).map(|_| second.next_batch()).collect::<Vec<_>>(), whole[at..], "stopped after {at}");
    }
    assert_eq!(loader.epochs(), 40.0 / 5.0, "17 rows an epoch are 5 batches");
    let error = new().restore(LoaderState { epoch: 0, index: 17 }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the checkpoint stands at row 17 of an epoch, but an epoch takes 17 rows; resume with the data the run was started with"
    );
}
