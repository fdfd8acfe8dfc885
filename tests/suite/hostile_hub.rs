//! `clasp models fetch` against a hub that lies, stalls and leads astray: nothing outside the cache is touched, the
//! token stays with the endpoint's host, and everything ends.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::program::{Said, program, tiny_run};

const COMMIT: &str = "c0ffee0000000000000000000000000000000001";
const WEIGHTS: &str = "model.safetensors";

/// A request: host, mode, the rest of the path, the first byte of its range, whether it shows a token.
#[derive(Clone, Debug)]
struct Request {
    host: String,
    mode: String,
    rest: String,
    start: usize,
    has_token: bool,
}

/// The hub: the first word of a path says how it misbehaves.
struct Hub {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// What a thread of the hub knows.
#[derive(Clone)]
struct Server {
    files: Arc<BTreeMap<String, Vec<u8>>>,
    victim: PathBuf,
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    fn start(victim: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/loading/roberta-pooler");
        let read = |path: PathBuf| fs::read(path).unwrap();
        let files = BTreeMap::from([
            ("config.json".to_owned(), read(fixture.join("config.json"))),
            (WEIGHTS.to_owned(), read(fixture.join(WEIGHTS))),
            ("tokenizer.json".to_owned(), read(tiny_run().join("best/tokenizer.json"))),
        ]);
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::default();
        let server =
            Server { files: Arc::new(files), victim: victim.to_owned(), port, requests: Arc::clone(&requests) };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let server = server.clone();
                // Who hangs up is no concern of the hub.
                thread::spawn(move || drop(server.answer(stream.unwrap())));
            }
        });
        Self { address: format!("http://127.0.0.1:{port}"), requests }
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The first line and the headers of an answer.
fn head(stream: &mut TcpStream, status: &str, headers: &str) -> io::Result<()> {
    stream.write_all(format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n").as_bytes())
}

fn whole(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> io::Result<()> {
    head(stream, status, &format!("{headers}content-length: {}\r\n", body.len()))?;
    stream.write_all(body)
}

/// Until the other side hangs up.
fn forever(stream: &mut TcpStream, piece: &[u8], pause: Duration) -> io::Result<()> {
    loop {
        stream.write_all(piece)?;
        thread::sleep(pause);
    }
}

const AT_ONCE: Duration = Duration::ZERO;
const SLOWLY: Duration = Duration::from_millis(100);

impl Server {
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let headers: Vec<String> =
            lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).collect::<Result<_, _>>()?;
        let header = |name: &str| {
            let mut found = headers.iter().filter_map(|line| line.split_once(": "));
            found.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let path = first.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
        let (mode, rest) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
        let start = header("range").and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
        let request = Request {
            host: header("host").unwrap_or_default(),
            mode: mode.to_owned(),
            rest: rest.to_owned(),
            start: start.unwrap_or(0),
            has_token: header("authorization").is_some_and(|words| words.contains("hf_secret")),
        };
        self.requests.lock().unwrap().push(request.clone());
        if mode == "target" {
            return whole(&mut stream, "200 OK", "", b"TARGET");
        }
        if rest.starts_with("api/") {
            return self.list(&mut stream, mode, &path);
        }
        self.send(&mut stream, &request, &path, start.is_some())
    }

    fn listing(&self, mode: &str) -> Value {
        let listed = |(name, bytes): (&String, &Vec<u8>)| {
            let hash = sha256(bytes);
            let mut file = json!({ "rfilename": name, "size": bytes.len(), "blobId": &hash[..40] });
            if name == WEIGHTS {
                file["lfs"] = json!({ "sha256": hash, "size": bytes.len() });
            }
            file
        };
        let mut files: Vec<Value> = self.files.iter().map(listed).collect();
        let place = files.iter().position(|file| file["rfilename"] == WEIGHTS).unwrap();
        match mode {
            "namesevil" => {
                files.push(json!({ "rfilename": "../../../../../evil.txt", "size": 4 }));
                files.push(json!({ "rfilename": self.victim, "size": 4 }));
            }
            "blobevil" => files[0]["blobId"] = json!("../../../../../EVILBLOB"),
            "blobvictim" => files[0]["blobId"] = json!(self.victim),
            "blobdots" => files[0]["blobId"] = json!(".."),
            "lfsevil" => files[place]["lfs"]["sha256"] = json!("../../../../../EVILBLOB"),
            "sizenone" | "sizenoneetag" | "sizenonelength" => {
                for file in &mut files {
                    *file = json!({ "rfilename": file["rfilename"] });
                }
            }
            "sizelie" => files[place]["size"] = json!(10_u64.pow(15)),
            "sizeless" => files[place]["size"] = json!(100),
            "sizemore" => files[place]["size"] = json!(20_000),
            "sizeconfig" => files[0]["size"] = json!(1_u64 << 33),
            "sizeneg" => files[place]["size"] = json!(-5),
            "sizehuge" => files[place]["size"] = json!(1e30),
            "sizezero" => files[place]["size"] = json!(0),
            "twice" => {
                let mut second = files[place].clone();
                second["lfs"]["sha256"] = json!("0".repeat(64));
                files.push(second);
            }
            "shards" | "shardname" | "shardmap" | "sharddots" => {
                files[place] = json!({ "rfilename": "model.safetensors.index.json", "size": null });
                files.push(json!({ "rfilename": "%2e%2e%2fevil.safetensors", "size": 4 }));
                files.push(json!({ "rfilename": "..", "size": 4 }));
            }
            _ => {}
        }
        let commit = match mode {
            "shaempty" => "",
            "shaevil" => "../../../../evil",
            "shashort" => "c0ffee",
            "shaletters" => "z0ffee0000000000000000000000000000000001",
            _ => COMMIT,
        };
        json!({ "id": "x", "sha": commit, "siblings": files })
    }

    fn list(&self, stream: &mut TcpStream, mode: &str, path: &str) -> io::Result<()> {
        let redirect = |place: &str| format!("location: {place}\r\ncontent-length: 0\r\n");
        match mode {
            "api500" => whole(stream, "500 Error", "", b"x"),
            "api429" => whole(stream, "429 Slow", "retry-after: 100000\r\n", b"x"),
            "api404" => whole(stream, "404 Not Found", "", b"{}"),
            "api401" => whole(stream, "401 Unauthorized", "", b"{}"),
            "apigarbage" => whole(stream, "200 OK", "", &[0xff, 0, 1, 0xfe, 0x1b, b'[', b'2', b'J']),
            "apihtml" => whole(stream, "200 OK", "", b"<html>captive portal</html>"),
            "apinest" => whole(stream, "200 OK", "", &vec![b'['; 1_000_000]),
            "apicut" => {
                head(stream, "200 OK", "content-length: 1000\r\n")?;
                stream.write_all(b"{\"sha\":")
            }
            "apihuge" => {
                head(stream, "200 OK", "content-length: 1000000000000\r\n")?;
                forever(stream, &vec![b' '; 100_000], AT_ONCE)
            }
            "apichunks" => {
                head(stream, "200 OK", "transfer-encoding: chunked\r\n")?;
                forever(stream, b"a\r\n          \r\n", AT_ONCE)
            }
            "apihold" => {
                thread::sleep(Duration::from_secs(30));
                Ok(())
            }
            "apislow" => {
                head(stream, "200 OK", "content-length: 1000\r\n")?;
                forever(stream, b" ", SLOWLY)
            }
            "apiheaders" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
                forever(stream, format!("X-A: {}\r\n", "a".repeat(10_000)).as_bytes(), AT_ONCE)
            }
            "apislowheaders" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nX-A: ")?;
                forever(stream, b"a", SLOWLY)
            }
            "apinohttp" => stream.write_all(b"220 smtp ready\r\n"),
            "apiescape" => whole(stream, "200 OK", "", br#"{"sha": "\u001b[2J\n\u0007", "siblings": []}"#),
            "apiredirfile" => head(stream, "302 Found", &redirect("file:///etc/passwd")),
            "apinowhere" => head(stream, "302 Found", "content-length: 0\r\n"),
            "apiredirother" => head(stream, "302 Found", &redirect(&format!("http://localhost:{}/target", self.port))),
            "apirediruser" => {
                head(stream, "302 Found", &redirect(&format!("http://127.0.0.1@localhost:{}/target", self.port)))
            }
            "apiredirscheme" => head(stream, "302 Found", &redirect(&format!("//localhost:{}/target", self.port))),
            "apiredirport" => head(stream, "302 Found", &redirect("http://127.0.0.1:1/target")),
            "apiloop" => head(stream, "302 Found", &redirect(path)),
            _ => whole(stream, "200 OK", "", self.listing(mode).to_string().as_bytes()),
        }
    }

    fn send(&self, stream: &mut TcpStream, request: &Request, path: &str, is_range: bool) -> io::Result<()> {
        let mode = &*request.mode;
        let name = request.rest.rsplit('/').next().unwrap_or_default();
        let map = match mode {
            "shards" => json!({ "a": "../../../../../../etc/passwd", "b": "/etc/passwd" }),
            "shardname" => json!({ "a": "%2e%2e%2fevil.safetensors" }),
            "sharddots" => json!({ "a": ".." }),
            _ => json!({ "a": "\u{1b}[2J" }),
        };
        let index = json!({ "weight_map": map }).to_string().into_bytes();
        let bytes = if name.ends_with("index.json") { Some(&index) } else { self.files.get(name) };
        let Some(bytes) = bytes else { return whole(stream, "404 Not Found", "", b"no") };
        let start = request.start;
        let (all, part) = (bytes.len(), bytes.get(start..).unwrap_or_default());
        let hash = sha256(bytes);
        let victim = self.victim.display();
        let is_weights = name == WEIGHTS;
        let etag = match mode {
            "etagevil" if is_weights => "etag: \"../../../../../../EVILETAG\"\r\n".to_owned(),
            "etagvictim" | "sizenoneetag" if is_weights => format!("etag: \"{victim}\"\r\n"),
            "etaglinked" if is_weights => format!("x-linked-etag: \"{victim}\"\r\netag: \"{hash}\"\r\n"),
            "etagnone" => String::new(),
            _ => format!("etag: \"{hash}\"\r\n"),
        };
        let commit = if mode == "commitevil" { "../../../../evil" } else { COMMIT };
        let common = format!("x-repo-commit: {commit}\r\naccept-ranges: bytes\r\n{etag}");
        let range = |first: usize, all: usize| format!("{common}content-range: bytes {first}-{}/{all}\r\n", all - 1);
        let redirect = |place: &str| format!("{common}location: {place}\r\ncontent-length: 0\r\n");
        let status = if is_range { "206 Partial Content" } else { "200 OK" };
        if !is_weights {
            return whole(stream, status, &if is_range { range(start, all) } else { common.clone() }, part);
        }
        match mode {
            "wronghash" => {
                let mut other = part.to_vec();
                *other.last_mut().unwrap() ^= 1;
                whole(stream, status, &range(start, all), &other)
            }
            "file500" => whole(stream, "500 Error", "", b"x"),
            "file503" => whole(stream, "503 Later", "retry-after: 100000\r\n", b"x"),
            "file403" => whole(stream, "403 Forbidden", "", b"x"),
            "file416" => whole(stream, "416 Range", "", b"x"),
            "redirfile" => head(
                stream,
                "302 Found",
                &(format!("x-linked-etag: \"{hash}\"\r\nx-linked-size: {all}\r\n") + &redirect("file:///etc/passwd")),
            ),
            "redirother" => head(stream, "302 Found", &redirect(&format!("http://127.0.0.1:{}/target", self.port))),
            "redirtoken" => head(stream, "302 Found", &redirect(&format!("http://localhost:{}/target", self.port))),
            "redirgood" => {
                let place = format!("http://localhost:{}/good/x/resolve/{COMMIT}/{WEIGHTS}", self.port);
                head(stream, "302 Found", &redirect(&place))
            }
            "redirloop" => head(stream, "302 Found", &redirect(path)),
            "redirgrow" => head(stream, "302 Found", &redirect(&path.replace("/resolve/", "/resolve/x/"))),
            "crlen" => whole(stream, "206 Partial Content", &range(start, 10_usize.pow(15)), part),
            "crother" => whole(stream, "206 Partial Content", &range(start + 1, all), part),
            "crbad" => whole(stream, "206 Partial Content", &format!("{common}content-range: bytes x-y/z\r\n"), part),
            "crnone" => whole(stream, "206 Partial Content", &common, part),
            "trunc" => {
                head(stream, status, &format!("{}content-length: {}\r\n", range(start, all), part.len()))?;
                stream.write_all(&part[..part.len() / 2])
            }
            "truncclean" => whole(stream, "206 Partial Content", &range(start, all), &part[..part.len() / 2]),
            "drip" => {
                head(stream, status, &format!("{}content-length: {}\r\n", range(start, all), part.len()))?;
                stream.write_all(&part[..1])
            }
            "infinite" | "sizenonelength" => {
                head(stream, status, &common)?;
                forever(stream, &vec![0; 100_000], AT_ONCE)
            }
            "infinitelength" => {
                head(stream, status, &format!("{common}content-length: 10000000000000\r\n"))?;
                forever(stream, &vec![0; 100_000], AT_ONCE)
            }
            "infinitechunks" => {
                head(stream, status, &format!("{common}transfer-encoding: chunked\r\n"))?;
                forever(stream, b"a\r\n          \r\n", AT_ONCE)
            }
            "hold" => {
                thread::sleep(Duration::from_secs(30));
                Ok(())
            }
            "stall" => {
                head(stream, status, &format!("{}content-length: {}\r\n", range(start, all), part.len()))?;
                stream.write_all(if start == 0 { &part[..5000] } else { &[] })?;
                thread::sleep(Duration::from_secs(30));
                Ok(())
            }
            "trickle" => {
                head(stream, status, &format!("{common}content-length: {}\r\n", part.len()))?;
                for byte in part {
                    stream.write_all(&[*byte])?;
                    thread::sleep(SLOWLY);
                }
                Ok(())
            }
            // It knows no ranges.
            "noranges" => whole(stream, "200 OK", &common, bytes),
            _ => whole(stream, status, &if is_range { range(start, all) } else { common }, part),
        }
    }
}

