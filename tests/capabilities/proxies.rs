//! The configurations of proxies in docs/PROXIES.md, unchanged: a WebSocket passes through each, and the server sees
//! the client's address. A proxy that is not installed is skipped, with a notice.

#![cfg(target_os = "linux")] // Clients use a separate address of this machine.
#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::{TestServer, soon, tls_trusting, until, web_socket};
use quic_websocket::Config;
use quic_websocket::config::TlsVersion;
use serde_json::json;
use tokio::net::TcpSocket;

/// The client's address, different from the proxy's.
const CLIENT: &str = "127.0.0.2";
/// An address that the client claims, and that must not be believed.
const FALSE: &str = "203.0.113.9";

/// The code block in a language from the document.
fn documented(language: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PROXIES.md");
    let text = fs::read_to_string(path).expect("the document");
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("```").expect("its end").0.to_owned()
}

fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&folders).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = all.map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        // Written directly, because the output of a passing test is hidden.
        let _ =
            writeln!(std::io::stderr(), "LEFT OUT: {name} is not installed, docs/PROXIES.md was not tested with it");
    }
    found
}

/// A proxy in front of a server, which ends with its test.
struct Proxy {
    child: Child,
    addr: SocketAddr,
    log: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx's workers end with their master if it is asked to stop, not if it is killed.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Starts one with a configuration from the document, after these replacements.
    async fn start(program: &Path, folder: &Path, server: &TestServer, text: &str, more: &[(&str, &str)]) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = free.local_addr().expect("its address");
        let kind = program.file_name().expect("a name").to_string_lossy().into_owned();
        let path = |path: &Path| path.display().to_string();
        let with_key = folder.join("with-key.pem");
        let both =
            [&server.files.cert, &server.files.key].map(|file| fs::read_to_string(file).expect("a file")).concat();
        fs::write(&with_key, both).expect("written");
        let mut text = text.to_owned();
        let own = [
            ("127.0.0.1:4433", server.addr.to_string()),
            ("listen 443 ssl", format!("listen {addr} ssl")),
            ("bind :443", format!("bind {addr}")),
            ("chat.example {", format!("https://localhost:{} {{\n    bind 127.0.0.1", addr.port())),
            ("/etc/ssl/chat.example.pem", path(&server.files.cert)),
            ("/etc/ssl/chat.example-key.pem", path(&server.files.key)),
            ("/etc/ssl/chat.example-with-key.pem", path(&with_key)),
            ("/etc/quic-websocket/ca.pem", path(&server.files.ca)),
            // Changes needed only to run next to others, and without being root.
            ("admin off", "admin off\n    auto_https disable_redirects".to_owned()),
            ("http {\n    #", format!("http {{\n    access_log off;\n{}    #", temporary(folder))),
        ];
        let more = more.iter().map(|&(from, to)| (from, to.to_owned()));
        own.into_iter().chain(more).for_each(|(from, to)| text = text.replace(from, &to));
        let config = folder.join("config");
        fs::write(&config, &text).expect("written");
        let mut command = Command::new(program);
        let (config, log) = (path(&config), folder.join("log"));
        match kind.as_str() {
            "nginx" => {
                let rest = format!("daemon off; pid {0}/pid; error_log stderr;", folder.display());
                command.args(["-p", &path(folder), "-c", &config, "-g", &rest])
            }
            "haproxy" => command.args(["-db", "-f", &config]),
            _ => command.args(["run", "--adapter", "caddyfile", "--config", &config]),
        };
        drop(free);
        let output = fs::File::create(&log).expect("a file");
        let child = command
            .current_dir(folder)
            .env("HOME", folder)
            .env("XDG_DATA_HOME", folder)
            .env("XDG_CONFIG_HOME", folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the same file"))
            .stderr(output)
            .spawn()
            .expect("it starts");
        let mut proxy = Self { child, addr, log };
        until("the proxy to listen", || {
            let ended = proxy.child.try_wait().expect("its state");
            assert!(ended.is_none(), "{kind} ended: {}\n{text}", proxy.log());
            std::net::TcpStream::connect(addr).is_ok()
        })
        .await;
        proxy
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Opens a WebSocket through the proxy.
    async fn open(&self, server: &TestServer) -> Result<web_socket::SocketLane, String> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(format!("{CLIENT}:0").parse().expect("an address")).expect("an address of this machine");
        let stream = soon("a connection", socket.connect(self.addr)).await.map_err(|e| e.to_string())?;
        let tls = web_socket::tls_over(stream, tls_trusting(&server.files.ca).with_no_client_auth()).await;
        let mut request = web_socket::request_at(self.addr, "/ws");
        let host = format!("localhost:{}", self.addr.port());
        request.headers_mut().insert("Host", host.parse().expect("a value"));
        request.headers_mut().insert("X-Forwarded-For", FALSE.parse().expect("a value"));
        web_socket::ask_over(tls.map_err(|e| e.to_string())?, request).await.map_err(|e| e.to_string())
    }
}

