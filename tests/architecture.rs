//! DESIGN.md, section 2, held by reading the sources: who imports whom, what stands in one place only, sizes.
#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each module of src may import of ours, besides `error` and `seed`, which are everyone's.
const ALLOWED: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("seed", &[]),
    ("part", &[]),
    // Files that appear whole: for everybody who writes.
    ("durable", &[]),
    // Pictures, for whoever draws: it knows shapes and axes, and nothing of what they show.
    ("chart", &[]),
    // Who works on a run directory or a log of votes: one mechanism for `train` and `annotate`.
    ("lock", &[]),
    ("config", &[]),
    ("ffi", &[]),
    ("hub", &[]),
    ("loss", &["ffi"]),
    ("tensors", &["ffi"]),
    ("tokenizer", &["config"]),
    ("data", &["config", "tokenizer", "hub"]),
    ("model", &["config", "hub", "ffi", "tensors"]),
    ("rollout", &["model", "loss", "data", "tokenizer"]),
    ("train", &["config", "durable", "lock", "loss", "ffi", "tensors"]),
    (
        "stages",
        &["config", "data", "durable", "ffi", "hub", "loss", "model", "rollout", "tensors", "tokenizer", "train"],
    ),
    (
        "commands",
        &["config", "data", "durable", "ffi", "hub", "loss", "model", "rollout", "tensors", "tokenizer", "train"],
    ),
    (
        "experiment",
        &[
            "chart",
            "config",
            "data",
            "durable",
            "ffi",
            "hub",
            "loss",
            "model",
            "rollout",
            "stages",
            "tensors",
            "tokenizer",
            "train",
        ],
    ),
    // Runs stages, as `experiment` does, where `commands` know none; takes the type of --dtype from these.
    ("bench", &["commands", "config", "data", "hub", "model", "rollout", "stages", "tokenizer", "train"]),
    ("collect", &["config", "data", "durable", "hub", "loss", "model", "rollout", "tokenizer", "train"]),
    ("rank", &["chart", "config", "data", "loss"]),
    ("annotate", &["config", "data", "durable", "lock"]),
    // The command line: what it runs, and the progress bars and signals that it switches on.
    ("main", &["config", "stages", "experiment", "bench", "commands", "collect", "annotate", "rank", "train"]),
    ("lib", &[]),
];

/// Where `Device::Cpu` may stand: choosing a device, tensors on their way from and to files, seeded initial weights,
/// frequencies that must be the same to the last bit everywhere.
const CPU_FILES: &[&str] = &[
    "model/device.rs",
    "model/params.rs",
    "model/rope.rs",
    "stages/reference.rs",
    "tensors.rs",
    "train/checkpoint.rs",
];

