//! Who comes in, and what every answer carries.
#![allow(clippy::unwrap_used)]
use super::client::{Answer, Server, ballot, id, send, with_pairs};
use serde_json::json;

/// Every route with its method; `/` is the link.
const ROUTES: [(&str, &str); 12] = [
    ("GET", "/"),
    ("GET", "/style.css"),
    ("GET", "/theme.js"),
    ("GET", "/app.js"),
    ("GET", "/pair.js"),
    ("GET", "/diff.js"),
    ("GET", "/panels.js"),
    ("POST", "/api/about"),
    ("POST", "/api/next"),
    ("POST", "/api/vote"),
    ("POST", "/api/undo"),
    ("POST", "/api/statistics"),
];

fn body_of(route: &str) -> String {
    let body = match route {
        "/api/next" => json!({ "annotator": "anna" }),
        "/api/vote" => ballot("anna", &json!("1.1"), "left"),
        "/api/undo" => json!({ "annotator": "anna", "undo": id() }),
        _ => json!({}),
    };
    body.to_string()
}

/// What stands in an answer's headers, whatever it says.
#[track_caller]
fn is_hardened(answer: &Answer) {
    let policy = answer.header("content-security-policy").unwrap();
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(rule), "{rule} in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name} of {answer:?}");
    }
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[test]
fn every_route_checks_host_origin_and_token() {
    let sandbox = with_pairs(4);
    let server = Server::start(&sandbox, &[]);
    let own = server.address.clone();
    let port = own.split(':').nth(1).unwrap().to_owned();
    let origin = format!("http://{own}");
    let wrong_cookie = format!("{}0", &server.cookie[..server.cookie.len() - 1]);
    let by_name = format!("localhost:{port}");
    let by_name_origin = format!("http://{by_name}");
    let evil_host = format!("evil.example:{port}");
    let evil_same = format!("http://evil.example:{port}");
    let user_host = format!("127.0.0.1:{port}@evil.example");
    let other_port = "127.0.0.1:1".to_owned();
    let log = sandbox.path("pairs.votes.jsonl");
    let before = std::fs::read(&log).unwrap();
    for (method, route) in ROUTES {
        let path = format!("{}{route}", server.base);
        let ask = |headers: &[(&str, &str)]| {
            let mut all = headers.to_vec();
            all.push(("Content-Type", "application/json"));
            let answer = send(
                &own,
                method,
                &path,
                &all,
                if method == "POST" { body_of(route) } else { String::new() }.as_bytes(),
            );
            is_hardened(&answer);
            answer.status
        };
        let cookie = ("Cookie", server.cookie.as_str());
        let good = ("Host", own.as_str());
        let from_us = ("Origin", origin.as_str());
        // Another name that was made to point here; with and without the Origin that fits it.
        assert_eq!(ask(&[("Host", &evil_host), cookie, from_us]), 403, "{route}");
        assert_eq!(ask(&[("Host", &evil_host), cookie, ("Origin", &evil_same)]), 403, "{route}");
        assert_eq!(ask(&[("Host", &user_host), cookie, from_us]), 403, "{route}");
        assert_eq!(ask(&[("Host", &other_port), cookie, from_us]), 403, "{route}");
        assert_eq!(ask(&[("Host", "127.0.0.1"), cookie, from_us]), 403, "{route}");
        assert_eq!(ask(&[cookie, from_us]), 400, "{route}: no Host");
        assert_eq!(ask(&[good, ("Host", "evil.example"), cookie, from_us]), 400, "{route}: two Hosts");
        // Another page.
        for other in
            ["http://evil.example", "null", "", "https://127.0.0.1", &format!("https://{own}"), &by_name_origin]
        {
            assert_eq!(ask(&[good, cookie, ("Origin", other)]), 403, "{route} from {other:?}");
        }
        assert_eq!(ask(&[good, cookie, from_us, ("Origin", "http://evil.example")]), 403, "{route}: two Origins");
        if method == "POST" {
            assert_eq!(ask(&[good, cookie]), 403, "{route}: no Origin");
        }
        // No token, or another run's.
        assert_eq!(ask(&[good, from_us]), 401, "{route}");
        assert_eq!(ask(&[good, from_us, ("Cookie", &wrong_cookie)]), 401, "{route}");
        assert_eq!(ask(&[good, from_us, ("Cookie", "collimate_=; a=b")]), 401, "{route}");
    }
    assert_eq!(std::fs::read(&log).unwrap(), before, "nothing that was refused is in the log");
    // And the same requests come in where nothing is wrong, under either name.
    for (method, route) in ROUTES {
        let path = format!("{}{route}", server.base);
        for (host, origin) in [(&own, &origin), (&by_name, &by_name_origin)] {
            let headers = [
                ("Host", host.as_str()),
                ("Origin", origin),
                ("Cookie", &server.cookie),
                ("Content-Type", "application/json"),
            ];
            let status = send(&own, method, &path, &headers, body_of(route).as_bytes()).status;
            // The second vote on the pair and its second undo do not fit, but they came in.
            let twice = ["/api/vote", "/api/undo"].contains(&route) && host == &by_name;
            assert!(status == 200 || (twice && status == 409), "{route} by {host}: {status}");
        }
    }
}

