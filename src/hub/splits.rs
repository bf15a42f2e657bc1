//! Which files of a repository or directory are a split's: by the card, else by the file names, as the Python library
//! datasets finds them. Imports nothing of ours.
use super::card::Config;
use super::glob;
use std::collections::BTreeMap;

/// Splits that have names of their own, with the words that stand for them in file and directory names.
const WORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];
const SHARD: &str = "-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9]";
/// Never data, whatever a pattern says that does not name them.
const NEVER: [&str; 6] =
    ["README.md", "config.json", "dataset_info.json", "dataset_infos.json", "dummy_data.zip", "dataset_dict.json"];
/// Formats that hold rows, but not for this program.
const OTHERS: [&str; 24] = [
    "csv", "tsv", "arrow", "feather", "orc", "avro", "xml", "lance", "vortex", "h5", "hdf5", "xlsx", "npz", "npy",
    "tar", "tgz", "zip", "rar", "7z", "pkl", "db", "sqlite", "jpg", "wav",
];

/// Why no files were chosen.
#[derive(Debug, PartialEq)]
pub(super) enum Unfit {
    /// The wrong configuration or split was asked for, or the card is at fault: message and remedy.
    Choice(String, String),
    /// There are rows, but in formats that are not read; the formats.
    Formats(Vec<String>),
    /// Only a program that makes the rows.
    Script(String),
    /// Nothing that looks like data.
    Nothing,
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The program of this name is what makes the rows where it exists, as datasets before 4 has it: `NAME.py`.
    pub program: &'a str,
    pub config: Option<&'a str>,
    pub split: &'a str,
}

/// The split's files in order; `names` are all files of the repository, sorted.
pub(super) fn choose(names: &[&str], configs: &[Config], asked: Asked) -> Result<Vec<String>, Unfit> {
    if names.contains(&asked.program) {
        return Err(Unfit::Script(asked.program.to_owned()));
    }
    if !names.iter().any(|name| is_data(name)) {
        let script = names.iter().find(|name| name.ends_with(".py") && !name.contains('/'));
        return Err(script.map_or(Unfit::Nothing, |script| Unfit::Script((*script).to_owned())));
    }
    let config = pick_config(configs, asked.config)?;
    let dir = config.map_or("", |config| config.dir.as_str());
    let below = |name: &&str| match dir {
        "" => Some((*name).to_owned()),
        dir => name.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned),
    };
    let data: Vec<String> = names.iter().filter_map(below).filter(|name| is_data(name)).collect();
    let splits = match config.and_then(|config| config.splits.as_ref()) {
        Some(splits) => by_patterns(&data, splits)?,
        None => by_names(&data),
    };
    if splits.is_empty() {
        return Err(no_match(config));
    }
    let Some((_, files)) = splits.iter().find(|(name, _)| name == asked.split) else {
        return Err(no_split(&splits, config, asked.split));
    };
    let files = readable(files)?;
    Ok(files.into_iter().map(|name| if dir.is_empty() { name } else { format!("{dir}/{name}") }).collect())
}

/// The layout of the hub's own conversions: `config/split/0000.parquet`. A split that was too large for it is called
/// `partial-train`, and is not taken for `train`.
pub(super) fn choose_converted(names: &[&str], asked: Asked) -> Result<Vec<String>, Unfit> {
    let mut configs: BTreeMap<&str, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    for name in names.iter().filter(|name| form(name) == Some(Form::Parquet)) {
        if let [config, split, _] = name.split('/').collect::<Vec<_>>()[..] {
            configs.entry(config).or_default().entry(split).or_default().push((*name).to_owned());
        }
    }
    if configs.is_empty() {
        return Err(Unfit::Nothing);
    }
    let plain = |name: &str| Config { name: name.into(), splits: None, dir: String::new(), default: name == "default" };
    let all: Vec<Config> = configs.keys().map(|name| plain(name)).collect();
    let config = pick_config(&all, asked.config)?;
    let splits = configs.get(config.map_or("", |config| config.name.as_str())).cloned().unwrap_or_default();
    let splits: Vec<(String, Vec<String>)> = splits.into_iter().map(|(name, files)| (name.to_owned(), files)).collect();
    match splits.iter().find(|(name, _)| name == asked.split) {
        Some((_, files)) => Ok(files.clone()),
        None => Err(no_split(&splits, config, asked.split)),
    }
}

