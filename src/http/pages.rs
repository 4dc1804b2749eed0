//! The web pages and scripts of `web/`, embedded in the binary; a debug build reads them from the folder.

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use super::ANY_ORIGIN;
use super::refusal::Refusal;

#[derive(RustEmbed)]
#[folder = "web/"]
#[include = "*.html"]
#[include = "*.js"]
#[include = "*.css"]
#[include = "*.svg"]
#[include = "*.txt"]
#[include = "*.d.ts"]
#[include = "*.map"]
#[exclude = "test/*"]
#[exclude = "node_modules/*"]
struct Files;

/// Serves the file of a path.
pub(super) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        let refused = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed here");
        return refused.with(header::ALLOW, "GET, HEAD").into_response();
    }
    let path = uri.path();
    let name = match path.strip_prefix('/').unwrap_or(path) {
        "" => "index.html",
        "dashboard" => "dashboard.html",
        "webrtc" => "webrtc.html",
        name => name,
    };
    // A debug build would resolve these as paths.
    let is_name = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let Some(file) = is_name.then(|| Files::get(name)).flatten() else {
        return Refusal::new(StatusCode::NOT_FOUND, "not found; the chat is at / and the dashboard at /dashboard")
            .into_response();
    };
    let hash: String = file.metadata.sha256_hash()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{hash}\"");
    // Revalidated on every request, because pages and scripts of one version belong together.
    let about = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if is_known(&headers, &tag) {
        return (StatusCode::NOT_MODIFIED, [ANY_ORIGIN], about).into_response();
    }
    let kind = match file.metadata.mimetype() {
        // By their endings these would be a video, and plain text.
        _ if name.ends_with(".d.ts") => "text/plain; charset=utf-8".to_owned(),
        _ if name.ends_with(".map") => "application/json".to_owned(),
        text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
        other => other.to_owned(),
    };
    ([ANY_ORIGIN], about, [(header::CONTENT_TYPE, kind)], file.data).into_response()
}

/// Whether the client has the file with this tag (RFC 9110 section 13.1.2). Compressing proxies weaken tags.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|list| list.split(',')).map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}
