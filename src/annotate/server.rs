//! The routes, and the server's life: from the address to the signal that ends it. Owns HTTP; what the requests mean is
//! `desk`'s, who may send them `gate`'s.
use super::desk::{Ask, Ballot, Desk, Refusal, TakeBack};
use super::gate::{self, Denied, Gate};
use crate::error::{Error, Result};
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Most bytes of a request's body; a vote has some hundred.
const MOST_BYTES: usize = 16 << 10;
/// How long answers under way may take after a signal. Every vote that was acknowledged is on the disk already.
const GRACE: Duration = Duration::from_secs(2);

/// The files of the page: route, content type, text.
const FILES: [(&str, &str, &str); 7] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/theme.js", "text/javascript; charset=utf-8", include_str!("page/theme.js")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("/pair.js", "text/javascript; charset=utf-8", include_str!("page/pair.js")),
    ("/diff.js", "text/javascript; charset=utf-8", include_str!("page/diff.js")),
    ("/panels.js", "text/javascript; charset=utf-8", include_str!("page/panels.js")),
];

struct App {
    gate: Gate,
    desk: Mutex<Desk>,
}

impl App {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the page until a signal comes.
///
/// # Errors
/// An address that cannot be had; [`Error::Stopped`] after the signal, which is the only other way out.
pub fn serve(desk: Desk, host: IpAddr, port: u16, allowed: &[String], log: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::io("the event loop", "start"))?.block_on(run(desk, host, port, allowed, log))
}

async fn run(desk: Desk, host: IpAddr, port: u16, allowed: &[String], log: &str) -> Result<()> {
    let wanted = SocketAddr::new(host, port);
    let unavailable = |error: std::io::Error| {
        let remedy = "name another --port (0 takes a free one) or --host";
        Error::usage(format!("cannot listen on {wanted}: {error}"), remedy)
    };
    let listener = TcpListener::bind(wanted).await.map_err(unavailable)?;
    let address = listener.local_addr().map_err(unavailable)?;
    let no_signals = || Error::io("signals", "listen to");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals())?;
    let app = Arc::new(App { gate: Gate::new(address, allowed)?, desk: Mutex::new(desk) });
    announce(&app.gate, host);

    let (stop, stopped) = tokio::sync::watch::channel(());
    let mut waiting = stopped.clone();
    let server = axum::serve(listener, routes(app.clone())).with_graceful_shutdown(async move {
        let _ = waiting.changed().await;
    });
    let server = tokio::spawn(async move { server.await });
    let (number, name) = tokio::select! {
        _ = interrupt.recv() => (2, "SIGINT"),
        _ = terminate.recv() => (15, "SIGTERM"),
    };
    let _ = stop.send(());
    let _ = tokio::time::timeout(GRACE, server).await;
    let (votes, people) = app.desk().counts();
    let remedy = format!("the same command goes on with {log} (votes: {votes}, annotators: {people})");
    Err(Error::Stopped { signal: number, name, remedy })
}

fn announce(gate: &Gate, host: IpAddr) {
    if !host.is_loopback() {
        tracing::warn!(
            "the page can be reached from other machines, over HTTP without encryption: whoever sees the link can read \
             the pairs and vote; on one machine leave out --host, or forward a port with ssh -L"
        );
    }
    println!("Open this link in a browser; it is good until this program ends (Ctrl-C):\n{}", gate.link());
}

fn routes(app: Arc<App>) -> Router {
    let base = app.gate.base();
    let under = |path: &str| format!("{base}{path}");
    let mut routes = Router::new().route("/", get(enter));
    for (path, kind, text) in FILES {
        routes = routes.route(&under(path), file(kind, text));
    }
    routes
        .route(&under("/api/about"), post(about))
        .route(&under("/api/next"), post(next))
        .route(&under("/api/vote"), post(vote))
        .route(&under("/api/undo"), post(undo))
        .route(&under("/api/statistics"), post(statistics))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

fn file(kind: &'static str, text: &'static str) -> MethodRouter<Arc<App>> {
    get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
}

/// Stands before every route, those that are not there included.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = match app.gate.check(&request) {
        Ok(()) => next.run(request).await,
        Err(denied) => {
            let (status, words) = match denied {
                Denied::Malformed(words) => (StatusCode::BAD_REQUEST, words),
                Denied::Foreign(words) => (StatusCode::FORBIDDEN, words),
                Denied::Stranger => (
                    StatusCode::UNAUTHORIZED,
                    "Open the link that collimate annotate printed when it started; each run has a new one.",
                ),
            };
            (status, format!("{words}\n")).into_response()
        }
    };
    gate::harden(response.headers_mut());
    response
}

/// The link's token becomes a cookie. Not by a redirect: after a link on another site the browser would count that as
/// the other site's request and keep the cookie back. The page's own refresh is its own request.
async fn enter(State(app): State<Arc<App>>) -> Response {
    let text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>collimate annotate</title>\
         <meta http-equiv=\"refresh\" content=\"0; url={base}/\"><p><a href=\"{base}/\">Go on to the page</a></p></html>",
        base = app.gate.base()
    );
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()), (header::SET_COOKIE, app.gate.set_cookie())];
    (headers, text).into_response()
}

type Answer = Result<Json<Value>, Refused>;

/// A refusal on its way to the page.
struct Refused(u16, String);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        if refusal.status >= 500 {
            tracing::error!("{}", refusal.message);
        }
        Self(refusal.status, refusal.message)
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        Self(rejection.status().as_u16(), rejection.body_text())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({ "error": self.1 }))).into_response()
    }
}

async fn about(State(app): State<Arc<App>>) -> Answer {
    Ok(Json(app.desk().about()))
}

async fn next(State(app): State<Arc<App>>, body: Result<Json<Ask>, JsonRejection>) -> Answer {
    let Json(ask) = body?;
    Ok(Json(app.desk().ask(&ask)?))
}

async fn vote(State(app): State<Arc<App>>, body: Result<Json<Ballot>, JsonRejection>) -> Answer {
    let Json(ballot) = body?;
    // The fsync holds everybody up for its milliseconds, which keeps votes in one order.
    Ok(Json(app.desk().vote(ballot)?))
}

async fn undo(State(app): State<Arc<App>>, body: Result<Json<TakeBack>, JsonRejection>) -> Answer {
    let Json(request) = body?;
    Ok(Json(app.desk().undo(request)?))
}

async fn statistics(State(app): State<Arc<App>>) -> Answer {
    Ok(Json(app.desk().statistics()))
}