fn pick_config<'a>(configs: &'a [Config], asked: Option<&str>) -> Result<Option<&'a Config>, Unfit> {
    let all = listed(configs.iter().map(|config| config.name.as_str()));
    match asked {
        Some("default") if configs.is_empty() => Ok(None),
        Some(name) => match configs.iter().find(|config| config.name == name) {
            Some(config) => Ok(Some(config)),
            None if configs.is_empty() => Err(Unfit::Choice(
                format!("the data set has no configuration {name:?}; its files belong to no named one"),
                "leave the configuration out".into(),
            )),
            None => Err(Unfit::Choice(
                format!("the data set has no configuration {name:?}"),
                format!("choose one of its configurations: {all}"),
            )),
        },
        None if configs.len() < 2 => Ok(configs.first()),
        None => match configs.iter().filter(|config| config.default).collect::<Vec<_>>()[..] {
            [config] => Ok(Some(config)),
            _ => Err(Unfit::Choice(
                format!("the data set has {} configurations and none was chosen", configs.len()),
                format!("choose one: {all}"),
            )),
        },
    }
}

fn no_split(splits: &[(String, Vec<String>)], config: Option<&Config>, asked: &str) -> Unfit {
    let of = config.filter(|config| config.name != "default");
    let of = of.map_or("the data set".to_owned(), |config| format!("the configuration {:?}", config.name));
    let names = listed(splits.iter().map(|(name, _)| name.as_str()));
    Unfit::Choice(format!("{of} has no split {asked:?}"), format!("choose one of its splits: {names}"))
}

/// Names for a message: at most thirty of them.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.len() {
        0..=30 => names.join(", "),
        count => format!("{} and {} more", names[..30].join(", "), count - 30),
    }
}

fn no_match(config: Option<&Config>) -> Unfit {
    match config {
        Some(config) => Unfit::Choice(
            format!("no data file is where the card's configuration {:?} has them", config.name),
            "choose another configuration, or name the files themselves".into(),
        ),
        None => Unfit::Nothing,
    }
}

/// The splits of a card, in its order.
fn by_patterns(data: &[String], splits: &[(String, Vec<String>)]) -> Result<Vec<(String, Vec<String>)>, Unfit> {
    let mut found = Vec::new();
    for (split, patterns) in splits {
        if let Some(pattern) = patterns.iter().find(|pattern| pattern.contains("://") || pattern.contains("::")) {
            return Err(Unfit::Choice(
                format!("the card's split {split:?} names files elsewhere ({pattern})"),
                "download them and name the local files".into(),
            ));
        }
        let files = in_order(data, patterns);
        if !files.is_empty() {
            found.push((split.clone(), files));
        }
    }
    Ok(found)
}

/// What matches, pattern after pattern; files of one pattern in order of name, each file once.
fn in_order(data: &[String], patterns: &[String]) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for pattern in patterns {
        let pattern = pattern.trim_start_matches("./");
        for name in data.iter().filter(|name| is_meant(pattern, name)) {
            if !files.contains(name) {
                files.push(name.clone());
            }
        }
    }
    files
}

/// The splits that file names show: numbered shards in `data/`, else directories, else files named after a split, else
/// everything is the training split. Only data files count here; datasets counts all and then fails where a split's
/// only match is, say, `train.py`.
fn by_names(data: &[String]) -> Vec<(String, Vec<String>)> {
    let shards = by_shards(data);
    if !shards.is_empty() {
        return shards;
    }
    let sep = "[-._ 0-9]";
    let dirs = |word: &str| {
        [
            format!("**/{word}/**"),
            format!("**/{word}{sep}*/**"),
            format!("**/*{sep}{word}/**"),
            format!("**/*{sep}{word}{sep}*/**"),
        ]
    };
    let files = |word: &str| [format!("**/{word}{sep}*"), format!("**/*{sep}{word}{sep}*")];
    for patterns in [&(|word: &str| dirs(word).to_vec()) as &dyn Fn(&str) -> Vec<String>, &|word| files(word).to_vec()]
    {
        let meant = |(split, words): &(&str, &[&str])| {
            let patterns: Vec<String> = words.iter().flat_map(|word| patterns(word)).collect();
            ((*split).to_owned(), in_order(data, &patterns))
        };
        let found: Vec<(String, Vec<String>)> =
            WORDS.iter().map(meant).filter(|(_, files)| !files.is_empty()).collect();
        if !found.is_empty() {
            return found;
        }
    }
    let all: Vec<String> = data.iter().filter(|name| is_meant("**", name)).cloned().collect();
    if all.is_empty() { Vec::new() } else { vec![("train".to_owned(), all)] }
}

