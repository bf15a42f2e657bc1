//! From ranges of a text to tokens. Imports nothing of ours.
use std::ops::Range;

/// Which tokens the spans of a text cover, as transformers' assistant mask has it: of each span, from the first token
/// that holds its first character up to the first that holds its last one; up to the end where that is none, or token 0.
///
/// `offsets` are those of [`encode_with_offsets`](super::Tokenizer::encode_with_offsets), which hold whole characters;
/// `spans` are in bytes of the same text. A tokenizer that trims its offsets leaves white space to no token; a span that
/// begins with such white space ends the search, and neither it nor those behind it are marked ([`unmarked`] tells).
pub fn mask_of(offsets: &[(usize, usize)], spans: &[Range<usize>]) -> Vec<bool> {
    let mut mask = vec![false; offsets.len()];
    for span in spans.iter().filter(|span| span.end > 0) {
        let Some(first) = token_at(offsets, span.start) else { break };
        let last = token_at(offsets, span.end - 1).filter(|&token| token > 0);
        let end = last.map_or(offsets.len(), |token| token + 1);
        mask.get_mut(first..end).into_iter().flatten().for_each(|bit| *bit = true);
    }
    mask
}

/// The first span that [`mask_of`] cannot mark, because no token holds its first character.
pub fn unmarked(offsets: &[(usize, usize)], spans: &[Range<usize>]) -> Option<usize> {
    spans.iter().position(|span| token_at(offsets, span.start).is_none())
}

fn token_at(offsets: &[(usize, usize)], at: usize) -> Option<usize> {
    offsets.iter().position(|&(start, end)| start <= at && at < end)
}