/// A cache deep in a folder, a file that is none of its business, and the hub.
struct Place {
    folder: tempfile::TempDir,
    hub: Hub,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim.txt");
        fs::write(&victim, "mine").unwrap();
        let hub = Hub::start(&victim);
        Self { folder, hub }
    }

    /// Fetches with a token and two seconds of patience.
    fn fetch(&self, mode: &str) -> Said {
        let mut command = program(self.folder.path());
        for name in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.home()).env("HF_TOKEN", "hf_secret").env("HF_HUB_DOWNLOAD_TIMEOUT", "2");
        command.env("HF_ENDPOINT", format!("{}/{mode}", self.hub.address)).args(["models", "fetch", "x"]);
        let start = Instant::now();
        let said = Said::of(&command.output().unwrap());
        assert!(start.elapsed() < Duration::from_secs(20), "{mode} took {:?}", start.elapsed());
        assert!(!(said.stderr.clone() + &said.stdout).contains("hf_secret"), "{mode}");
        assert!(said.stderr.chars().all(|letter| letter == '\n' || !letter.is_control()), "{mode}: {:?}", said.stderr);
        said
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("a/b/c/d/e/f/hf")
    }

    /// Nothing but the cache and the file is there, that is as it was, and links lead to blobs.
    fn check(&self, mode: &str) {
        assert_eq!(fs::read_to_string(self.folder.path().join("victim.txt")).unwrap(), "mine", "{mode}");
        let model = self.home().join("hub/models--x");
        let mut bytes = 0;
        for path in files(self.folder.path()) {
            if path == self.folder.path().join("victim.txt") {
                continue;
            }
            let inner =
                path.strip_prefix(self.home().join("hub")).unwrap_or_else(|_| panic!("{mode}: {}", path.display()));
            let words: Vec<&str> = inner.iter().map(|word| word.to_str().unwrap()).collect();
            let is_hash = |word: &str| word.len() >= 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            match words[..] {
                [".locks", "models--x", name] => {
                    assert!(is_hash(name.strip_suffix(".lock").unwrap()), "{}", inner.display());
                }
                ["models--x", "blobs", name] => {
                    assert!(is_hash(name.strip_suffix(".incomplete").unwrap_or(name)), "{}", inner.display());
                    bytes += fs::metadata(&path).unwrap().len();
                }
                ["models--x", "refs", "main"] => {}
                ["models--x", "snapshots", COMMIT, _] => {
                    let target = fs::canonicalize(&path).unwrap();
                    assert!(
                        target.starts_with(fs::canonicalize(model.join("blobs")).unwrap()),
                        "{mode}: {}",
                        target.display()
                    );
                }
                _ => panic!("{mode}: {}", inner.display()),
            }
        }
        assert!(bytes < 200_000, "{mode}: {bytes} bytes");
        for request in self.hub.requests.lock().unwrap().drain(..) {
            assert_eq!(request.has_token, request.host == self.hub.address[7..], "{request:?}");
        }
    }
}