/// `data/SPLIT-00000-of-00005.parquet`, where a hash may stand before the ending.
fn by_shards(data: &[String]) -> Vec<(String, Vec<String>)> {
    let mut splits: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in data.iter().filter(|name| glob::matches(&format!("data/*{SHARD}*.*"), name)) {
        if let Some((split, _)) = shard(name) {
            splits.entry(split.trim_start_matches("data/").to_owned()).or_default().push(name.clone());
        }
    }
    splits.retain(|split, _| !split.is_empty());
    let mut splits: Vec<(String, Vec<String>)> = splits.into_iter().collect();
    let rank = |split: &str| WORDS.iter().position(|(name, _)| *name == split).unwrap_or(WORDS.len());
    splits.sort_by_key(|(split, _)| rank(split));
    splits
}

/// What stands before `-00001-of-00005` in a name, and the number of shards.
fn shard(name: &str) -> Option<(&str, usize)> {
    let start =
        (0..name.len()).rev().find(|at| name.get(*at..at + 15).is_some_and(|middle| glob::matches(SHARD, middle)))?;
    Some((&name[..start], name[start + 10..start + 15].parse().ok()?))
}

/// Of numbered shards of which some are there: one that is not, as a name's beginning.
pub(super) fn missing_shard(files: &[String]) -> Option<String> {
    let mut found: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    for (before, count) in files.iter().filter_map(|name| shard(name)) {
        *found.entry((before, count)).or_default() += 1;
    }
    let ((before, count), there) = found.into_iter().find(|((_, count), there)| there < count)?;
    Some(format!("one of {before}-*-of-{count:05}, of which {there} are there,"))
}

/// A pattern matches, and does not lead by chance into a hidden or `__special__` directory or to a file that is no data.
fn is_meant(pattern: &str, name: &str) -> bool {
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let hidden =
        |path: &str| path.split('/').filter(|part| part.starts_with('.') && !part.trim_matches('.').is_empty()).count();
    let special = |path: &str| {
        let dirs = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        dirs.split('/').filter(|part| part.starts_with("__")).count()
    };
    glob::matches(pattern, name)
        && (!NEVER.contains(&base(name).as_str()) || base(pattern) == base(name))
        && hidden(pattern) == hidden(name)
        && special(pattern) == special(name)
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Json,
    Parquet,
    Other(String),
}

fn is_data(name: &str) -> bool {
    form(name).is_some()
}

/// The format by a file's name; `None` for what holds no rows, such as text and programs.
fn form(name: &str) -> Option<Form> {
    let base = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let endings: Vec<&str> = base.split('.').skip(1).collect();
    let is_json = |ending: &str| ["json", "jsonl", "ndjson"].contains(&ending);
    match endings[..] {
        [.., last] if is_json(last) => Some(Form::Json),
        [.., json, "gz" | "zst"] if is_json(json) => Some(Form::Json),
        [.., "parquet"] => Some(Form::Parquet),
        [.., inner, last] if is_json(inner) || inner == "parquet" => Some(Form::Other(format!("{inner}.{last}"))),
        _ => endings.iter().find(|ending| OTHERS.contains(*ending)).map(|ending| Form::Other((*ending).to_owned())),
    }
}

/// The files of the most frequent format, if it is one that is read; Parquet and then JSON lines win a draw.
fn readable(files: &[String]) -> Result<Vec<String>, Unfit> {
    let mut counts: BTreeMap<Form, usize> = BTreeMap::new();
    for form in files.iter().filter_map(|name| form(name)) {
        *counts.entry(form).or_default() += 1;
    }
    let rank = |form: &Form| match form {
        Form::Parquet => 2,
        Form::Json => 1,
        Form::Other(_) => 0,
    };
    let most = counts.iter().max_by_key(|(form, count)| (**count, rank(form))).map(|(form, _)| form.clone());
    match most {
        Some(form @ (Form::Json | Form::Parquet)) => {
            Ok(files.iter().filter(|name| self::form(name).as_ref() == Some(&form)).cloned().collect())
        }
        _ => Err(Unfit::Formats(
            counts
                .into_keys()
                .filter_map(|form| if let Form::Other(name) = form { Some(name) } else { None })
                .collect(),
        )),
    }
}
