//! Rewards a token: columns of the rows, and a page that colours the tokens. Owns how tokens are cut out of a text.
use crate::error::{Error, Result};
use crate::rollout::scorer::TokenRewards;
use crate::tokenizer::Tokenizer;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

/// Colours have so many steps on either side of 0.
const STEPS: f64 = 10.0;
/// The share of tokens whose rewards lie within the scale; the others have its last colour.
const WITHIN: f64 = 0.98;

/// A row of the page.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// What comes before the tokens: the prompt, or of a text its first token.
    pub prompt: String,
    /// The row's reward, the model's bias included.
    pub reward: f64,
    tokens: Vec<Token>,
}

#[derive(Debug, Serialize)]
struct Token {
    text: String,
    reward: f64,
    /// -10 to 10.
    step: i64,
}

impl Shown {
    /// `pieces`: the texts of the tokens.
    pub fn new(prompt: String, reward: f64, pieces: Vec<String>, rewards: &[f64]) -> Self {
        let token = |(text, &reward): (String, &f64)| Token { text, reward, step: 0 };
        Shown { prompt, reward, tokens: pieces.into_iter().zip(rewards).map(token).collect() }
    }
}

/// The text of each token, such that they make the whole text. Of tokens that share a character the last has it, the others
/// are empty.
///
/// # Errors
/// Ids that the tokenizer does not have.
pub fn pieces(tokenizer: &Tokenizer, tokens: &[i64]) -> Result<Vec<String>> {
    let (mut pieces, mut from, mut shown) = (Vec::with_capacity(tokens.len()), 0, String::new());
    for at in 0..tokens.len() {
        let text = tokenizer.decode(&tokens[from..=at], false)?;
        // Half a character is shown as a replacement; it becomes whole with the next token.
        let whole = text.trim_end_matches('\u{fffd}');
        let new = whole.strip_prefix(shown.as_str()).unwrap_or_default().to_owned();
        // Earlier tokens matter to a decoder's spaces, but not many of them: the work stays linear.
        if !new.is_empty() && at - from >= 16 {
            from = at;
            shown = tokenizer.decode(&tokens[from..=at], false)?;
        } else {
            shown.push_str(&new);
        }
        pieces.push(new);
    }
    Ok(pieces)
}

/// The page, which stands alone and runs no script.
///
/// # Errors
/// None that rows can cause.
pub fn page(title: &str, mut rows: Vec<Shown>) -> Result<String> {
    let scale = scale(&rows);
    for token in rows.iter_mut().flat_map(|row| &mut row.tokens) {
        token.step = (token.reward / scale * STEPS).round().clamp(-STEPS, STEPS) as i64;
    }
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let values = [("title", Value::from(title)), ("scale", Value::from(scale)), ("rows", Value::from(Serde(&rows)))];
    environment
        .render_str(include_str!("tokens.html"), Value::from_pairs(values))
        .map_err(|error| Error::usage(format!("the page cannot be written: {error:#}"), "report this"))
}

/// The reward that has the last colour: all but the rarest tokens lie within it.
fn scale(rows: &[Shown]) -> f64 {
    let mut sizes: Vec<f64> = rows.iter().flat_map(|row| &row.tokens).map(|token| token.reward.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let at = (sizes.len() as f64 * WITHIN) as usize;
    sizes.get(at).or(sizes.last()).copied().filter(|&size| size > 0.0).unwrap_or(1.0)
}

/// The columns of a row: ids, texts and rewards of its tokens.
pub fn columns(pieces: &[String], own: &TokenRewards) -> [(String, serde_json::Value); 3] {
    [
        ("tokens".to_owned(), serde_json::json!(own.tokens)),
        ("token_texts".to_owned(), serde_json::json!(pieces)),
        ("token_rewards".to_owned(), serde_json::json!(own.rewards)),
    ]
}
