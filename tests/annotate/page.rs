//! The page in a real browser: a whole annotation by keyboard, undo, reload, two people, hostile text, both themes, a
//! phone, a server that goes away.
#![allow(clippy::unwrap_used)]
use super::browser::{Browser, Tab};
use super::client::{Server, with_pairs};
use crate::support::sandbox::{Sandbox, json_lines};
use serde_json::{Value, json};

pub(super) const ALONE: [&str; 4] = ["--repeat", "0", "--overlap", "1"];
const WELCOME: &str = "document.documentElement.dataset.screen === 'welcome'";
/// A pair is shown and no request is under way.
const READY: &str =
    "document.documentElement.dataset.screen === 'pair' && !('busy' in document.documentElement.dataset)";
const WELCOME_OR_PAIR: &str = "['welcome', 'pair'].includes(document.documentElement.dataset.screen)";
pub(super) const ENDED: &str =
    "document.documentElement.dataset.screen === 'end' && !('busy' in document.documentElement.dataset)";

/// Opens the link, gives a name, and waits for the first pair.
pub(super) fn enter(browser: &mut Browser, server: &Server, name: &str) -> Tab {
    let tab = browser.tab();
    browser.open(&tab, &server.link, WELCOME);
    browser.type_text(&tab, name);
    browser.key(&tab, "Enter");
    browser.wait(&tab, READY);
    tab
}

/// Presses a key and waits until so many pairs are done.
pub(super) fn press(browser: &mut Browser, tab: &Tab, key: &str, done: usize) {
    // The page takes no vote in a pair's first moments.
    std::thread::sleep(std::time::Duration::from_millis(150));
    browser.key(tab, key);
    let busy = "!('busy' in document.documentElement.dataset)";
    browser.wait(tab, &format!("{busy} && document.getElementById('count').textContent.startsWith('{done} of ')"));
}

fn votes(sandbox: &Sandbox) -> Vec<Value> {
    let lines = json_lines(&sandbox.path("pairs.votes.jsonl"));
    lines.into_iter().filter(|line| line["kind"] != "begin").map(Value::Object).collect()
}

#[test]
fn a_whole_annotation_by_keyboard_with_undo_and_reload() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = with_pairs(8);
    let server = Server::start(&sandbox, &ALONE);
    let tab = enter(&mut browser, &server, "anna");
    assert!(
        browser.eval(&tab, "location.pathname + location.search").as_str().unwrap().ends_with('/'),
        "no token in it"
    );
    let mut seen = Vec::new();
    let keys = ["ArrowLeft", "ArrowRight", "t", "b", "s", "1", "2"];
    for (at, key) in keys.iter().enumerate() {
        seen.push(browser.text(&tab, "#prompt .said, #left .said, #right .said"));
        press(&mut browser, &tab, key, at + 1);
        assert_eq!(votes(&sandbox).len(), at + 1, "{key} is on the disk");
    }
    // In the middle of it: the same pair after a reload, without a name or a link.
    let before = browser.text(&tab, "#prompt .said, #left .said, #right .said");
    browser.call_reload(&tab);
    browser.wait(&tab, READY);
    assert_eq!(browser.text(&tab, "#prompt .said, #left .said, #right .said"), before);
    assert_eq!(browser.text(&tab, "#count"), "7 of 8");
    // Back to the first pair and on again, over the reload: what was shown is shown again.
    for (at, text) in seen.iter().enumerate().rev() {
        let key = if at % 2 == 0 { "u" } else { "Backspace" };
        press(&mut browser, &tab, key, at);
        assert_eq!(&browser.text(&tab, "#prompt .said, #left .said, #right .said"), text, "undo to {at}");
    }
    assert_eq!(browser.eval(&tab, "document.querySelector('.actions [data-do=undo]').disabled"), true);
    for at in 0..8 {
        press(&mut browser, &tab, "ArrowLeft", at + 1);
    }
    browser.wait(&tab, ENDED);
    assert!(browser.text(&tab, "#end").contains("collimate annotate pairs.jsonl --export"));
    browser.key_with(&tab, "z", 2);
    browser.wait(&tab, READY);
    press(&mut browser, &tab, "ArrowRight", 8);
    browser.wait(&tab, ENDED);
    browser.nothing_went_wrong(&tab, &server.address);
    let log = votes(&sandbox);
    let choices: Vec<&str> = log.iter().take(7).map(|vote| vote["choice"].as_str().unwrap()).collect();
    assert_eq!(choices[2..5], ["tie", "both_bad", "skip"]);
    for (vote, key) in log.iter().zip(["left", "right"]) {
        assert_eq!(vote["choice"] == vote["left"], key == "left");
        assert!((0.1..60.0).contains(&vote["seconds"].as_f64().unwrap()), "{vote}");
    }
    assert_eq!(log.iter().filter(|record| record["kind"] == "undo").count(), 8);
    server.kill();
    let ran = sandbox.run(&["annotate", "pairs.jsonl", "--export", "out.jsonl"]).ok();
    assert_eq!(json_lines(&sandbox.path("out.jsonl")).len(), 8, "{}", ran.stderr);
}

