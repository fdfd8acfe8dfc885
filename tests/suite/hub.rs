//! A hub on this machine for `clasp models`: it plays as much of the Hugging Face hub's API as a fetch needs.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The commit of every repository that says no other.
pub const COMMIT: &str = "c0ffee0000000000000000000000000000000001";

/// What the hub has and does; a test may change it at any time.
#[derive(Default)]
pub struct State {
    /// Files by repository; nothing else is there.
    pub repositories: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The commit that every branch is at.
    pub commit: Option<&'static str>,
    /// Old names of repositories, and the new ones that they redirect to.
    pub renamed: BTreeMap<String, String>,
    /// Who does not show this is refused.
    pub token: Option<&'static str>,
    /// A connection breaks after this many bytes of a large file, counted from its start.
    pub breaks_at: Option<usize>,
    /// Contents of large files are garbled.
    pub garbles: bool,
    /// Large files are elsewhere, but it does not say where.
    pub loses: bool,
    /// Paths that were asked for, each behind the first byte of a range.
    pub requests: Vec<(Option<usize>, String)>,
}

/// The hub; it answers until the tests end.
#[derive(Clone)]
pub struct Hub {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let hub = Self { endpoint, state: Arc::default() };
        let server = hub.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                // Who hangs up is no concern of the hub.
                let _ = server.answer(stream.unwrap());
            }
        });
        hub
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts a folder of plain files there.
    pub fn add(&self, id: &str, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            let name = entry.file_name().into_string().unwrap();
            self.put(id, &name, fs::read(entry.path()).unwrap());
        }
    }

    pub fn put(&self, id: &str, name: &str, bytes: impl Into<Vec<u8>>) {
        self.state().repositories.entry(id.to_owned()).or_default().insert(name.to_owned(), bytes.into());
    }

    /// The files that were asked for since the last call, without repeats, and how many other requests there were.
    pub fn asked(&self) -> (Vec<String>, usize) {
        let requests = std::mem::take(&mut self.state().requests);
        let (files, others): (Vec<_>, Vec<_>) = requests.into_iter().partition(|(_, path)| path.contains("/resolve/"));
        let mut files: Vec<String> =
            files.into_iter().map(|(_, path)| path.rsplit('/').next().unwrap().to_owned()).collect();
        files.sort();
        files.dedup();
        (files, others.len())
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let headers: Vec<String> =
            lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).collect::<Result<_, _>>()?;
        let header = |name: &str| {
            let found = headers.iter().filter_map(|line| line.split_once(": "));
            found.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let path = target.split('?').next().unwrap_or_default().trim_start_matches('/').to_owned();
        let start = header("range").and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
        let only_first = header("range").is_some_and(|range| range == "bytes=0-0");
        let mut state = self.state();
        state.requests.push((start, path.clone()));
        let reply = |status: &str, headers: &str| format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n");
        if let Some(hash) = path.strip_prefix("large/") {
            let all = state.repositories.values().flat_map(BTreeMap::values);
            let mut bytes = all.into_iter().find(|bytes| sha256(bytes) == hash).unwrap().clone();
            if state.garbles {
                bytes[0] ^= 1;
            }
            return send(&mut stream, &bytes, start, only_first, state.breaks_at, "");
        }
        if path.starts_with("page/") {
            return stream.write_all((reply("200 OK", "content-length: 6\r\n") + "<html>").as_bytes());
        }
        let id_of = |path: &str| -> Option<String> {
            let inner = path.strip_prefix("api/models/").unwrap_or(path);
            let end = inner.find("/revision/").or_else(|| inner.find("/resolve/"))?;
            Some(inner[..end].to_owned())
        };
        let id = id_of(&path).unwrap_or_default();
        if let Some(new) = state.renamed.get(&id) {
            let location = target.replacen(&id, new, 1);
            return stream
                .write_all(reply("307 Moved", &format!("location: {location}\r\ncontent-length: 0\r\n")).as_bytes());
        }
        let is_allowed = state.token.is_none_or(|token| header("authorization") == Some(format!("Bearer {token}")));
        if !is_allowed {
            return stream.write_all(reply("401 Unauthorized", "content-length: 0\r\n").as_bytes());
        }
        let Some(files) = state.repositories.get(&id) else {
            return stream.write_all(reply("404 Not Found", "content-length: 0\r\n").as_bytes());
        };
        let commit = state.commit.unwrap_or(COMMIT);
        if path.starts_with("api/") {
            let siblings: Vec<_> = files.iter().map(|(name, bytes)| listed(name, bytes)).collect();
            let body = json!({ "id": id, "sha": commit, "siblings": siblings }).to_string();
            let head = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
            return stream.write_all((reply("200 OK", &head) + &body).as_bytes());
        }
        let bytes = &files[path.rsplit('/').next().unwrap()];
        let common = format!("x-repo-commit: {commit}\r\n");
        if is_large(&path) {
            let hash = sha256(bytes);
            let place =
                if state.loses { String::new() } else { format!("location: {}/large/{hash}\r\n", self.endpoint) };
            let head = format!("{common}x-linked-etag: \"{hash}\"\r\netag: \"other\"\r\n{place}content-length: 0\r\n");
            return stream.write_all(reply("302 Found", &head).as_bytes());
        }
        send(&mut stream, bytes, start, only_first, None, &format!("{common}etag: \"{}\"\r\n", &sha256(bytes)[..40]))
    }
}

/// A file of the listing; large ones have a SHA-256.
fn listed(name: &str, bytes: &[u8]) -> serde_json::Value {
    let hash = sha256(bytes);
    let lfs = is_large(name).then(|| json!({ "sha256": hash, "size": bytes.len() }));
    json!({ "rfilename": name, "size": bytes.len(), "blobId": &hash[..40], "lfs": lfs })
}

fn is_large(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "safetensors" || ending == "bin")
}

/// Sends a file from `start` on, or only its first byte, or less than it promises.
fn send(
    stream: &mut TcpStream,
    bytes: &[u8],
    start: Option<usize>,
    only_first: bool,
    breaks_at: Option<usize>,
    headers: &str,
) -> std::io::Result<()> {
    let start = start.unwrap_or(0);
    let end = if only_first { 1 } else { bytes.len() };
    let all = bytes.len();
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nconnection: close\r\n{headers}content-range: bytes {start}-{}/{all}\r\n\
         content-length: {}\r\n\r\n",
        end - 1,
        end - start
    );
    stream.write_all(head.as_bytes())?;
    let sent = breaks_at.map_or(end, |place| place.clamp(start, end));
    stream.write_all(&bytes[start..sent])
}

/// The SHA-256 of a file's contents.
fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
