//! Who may come in: Host, Origin and token of every request, and the headers of every answer. Owns the secrets of a
//! run; must not know votes.
//!
//! The printed link carries a token. It is exchanged once for a cookie that scripts cannot read (HttpOnly), that no
//! other site's page can make the browser send (SameSite=Strict), and that belongs to one path of this run, because
//! browsers share cookies between the ports of a host. Host is checked because a name of somebody else's may be made to
//! point here (DNS rebinding); Origin because other pages may send requests without reading the answers.
use crate::error::{Error, Result};
use crate::lock;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, Request, uri::Authority};
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// What every answer carries: nothing may be loaded, run, framed or sent anywhere else, and nothing is kept.
const HEADERS: [(&str, &str); 8] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("x-robots-tag", "noindex"),
];

/// The checks of one run.
pub struct Gate {
    address: SocketAddr,
    machine: String,
    others: Vec<String>,
    token: String,
    cookie: String,
    path: String,
}

/// Why a request does not come in, in words for whoever sent it.
#[derive(Debug, PartialEq)]
pub enum Denied {
    /// 400: no Host, two of them, or one that is none.
    Malformed(&'static str),
    /// 403: another's name or page.
    Foreign(&'static str),
    /// 401: no token of this run.
    Stranger,
}

impl Gate {
    /// Secrets anew from the system's randomness; `others` are names besides the address that may be asked for.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new(address: SocketAddr, others: &[String]) -> Result<Self> {
        let others = others.iter().map(|name| name.to_ascii_lowercase()).collect();
        let (token, cookie, path) = (secret(16)?, secret(16)?, secret(8)?);
        Ok(Self { address, machine: lock::host().to_ascii_lowercase(), others, token, cookie, path })
    }

    /// Where the page lies: `/0123456789abcdef`.
    pub fn base(&self) -> String {
        format!("/{}", self.path)
    }

    /// The link to print: an address that other machines reach, where the server listens on all.
    pub fn link(&self) -> String {
        let ip = self.address.ip();
        let port = self.address.port();
        let ip = if ip.is_unspecified() { outward(ip) } else { Some(ip) };
        let host = match ip {
            None => self.machine.clone(),
            Some(IpAddr::V4(ip)) => ip.to_string(),
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        };
        format!("http://{host}:{port}/?token={}", self.token)
    }

    /// The cookie that the token is exchanged for.
    pub fn set_cookie(&self) -> String {
        format!("{}={}; Path={}; HttpOnly; SameSite=Strict", self.cookie_name(), self.cookie, self.base())
    }

    fn cookie_name(&self) -> String {
        format!("collimate_{}", self.path)
    }

    /// Whether a request may come in. The link itself needs its token, everything else the cookie.
    ///
    /// # Errors
    /// Why not.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), Denied> {
        let host = self.check_host(request)?;
        self.check_origin(request.method(), request.headers(), &host)?;
        let is_link = request.uri().path() == "/";
        let known = if is_link {
            let query = request.uri().query().unwrap_or_default();
            query.strip_prefix("token=").is_some_and(|token| is_same(token, &self.token))
        } else {
            self.has_cookie(request.headers())
        };
        if known { Ok(()) } else { Err(Denied::Stranger) }
    }

    /// The request's Host, in small letters.
    fn check_host<B>(&self, request: &Request<B>) -> Result<String, Denied> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Denied::Malformed("the request needs one Host header"));
        };
        let host = host.to_str().unwrap_or_default().to_ascii_lowercase();
        if request.uri().authority().is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(&host)) {
            return Err(Denied::Malformed("the request names two hosts"));
        }
        if self.is_ours(&host) {
            return Ok(host);
        }
        Err(Denied::Foreign("this Host is not served here; use the printed link, or start with --allow-host"))
    }

    fn is_ours(&self, host: &str) -> bool {
        if self.others.iter().any(|other| other == host) {
            return true;
        }
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if host.contains('@') || authority.port_u16().unwrap_or(80) != self.address.port() {
            return false;
        }
        let name = authority.host();
        let own = self.address.ip();
        if self.others.iter().any(|other| other == name) {
            return true;
        }
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // An address of numbers cannot be pointed elsewhere.
            Ok(ip) => ip == own || own.is_unspecified(),
            Err(_) if name == "localhost" => own.is_loopback() || own.is_unspecified(),
            Err(_) => !own.is_loopback() && (name == self.machine || name == format!("{}.local", self.machine)),
        }
    }

    fn check_origin(&self, method: &Method, headers: &HeaderMap, host: &str) -> Result<(), Denied> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) if *method == Method::GET || *method == Method::HEAD => return Ok(()),
            (Some(origin), None) => origin.to_str().unwrap_or_default().to_ascii_lowercase(),
            _ => return Err(Denied::Foreign("the request needs one Origin header")),
        };
        // A name of --allow-host may belong to a proxy that speaks TLS.
        let by_proxy = || self.others.iter().any(|other| other == host) && origin == format!("https://{host}");
        if origin == format!("http://{host}") || by_proxy() {
            return Ok(());
        }
        Err(Denied::Foreign("the request comes from another page"))
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let name = self.cookie_name();
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(found, value)| found == name && is_same(value, &self.cookie))
    }
}

/// The address by which this machine would speak to others; asking the system for the way sends nothing.
fn outward(any: IpAddr) -> Option<IpAddr> {
    let elsewhere = if any.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(elsewhere).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Sets the headers that every answer carries.
pub fn harden(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

/// Compares sums, so that the time it takes tells nothing of the secret.
fn is_same(given: &str, secret: &str) -> bool {
    Sha256::digest(given.as_bytes()) == Sha256::digest(secret.as_bytes())
}

/// So many bytes of the system's randomness, in hexadecimal.
///
/// # Errors
/// The system gives none.
pub fn secret(bytes: usize) -> Result<String> {
    let mut buffer = vec![0u8; bytes];
    let filled = SysRng.try_fill_bytes(&mut buffer);
    filled.map_err(|error| Error::usage(format!("the system gives no randomness: {error}"), "try again"))?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}