#[test]
fn two_people_in_two_browsers_and_two_windows_of_one() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = with_pairs(6);
    let server = Server::start(&sandbox, &ALONE);
    let anna = enter(&mut browser, &server, "anna");
    let ben = enter(&mut browser, &server, "ben");
    for at in 1..=3 {
        press(&mut browser, &anna, "ArrowLeft", at);
        press(&mut browser, &ben, "t", at);
    }
    // A second window of anna's judges on; the first one hears of it with its next vote, which is not counted.
    let second = browser.beside(&anna);
    let page = format!("http://{}{}/", server.address, server.base);
    browser.open(&second, &page, WELCOME);
    assert_eq!(browser.text(&second, "#known-names button"), "anna|ben");
    browser.click(&second, "#known-names button");
    browser.wait(&second, READY);
    press(&mut browser, &second, "b", 4);
    assert_eq!(browser.text(&anna, "#count"), "3 of 6");
    press(&mut browser, &anna, "ArrowLeft", 4);
    assert!(browser.text(&anna, "#notice").contains("another window"));
    let log = votes(&sandbox);
    let of = |name: &str| log.iter().filter(|vote| vote["annotator"] == name).count();
    assert_eq!((of("anna"), of("ben")), (4, 3));
    // The statistics, by keyboard.
    browser.key(&ben, "i");
    browser.wait(&ben, "document.getElementById('statistics').open");
    let rows = browser.text(&ben, "#statistics-rows th");
    assert_eq!(rows, "anna|ben|all");
    assert!(browser.text(&ben, "#agreement").starts_with("3 pairs judged by two or more: 0 % of their"));
    // While it is open, keys do not judge.
    browser.key(&ben, "ArrowLeft");
    browser.key(&ben, "Escape");
    browser.wait(&ben, "!document.getElementById('statistics').open");
    assert_eq!(browser.text(&ben, "#count"), "3 of 6");
}

#[test]
fn markup_and_script_in_a_pair_are_shown_and_not_run() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = Sandbox::new();
    let attack = "<script>window.ran = 1</script><img src=x onerror=\"window.ran = 1\"><svg onload=window.ran=1>\
                  <b>bold</b> &lt;i&gt; &amp; <a href=\"javascript:window.ran=1\">x</a> ]]> --> {{7*7}} ${7*7}\u{202e}\u{0}";
    let turns = json!([{ "role": "<img src=x onerror=window.ran=1>", "content": attack, "name": attack }]);
    let rows = [
        json!({ "prompt": attack, "a": format!("{attack} UNO"), "b": format!("{attack} DUE") }),
        json!({ "prompt": turns, "a": [{ "role": "assistant", "content": attack }], "b": [{ "role": "assistant", "content": "b" }] }),
    ];
    sandbox.rows("pairs.jsonl", &rows.each_ref().map(|row| row.as_object().unwrap().clone()));
    let server = Server::start(&sandbox, &ALONE);
    let tab = enter(&mut browser, &server, "<img src=x onerror=window.ran=1>");
    for done in 1..=2 {
        for marking in [false, true] {
            let said = browser.text(&tab, "#prompt .said");
            assert_eq!(said, attack, "verbatim");
            let sides = browser.text(&tab, ".answer .said");
            assert_eq!(sides.matches(attack).count(), if sides.contains(" UNO") { 2 } else { 1 }, "{marking}");
            let nodes = "#pair :is(script, img, svg, b, a, i)";
            assert_eq!(browser.eval(&tab, &format!("document.querySelectorAll({nodes:?}).length")), 0);
            browser.key(&tab, "d");
        }
        press(&mut browser, &tab, "ArrowLeft", done);
    }
    browser.key(&tab, "i");
    browser.wait(&tab, "document.getElementById('statistics').open");
    assert!(browser.text(&tab, "#statistics-rows").contains("<img"));
    assert_eq!(browser.eval(&tab, "typeof window.ran"), "undefined");
    // And if a mistake of ours let it in, the policy would still stop it.
    let refused = browser.eval(
        &tab,
        "(() => { try { document.body.innerHTML = '<img src=x onerror=\"window.ran = 1\">'; return 'taken' } \
         catch (error) { return error.name } })()",
    );
    assert_eq!(refused, "TypeError");
    let started = "(() => { const s = document.createElement('script'); s.setAttribute('nonce', ''); \
                   try { s.append('window.ran = 1'); document.body.append(s) } catch {} return typeof window.ran })()";
    assert_eq!(browser.eval(&tab, started), "undefined");
}

