//! One file of a commit into the cache: goes on where a cut download stopped, checks length and hash at the end.
//! Imports nothing but `error`.
use super::cache::{self, Listing};
use super::http::{Client, Failed, Reply, Said, TRIES, read_words};
use super::id::Id;
use crate::error::{Error, Result};
use hf_hub::Cache;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Downloads of one commit.
pub(super) struct Fetch<'a> {
    pub client: &'a Client<'a>,
    pub id: &'a Id,
    pub listing: &'a Listing,
}

/// What is known of a file before it is asked for.
struct Wanted {
    name: String,
    url: String,
    etag: String,
    size: Option<u64>,
}

impl Fetch<'_> {
    /// Downloads the files that the cache lacks, in this order; their paths in the snapshot.
    pub fn files(&self, names: &[String]) -> Result<Vec<PathBuf>> {
        let cache = &self.client.settings.cache;
        let snapshot = self.id.snapshot(cache, &self.listing.commit);
        let missing = names.iter().filter(|name| !cache::is_inside(&snapshot.join(name), cache));
        let needed: u64 =
            missing.map(|name| self.listing.size(name).unwrap_or(0).saturating_sub(self.kept(name))).sum();
        cache::check_space(cache, needed, &self.id.name)?;
        names.iter().map(|name| self.file(name)).collect()
    }

    /// Bytes of a file that an earlier download left; only files with a SHA-256 are known by name before asking.
    fn kept(&self, name: &str) -> u64 {
        let listed = self.listing.files.iter().find(|file| file.name == name);
        let etag = listed.and_then(|file| file.sha256.as_ref().or(file.blob.as_ref()));
        let part = etag.map(|etag| part_path(&self.blob(etag)));
        part.and_then(|part| part.metadata().ok()).map_or(0, |meta| meta.len())
    }

    fn blob(&self, etag: &str) -> PathBuf {
        Cache::new(self.client.settings.cache.clone()).repo(self.id.repo()).blob_path(etag)
    }

    /// Downloads a file, or takes it from the cache; its path in the snapshot.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        let (cache, commit) = (&self.client.settings.cache, &self.listing.commit);
        let pointer = self.id.snapshot(cache, commit).join(name);
        if cache::is_inside(&pointer, cache) {
            return Ok(pointer);
        }
        let wanted = self.ask(name)?;
        let blob = self.blob(&wanted.etag);
        let dir = blob.parent().unwrap_or(&blob);
        std::fs::create_dir_all(dir).map_err(Error::io(dir, "create"))?;
        let _held = cache::lock(cache, self.id, &wanted.etag, name)?;
        let same = |meta: std::fs::Metadata| wanted.size.is_none_or(|size| meta.len() == size);
        if !(cache::is_inside(&blob, cache) && blob.metadata().is_ok_and(same)) {
            self.fill(&wanted, &blob)?;
        }
        cache::link(cache, self.id, commit, name, &wanted.etag)
    }

    /// What the hub says about a file.
    fn ask(&self, name: &str) -> Result<Wanted> {
        let url = self.client.file_url(self.id, &self.listing.commit, name);
        let said: Said = self.client.retry(self.id, name, || {
            let reply = self.client.send(self.id, "HEAD", &url, None)?;
            self.client.check(self.id, Some(name), &reply)?;
            Ok(reply.said)
        })?;
        let etag = said.etag.filter(|etag| cache::is_plain_name(etag));
        let (Some(etag), true) = (etag, said.commit.as_deref() == Some(self.listing.commit.as_str())) else {
            let message = format!("the hub's answer for {name} belongs to another commit or has a strange etag");
            return Err(self.id.error(message, "try again; check HF_ENDPOINT"));
        };
        Ok(Wanted { name: name.to_owned(), url, etag, size: said.size })
    }

    /// The whole blob, checked, or an error; what came is kept beside it for the next time.
    fn fill(&self, wanted: &Wanted, blob: &Path) -> Result<()> {
        let mut part = Part::open(part_path(blob))?;
        if wanted.size.is_some_and(|size| part.length > size) {
            part.restart()?;
        }
        let dir = blob.parent().unwrap_or(blob);
        cache::check_space(dir, wanted.size.unwrap_or(0).saturating_sub(part.length), &wanted.name)?;
        let mut resumed = part.length > 0;
        self.announce(wanted, part.length);
        loop {
            self.receive(wanted, &mut part)?;
            let Some(wrong) = part.fault(wanted) else { break };
            part.restart()?;
            if !resumed {
                part.remove();
                return Err(self.id.error(
                    format!("{} is not what the hub promised: {wrong}", wanted.name),
                    "try again; if it stays so, a proxy or mirror on the way changes files",
                ));
            }
            // What an earlier process left may be at fault: once more, all of it.
            resumed = false;
            tracing::warn!(id = %self.id.name, file = wanted.name, "what was kept of it is wrong ({wrong}); again from its start");
        }
        part.file.sync_all().map_err(Error::io(&part.path, "write"))?;
        std::fs::rename(&part.path, blob).map_err(Error::io(blob, "write"))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io(dir, "write"))
    }

    fn announce(&self, wanted: &Wanted, from: u64) {
        if self.client.settings.draws_bars() {
            return;
        }
        let size = wanted.size.map_or("unknown".to_owned(), |size| HumanBytes(size).to_string());
        if from > 0 {
            tracing::info!(id = %self.id.name, file = wanted.name, %size, from = %HumanBytes(from), "goes on downloading");
        } else {
            tracing::info!(id = %self.id.name, file = wanted.name, %size, "downloading");
        }
    }

    /// Asks until every byte is there. A try that brought bytes is no failure in a row.
    fn receive(&self, wanted: &Wanted, part: &mut Part) -> Result<()> {
        let bar = self.bar(wanted);
        let mut failures = 0;
        while wanted.size.is_none_or(|size| part.length < size) || part.length == 0 {
            let before = part.length;
            let text = match self.pull(wanted, part, bar.as_ref()) {
                Ok(()) => break,
                Err(Failed::Never(error)) => return Err(error),
                Err(Failed::Again(text)) => text,
            };
            failures = if part.length > before { 1 } else { failures + 1 };
            if failures > TRIES {
                let of = wanted.size.map_or(String::new(), |size| format!(" of {size}"));
                return Err(self.id.error(
                    format!(
                        "{} stopped after {}{of} bytes, {TRIES} more tries brought nothing: {text}",
                        wanted.name, part.length
                    ),
                    "what came is kept; run it again to go on there",
                ));
            }
            self.client.wait(failures, &text);
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        Ok(())
    }

    fn bar(&self, wanted: &Wanted) -> Option<ProgressBar> {
        let size = wanted.size.filter(|_| self.client.settings.draws_bars())?;
        let template = "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} (left {eta})";
        let style = ProgressStyle::with_template(template).expect("the template is constant").progress_chars("=> ");
        Some(ProgressBar::new(size).with_style(style).with_prefix(wanted.name.clone()))
    }

    /// One connection's worth of bytes.
    fn pull(&self, wanted: &Wanted, part: &mut Part, bar: Option<&ProgressBar>) -> Result<(), Failed> {
        let from = Some(part.length).filter(|length| *length > 0);
        let reply = self.client.send(self.id, "GET", &wanted.url, from)?;
        if reply.response.status().as_u16() == 416 {
            // Nothing beyond what is here: then its length was wrong or unknown.
            part.restart().map_err(Failed::Never)?;
            return Err(Failed::Again("it has no bytes from there on".into()));
        }
        self.client.check(self.id, Some(&wanted.name), &reply)?;
        self.place(wanted, part, &reply)?;
        let promised = end_of(&reply, part.length);
        if let (Some(size), Some(promised)) = (wanted.size, promised)
            && size != promised
        {
            return Err(Failed::Again(format!("it sends {promised} bytes where it promised {size}")));
        }
        if let Some(bar) = bar {
            bar.set_position(part.length);
            bar.reset_eta();
        }
        let mut body = reply.response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count =
                body.read(&mut buffer).map_err(|e| Failed::Again(self.client.settings.clean(&read_words(&e))))?;
            if count == 0 {
                break;
            }
            if wanted.size.is_some_and(|size| part.length + count as u64 > size) {
                return Err(Failed::Again("it sends more bytes than it promised".into()));
            }
            part.write(&buffer[..count], wanted).map_err(Failed::Never)?;
            if let Some(bar) = bar {
                bar.set_position(part.length);
            }
        }
        match wanted.size.or(promised) {
            Some(size) if part.length < size => Err(Failed::Again("the connection was cut".into())),
            _ => Ok(()),
        }
    }

    /// Makes sure that what the answer brings belongs behind what is there.
    fn place(&self, wanted: &Wanted, part: &mut Part, reply: &Reply) -> Result<(), Failed> {
        if reply.said.etag.as_ref().is_some_and(|etag| *etag != wanted.etag) {
            let message = format!("{} changed on the hub while it was downloaded", wanted.name);
            return Err(Failed::Never(self.id.error(message, "try again")));
        }
        let encoding = reply.response.headers().get("content-encoding").and_then(|value| value.to_str().ok());
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(Failed::Again("it compresses what was asked for as it is".into()));
        }
        match (reply.response.status().as_u16(), range(reply)) {
            (206, Some((start, _))) if start == part.length => Ok(()),
            (206, _) => {
                part.restart().map_err(Failed::Never)?;
                Err(Failed::Again("it sends another range than it was asked for".into()))
            }
            // It sends everything, whatever was asked for.
            (200, _) if part.length > 0 => part.restart().map_err(Failed::Never),
            (200, _) => Ok(()),
            (status, _) => Err(Failed::Again(format!("it answers HTTP {status}"))),
        }
    }
}

