//! The server as a client sees it: raw bytes in, raw bytes out.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::config::{Config, Environment, LoadOptions, SetFlag};

/// A server on a port of its own.
struct Server {
    address: SocketAddr,
    health: Health,
    hosts: AllowedHosts,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<io::Result<()>>,
}

impl Server {
    fn start() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Site)) -> Self {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let mut site = Site {
            health: Health::new(),
            metrics: Arc::new(|accept| {
                (
                    "text/plain; version=0.0.4".to_owned(),
                    format!("up 1 # {}\n", accept.unwrap_or("-")),
                )
            }),
            allowed_hosts: AllowedHosts::default(),
            token: None,
            version: "1.2.3".to_owned(),
            max_connections: 8,
        };
        change(&mut site);
        let (stop, stopped) = oneshot::channel::<()>();
        let (health, hosts) = (site.health.clone(), site.allowed_hosts.clone());
        let served = tokio::spawn(serve(listener, site, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            health,
            hosts,
            stop: Some(stop),
            served,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes as they are and takes all that comes back until the server closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        read.expect("the server does not close the connection")
            .unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// A request with these headers (each ending with a line break), and `Connection: close`.
    async fn ask(&self, line: &str, headers: &str) -> String {
        let headers = headers.replace('\n', "\r\n");
        self.raw(&format!(
            "{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"
        ))
        .await
    }

    async fn status(&self, line: &str, headers: &str) -> u16 {
        status(&self.ask(line, headers).await)
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path}"), "Host: localhost\n").await
    }
}

fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("{answer:?}"))
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

const PATHS: [&str; 6] = ["/", "/livez", "/readyz", "/health", "/metrics", "/nothing"];

#[tokio::test]
async fn probes_say_how_it_is() {
    let server = Server::start();
    let wal = server.health.check("wal");
    let answer = server.get("/readyz").await;
    assert_eq!((status(&answer), body(&answer)), (503, "not ready\n"));
    assert_eq!(status(&server.get("/livez").await), 200);

    wal.ok();
    assert_eq!(status(&server.get("/readyz").await), 200);
    assert_eq!(
        body(&server.get("/readyz?verbose").await),
        "[+]wal ok\nready\n"
    );
    let health: serde_json::Value =
        serde_json::from_str(body(&server.get("/health").await)).unwrap();
    assert_eq!(
        (&health["status"], &health["version"]),
        (&"ok".into(), &"1.2.3".into())
    );
    assert_eq!(health["checks"][0]["name"], "wal");

    server.health.drain("SIGTERM");
    assert_eq!(status(&server.get("/readyz").await), 503);
    assert_eq!(status(&server.get("/health").await), 503);
    assert_eq!(status(&server.get("/livez").await), 200);
}

#[tokio::test]
async fn metrics_are_rendered_as_asked() {
    let server = Server::start();
    let headers = "Host: localhost\nAccept: application/openmetrics-text\n";
    let answer = server.ask("GET /metrics", headers).await;
    assert_eq!(body(&answer), "up 1 # application/openmetrics-text\n");
    assert!(
        answer.contains("content-type: text/plain; version=0.0.4\r\n"),
        "{answer}"
    );
    assert_eq!(status(&server.get("/nothing").await), 404);
    assert!(body(&server.get("/").await).contains("/metrics"));
}

#[tokio::test]
async fn only_reading_is_possible() {
    let server = Server::start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let answer = server
            .ask(
                &format!("{method} /metrics"),
                "Host: localhost\nContent-Length: 0\n",
            )
            .await;
        assert_eq!(status(&answer), 405, "{method}");
        assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    }
    let head = server.ask("HEAD /metrics", "Host: localhost\n").await;
    assert_eq!((status(&head), body(&head)), (200, ""));
    assert!(head.contains("content-length: 9\r\n"), "{head}");
}

#[tokio::test]
async fn a_foreign_host_is_refused_on_every_path() {
    let server = Server::start();
    for path in PATHS {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "0.0.0.0",
            "user@localhost",
            "[::2]",
        ] {
            let answer = server
                .ask(&format!("GET {path}"), &format!("Host: {host}\n"))
                .await;
            assert_eq!(status(&answer), 403, "{host} {path}");
            assert!(!answer.contains("up 1"), "{answer}");
        }
    }
    let answer = server.ask("GET /metrics", "Host: evil.example\n").await;
    assert!(body(&answer).contains("`http.allowed_hosts`"), "{answer}");
}

