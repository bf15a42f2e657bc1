//! The task: a road on which observation and action alternate. An expert plays a fixed table's entry for what it sees; a wrong
//! action leads off the road to one side, where only that side's kerb is seen and one action leads back. One mistake so leads
//! to states that the expert's own rollouts never show, and whoever did not learn them there stays.
use crate::config::TaskSection;
use crate::rollout::mixture::World;
use crate::seed;
use rand::RngExt;
use serde_json::{Value, json};

/// What a rollout begins with.
const START: i64 = 0;

/// The task's tokens: the start, symbols (the common ones first), two kerbs, actions.
#[derive(Debug, Clone, PartialEq)]
pub struct Road {
    task: TaskSection,
    /// The expert's action for each symbol, from 0.
    table: Vec<i64>,
}

impl Road {
    /// The road of these settings.
    pub fn new(task: &TaskSection) -> Self {
        let mut rng = seed::rng(task.seed, "road", &[]);
        let table = (0..task.symbols).map(|_| rng.random_range(0..task.actions as i64)).collect();
        Self { task: task.clone(), table }
    }

    fn kerb(&self, side: i64) -> i64 {
        1 + self.task.symbols as i64 + side
    }

    fn action(&self, action: i64) -> i64 {
        self.kerb(2) + action
    }

    /// What the expert does where it sees `seen`: the table's entry on the road, and off it the first or second action.
    pub fn right_action(&self, seen: i64) -> i64 {
        let symbol = seen - 1;
        if symbol >= self.task.symbols as i64 {
            return self.action(symbol - self.task.symbols as i64);
        }
        self.action(self.table[symbol.max(0) as usize])
    }

    /// What is seen on the road, drawn with a number in `[0, 1)`.
    fn ahead(&self, number: f64) -> i64 {
        let TaskSection { symbols, common, rare, .. } = self.task;
        let among = |from: usize, count: usize, share: f64| 1 + (from + (share * count as f64) as usize) as i64;
        if number < rare {
            among(common, symbols - common, number / rare)
        } else {
            among(0, common, (number - rare) / (1.0 - rare))
        }
    }

    /// The words of the task's tokenizer, by id.
    fn words(&self) -> Vec<String> {
        let symbols = (0..self.task.symbols).map(|n| format!("s{n}"));
        let rest = ["left".to_owned(), "right".to_owned()].into_iter();
        let actions = (0..self.task.actions).map(|n| format!("a{n}"));
        std::iter::once("<s>".to_owned()).chain(symbols).chain(rest).chain(actions).collect()
    }

    /// tokenizer.json: a word a token.
    pub fn tokenizer(&self) -> Value {
        let vocab: serde_json::Map<String, Value> =
            self.words().into_iter().enumerate().map(|(id, word)| (word, json!(id))).collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
            "decoder": null,
            "added_tokens": [{ "id": START, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                               "normalized": false, "special": true }],
            "pre_tokenizer": { "type": "WhitespaceSplit" },
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<s>" },
        })
    }

    /// tokenizer_config.json.
    pub fn tokenizer_config(&self) -> Value {
        json!({ "bos_token": "<s>", "unk_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast" })
    }
}

impl World for Road {
    /// Behind the start and behind every action: what is seen.
    fn next(&self, prefix: &[i64], number: f64) -> Option<i64> {
        // The start, then observation and action in turn, whatever was done.
        if prefix.len().is_multiple_of(2) {
            return None;
        }
        let [.., seen, done] = *prefix else { return Some(self.ahead(number)) };
        if done == self.right_action(seen) {
            return Some(self.ahead(number));
        }
        let off = seen > self.task.symbols as i64;
        Some(if off { seen } else { self.kerb((done - self.action(0)).rem_euclid(2)) })
    }
}