/// `Content-Range: bytes START-END/TOTAL`: START, and TOTAL where it is told.
fn range(reply: &Reply) -> Option<(u64, Option<u64>)> {
    let text = reply.response.headers().get("content-range")?.to_str().ok()?;
    let (span, total) = text.strip_prefix("bytes")?.trim().split_once('/')?;
    Some((span.split('-').next()?.trim().parse().ok()?, total.trim().parse().ok()))
}

/// How long the file will be by this answer, if it says so.
fn end_of(reply: &Reply, start: u64) -> Option<u64> {
    let length = reply.response.body().content_length().map(|length| start + length);
    range(reply).and_then(|(_, total)| total).or(length)
}

/// Beside the blob; the ending is one that huggingface_hub's cleaning knows, the name none that it writes to.
fn part_path(blob: &Path) -> PathBuf {
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    blob.with_file_name(format!("{name}.collimate.incomplete"))
}

/// What has come of a file: it only grows, and its hash grows with it.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    hash: Sha256,
}

impl Part {
    /// Opens what an earlier download left, or a new file.
    fn open(path: PathBuf) -> Result<Self> {
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(Error::io(&path, "create"))?;
        let (mut hash, mut length) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(Error::io(&path, "read"))? {
                0 => break,
                count => {
                    hash.update(&buffer[..count]);
                    length += count as u64;
                }
            }
        }
        Ok(Self { path, file, length, hash })
    }

    fn write(&mut self, bytes: &[u8], wanted: &Wanted) -> Result<()> {
        if let Err(e) = self.file.write_all(bytes) {
            // What of these bytes reached the file is not known: back to what is.
            let _ = self.file.set_len(self.length);
            if e.kind() == std::io::ErrorKind::StorageFull {
                let dir = self.path.parent().unwrap_or(&self.path);
                cache::check_space(dir, wanted.size.unwrap_or(u64::MAX).saturating_sub(self.length), &wanted.name)?;
            }
            return Err(Error::io(&self.path, "write")(e));
        }
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(Error::io(&self.path, "write"))?;
        (self.length, self.hash) = (0, Sha256::new());
        Ok(())
    }

    fn remove(&self) {
        // Empty by now; if it stays, it is only a name.
        let _ = std::fs::remove_file(&self.path);
    }

    /// What is wrong with the whole of it; a file that git keeps itself has an etag that is no SHA-256.
    fn fault(&self, wanted: &Wanted) -> Option<String> {
        if let Some(size) = wanted.size.filter(|size| *size != self.length) {
            return Some(format!("{} bytes instead of {size}", self.length));
        }
        let is_sha256 = wanted.etag.len() == 64 && wanted.etag.bytes().all(|b| b.is_ascii_hexdigit());
        let found: String = self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (is_sha256 && found != wanted.etag.to_lowercase())
            .then(|| format!("its SHA-256 is {found} instead of {}", wanted.etag))
    }
}