/// Contrast of two colours as the page computes them (WCAG 2.2).
const CONTRAST: &str = "
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = (colour) => {
    const [r, g, b] = [...rgba(colour)].slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return 'white';
  };
  const bad = [];
  let seen = 0;
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility({ visibilityProperty: true, opacityProperty: true }) || e.closest('.unseen, :disabled')) continue;
    seen += 1;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const faded = e.tagName === 'KBD' ? 5.2 : 4.5;
    if (ratio < faded) bad.push(`${e.tagName}.${e.className} ${e.textContent.slice(0, 20)}: ${ratio.toFixed(2)}`);
  }
  return { seen, bad };
})()";

#[test]
fn both_themes_have_contrast_and_the_button_overrules_the_system() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = with_pairs(5);
    let server = Server::start(&sandbox, &ALONE);
    let tab = enter(&mut browser, &server, "anna");
    let ground = "getComputedStyle(document.body).backgroundColor";
    let mut grounds = Vec::new();
    browser.key(&tab, "d");
    for theme in ["light", "dark"] {
        browser.look(&tab, 1280, 800, false, theme);
        grounds.push(browser.eval(&tab, ground));
        for (open, close) in [("", ""), ("i", "Escape"), ("?", "Escape")] {
            if !open.is_empty() {
                browser.key(&tab, open);
                browser.wait(&tab, "document.querySelector('dialog[open]')");
            }
            // Beyond the fading in of a new pair.
            browser.wait(&tab, "document.getAnimations().length === 0");
            let found = browser.eval(&tab, CONTRAST);
            assert!(found["seen"].as_u64().unwrap() > 20, "{found}");
            assert_eq!(found["bad"], json!([]), "{theme} {open}");
            if !close.is_empty() {
                browser.key(&tab, close);
                browser.wait(&tab, "!document.querySelector('dialog[open]')");
            }
        }
    }
    assert_ne!(grounds[0], grounds[1]);
    // The system is dark now: light by the button, dark by the button, the system's again; and a reload keeps it.
    for (label, expected) in
        [("light", &grounds[0]), ("dark", &grounds[1]), ("auto", &grounds[1]), ("light", &grounds[0])]
    {
        browser.click(&tab, "#theme");
        assert_eq!(browser.text(&tab, "#theme"), format!("Theme: {label}"));
        assert_eq!(&browser.eval(&tab, ground), expected);
    }
    browser.call_reload(&tab);
    browser.wait(&tab, READY);
    assert_eq!(browser.eval(&tab, ground), grounds[0]);
}