#[test]
fn the_link_is_exchanged_for_a_cookie_that_scripts_and_other_sites_do_not_get() {
    let sandbox = with_pairs(2);
    let server = Server::start(&sandbox, &[]);
    let (_, token) = server.link.split_once("/?token=").unwrap();
    assert_eq!(token.len(), 32);
    let host = ("Host", server.address.as_str());
    let entered = send(&server.address, "GET", &format!("/?token={token}"), &[host], b"");
    is_hardened(&entered);
    let cookie = entered.header("set-cookie").unwrap();
    assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Strict"), "{cookie}");
    assert!(cookie.contains(&format!("; Path={}", server.base)), "{cookie}");
    assert!(!cookie.contains(token) && !entered.body.contains(token), "the token goes no further");
    for wrong in ["/", "/?token=", "/?token=0", &format!("/?token={token}0"), &format!("/?x&token={token}"), "/?"] {
        let answer = send(&server.address, "GET", wrong, &[host], b"");
        assert_eq!((answer.status, answer.header("set-cookie")), (401, None), "{wrong}");
        is_hardened(&answer);
    }
    for (name, value) in [("Host", "evil.example"), ("Origin", "http://evil.example")] {
        let headers = if name == "Host" { vec![(name, value)] } else { vec![host, (name, value)] };
        let answer = send(&server.address, "GET", &format!("/?token={token}"), &headers, b"");
        assert_eq!((answer.status, answer.header("set-cookie")), (403, None), "{name}");
    }
    // Every run has secrets of its own.
    let (base, cookie, link) = (server.base.clone(), server.cookie.clone(), server.link.clone());
    server.kill();
    let again = Server::start(&sandbox, &[]);
    assert!(
        again.base != base && again.cookie != cookie && again.link.split_once("token=") != link.split_once("token=")
    );
    let old = [("Host", again.address.as_str()), ("Cookie", cookie.as_str())];
    assert_eq!(send(&again.address, "GET", &format!("{}/", again.base), &old, b"").status, 401);
}

#[test]
fn requests_that_make_no_sense_are_refused_by_their_kind() {
    let sandbox = with_pairs(3);
    let server = Server::start(&sandbox, &[]);
    let log = sandbox.path("pairs.votes.jsonl");
    let before = std::fs::read(&log).unwrap();
    let status = |method: &str, route: &str, body: &str| {
        let answer = server.request(method, route, body);
        is_hardened(&answer);
        answer.status
    };
    for (method, route) in ROUTES {
        let other = if method == "GET" { "POST" } else { "GET" };
        assert_eq!(status(other, route, ""), 405, "{other} {route}");
    }
    assert_eq!(status("GET", "/nothing", ""), 404);
    assert_eq!(status("GET", "/../Cargo.toml", ""), 404);
    let large = json!({ "annotator": "a".repeat(20 << 10) }).to_string();
    assert_eq!(status("POST", "/api/next", &large), 413);
    assert_eq!(status("POST", "/api/vote", &large), 413);
    assert_eq!(status("POST", "/api/undo", &large), 413);
    assert_eq!(status("POST", "/api/vote", "{\"annotator\": \"an"), 400);
    assert_eq!(status("POST", "/api/vote", "[]"), 422);
    let good = ballot("anna", &json!("1.1"), "left");
    for (field, value) in [
        ("annotator", json!("")),
        ("annotator", json!(" anna")),
        ("annotator", json!("an\nna")),
        ("annotator", json!("a".repeat(65))),
        ("vote", json!("short")),
        ("vote", json!("0123456789abcde/")),
        ("key", json!("4.1")),
        ("key", json!("1")),
        ("key", json!("-1.1")),
        ("seconds", json!(-1)),
    ] {
        let mut bad = good.clone();
        bad[field] = value.clone();
        assert_eq!(status("POST", "/api/vote", &bad.to_string()), 400, "{field} = {value}");
    }
    for (field, value) in [("choice", json!("best")), ("seconds", json!("2")), ("pair", json!(3))] {
        let mut bad = good.clone();
        bad[field] = value.clone();
        assert_eq!(status("POST", "/api/vote", &bad.to_string()), 422, "{field} = {value}");
    }
    let mut second = good.clone();
    second["key"] = json!("1.2");
    assert_eq!(status("POST", "/api/vote", &second.to_string()), 409, "a second showing before the first");
    let path = format!("{}/api/vote", server.base);
    let origin = format!("http://{}", server.address);
    let plain = [
        ("Host", server.address.as_str()),
        ("Cookie", &server.cookie),
        ("Origin", &origin),
        ("Content-Type", "text/plain"),
    ];
    let answer = send(&server.address, "POST", &path, &plain, good.to_string().as_bytes());
    assert_eq!(answer.status, 415, "a form of another page cannot send JSON");
    assert_eq!(std::fs::read(&log).unwrap(), before);
    assert_eq!(status("POST", "/api/vote", &good.to_string()), 200, "and the good one is good");
}