/// Folders in which nginx may write without being root.
fn temporary(folder: &Path) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {}/{kind};\n", folder.display()))
        .concat()
}

fn behind(config: &mut Config) {
    config.http.proxies = vec!["127.0.0.1/32".parse().expect("a network")];
}

/// Checks that a client behind the proxy is served, and known by its own address.
async fn goes_through(proxy: &Proxy, server: &TestServer) {
    let mut lane = proxy.open(server).await.unwrap_or_else(|e| panic!("{e}\n{}", proxy.log()));
    lane.say(json!({"type": "handshake", "protocol_version": "1.0", "client_name": "Ada"})).await;
    assert_eq!(lane.expect("handshake_response").await["accepted"], true);
    lane.lives("a client that gets through").await;
    let stats = serde_json::to_value(server.status.stats(10)).expect("JSON");
    let address = stats["list"][0]["address"].as_str().expect("an address").to_owned();
    assert!(address.starts_with(CLIENT), "its address is {address}, not {CLIENT}");
}

#[tokio::test]
async fn a_websocket_passes_through_nginx() {
    let Some(nginx) = program("nginx") else { return };
    let (folder, text) = (tempfile::tempdir().expect("a folder"), documented("nginx"));
    let server = TestServer::start_with(behind).await;
    let proxy = Proxy::start(&nginx, folder.path(), &server, &text, &[]).await;
    goes_through(&proxy, &server).await;
    drop(proxy);
    server.stop().await;
}

#[tokio::test]
async fn an_nginx_with_tls_1_2_only_works_if_enabled() {
    let Some(nginx) = program("nginx") else { return };
    let old = [("proxy_ssl_protocols TLSv1.3;", "proxy_ssl_protocols TLSv1 TLSv1.1 TLSv1.2;")];
    for (version, is_let_through) in [(TlsVersion::Tls13, false), (TlsVersion::Tls12, true)] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = TestServer::start_with(|config| {
            behind(config);
            config.tls.tcp_min_version = version;
        })
        .await;
        let proxy = Proxy::start(&nginx, folder.path(), &server, &documented("nginx"), &old).await;
        if is_let_through {
            goes_through(&proxy, &server).await;
        } else {
            let refused = proxy.open(&server).await.err().expect("it is refused");
            assert!(refused.contains("502"), "{refused}");
            assert!(proxy.log().contains("protocol version"), "{}", proxy.log());
        }
        drop(proxy);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_websocket_passes_through_haproxy() {
    let Some(haproxy) = program("haproxy") else { return };
    let (folder, text) = (tempfile::tempdir().expect("a folder"), documented("haproxy"));
    let server = TestServer::start_with(behind).await;
    let proxy = Proxy::start(&haproxy, folder.path(), &server, &text, &[]).await;
    goes_through(&proxy, &server).await;
    drop(proxy);
    server.stop().await;
}

#[tokio::test]
async fn a_websocket_passes_through_caddy() {
    let Some(caddy) = program("caddy") else { return };
    let (folder, text) = (tempfile::tempdir().expect("a folder"), documented("caddyfile"));
    let server = TestServer::start_with(behind).await;
    let proxy = Proxy::start(&caddy, folder.path(), &server, &text, &[]).await;
    goes_through(&proxy, &server).await;
    drop(proxy);
    server.stop().await;
}