/// All files and links below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn a_hub_that_lies_harms_nothing() {
    const USELESS: &str = "answer for x is unusable";
    const AWAY: &str = "cannot reach the hub for x";
    const BROKEN: &str = "model.safetensors of x was interrupted";
    let bad: &[(&str, i32, &[&str])] = &[
        ("api500", 1, &[USELESS, "status 500"]),
        ("api429", 1, &[USELESS, "status 429"]),
        ("api404", 2, &["the hub has no model x"]),
        ("api401", 2, &["status 401"]),
        ("apigarbage", 1, &[USELESS]),
        ("apihtml", 1, &[USELESS]),
        ("apinest", 1, &[USELESS]),
        ("apicut", 1, &["hub"]),
        ("apihuge", 1, &[USELESS, "longer than"]),
        ("apichunks", 1, &["hub"]),
        ("apihold", 1, &[AWAY, "timeout"]),
        ("apislow", 1, &[AWAY, "timeout"]),
        ("apiheaders", 1, &["hub"]),
        ("apislowheaders", 1, &[AWAY, "timeout"]),
        ("apinohttp", 1, &["hub"]),
        ("apiescape", 1, &[USELESS]),
        ("apiredirfile", 1, &[USELESS, "file:///etc/passwd"]),
        ("apinowhere", 1, &[USELESS]),
        ("apiredirother", 1, &[USELESS]),
        ("apirediruser", 1, &[USELESS]),
        ("apiredirscheme", 1, &[USELESS]),
        ("apiredirport", 1, &[AWAY]),
        ("apiloop", 1, &[USELESS, "more than 10 redirects"]),
        ("shaempty", 1, &[USELESS, "is no commit"]),
        ("shaevil", 1, &[USELESS, "is no commit"]),
        ("shashort", 1, &[USELESS, "is no commit"]),
        ("shaletters", 1, &[USELESS, "is no commit"]),
        ("blobevil", 1, &[USELESS, "config.json"]),
        ("blobvictim", 1, &[USELESS, "config.json"]),
        ("blobdots", 1, &[USELESS, "config.json"]),
        ("lfsevil", 1, &[USELESS, "model.safetensors"]),
        ("sizenoneetag", 1, &[USELESS, "etag"]),
        ("sizenonelength", 1, &[USELESS, "no length"]),
        ("sizelie", 1, &["model.safetensors of x has 909 TiB, but only", "are free", "HF_HOME"]),
        ("sizeless", 1, &[USELESS, "it sends 15120 bytes instead of 100"]),
        ("sizemore", 1, &[USELESS, "another part than from byte 15120 of 20000"]),
        ("sizeconfig", 1, &[USELESS, "config.json: it is said to have 8 GiB"]),
        ("sizeneg", 1, &[USELESS]),
        ("sizehuge", 1, &[USELESS]),
        ("sizezero", 1, &["arrived damaged", "SHA-256"]),
        ("shards", 1, &[USELESS, "lies in another folder"]),
        ("shardname", 1, &[USELESS, "no name of a shard"]),
        ("sharddots", 1, &[USELESS, "no name of a shard"]),
        ("shardmap", 1, &[USELESS, "no name of a shard"]),
        ("wronghash", 1, &["arrived damaged", "SHA-256"]),
        ("file500", 1, &[BROKEN, "status 500"]),
        ("file503", 1, &[BROKEN, "status 503"]),
        ("file403", 2, &["status 403"]),
        ("file416", 1, &[USELESS, "status 416"]),
        ("redirfile", 1, &[USELESS, "file:///etc/passwd"]),
        ("redirother", 1, &[BROKEN, "6 of 15120 bytes"]),
        ("redirtoken", 1, &[BROKEN, "6 of 15120 bytes"]),
        ("redirloop", 1, &[USELESS, "more than 10 redirects"]),
        ("redirgrow", 1, &[USELESS, "more than 10 redirects"]),
        ("crlen", 1, &[USELESS, "another part"]),
        ("crother", 1, &[USELESS, "another part"]),
        ("crbad", 1, &[USELESS, "another part"]),
        ("trunc", 1, &[BROKEN, "the same command resumes it"]),
        ("truncclean", 1, &[BROKEN, "the same command resumes it"]),
        ("drip", 1, &[BROKEN, "the same command resumes it"]),
        ("infinite", 1, &[USELESS, "more than the stated 15120 bytes"]),
        ("infinitelength", 1, &[USELESS, "it sends 10000000000000 bytes instead of 15120"]),
        ("infinitechunks", 1, &[USELESS, "more than the stated 15120 bytes"]),
        ("hold", 1, &[BROKEN, "timeout"]),
        ("stall", 1, &[BROKEN, "the same command resumes it"]),
        ("trickle", 1, &[BROKEN, "bytes in 2", "the same command resumes it"]),
    ];
    thread::scope(|scope| {
        for part in bad.chunks(bad.len().div_ceil(4)) {
            scope.spawn(move || {
                for (mode, code, parts) in part {
                    let place = Place::new();
                    place.fetch(mode).bad_line(*code, parts);
                    place.check(mode);
                    // The branch does not lead to what is not complete.
                    assert!(!place.home().join("hub/models--x/refs/main").exists(), "{mode}");
                }
            });
        }
    });
}