#[test]
fn a_phone_has_one_column_no_sideways_scroll_and_buttons_at_the_thumb() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = Sandbox::new();
    let long = format!("{} {}", "word ".repeat(400), "unbroken".repeat(60));
    let row = |i: usize| json!({ "prompt": long, "a": format!("a of {i} {long}"), "b": format!("b {long} of {i}") });
    sandbox.rows("pairs.jsonl", &[1, 2].map(|i| row(i).as_object().unwrap().clone()));
    let server = Server::start(&sandbox, &ALONE);
    let tab = enter(&mut browser, &server, "anna");
    browser.look(&tab, 390, 844, true, "light");
    let sideways = "document.scrollingElement.scrollWidth - innerWidth";
    let inside = "[...document.querySelectorAll('.text, .bar, .actions, .tools')].filter((e) => e.scrollWidth > e.clientWidth + 1)\
                  .map((e) => e.className).join()";
    let columns = "document.getElementById('left').getBoundingClientRect().bottom <= document.getElementById('right').getBoundingClientRect().top";
    let buttons = "[...document.querySelectorAll('.actions button')].map((e) => e.getBoundingClientRect())\
                   .every((r) => r.height >= 44 && r.width >= 44 && r.bottom <= innerHeight && r.top > innerHeight / 2)";
    for (width, height, phone) in
        [(320, 568, true), (768, 1024, true), (900, 600, false), (721, 600, false), (1920, 1080, false)]
    {
        browser.look(&tab, width, height, phone, "light");
        assert_eq!(browser.eval(&tab, sideways), 0, "{width}");
        assert_eq!(browser.eval(&tab, inside), "", "{width}");
    }
    browser.look(&tab, 390, 844, true, "light");
    for done in 1..=2 {
        browser.eval(&tab, "window.scrollTo(0, 3000)");
        assert_eq!(browser.eval(&tab, sideways), 0);
        assert_eq!(browser.eval(&tab, inside), "");
        assert_eq!(browser.eval(&tab, columns), true);
        assert_eq!(browser.eval(&tab, buttons), true);
        std::thread::sleep(std::time::Duration::from_millis(150));
        browser.click(&tab, ".actions [data-do=left]");
        browser.wait(&tab, &format!("document.getElementById('count').textContent === '{done} of 2'"));
        if done == 1 {
            browser.wait(&tab, READY);
            assert_eq!(
                browser.eval(&tab, "document.scrollingElement.scrollTop"),
                0,
                "the next pair from its beginning"
            );
        }
    }
    browser.wait(&tab, ENDED);
    assert_eq!(browser.eval(&tab, sideways), 0);
    browser.click(&tab, "#end-statistics");
    browser.wait(&tab, "document.getElementById('statistics').open");
    assert_eq!(browser.eval(&tab, sideways), 0);
    assert_eq!(votes(&sandbox).len(), 2);
}

#[test]
fn nothing_moves_between_pairs_and_keys_scroll_both_sides() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = Sandbox::new();
    let row = |i: usize| {
        let text = format!("{i} words and words ").repeat([1, 900, 30, 400][i % 4]);
        json!({ "prompt": text, "a": format!("one {text}"), "b": format!("two {text}") }).as_object().unwrap().clone()
    };
    sandbox.rows("pairs.jsonl", &[0, 1, 2, 3, 4, 5].map(row));
    let server = Server::start(&sandbox, &ALONE);
    let tab = enter(&mut browser, &server, "anna");
    let boxes = "JSON.stringify([...document.querySelectorAll('.bar, .panel, .panel h2, .actions, .actions button')]\
                 .map((e) => { const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height] }))";
    let first = browser.eval(&tab, boxes);
    let tops = "[...document.querySelectorAll('.panel .text')].map((e) => e.scrollTop)";
    let mut scrolled = 0;
    for done in 1..=5 {
        assert_eq!(browser.eval(&tab, boxes), first, "pair {done}");
        assert_eq!(browser.eval(&tab, tops), json!([0, 0, 0]));
        browser.key(&tab, "ArrowDown");
        let down = browser.eval(&tab, tops);
        assert_eq!(down[0], 0);
        if browser.eval(&tab, "document.querySelector('#left .text').scrollHeight > 2000") == true {
            assert_eq!((&down[1], &down[2]), (&json!(56), &json!(56)));
            browser.key(&tab, " ");
            assert!(browser.eval(&tab, tops)[2].as_f64().unwrap() > 300.0);
            browser.key_with(&tab, "ArrowDown", 8);
            assert!(browser.eval(&tab, tops)[0].as_f64().unwrap() > 0.0);
            scrolled += 1;
        }
        browser.key(&tab, "d");
        assert_eq!(browser.eval(&tab, boxes), first, "marked");
        press(&mut browser, &tab, "ArrowLeft", done);
    }
    assert!(scrolled >= 2);
    browser.nothing_went_wrong(&tab, &server.address);
}

