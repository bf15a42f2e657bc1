//! What the hub refuses, and what is refused of the hub: exact messages.
use super::server::{Hub, Repo};
use super::{WHOLE, settings, shown};
use collimate::hub::{DatasetSpec, resolve_dataset_with, resolve_model_with};
use std::path::Path;

const PYTHON: &str = "python -c 'from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; n = \"ID\"; M.from_pretrained(n).save_pretrained(\"model\"); T.from_pretrained(n).save_pretrained(\"model\")' and name the directory model";

fn model(cache: &Path, hub: &Hub, id: &str) -> String {
    let settings = settings(cache, &hub.endpoint, false);
    shown(&settings, &resolve_model_with(&settings, id).unwrap_err())
}

#[test]
fn models_that_are_not_read() {
    let cache = tempfile::tempdir().unwrap();
    let config = ("config.json", "{}");
    let opt = [config, ("pytorch_model.bin", "x"), ("vocab.json", "{}"), ("merges.txt", "")];
    let hub = Hub::new(vec![
        Repo::new("models", "o/pickle", &opt),
        Repo::new("models", "o/older", &[config, ("model.safetensors", "w"), ("vocab.json", "{}"), ("merges.txt", "")]),
        Repo::new("models", "o/t5", &[config, ("model.safetensors", "w"), ("spiece.model", "x")]),
        Repo::new("models", "o/mute", &[config, ("model.safetensors", "w")]),
        Repo::new("models", "o/lora", &[("adapter_config.json", "{}"), ("adapter_model.safetensors", "w")]),
        Repo::new("models", "o/empty", &[config]).with("v1", "1234", &opt),
    ]);
    let say = |id: &str| model(cache.path(), &hub, id);
    let python = |id: &str| PYTHON.replace("ID", id);
    assert_eq!(
        say("o/pickle"),
        format!(
            "o/pickle: its weights are a pickle (pytorch_model.bin), which can run code when loaded; convert them where that is safe: {}",
            python("o/pickle")
        )
    );
    assert_eq!(
        say("o/older"),
        format!("o/older: has no tokenizer.json (its tokenizer is vocab.json); write one: {}", python("o/older"))
    );
    assert_eq!(
        say("o/t5"),
        format!("o/t5: has no tokenizer.json (its tokenizer is spiece.model); write one: {}", python("o/t5"))
    );
    assert_eq!(say("o/mute"), "o/mute: has no tokenizer.json; name a model with its tokenizer");
    assert_eq!(say("o/empty"), "o/empty: has no model.safetensors; name a model with safetensors weights");
    let lora = say("o/lora");
    assert!(
        lora.starts_with(
            "o/lora: has only an adapter (adapter_model.safetensors), not the model's own weights; merge it: python -c"
        ),
        "{lora}"
    );
    let old = say("o/empty@v1");
    assert!(old.contains("M.from_pretrained(n, revision=\"v1\")"), "{old}");
    assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 0, "a refusal leaves nothing behind");
}

#[test]
fn what_the_hub_refuses() {
    let cache = tempfile::tempdir().unwrap();
    let gated = |kind, id, status| {
        let mut repo = Repo::new(kind, id, &[&WHOLE[..], &[("train.jsonl", "{}")]].concat());
        repo.gate = Some((status, "GatedRepo"));
        repo
    };
    let mut shut = Repo::new("models", "o/shut", &WHOLE);
    shut.gate = Some((403, "Disabled"));
    let hub = Hub::new(vec![
        gated("models", "o/gated", 403),
        gated("models", "o/anonymous", 401),
        gated("datasets", "o/rows", 403),
        shut,
        Repo::new("models", "o/plain", &WHOLE),
    ]);
    let say = |id: &str| model(cache.path(), &hub, id);
    assert_eq!(
        say("o/gated"),
        "o/gated: the model is gated: its licence has to be accepted first (HTTP 403); accept it at HUB/o/gated and set HF_TOKEN to a token of that account"
    );
    assert!(say("o/anonymous").contains("accepted first (HTTP 401); accept it at HUB/o/anonymous and set HF_TOKEN"));
    assert_eq!(
        say("o/other"),
        "o/other: HUB has no such model, or it is private (HTTP 404); check the name; for a private model set HF_TOKEN"
    );
    assert_eq!(
        say("o/plain@v9"),
        "o/plain@v9: the model has no revision \"v9\" (HTTP 404); name a branch, a tag or a commit, as o/plain@main"
    );
    assert_eq!(
        say("o/shut"),
        "o/shut: HUB does not let it be read (HTTP 403: Not here.); check that the token of HF_TOKEN may read it"
    );
    hub.faults(|faults| faults.lost.push("tokenizer.json"));
    assert_eq!(
        say("o/plain"),
        "o/plain: the model has no file tokenizer.json at this revision (HTTP 404); try again; if it stays so, name another revision"
    );
    hub.faults(|faults| faults.statuses = [401].into());
    assert_eq!(
        say("o/plain"),
        "o/plain: HUB does not know the token (HTTP 401); set HF_TOKEN to a valid token, or unset it (and remove what `hf auth login` left)"
    );
    let settings = settings(cache.path(), &hub.endpoint, false);
    let rows = resolve_dataset_with(&settings, &DatasetSpec::new("o/rows")).unwrap_err();
    assert_eq!(
        shown(&settings, &rows),
        "o/rows: the data set is gated: its licence has to be accepted first (HTTP 403); accept it at HUB/datasets/o/rows and set HF_TOKEN to a token of that account"
    );
    let none = resolve_dataset_with(&settings, &DatasetSpec::new("o/none")).unwrap_err();
    assert_eq!(
        shown(&settings, &none),
        "o/none: HUB has no such data set, or it is private (HTTP 404); check the name; for a private data set set HF_TOKEN"
    );
}

#[test]
fn a_busy_hub_is_asked_again() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(vec![Repo::new("models", "o/n", &WHOLE)]);
    hub.faults(|faults| faults.statuses = [429, 500, 503, 502, 504].into());
    let settings = settings(cache.path(), &hub.endpoint, false);
    resolve_model_with(&settings, "o/n").unwrap();
    let second = tempfile::tempdir().unwrap();
    hub.faults(|faults| faults.statuses = [429; 6].into());
    assert_eq!(
        model(second.path(), &hub, "o/n"),
        "o/n: cannot get the list of files from HUB: it answers HTTP 429, too many requests; try again later, or name a local path"
    );
}