#[test]
fn what_a_hub_says_needlessly_is_not_used() {
    let good = [
        "good",
        "namesevil",
        "etagevil",
        "etagvictim",
        "etaglinked",
        "etagnone",
        "commitevil",
        "sizenone",
        "crnone",
        "noranges",
        "redirgood",
        "twice",
    ];
    for mode in good {
        let place = Place::new();
        let said = place.fetch(mode).good();
        assert!(said.stderr.contains("is complete"), "{mode}: {}", said.stderr);
        place.check(mode);
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/loading/roberta-pooler");
        let fetched = fs::read(Path::new(said.stdout.trim()).join(WEIGHTS)).unwrap();
        assert_eq!(fetched, fs::read(fixture.join(WEIGHTS)).unwrap(), "{mode}");
    }
}

#[test]
fn what_stalls_goes_on_with_the_same_command() {
    for (second, starts) in [("good", vec![5000]), ("noranges", vec![5000])] {
        let place = Place::new();
        place.fetch("stall").bad_line(1, &["was interrupted", "the same command resumes it"]);
        place.check("stall");
        let folder = place.fetch(second).good().stdout;
        let requests = place.hub.requests.lock().unwrap().clone();
        let found: Vec<usize> =
            requests.iter().filter(|request| request.rest.ends_with(WEIGHTS)).map(|request| request.start).collect();
        assert_eq!(found, starts, "{second}");
        assert_eq!(sha256(&fs::read(Path::new(folder.trim()).join(WEIGHTS)).unwrap()).len(), 64);
        place.check(second);
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let place = Place::new();
    let run = |name: &str, value: &str| {
        let mut command = program(place.folder.path());
        command.env("HF_HOME", place.home()).env("HF_ENDPOINT", format!("{}/good", place.hub.address));
        command.env(name, value).args(["models", "fetch", "x"]);
        Said::of(&command.output().unwrap())
    };
    run("HF_TOKEN", "a b").bad_line(2, &["HF_TOKEN"]);
    run("HF_TOKEN", "a\nX-Evil: 1").bad_line(2, &["HF_TOKEN"]);
    for value in ["0", "-1", "soon", "1.5"] {
        run("HF_HUB_DOWNLOAD_TIMEOUT", value).bad_line(2, &["HF_HUB_DOWNLOAD_TIMEOUT", value, "whole seconds"]);
    }
}

#[test]
fn two_do_not_fetch_the_same_file() {
    let place = Place::new();
    let locks = place.home().join("hub/.locks/models--x");
    fs::create_dir_all(&locks).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/loading/roberta-pooler");
    let hash = sha256(&fs::read(fixture.join(WEIGHTS)).unwrap());
    let lock = fs::File::create(locks.join(format!("{hash}.lock"))).unwrap();
    lock.try_lock().unwrap();
    place.fetch("good").bad_line(1, &["another process downloads model.safetensors of x"]);
    drop(lock);
    place.fetch("good").good();
}