#[test]
fn differences_are_marked_word_by_word() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = Sandbox::new();
    let pair = |a: &str, b: &str| json!({ "a": a, "b": b }).as_object().unwrap().clone();
    let start = "The film begins slowly, and the first hour asks for patience.";
    let base = (0..3000).map(|i| format!("w{} ", i % 701)).collect::<String>();
    let changed = base.replacen("w350 ", "changed ", 1);
    sandbox.rows(
        "pairs.jsonl",
        &[
            pair(
                &format!("{start} Then it pays off."),
                &format!("{} Then it falls apart.", start.replace("patience", "trust")),
            ),
            pair("alpha beta gamma delta epsilon zeta eta theta", "one two three four five six seven eight"),
            pair(&base, &changed),
            pair("今日は天気がいいです。", "今日は天気が悪いです。"),
        ],
    );
    let server = Server::start(&sandbox, &ALONE);
    let tab = enter(&mut browser, &server, "anna");
    browser.key(&tab, "d");
    let mut marks = std::collections::BTreeMap::new();
    for done in 1..=4 {
        let texts = browser.text(&tab, ".answer .said");
        let mut sides: Vec<String> = texts.split('|').map(str::to_owned).collect();
        sides.sort();
        let mut found: Vec<String> =
            ["#left", "#right"].iter().map(|side| browser.text(&tab, &format!("{side} .only"))).collect();
        found.sort();
        let note = browser.text(&tab, "#left small");
        marks.insert(sides[0].chars().take(5).collect::<String>(), (found, note));
        press(&mut browser, &tab, "ArrowLeft", done);
    }
    let expect = |key: &str, left: &str, right: &str, note: &str| {
        let (found, said) = &marks[key];
        assert_eq!((found[0].as_str(), found[1].as_str(), said.as_str()), (left, right, note));
    };
    expect("The f", "patience|pays off", "trust|falls apart", "");
    expect("alpha", "", "", "almost nothing in common");
    expect("w0 w1", "changed", "w350", "");
    assert_eq!(marks.len(), 4);
    let japanese = &marks["今日は天気"].0;
    assert!(japanese.iter().all(|marked| !marked.is_empty() && !marked.contains("今日")), "{japanese:?}");
}

#[test]
fn a_server_that_goes_away_loses_no_vote() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = with_pairs(4);
    let server = Server::start(&sandbox, &ALONE);
    let tab = enter(&mut browser, &server, "anna");
    press(&mut browser, &tab, "ArrowLeft", 1);
    let shown = browser.text(&tab, ".answer .said");
    std::thread::sleep(std::time::Duration::from_millis(150));
    browser.offline(&tab, true);
    browser.key(&tab, "ArrowRight");
    browser.wait(&tab, "document.getElementById('notice').textContent.startsWith('Not saved yet')");
    // The next pair does not show, and further keys change nothing.
    for key in ["ArrowLeft", "t", "u"] {
        browser.key(&tab, key);
    }
    assert_eq!(browser.text(&tab, ".answer .said"), shown);
    assert_eq!(votes(&sandbox).len(), 1);
    browser.offline(&tab, false);
    browser.wait(&tab, "document.getElementById('count').textContent === '2 of 4'");
    assert_eq!(browser.eval(&tab, "document.getElementById('notice').hidden"), true);
    let log = votes(&sandbox);
    assert_eq!(log.len(), 2, "once");
    assert!(log[1]["choice"] != log[1]["left"], "right, as pressed");
    // After kill -9 the link is another: the page says so, and that the vote is not saved.
    let port = server.address.split(':').nth(1).unwrap().to_owned();
    server.kill();
    std::thread::sleep(std::time::Duration::from_millis(150));
    browser.key(&tab, "ArrowRight");
    browser.wait(&tab, "document.getElementById('notice').textContent.startsWith('Not saved yet')");
    let again = Server::start(&sandbox, &["--port", &port]);
    browser.wait(&tab, "document.getElementById('notice').textContent.startsWith('Not saved: Open the link')");
    browser.open(&tab, &again.link, WELCOME_OR_PAIR);
    assert_eq!(again.next("anna")["done"], 2);
    assert_eq!(votes(&sandbox).len(), 2);
}