#[test]
fn the_page_hears_nothing_of_the_sources_and_asks_nobody_else() {
    let sandbox = with_pairs(3);
    let server = Server::start(&sandbox, &[]);
    for (_, route) in ROUTES.iter().filter(|(method, _)| *method == "GET") {
        let text = server.request("GET", route, "").body;
        for outside in [
            "http://",
            "https://",
            "//cdn",
            "@import",
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
        ] {
            assert!(!text.contains(outside), "{outside} in {route}");
        }
    }
    let mut said = server.request("POST", "/api/about", "{}").body;
    for choice in ["left", "right", "tie"] {
        said += &server.next("anna").to_string();
        said += &server.vote("anna", choice).to_string();
    }
    said += &server.request("POST", "/api/statistics", "{}").body;
    assert!(said.contains("a of 1") && said.contains("b of 2"));
    for hidden in ["secret", "fingerprint", "temperature", "topic", "_source"] {
        assert!(!said.contains(hidden), "{hidden} reached the page");
    }
}

#[test]
fn other_addresses_take_a_warning_and_still_check_the_name() {
    let sandbox = with_pairs(2);
    let server = Server::start(
        &sandbox,
        &["--host", "0.0.0.0", "--allow-host", "Labels.Example:8443", "--allow-host", "proxy.example"],
    );
    let words = std::fs::read_to_string(sandbox.path("stderr")).unwrap();
    assert!(words.contains("WARN") && words.contains("other machines"), "{words}");
    let port = server.address.split(':').nth(1).unwrap();
    let page = format!("{}/", server.base);
    let status = |host: &str, origin: Option<&str>| {
        let mut headers = vec![("Host", host), ("Cookie", server.cookie.as_str())];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        send(&server.address, "GET", &page, &headers, b"").status
    };
    for good in [
        format!("192.168.7.9:{port}"),
        format!("[::1]:{port}"),
        format!("localhost:{port}"),
        format!("proxy.example:{port}"),
    ] {
        assert_eq!(status(&good, None), 200, "{good}");
    }
    assert_eq!(status("labels.example:8443", Some("https://labels.example:8443")), 200);
    for bad in [format!("evil.example:{port}"), "labels.example:1".to_owned(), format!("127.0.0.1.evil.example:{port}")]
    {
        assert_eq!(status(&bad, None), 403, "{bad}");
    }
    assert_eq!(status(&format!("localhost:{port}"), Some(&format!("https://localhost:{port}"))), 403);
    drop(server);
    let server = Server::start(&sandbox, &[]);
    let port = server.address.split(':').nth(1).unwrap();
    let headers = [("Host", &*format!("192.168.7.9:{port}")), ("Cookie", &server.cookie)];
    assert_eq!(send(&server.address, "GET", &format!("{}/", server.base), &headers, b"").status, 403);
    assert!(!std::fs::read_to_string(sandbox.path("stderr")).unwrap().contains("WARN"));
}
