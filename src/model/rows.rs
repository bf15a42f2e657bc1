//! Rows of a flat batch in groups that attention computes together. Owns the grouping; no tensors.
use crate::ffi::{Group, Segment};

/// From this length on a row is worth a call of its own; shorter ones share one.
const LONG: i64 = 64;
/// Short rows of a group differ in length by less than this.
const BUCKET: i64 = 8;

/// Groups of `rows` (flat indices, in order) over `tokens` flat tokens; a token's owner is the first row that it stands in.
/// Rows of one length that follow one another need no copy, so that they stay together whatever their length.
pub(super) fn groups(tokens: usize, rows: &[Vec<i64>]) -> Vec<Group> {
    let mut owned = vec![false; tokens];
    let segments: Vec<Vec<Segment>> = rows.iter().map(|row| segments(row, &mut owned)).collect();
    let mut groups: Vec<Group> = Vec::new();
    for row in segments {
        let length: i64 = row.iter().map(|s| s.length).sum();
        match groups.iter_mut().find(|group| belongs(group, &row, length)) {
            Some(group) => {
                group.width = group.width.max(length);
                group.rows.push(row);
            }
            None => groups.push(Group { width: length, rows: vec![row] }),
        }
    }
    groups
}

/// Runs of consecutive indices, and runs of owned tokens, end segments.
fn segments(row: &[i64], owned: &mut [bool]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for &token in row {
        let new = !std::mem::replace(&mut owned[token as usize], true);
        match segments.last_mut() {
            Some(last) if last.start + last.length == token && last.owned == new => last.length += 1,
            _ => segments.push(Segment { start: token, length: 1, owned: new }),
        }
    }
    segments
}

/// Whether a row of `length` tokens joins a group.
fn belongs(group: &Group, row: &[Segment], length: i64) -> bool {
    if length < LONG {
        return group.width < LONG && group.width / BUCKET == length / BUCKET;
    }
    match (group.rows.last().map(Vec::as_slice), row) {
        (Some([last]), [next]) => length == group.width && last.length == length && last.start + length == next.start,
        _ => false,
    }
}