#[test]
fn a_vote_whose_answer_does_not_come_is_sent_again_and_counts_once() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = with_pairs(4);
    let server = Server::start(&sandbox, &ALONE);
    let tab = enter(&mut browser, &server, "anna");
    // The server is asleep until the page has lost its patience; then it gets the vote twice.
    server.tell("STOP");
    std::thread::sleep(std::time::Duration::from_millis(150));
    browser.key(&tab, "ArrowRight");
    browser.wait(&tab, "document.getElementById('notice').textContent.startsWith('Not saved yet')");
    std::thread::sleep(std::time::Duration::from_millis(700));
    server.tell("CONT");
    browser.wait(&tab, "document.getElementById('count').textContent === '1 of 4'");
    assert_eq!(browser.eval(&tab, "document.getElementById('notice').hidden"), true);
    assert_eq!(votes(&sandbox).len(), 1);
    press(&mut browser, &tab, "ArrowLeft", 2);
    assert_eq!(votes(&sandbox).len(), 2);
}

#[test]
fn another_person_at_the_same_window_sees_their_own_sides() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = with_pairs(1);
    let server = Server::start(&sandbox, &ALONE);
    let left = |name: &str| server.next(name)["current"]["left"]["text"].as_str().unwrap().to_owned();
    let other = ["ben", "carol", "dora", "emil", "finn", "greta"].into_iter().find(|name| left(name) != left("anna"));
    let other = other.expect("six coins do not all fall alike with this seed");
    let tab = enter(&mut browser, &server, "anna");
    browser.key(&tab, "d");
    assert_eq!(browser.text(&tab, "#left .said"), left("anna"));
    browser.click(&tab, "#who");
    browser.wait(&tab, WELCOME);
    browser.type_text(&tab, other);
    browser.key(&tab, "Enter");
    browser.wait(&tab, READY);
    assert_eq!(browser.text(&tab, "#who"), other);
    assert_eq!(browser.text(&tab, "#left .said"), left(other));
}

#[test]
fn a_screen_reader_finds_its_way() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = with_pairs(4);
    let server = Server::start(&sandbox, &ALONE);
    let tab = enter(&mut browser, &server, "anna");
    let tree = browser.tree(&tab);
    let has = |role: &str, name: &str| {
        let found = tree.iter().any(|(r, n)| r == role && n == name);
        assert!(found, "{role} {name:?} in {tree:?}");
    };
    has("banner", "");
    has("main", "Pair to judge");
    has("region", "Prompt");
    has("region", "Left");
    has("region", "Right");
    has("progressbar", "Pairs judged");
    has("group", "Your judgement");
    has("button", "\u{2190} Left is better");
    has("button", "T Tie");
    has("button", "B Both bad");
    has("button", "Right is better \u{2192}");
    has("button", "Skip S");
    has("status", "");
    let nameless = tree.iter().filter(|(role, name)| role == "button" && name.is_empty()).count();
    assert_eq!(nameless, 0, "{tree:?}");
    assert_eq!(browser.eval(&tab, "document.activeElement.id"), "pair");
    press(&mut browser, &tab, "t", 1);
    assert_eq!(browser.text(&tab, "#live"), "Tie. Pair 2 of 4.");
    assert_eq!(browser.eval(&tab, "document.activeElement.id"), "pair");
    // Single keys can be turned off; the buttons still judge.
    browser.key(&tab, "?");
    browser.wait(&tab, "document.getElementById('keys').open");
    browser.click(&tab, "#use-keys");
    browser.key(&tab, "Escape");
    browser.wait(&tab, "!document.getElementById('keys').open");
    std::thread::sleep(std::time::Duration::from_millis(150));
    browser.key(&tab, "ArrowLeft");
    browser.eval(&tab, "document.querySelector('.actions [data-do=right]').focus()");
    browser.key(&tab, "Enter");
    browser.wait(&tab, "document.getElementById('count').textContent === '2 of 4'");
    let log = votes(&sandbox);
    assert_eq!(log.len(), 2);
    assert!(log[1]["choice"] != log[1]["left"]);
}

