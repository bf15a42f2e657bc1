//! `collimate annotate`: the plan, the log, the gate, the exports, and the page in a real browser.
mod browser;
mod chain;
mod client;
mod export;
mod files;
mod log;
mod page;
mod plan;
mod security;
mod stats;
