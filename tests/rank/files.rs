//! The command: what it reads and refuses, whom it names, what it draws and prints.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::Sandbox;
use collimate::rank::model::Ties;
use collimate::rank::read::Comparisons;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

const GOOD: &str = "{\"a\":\"x\",\"b\":\"y\",\"winner\":\"a\"}\n{\"a\":\"y\",\"b\":\"x\",\"winner\":\"a\"}\n\
    {\"a\":\"x\",\"b\":\"z\",\"winner\":\"tie\"}\n";

/// What reading says of a file.
fn bad(content: &str, ties: Ties) -> String {
    let sandbox = Sandbox::new();
    let path = sandbox.write("rows.jsonl", content);
    let error = Comparisons::read(std::slice::from_ref(&path), ties).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string().replace(path.to_str().unwrap(), "rows.jsonl")
}

fn refusal(content: &str, more: &[&str]) -> String {
    let sandbox = Sandbox::new();
    sandbox.write("rows.jsonl", content);
    sandbox.run(&[&["rank", "rows.jsonl"], more].concat()).refused(2)
}

#[test]
fn bad_rows_are_told_with_their_line_and_a_remedy() {
    for (row, expected) in [
        (r#"{"a":"x","b":"y"}"#, "expected the columns \"a\", \"b\" and \"winner\""),
        (r#"{"a":"x","winner":"a"}"#, "found \"a\", \"winner\"; rename or add the columns"),
        (r#"{}"#, "found none"),
        (r#"{"a":"x","b":null,"winner":"a"}"#, "found \"a\", \"winner\""),
        (r#"{"a":"x","b":"x","winner":"a"}"#, "\"a\" and \"b\" are both \"x\"; delete the row"),
        (r#"{"a":"","b":"x","winner":"a"}"#, "\"a\" is empty; name the item"),
        (r#"{"a":1.5,"b":"x","winner":"a"}"#, "\"a\" must be an item's name (a string), found a number"),
        (r#"{"a":"x","b":"y","winner":"c"}"#, "\"winner\" is \"c\", not \"a\", \"b\" or \"tie\"; correct the value"),
        (r#"{"a":"x","b":"y","winner":"y"}"#, "write \"b\": the winner is told by its column"),
        (r#"{"a":"x","b":"y","winner":1}"#, "\"winner\" must be \"a\", \"b\" or \"tie\", found a number"),
        (
            r#"{"a":"x","b":"y","winner":"a","preference":1}"#,
            "both \"winner\" and \"preference\"; leave one of them out",
        ),
        (r#"{"a":"x","b":"y","preference":1.5}"#, "\"preference\" is 1.5, outside [0, 1]"),
        (r#"{"a":"x","b":"y","preference":-0.1}"#, "\"preference\" is -0.1, outside [0, 1]"),
        (r#"{"a":"x","b":"y","preference":"1"}"#, "\"preference\" must be a number, found a string"),
        (r#"{"a":"x","b":"y","winner":"a","weight":0}"#, "\"weight\" is 0; it must be above 0; give the number"),
        (r#"{"a":"x","b":"y","winner":"a","weight":-2}"#, "\"weight\" is -2; it must be above 0"),
        (r#"{"a":"x","b":"y","winner":"a","weight":NaN}"#, "not JSON at column"),
        (r#"{"a":"x","b":"y","winner":"a","weight":1e999}"#, "not JSON at column"),
        (r#"{"a":"x","b":"y","winner":"a","weight":"2"}"#, "\"weight\" must be a number, found a string"),
        (r#"["x","y"]"#, "is a list, not a JSON object"),
        (
            r#"{"a":"x","b":"y","win"#,
            "the line ends in the middle of its JSON (half a line); write the line whole or delete it",
        ),
    ] {
        // The bad row is the fifth line: three good ones and a blank.
        let error = bad(&format!("{GOOD}\n{row}"), Ties::BradleyTerry);
        assert!(error.starts_with("rows.jsonl:5: ") && error.contains(expected), "{row}: {error}");
    }
    let error = refusal(&format!("{GOOD}{}", r#"{"a":"x","b":"y","preference":0.7}"#), &["--ties", "davidson"]);
    assert!(error.contains("rows.jsonl:4: \"preference\" is 0.7, which is neither win nor loss nor tie"), "{error}");
    for empty in ["", "\n\n", "\u{feff}"] {
        assert!(
            bad(empty, Ties::BradleyTerry)
                .contains("rows.jsonl: holds no rows; expected are rows with the columns \"a\"")
        );
    }
    let uneven = "{\"a\":\"x\",\"b\":\"y\",\"winner\":\"a\",\"weight\":1e-12}\n\
        {\"a\":\"y\",\"b\":\"x\",\"winner\":\"a\",\"weight\":1e9}\n";
    assert!(bad(uneven, Ties::BradleyTerry).contains("where the small ones are lost"));
}

#[test]
fn items_without_a_finite_rating_are_named() {
    let told = |results: &[(&str, &str)]| {
        let row = |(a, b): &(&str, &str)| format!("{{\"a\":\"{a}\",\"b\":\"{b}\",\"winner\":\"a\"}}\n");
        let error = refusal(&results.iter().map(row).collect::<String>(), &[]);
        assert!(error.ends_with("; add --prior 1 (see --help), or comparisons that close this gap"), "{error}");
        error.strip_prefix("error: rows.jsonl: without a prior not all ratings are finite: ").unwrap().to_owned()
    };
    let circle = [("p", "q"), ("q", "r"), ("r", "p")];
    let with = |more: &[(&'static str, &'static str)]| [&circle[..], more].concat();
    assert!(told(&with(&[("top", "p")])).starts_with("\"top\" never lost or tied; "));
    assert!(told(&with(&[("p", "end")])).starts_with("\"end\" never won or tied; "));
    let both = told(&with(&[("top", "p"), ("p", "end"), ("over", "q")]));
    assert!(both.starts_with("\"top\" and \"over\" never lost or tied, \"end\" never won or tied; "), "{both}");
    let group = told(&with(&[("u", "v"), ("v", "u"), ("u", "p")]));
    assert!(group.starts_with("\"u\" and \"v\" never lost to or tied any other item; "), "{group}");
    let apart = told(&with(&[("u", "v"), ("v", "u")]));
    assert!(apart.starts_with("no chain of comparisons connects \"u\" and \"v\" with the others; "), "{apart}");
    let names: Vec<String> = (0..40).map(|i| format!("n{i}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "p")).chain(circle).collect();
    let many = told(&many);
    assert!(
        many.starts_with("\"n0\", \"n1\", \"n2\", \"n3\", \"n4\" and 35 more never lost or tied, \"p\", "),
        "{many}"
    );
}

#[test]
fn a_prior_ranks_what_has_no_maximum() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "rows.jsonl",
        "{\"a\":\"x\",\"b\":\"y\",\"winner\":\"a\"}\n{\"a\":\"p\",\"b\":\"q\",\"winner\":\"a\"}\n",
    );
    for prior in [&["--prior"][..], &["--prior", "1"], &["--prior", "pseudo:1"]] {
        let found = sandbox.run(&[&["rank", "rows.jsonl", "--json"], prior].concat()).ok().stdout;
        let found: Value = serde_json::from_str(&found).unwrap();
        // By symmetry x and p are alike; d = log-odds of x over y solves sigma(-d) = (sigma(d/2) - 1/2).
        let rating = found["items"][0]["rating"].as_f64().unwrap();
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert!((sigma(-2.0 * rating) - (sigma(rating) - 0.5)).abs() < 1e-9, "{rating}");
        assert_eq!(found["prior"]["comparisons"], 1.0);
    }
    for bad in ["0", "-1", "nan", "gaussian:", "gaussian:x", "normal:1"] {
        let ran = sandbox.run(&["rank", "rows.jsonl", &format!("--prior={bad}")]);
        assert!(ran.code == 2 && ran.stderr.contains("gaussian:SD"), "{bad}: {}", ran.stderr);
    }
    let ran = sandbox.run(&["rank", "--prior", "rows.jsonl"]);
    assert!(ran.code == 2 && ran.stderr.contains("files stand before --prior"), "{}", ran.stderr);
}

#[test]
fn files_of_every_form_and_several_are_read() {
    let sandbox = Sandbox::new();
    sandbox.write("plain.jsonl", GOOD);
    let plain = sandbox.run(&["rank", "plain.jsonl", "--json"]).ok().stdout;
    let lines: Vec<&str> = GOOD.lines().collect();
    sandbox.write("odd.jsonl", format!("\u{feff}{}\r\n\r\n  \n{}", lines[0], lines[1..].join("\r\n")));
    sandbox.write("array.json", format!("[{}]", lines.join(",")));
    sandbox.write("one.jsonl", lines[0]);
    sandbox.write("rest.jsonl", lines[1..].join("\n"));
    let more = GOOD.replace('{', "{\"judge\":{\"name\":\"j\"},\"winner_text\":\"a\",\"weight\":null,");
    sandbox.write("more.jsonl", more);
    for files in [&["odd.jsonl"][..], &["array.json"], &["one.jsonl", "rest.jsonl"], &["more.jsonl"]] {
        let found = sandbox.run(&[&["rank", "--json"], files].concat()).ok().stdout;
        assert_eq!(found, plain, "{files:?}");
    }
    sandbox.write("numbers.jsonl", GOOD.replace("\"x\"", "7"));
    let found = sandbox.run(&["rank", "numbers.jsonl"]).ok().stdout;
    assert!(found.contains(" 7 "), "{found}");
    assert!(
        sandbox.run(&["rank", "plain.jsonl", "none.jsonl"]).refused(2).contains("none.jsonl: there is no such file")
    );
    assert!(sandbox.run(&["rank", "."]).refused(2).contains("is a directory"));
}

#[test]
fn the_table_says_what_was_done() {
    let sandbox = Sandbox::new();
    sandbox.write("rows.jsonl", GOOD);
    let table = sandbox.run(&["rank", "rows.jsonl", "--confidence", "0.9"]).ok().stdout;
    for words in [
        "Bradley-Terry model, 3 comparisons of 3 items (2 pairs), 33.33% of ties, each half a win",
        "log-likelihood -2.08 (all alike: -2.08)",
        "item  rating     90% interval  wins  losses  ties",
        "x      0.000  [",
        "rating: natural-log strength, mean 0",
        "intervals: normal, from the Hessian of the log-likelihood",
        "probability that the row beats the column, %",
        "50.0",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let few = sandbox.run(&["rank", "rows.jsonl", "--bootstrap", "20"]).refused(2);
    assert!(few.contains("--bootstrap 20 is too few for intervals of 95%; draw at least 39"), "{few}");
    // Of three rows, a sample of three lacks one more often than not.
    let error = sandbox.run(&["rank", "rows.jsonl", "--bootstrap", "100"]).refused(2);
    assert!(
        error.contains("of 100 bootstrap samples an item went unbeaten") && error.contains("add --prior 1"),
        "{error}"
    );
    let held = sandbox.run(&["rank", "rows.jsonl", "--bootstrap", "100", "--prior", "2"]).ok().stdout;
    assert!(held.contains("intervals: percentiles of 100 bootstrap samples, seed 0"), "{held}");
    assert!(held.contains("prior: 2 comparisons of each item, half won, with one of rating 0"), "{held}");
}

#[test]
fn names_cannot_disturb_the_terminal_or_the_picture() {
    let sandbox = Sandbox::new();
    sandbox.write("rows.jsonl", GOOD.replace("\"x\"", "\"<script>&\\u001b[31m\\n\""));
    let table = sandbox.run(&["rank", "rows.jsonl", "--plot", "picture.png"]).ok().stdout;
    assert!(table.contains("<script>&\\u{1b}[31m\\n") && !table.contains('\u{1b}'), "{table}");
    assert!(table.contains("pictures: picture.png, picture.svg"), "{table}");
    let svg = std::fs::read_to_string(sandbox.path("picture.svg")).unwrap();
    assert!(svg.contains("&lt;script&gt;&amp;") && !svg.contains("<script"), "{svg}");
    let png = std::fs::read(sandbox.path("picture.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG") && png.len() > 5_000);
    sandbox.run(&["rank", "rows.jsonl", "--plot", "."]).ok();
    assert!(sandbox.path("ranking.svg").is_file() && sandbox.path("ranking.png").is_file());
    let error = sandbox.run(&["rank", "rows.jsonl", "--plot", "nowhere/picture"]).refused(2);
    assert!(error.contains("nowhere: no such directory; make it first"), "{error}");
}

#[test]
fn columns_stay_in_line_whatever_the_script_of_a_name() {
    let sandbox = Sandbox::new();
    sandbox.write("rows.jsonl", GOOD.replace("\"x\"", "\"日本語モデル\"").replace("\"y\"", "\"é̂\""));
    let table = sandbox.run(&["rank", "rows.jsonl"]).ok().stdout;
    let rows: Vec<usize> = table.lines().skip(3).take(4).map(UnicodeWidthStr::width).collect();
    assert!(rows.iter().all(|width| *width == rows[0]), "{rows:?}: {table}");
    let long = "語".repeat(60);
    sandbox.write("rows.jsonl", GOOD.replace("\"x\"", &format!("\"{long}\"")));
    let table = sandbox.run(&["rank", "rows.jsonl"]).ok().stdout;
    assert!(table.contains(&format!(" {}...  ", "語".repeat(18))), "{table}");
}

/// What people and judges said of two models' answers ranks the models.
#[test]
fn judged_pairs_rank_the_models_that_wrote_them() {
    let sandbox = Sandbox::new();
    let pair = |chosen: &str, rejected: &str, more: &str| {
        format!(
            "{{\"prompt\":\"p\",\"chosen\":\"x\",\"rejected\":\"y\",\"chosen_source\":{{\"model\":\"{chosen}\",\"seed\":1}},\
             \"rejected_source\":{{\"model\":\"{rejected}\"}}{more}}}\n"
        )
    };
    let rows = [pair("sft", "dpo", ""), pair("dpo", "sft", ",\"preference\":0.8"), pair("dpo", "dpo", "")];
    sandbox.write("rows.jsonl", rows.concat());
    let table = sandbox.run(&["rank", "rows.jsonl"]).ok().stdout;
    assert!(table.contains("2 comparisons of 2 items") && table.contains("left out: 1 pair of one model"), "{table}");
    let found: Value = serde_json::from_str(&sandbox.run(&["rank", "rows.jsonl", "--json"]).ok().stdout).unwrap();
    assert_eq!(found["items"][0]["item"], "sft");
    // sft won 1.2 of 2.
    let rating = found["items"][0]["rating"].as_f64().unwrap();
    assert!((rating - 0.5 * (0.6f64 / 0.4).ln()).abs() < 1e-9, "{rating}");
    let own = bad(&pair("dpo", "dpo", ""), Ties::BradleyTerry);
    assert_eq!(own, "rows.jsonl: its pairs (1) are all of one model with itself; give pairs of different models");
    let nameless = bad("{\"chosen_source\":{},\"rejected_source\":{\"model\":\"x\"}}", Ties::BradleyTerry);
    assert!(nameless.starts_with("rows.jsonl:1: \"chosen_source\" names no \"model\"; add it"), "{nameless}");
}

#[test]
fn exported_pairs_count_by_people_and_models_of_one_name_are_told_apart() {
    let sandbox = Sandbox::new();
    let source = |model: &str, print: &str| json!({ "model": model, "fingerprint": print });
    let row = |chosen: Value, rejected: Value, people: u64| {
        json!({ "chosen_source": chosen, "rejected_source": rejected, "preference": 1.0, "annotators": people })
            .to_string()
            + "\n"
    };
    let (old, new, other) = (source("m", "aaaaaaaa11"), source("m", "bbbbbbbb22"), source("n", "cc"));
    let rows = [
        row(old.clone(), other.clone(), 9),
        row(other.clone(), old.clone(), 1),
        row(new.clone(), old.clone(), 3),
        row(old, new, 1),
    ];
    sandbox.write("rows.jsonl", rows.concat());
    let ran = sandbox.run(&["rank", "rows.jsonl", "--json"]).ok().stdout;
    let found: Value = serde_json::from_str(&ran).unwrap();
    let rating = |item: &str| {
        let items = found["items"].as_array().unwrap();
        items.iter().find(|found| found["item"] == item).unwrap()["rating"].as_f64().unwrap()
    };
    assert!((rating("m@aaaaaaaa") - rating("n") - 9f64.ln()).abs() < 1e-9);
    assert!((rating("m@bbbbbbbb") - rating("m@aaaaaaaa") - 3f64.ln()).abs() < 1e-9);
}

/// Many items: no matrix in the table, a picture of bounded height in which not every row is named.
#[test]
fn many_items_are_shown_as_well_as_few() {
    let sandbox = Sandbox::new();
    let rows: String = (0..300)
        .map(|i| format!("{{\"a\":\"m{i}\",\"b\":\"m{}\",\"preference\":0.6,\"weight\":5}}\n", (i + 1) % 300))
        .collect();
    sandbox.write("rows.jsonl", rows);
    let table = sandbox.run(&["rank", "rows.jsonl", "--plot", "many"]).ok().stdout;
    assert!(table.contains(" 300  m") && !table.contains("the row beats the column"), "{table}");
    let svg = std::fs::read_to_string(sandbox.path("many.svg")).unwrap();
    let height: f64 = svg.split(" height=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    assert!(height < 1800.0, "{height}");
    let named = svg.matches(">m").count();
    assert!((80..150).contains(&named), "{named} names");
}