#[tokio::test]
async fn own_names_are_welcome_with_any_port() {
    let server = Server::start();
    for host in [
        "localhost",
        "LocalHost:3000",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]",
        "[::1]:3000",
    ] {
        assert_eq!(
            server
                .status("GET /metrics", &format!("Host: {host}\n"))
                .await,
            200,
            "{host}"
        );
    }
}

#[tokio::test]
async fn a_reload_changes_the_allowed_hosts() {
    let server = Server::start();
    let headers = "Host: agents.example.org:3000\n";
    assert_eq!(server.status("GET /metrics", headers).await, 403);
    let options = LoadOptions {
        environment: Environment::default(),
        sets: vec![SetFlag::new("http.allowed_hosts=Agents.example.org")],
        ..LoadOptions::default()
    };
    server
        .hosts
        .set(&Config::load(&options).unwrap().config.http.allowed_hosts);
    assert_eq!(server.status("GET /metrics", headers).await, 200);
    server.hosts.set(&[]);
    assert_eq!(server.status("GET /metrics", headers).await, 403);
}

#[tokio::test]
async fn a_host_that_is_missing_or_doubled_is_a_bad_request() {
    let server = Server::start();
    assert_eq!(server.status("GET /metrics", "").await, 400);
    assert_eq!(
        server
            .status("GET /metrics", "Host: localhost\nHost: evil.example\n")
            .await,
        400
    );
    assert_eq!(server.status("GET /metrics", "Host: a b\n").await, 400);
    // The target's own host counts as well.
    assert_eq!(
        server
            .status("GET http://evil.example/metrics", "Host: localhost\n")
            .await,
        403
    );
    // HTTP/1.0 knows no Host; no browser speaks it.
    assert_eq!(
        status(&server.raw("GET /livez HTTP/1.0\r\n\r\n").await),
        200
    );
}

#[tokio::test]
async fn a_page_of_another_origin_gets_nothing() {
    let server = Server::start();
    for origin in [
        "http://evil.example",
        "null",
        "http://localhost:5173",
        "http://localhost:3000.evil.example",
        "file://",
    ] {
        for path in PATHS {
            let headers = format!("Host: localhost:3000\nOrigin: {origin}\n");
            let answer = server.ask(&format!("GET {path}"), &headers).await;
            assert_eq!(status(&answer), 403, "{origin} {path}");
            assert!(
                !answer.to_lowercase().contains("access-control"),
                "{answer}"
            );
        }
    }
    // A rebound page's Origin and Host agree, and both are the attacker's.
    let rebound = "Host: evil.example:3000\nOrigin: http://evil.example:3000\n";
    assert_eq!(server.status("GET /metrics", rebound).await, 403);
    let own = "Host: localhost:3000\nOrigin: http://localhost:3000\n";
    assert_eq!(server.status("GET /metrics", own).await, 200);
}

#[tokio::test]
async fn another_site_can_only_link_to_the_front_page() {
    let server = Server::start();
    let ask = async |path: &str, site: &str, mode: &str, dest: &str| {
        let headers = format!(
            "Host: localhost\nSec-Fetch-Site: {site}\nSec-Fetch-Mode: {mode}\nSec-Fetch-Dest: {dest}\n"
        );
        server.status(&format!("GET {path}"), &headers).await
    };
    for site in ["cross-site", "same-site"] {
        assert_eq!(ask("/metrics", site, "no-cors", "image").await, 403);
        assert_eq!(ask("/metrics", site, "navigate", "document").await, 403);
        assert_eq!(ask("/", site, "cors", "empty").await, 403);
        assert_eq!(ask("/", site, "navigate", "iframe").await, 403);
        assert_eq!(ask("/", site, "navigate", "document").await, 200);
    }
    assert_eq!(ask("/metrics", "none", "navigate", "document").await, 200);
    assert_eq!(ask("/metrics", "same-origin", "cors", "empty").await, 200);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let server = Server::start();
    for (line, headers) in [
        ("GET /", "Host: localhost\n"),
        ("GET /metrics", "Host: evil.example\n"),
        ("GET /nothing", "Host: localhost\n"),
        ("POST /", "Host: localhost\nContent-Length: 0\n"),
    ] {
        let answer = server.ask(line, headers).await.to_lowercase();
        for (name, value) in SECURITY_HEADERS {
            let header = format!("{name}: {}\r\n", value.to_lowercase());
            assert!(answer.contains(&header), "{line} lacks {name}: {answer}");
        }
        assert!(!answer.contains("access-control"), "{answer}");
    }
}