#[test]
fn what_was_judged_in_the_browser_trains_a_reward_model_and_a_policy() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = Sandbox::with_stages();
    let server = Server::start(&sandbox, &ALONE);
    let tab = enter(&mut browser, &server, "anna");
    for at in 1..=10 {
        press(&mut browser, &tab, ["ArrowLeft", "ArrowRight", "t"][at % 3], at);
    }
    server.kill();
    sandbox.run(&["annotate", "pairs.jsonl", "--export", "prefs.jsonl"]).ok();
    let rows = json_lines(&sandbox.path("prefs.jsonl"));
    assert_eq!(rows.len(), 10);
    assert_eq!(rows.iter().filter(|row| row["preference"] == 0.5).count(), 3);
    let train = |stage: &str, output: &str| {
        let output = format!("train.output={output}");
        sandbox.stage(stage, &["data.train=prefs.jsonl", "train.log_every=1", &output]).ok();
    };
    train("reward", "judge");
    train("dpo", "policy");
    for run in ["judge", "policy"] {
        let metrics = json_lines(&sandbox.path(run).join("metrics.jsonl"));
        assert!(
            metrics.iter().filter_map(|line| line.get("loss")).all(|loss| loss.as_f64().is_some_and(f64::is_finite))
        );
        assert!(sandbox.path(run).join("model.safetensors").is_file());
    }
}

/// What is not marked is the same in both texts, word by word, whatever they are; and marks are few where changes are.
const COMPARISONS: &str = "
(async () => {
  const { compare, words } = await import('./diff.js');
  let state = 12345;
  const below = (n) => { state = (Math.imul(state, 1103515245) + 12345) >>> 0; return (state >>> 8) % n; };
  const solid = (list, marks) => list.filter((word, at) => word.trim() && !marks[at]).join(' ');
  const bad = [];
  let alike = 0;
  for (let round = 0; round < 400; round += 1) {
    const vocabulary = [2, 5, 40, 400][round % 4];
    const left = Array.from({ length: below(60) }, () => ['.', 'w' + below(vocabulary)][below(6) ? 1 : 0]);
    const right = left.flatMap((word) => [[word], [], [word, 'new'], ['other']][below(8) < 5 ? 0 : below(4)]);
    const [a, b] = [words(left.join(' ')), words(right.join(' '))];
    if (a.join('') !== left.join(' ')) bad.push(`cut: ${left}`);
    const found = compare(a, b);
    alike += found.alike;
    if (found.left.length !== a.length || found.right.length !== b.length) bad.push(`length: ${left} ${right}`);
    if (found.alike && solid(a, found.left) !== solid(b, found.right)) bad.push(`${left} / ${right}`);
    if (left.join() === right.join() && found.left.concat(found.right).includes(true)) bad.push(`equal: ${left}`);
  }
  const long = Array.from({ length: 9000 }, (_, i) => `${i % 7 ? 'w' + below(3000) : 'unique' + i} `);
  const other = long.flatMap((word, i) => (i % 500 === 250 ? ['changed '] : [word]));
  const since = performance.now();
  const found = compare(words(long.join('')), words(other.join('')));
  const took = performance.now() - since;
  const count = (marks) => marks.filter(Boolean).length;
  return { bad, alike, took, marked: [count(found.left), count(found.right)] };
})()";

#[test]
fn comparisons_keep_what_is_common_and_long_texts_are_compared_too() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = with_pairs(1);
    let server = Server::start(&sandbox, &ALONE);
    let tab = enter(&mut browser, &server, "anna");
    let found = browser.eval(&tab, &COMPARISONS.replace("./diff.js", &format!("{}/diff.js", server.base)));
    assert_eq!(found["bad"], json!([]));
    assert!(found["alike"].as_u64().unwrap() > 200, "{found}");
    assert_eq!(found["marked"], json!([18, 18]), "9,000 words, 18 of them changed");
    assert!(found["took"].as_f64().unwrap() < 5000.0, "{found}");
}
