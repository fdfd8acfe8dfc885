//! Requests to the hub, with an end to each: so many redirects, so long without an answer.
//!
//! Nothing that a server says is trusted here: redirects lead to `https` alone (from a plain endpoint also to `http`), and
//! the token is shown to the endpoint's host alone.

use std::io;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{HeaderMap, Response, StatusCode, Uri, header};

use super::Settings;
const ENDPOINT: &str = "https://huggingface.co";

/// One more is a loop.
const REDIRECTS: usize = 10;

/// The longest listing of a repository that is read.
const LISTING: u64 = 32 << 20;

/// Asks the hub for files and listings.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    /// How long nothing may happen.
    pub patience: Duration,
}

/// Why a request failed.
pub(super) enum Failure {
    /// Nobody answers, or no more.
    Unreachable(String),
    /// An answer that says so.
    Status(u16),
    /// An answer that no hub gives.
    Answer(String),
}

/// The answer at the end of all redirects.
pub(super) struct Answer {
    pub response: Response<ureq::Body>,
    /// The name of the contents: of the first answer that states one.
    pub etag: Option<String>,
    /// The length of the whole file: of the first answer that states it.
    pub size: Option<u64>,
}

impl Client {
    pub fn new(settings: &Settings) -> Self {
        let patience = settings.patience;
        let config = Agent::config_builder()
            .user_agent(concat!("clasp/", env!("CARGO_PKG_VERSION")))
            // The body as it is, so that its length is the stated one.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(Some(patience))
            .timeout_connect(Some(patience))
            .timeout_recv_response(Some(patience))
            .timeout_per_read(Some(patience))
            .timeout_per_write(Some(patience))
            .build();
        Self {
            agent: config.new_agent(),
            endpoint: settings.endpoint.clone().unwrap_or_else(|| ENDPOINT.to_owned()),
            token: settings.token.clone(),
            patience,
        }
    }

    /// What the repository has at a revision; as a whole it may take as long as one answer.
    pub fn listing(&self, id: &str, revision: &str) -> Result<Vec<u8>, Failure> {
        let revision = revision.replace('/', "%2F");
        let path = format!("api/models/{id}/revision/{revision}?blobs=true");
        let mut answer = self.get(&path, 0, Some(self.patience))?;
        answer.response.body_mut().with_config().limit(LISTING).read_to_vec().map_err(Failure::from)
    }

    /// A file at a commit, from its byte `start` on.
    pub fn file(&self, id: &str, commit: &str, name: &str, start: u64) -> Result<Answer, Failure> {
        self.get(&format!("{id}/resolve/{commit}/{name}"), start, None)
    }

    fn get(&self, path: &str, start: u64, whole: Option<Duration>) -> Result<Answer, Failure> {
        let parse = |address: &str| {
            let problem = || Failure::Answer(format!("it leads to {:?}, which is no address of a hub", clean(address)));
            address.parse::<Uri>().map_err(|_| problem())
        };
        let origin = parse(&self.endpoint).map_err(|_| Failure::Unreachable("HF_ENDPOINT is no address".into()))?;
        let mut address = parse(&format!("{}/{path}", self.endpoint))?;
        let (mut etag, mut size) = (None, None);
        for _ in 0..=REDIRECTS {
            let mut request = self.agent.get(&address);
            if let Some(token) = self.token.as_ref().filter(|_| is_same_origin(&address, &origin)) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if start > 0 {
                request = request.header(header::RANGE, format!("bytes={start}-"));
            }
            let response = request.config().timeout_global(whole).build().call()?;
            let text = |name: &str| text_of(response.headers(), name);
            etag = etag.or_else(|| etag_of(text("x-linked-etag").or_else(|| text("etag"))?));
            size = size.or_else(|| text("x-linked-size")?.parse().ok());
            let status = response.status();
            if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
                let place = text("location").ok_or_else(|| Failure::Answer(format!("status {status} to nowhere")))?;
                address = parse(&absolute(&address, place))?;
                let is_secure = address.scheme_str() == Some("https");
                let may_be_plain = address.scheme_str() == Some("http") && origin.scheme_str() == Some("http");
                if !(is_secure || may_be_plain) || address.host().is_none() {
                    return Err(Failure::Answer(format!(
                        "it leads to {:?}, which is no address of a hub",
                        clean(place)
                    )));
                }
                continue;
            }
            if !status.is_success() {
                return Err(Failure::Status(status.as_u16()));
            }
            return Ok(Answer { response, etag, size });
        }
        Err(Failure::Answer(format!("more than {REDIRECTS} redirects")))
    }
}

impl From<ureq::Error> for Failure {
    fn from(problem: ureq::Error) -> Self {
        match problem {
            ureq::Error::BodyExceedsLimit(limit) => Self::Answer(format!("it is longer than {limit} bytes")),
            ureq::Error::Protocol(problem) => Self::Answer(clean(&problem.to_string())),
            ureq::Error::Http(problem) => Self::Answer(clean(&problem.to_string())),
            other => Self::Unreachable(clean(&other.to_string())),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(problem: io::Error) -> Self {
        Self::Unreachable(clean(&problem.to_string()))
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// An etag that can be the name of a file: letters, digits and dashes.
fn etag_of(header: &str) -> Option<String> {
    let etag = header.trim().trim_start_matches("W/").trim_matches('"');
    let is_name =
        (1..=128).contains(&etag.len()) && etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_name.then(|| etag.to_owned())
}

fn is_same_origin(address: &Uri, endpoint: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().or_else(|| (uri.scheme_str() == Some("https")).then_some(443)).unwrap_or(80);
    let is_same_host = match (address.host(), endpoint.host()) {
        (Some(left), Some(right)) => left.eq_ignore_ascii_case(right),
        _ => false,
    };
    is_same_host && address.scheme() == endpoint.scheme() && port(address) == port(endpoint)
}

/// Where a redirect leads, seen from the address that gave it.
fn absolute(from: &Uri, place: &str) -> String {
    let scheme = from.scheme_str().unwrap_or("https");
    match from.authority() {
        Some(_) if place.starts_with("//") => format!("{scheme}:{place}"),
        Some(authority) if place.starts_with('/') => format!("{scheme}://{}{place}", authority.as_str()),
        _ => place.to_owned(),
    }
}

/// A server's words as they can be quoted: short, without control characters.
pub(super) fn clean(words: &str) -> String {
    let letter = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
    words.chars().take(200).map(letter).collect()
}