#[tokio::test]
async fn with_a_token_only_the_probes_are_open() {
    let server = Server::with(|site| site.token = Some(Secret::new("letmein")));
    let host = "Host: localhost\n";
    for path in ["/livez", "/readyz", "/health"] {
        assert_eq!(
            server.status(&format!("GET {path}"), host).await,
            200,
            "{path}"
        );
    }
    for path in ["/", "/metrics", "/nothing"] {
        let answer = server.ask(&format!("GET {path}"), host).await;
        assert_eq!(status(&answer), 401, "{path}");
        assert!(answer.contains("www-authenticate: Bearer\r\n"), "{answer}");
    }
    let with = |authorization: &str| format!("{host}Authorization: {authorization}\n");
    assert_eq!(
        server.status("GET /metrics", &with("Bearer letmein")).await,
        200
    );
    assert_eq!(
        server.status("GET /metrics", &with("bearer letmein")).await,
        200
    );
    for wrong in ["Bearer letmeout", "Bearer ", "Basic letmein", "letmein"] {
        assert_eq!(
            server.status("GET /metrics", &with(wrong)).await,
            401,
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Server::start();
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"alive\n") {
            assert!(
                stream.read_buf(&mut answer).await.unwrap() > 0,
                "the server closed the connection"
            );
        }
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = Server::with(|site| site.max_connections = 1);
    let mut first = server.connect().await;
    first
        .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut some = [0; 1];
    first.read_exact(&mut some).await.unwrap();

    let answer = server.get("/livez").await;
    assert_eq!(status(&answer), 503);
    assert!(
        answer.contains("`http.max_connections`") && answer.contains("Retry-After"),
        "{answer}"
    );
    let length: usize = answer
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .and_then(|length| length.trim().parse().ok())
        .unwrap();
    assert_eq!(body(&answer).len(), length);

    // A place that is given up is there for the next one.
    drop(first);
    let freed = async {
        while status(&server.get("/livez").await) != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), freed)
        .await
        .expect("the place is never given back");
}

#[tokio::test]
async fn too_large_a_head_is_refused() {
    let server = Server::start();
    let large = format!("Host: localhost\nX: {}\n", "x".repeat(20_000));
    assert_eq!(server.status("GET /livez", &large).await, 431);
    let many: String = (0..70).map(|n| format!("X-{n}: 1\n")).collect();
    assert_eq!(
        server
            .status("GET /livez", &format!("Host: localhost\n{many}"))
            .await,
        431
    );
}

#[tokio::test]
async fn a_client_that_does_not_get_on_with_it_is_cut_off() {
    let server = Server::start();
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: local")
        .await
        .unwrap();
    let begun = tokio::time::Instant::now();
    let mut answer = Vec::new();
    let closed = timeout(3 * HEADERS_MAX, stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "the connection is still open");
    assert!(begun.elapsed() >= HEADERS_MAX - Duration::from_millis(500));
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_clients() {
    let mut server = Server::start();
    let mut idle = server.connect().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut some = [0; 1];
    idle.read_exact(&mut some).await.unwrap();
    let mut half = server.connect().await;
    half.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
    let silent = server.connect().await;

    let _ = server.stop.take().unwrap().send(());
    let served = timeout(DRAIN_MAX + Duration::from_secs(2), &mut server.served).await;
    served
        .expect("the shutdown hangs on an open connection")
        .unwrap()
        .unwrap();
    drop((idle, half, silent));
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "it still listens"
    );
}

#[tokio::test]
async fn the_health_command_reads_what_the_server_says() {
    let server = Server::start();
    let wal = server.health.check("wal");
    let ask = |path: &str| {
        let url = format!("http://{}{path}", server.address);
        tokio::task::spawn_blocking(move || probe(&url, Duration::from_secs(10)).unwrap())
    };
    let report = ask("/readyz?verbose").await.unwrap();
    assert!(
        !report.is_ok() && report.body.contains("[-]wal starting"),
        "{report:?}"
    );
    wal.ok();
    assert!(ask("/readyz").await.unwrap().is_ok());
}