/// A source file: its path below src and its text without comments.
struct Source {
    name: String,
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    list(&root, &mut files);
    files.sort();
    assert!(files.len() > 40, "only {} files found", files.len());
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        Source { name, lines: text.lines().count(), code: text.lines().map(uncommented).collect::<Vec<_>>().join("\n") }
    };
    files.iter().map(read).collect()
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// A line without its `//` comment; a `//` in a string (an address) ends the line too, which hides no import.
fn uncommented(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

impl Source {
    /// The module of the crate that it belongs to.
    fn module(&self) -> &str {
        self.name.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Modules named after `root::`, in `use` lines (`crate::{a, b::c}`) and in paths.
    fn imports(&self, root: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let needle = format!("{root}::");
        for (at, _) in self.code.match_indices(&needle) {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &self.code[at + needle.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(first_level(group)),
                None => found.extend(identifier(rest)),
            }
        }
        found
    }
}

/// The first names of a `{a, b::{c, d}, e}` group, from after its brace.
fn first_level(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.extend(identifier(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.extend(identifier(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> Option<String> {
    let name: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// Names at the crate's root that are no modules: `crate::Result` and `crate::Error` are `error`'s.
fn as_module(name: &str) -> &str {
    if matches!(name, "Error" | "Result") { "error" } else { name }
}

#[test]
fn modules_import_only_what_the_design_allows() {
    let mut wrong = Vec::new();
    let mut arrows = 0;
    for source in sources() {
        let module = source.module().to_owned();
        let rule = ALLOWED.iter().find(|(name, _)| *name == module);
        let Some((_, allowed)) = rule else {
            wrong.push(format!("src/{}: the module {module} has no rule here", source.name));
            continue;
        };
        let root = if module == "main" { "collimate" } else { "crate" };
        for import in source.imports(root) {
            arrows += 1;
            let import = as_module(&import);
            if import != module && !["error", "seed"].contains(&import) && !allowed.contains(&import) {
                wrong.push(format!("src/{}: {module} imports {import}", source.name));
            }
        }
    }
    assert!(arrows > 100, "only {arrows} imports seen: is the test still reading them?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let code = "use crate::{ffi, model::{self, device::{a, b}}, seed};\nlet x = crate::hub::f(crate :: y, mycrate::z);\n\
                use crate::error::Error;";
    let source = Source { name: "data/x.rs".into(), code: code.into(), lines: 3 };
    assert_eq!(Vec::from_iter(source.imports("crate")), ["error", "ffi", "hub", "model", "seed"]);
    assert_eq!(source.module(), "data");
}

#[test]
fn backward_is_called_in_the_loop_and_nowhere_else() {
    let calls = |source: &Source| -> usize {
        [".backward(", ".f_backward(", "run_backward("].iter().map(|call| source.code.matches(call).count()).sum()
    };
    let callers: Vec<(String, usize)> =
        sources().iter().map(|s| (s.name.clone(), calls(s))).filter(|(_, n)| *n > 0).collect();
    assert_eq!(callers, [("train/trainer.rs".to_owned(), 1)]);
}

#[test]
fn the_cpu_is_named_in_a_few_files_only() {
    let named: Vec<String> = sources().into_iter().filter(|s| s.code.contains("Device::Cpu")).map(|s| s.name).collect();
    let unexpected: Vec<&String> = named.iter().filter(|name| !CPU_FILES.contains(&name.as_str())).collect();
    assert!(unexpected.is_empty(), "tensors are made on the model's device: {unexpected:?}");
    let stale: Vec<&&str> = CPU_FILES.iter().filter(|file| !named.iter().any(|name| name == *file)).collect();
    assert!(stale.is_empty(), "no longer needed in the list: {stale:?}");
}

#[test]
fn unsafe_code_stands_in_ffi_only() {
    // As a keyword: what follows it is space and then a block, a function, a trait or an implementation; a page's
    // security policy may speak of 'unsafe-inline'.
    let word =
        |code: &str| code.match_indices("unsafe").any(|(at, word)| code[at + word.len()..].starts_with([' ', '\n']));
    let files: Vec<String> = sources().into_iter().filter(|s| word(&s.code)).map(|s| s.name).collect();
    assert!(files.iter().any(|name| name == "ffi/mod.rs"), "is the test still reading them?");
    assert!(files.iter().all(|name| name.starts_with("ffi/")), "{files:?}");
}

#[test]
fn files_are_short_and_say_what_they_own() {
    for source in sources() {
        assert!(source.lines < 400, "src/{} has {} lines", source.name, source.lines);
        let text =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(&source.name)).unwrap();
        assert!(text.starts_with("//! "), "src/{}: its first comment says what it owns", source.name);
    }
}

#[test]
fn nothing_is_left_undone_or_skipped() {
    let mut files: Vec<PathBuf> = Vec::new();
    for dir in ["src", "tests", "benches"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        if dir.is_dir() {
            list(&dir, &mut files);
        }
    }
    // Put together here so that this file does not find itself.
    let marks = [["todo", "!("], ["unimplemented", "!("], ["#[", "ignore"], ["dbg", "!("]].map(|parts| parts.concat());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        for mark in &marks {
            assert!(!text.contains(mark), "{}: {mark}", path.display());
        }
    }
}

#[test]
fn a_stage_is_told_by_its_type_and_not_by_its_name() {
    for source in sources().iter().filter(|s| s.name != "stages/mod.rs") {
        for form in ["if stage ==", "match stage ", "STAGE =="] {
            assert!(!source.code.contains(form), "src/{}: {form}", source.name);
        }
    }
}
