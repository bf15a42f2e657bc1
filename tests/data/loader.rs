//! The loader's order and cursor.
#![allow(clippy::unwrap_used)]
use collimate::data::{Loader, LoaderState};

fn take(loader: &mut Loader, batches: usize) -> Vec<Vec<usize>> {
    (0..batches).map(|_| loader.next_batch()).collect()
}

#[test]
fn without_shuffling_the_rows_come_in_order_and_the_last_batch_is_short() {
    let mut loader = Loader::new(5, 2, false, 0);
    assert_eq!(loader.steps_per_epoch(), 3);
    assert_eq!(take(&mut loader, 4), [vec![0, 1], vec![2, 3], vec![4], vec![0, 1]]);
    assert_eq!(loader.state(), LoaderState { epoch: 1, index: 2 });
    assert_eq!(loader.epochs(), 1.4);
    assert_eq!(take(&mut Loader::new(3, 8, false, 0), 2), [vec![0, 1, 2], vec![0, 1, 2]]);
}

#[test]
fn an_epoch_has_every_row_once_and_epochs_and_seeds_differ() {
    let epoch = |loader: &mut Loader| take(loader, 13).concat();
    let (mut one, mut two) = (Loader::new(100, 8, true, 1), Loader::new(100, 8, true, 2));
    let (first, second, other) = (epoch(&mut one), epoch(&mut one), epoch(&mut two));
    for order in [&first, &second, &other] {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_ne!(sorted, *order);
    }
    assert_ne!(first, second);
    assert_ne!(first, other);
    assert_eq!(first, epoch(&mut Loader::new(100, 8, true, 1)));
    // The order does not depend on the batch size.
    assert_eq!(first, take(&mut Loader::new(100, 10, true, 1), 10).concat());
}

#[test]
fn a_loader_restored_anywhere_goes_on_as_if_never_stopped() {
    let whole = take(&mut Loader::new(17, 4, true, 7), 30);
    for at in 0..20 {
        let mut first = Loader::new(17, 4, true, 7);
        take(&mut first, at);
        let saved = serde_json::to_string(&first.state()).unwrap();
        let mut second = Loader::new(17, 4, true, 7);
        second.next_batch();
        second.restore(serde_json::from_str(&saved).unwrap()).unwrap();
        assert_eq!(take(&mut second, 30 - at), whole[at..], "stopped after {at}");
    }
}

#[test]
fn a_state_of_other_data_is_refused() {
    let error = Loader::new(4, 2, true, 0).restore(LoaderState { epoch: 0, index: 4 }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the checkpoint stands at row 4 of an epoch, but there are 4 rows; resume with the data the run was started with"
    );
}

#[test]
fn every_permutation_of_three_is_about_as_frequent() {
    let mut counts = std::collections::BTreeMap::new();
    let mut loader = Loader::new(3, 3, true, 5);
    for _ in 0..6000 {
        *counts.entry(loader.next_batch()).or_insert(0) += 1;
    }
    // 6000 draws of 6: mean 1000, standard deviation 29.
    assert!(counts.len() == 6 && counts.values().all(|n| (880..=1120).contains(n)), "{counts:?}");
}
