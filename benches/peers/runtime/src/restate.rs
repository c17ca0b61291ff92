//! Restate as a peer: its server as a process, the service that it calls in this one, jobs through its HTTP ingress.
//!
//! The server is set up for one node with two cores: two partitions, the default (replicated) log with one replica,
//! every store of the log server synced before it is acknowledged, which is the default, said here all the same.
//! Clients keep their connections, one a client, and ask for the result with the submission: the shortest way there is.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use restate_sdk::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use crate::peer::{Memory, Peer, Ran, Scenario, Start, written_bytes};

/// How many clients submit the jobs that wait.
const SUBMITTERS: u64 = 64;
/// How many jobs may be submitted and not have begun to wait: enough to keep the server busy, and no more than it works
/// off soon after the time is up.
const AHEAD: u64 = 2_000;
/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The service. `Noop/steps` is the job.
struct Noop {
    /// The invocations that have begun to wait.
    waiting: watch::Sender<u64>,
    known: Mutex<HashSet<String>>,
}

#[restate_sdk::service]
impl Noop {
    #[handler]
    async fn steps(&self, context: Context<'_>, steps: u32) -> Result<(), HandlerError> {
        for _ in 0..steps {
            context.run(|| async { Ok(()) }).await?;
        }
        Ok(())
    }

    #[handler]
    async fn timed(
        &self,
        context: Context<'_>,
        steps: u32,
    ) -> Result<Json<Vec<f64>>, HandlerError> {
        let mut micros = Vec::with_capacity(steps as usize);
        for _ in 0..steps {
            let begun = Instant::now();
            context.run(|| async { Ok(()) }).await?;
            micros.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(Json(micros))
    }

    /// Suspended as soon as it waits, for else a thousand of them would take all the server's places.
    #[handler(inactivity_timeout = "1ms")]
    async fn waiting(&self, context: Context<'_>, steps: u32) -> Result<(), HandlerError> {
        for _ in 0..steps {
            context.run(|| async { Ok(()) }).await?;
        }
        let is_new = match self.known.lock() {
            Ok(mut known) => known.insert(context.invocation_id().to_owned()),
            Err(_) => false,
        };
        if is_new {
            self.waiting.send_modify(|waiting| *waiting += 1);
        }
        context.sleep(Duration::from_secs(24 * 3600)).await?;
        Ok(())
    }
}

/// Restate, started or not. The service lives as long as this.
pub(crate) struct Restate {
    binary: PathBuf,
    data_dir: PathBuf,
    executor: tokio::runtime::Runtime,
    server: Option<Server>,
    ingress: SocketAddr,
    admin: SocketAddr,
    fabric: SocketAddr,
    service: SocketAddr,
    waiting: watch::Receiver<u64>,
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A connection to the server.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self {
            sender,
            host: address.to_string(),
        })
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes)> {
        self.sender.ready().await?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host);
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let response = self
            .sender
            .send_request(request.body(Full::new(Bytes::from(body)))?)
            .await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    async fn call(&mut self, handler: &str, steps: u32) -> Result<Bytes> {
        let path = format!("/restate/call/Noop/{handler}");
        let (status, body) = self.send("POST", &path, steps.to_string()).await?;
        ensure!(
            status.is_success(),
            "restate answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }
}

/// Asks until the answer is good. There is nothing else to wait for: the server does not say when it listens.
async fn until_good(address: SocketAddr, method: &str, path: &str, body: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let asked = async {
            let mut client = Client::connect(address).await?;
            client.send(method, path, body.to_owned()).await
        };
        let problem = match asked.await {
            Ok((status, _)) if status.is_success() => return Ok(()),
            Ok((status, body)) => format!("{status}: {}", String::from_utf8_lossy(&body)),
            Err(error) => error.to_string(),
        };
        if begun.elapsed() > PATIENCE {
            bail!("restate does not answer {path}: {problem}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Addresses that are free now.
fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    // All are held until all are known, or one might be given twice.
    let mut held = Vec::new();
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        held.push(listener);
    }
    Ok(addresses)
}

impl Restate {
    /// Serves the service; the server is not started yet.
    pub(crate) fn new(binary: PathBuf, data_dir: PathBuf) -> Result<Self> {
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let [ingress, admin, fabric] = free_addresses()?;
        let (sender, waiting) = watch::channel(0);
        let endpoint = Endpoint::builder()
            .bind(Noop {
                waiting: sender,
                known: Mutex::default(),
            })
            .build();
        let listener =
            executor.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let service = listener.local_addr()?;
        // `serve` would take Ctrl-C for itself, and the rest of the process would go on.
        let served =
            HttpServer::new(endpoint).serve_with_cancel(listener, std::future::pending::<()>());
        executor.spawn(served);
        Ok(Self {
            binary,
            data_dir,
            executor,
            server: None,
            ingress,
            admin,
            fabric,
            service,
            waiting,
        })
    }

    fn config(&self) -> String {
        let Self {
            ingress,
            admin,
            fabric,
            ..
        } = self;
        format!(
            r#"node-name = "bench"
cluster-name = "bench"
listen-mode = "tcp"
bind-address = "{fabric}"
default-num-partitions = 2
default-replication = 1
disable-telemetry = true
log-filter = "error"
log-disable-ansi-codes = true

[admin]
bind-address = "{admin}"
disable-web-ui = true

[ingress]
bind-address = "{ingress}"

[bifrost]
default-provider = "replicated"

[log-server]
rocksdb-disable-wal-fsync = false
"#
        )
    }

    /// Tells the server where the service is. Once for a data directory.
    fn register(&self) -> Result<()> {
        let body = format!(r#"{{"uri":"http://{}"}}"#, self.service);
        self.executor
            .block_on(until_good(self.admin, "POST", "/deployments", &body))
    }
}

impl Peer for Restate {
    fn name(&self) -> &'static str {
        "Restate"
    }

    fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    fn start(&mut self) -> Result<Start> {
        let is_new = !self.data_dir.exists();
        std::fs::create_dir_all(&self.data_dir)?;
        let config = self.data_dir.join("restate.toml");
        std::fs::write(&config, self.config())?;
        let log = std::fs::File::create(self.data_dir.join("restate.log"))?;
        let begun = Instant::now();
        let server = Command::new(&self.binary)
            .arg("--no-logo")
            .arg("--config-file")
            .arg(&config)
            .arg("--base-dir")
            .arg(self.data_dir.join("data"))
            .env("DO_NOT_TRACK", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        self.server = Some(Server(server));
        self.executor
            .block_on(until_good(self.ingress, "GET", "/restate/health", ""))?;
        let ready = begun.elapsed();
        if is_new {
            self.register()?;
        }
        self.executor.block_on(until_good(
            self.ingress,
            "POST",
            "/restate/call/Noop/steps",
            "1",
        ))?;
        Ok(Start {
            ready,
            first_job: begun.elapsed(),
            said: serde_json::Value::Null,
        })
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            kill_process(Pid::from_child(&server.0), Signal::TERM)?;
            server.0.wait()?;
        }
        Ok(())
    }

    fn memory(&self) -> Result<Memory> {
        let server = self.server.as_ref().context("it was not started")?;
        Memory::of(server.0.id())
    }

    fn run(&mut self, scenario: Scenario, span: Duration) -> Result<Ran> {
        let ingress = self.ingress;
        self.executor.block_on(async move {
            let mut clients = Vec::new();
            for _ in 0..scenario.clients {
                clients.push(Client::connect(ingress).await?);
            }
            let begun = Instant::now();
            let until = begun + span;
            let counts: Vec<_> = clients
                .into_iter()
                .map(|mut client| {
                    tokio::spawn(async move {
                        let mut count = 0u64;
                        while Instant::now() < until {
                            client.call("steps", scenario.steps).await?;
                            count += 1;
                        }
                        anyhow::Ok(count)
                    })
                })
                .collect();
            let mut jobs = 0;
            for count in counts {
                jobs += count.await??;
            }
            Ok(Ran {
                jobs,
                seconds: begun.elapsed().as_secs_f64(),
            })
        })
    }

    fn lone(&mut self, steps: u32, times: usize) -> Result<Vec<f64>> {
        let ingress = self.ingress;
        self.executor.block_on(async move {
            let mut client = Client::connect(ingress).await?;
            let mut micros = Vec::with_capacity(times);
            for _ in 0..times {
                let begun = Instant::now();
                client.call("steps", steps).await?;
                micros.push(begun.elapsed().as_secs_f64() * 1e6);
            }
            Ok(micros)
        })
    }

    fn steps(&mut self, steps: u32) -> Result<Vec<f64>> {
        let ingress = self.ingress;
        self.executor.block_on(async move {
            let mut client = Client::connect(ingress).await?;
            Ok(serde_json::from_slice(&client.call("timed", steps).await?)?)
        })
    }

    fn live(&mut self, steps: u32, jobs: u64, limit: Duration) -> Result<u64> {
        let (ingress, mut waiting) = (self.ingress, self.waiting.clone());
        let before = *waiting.borrow();
        self.executor.block_on(async move {
            let until = Instant::now() + limit;
            let submitted = Arc::new(AtomicU64::new(before));
            let submitters: Vec<_> = (0..SUBMITTERS)
                .map(|number| {
                    let (submitted, mut waiting) = (Arc::clone(&submitted), waiting.clone());
                    let share = jobs / SUBMITTERS + u64::from(number < jobs % SUBMITTERS);
                    tokio::spawn(async move {
                        let mut client = Client::connect(ingress).await?;
                        let mut made = 0;
                        while made < share && Instant::now() < until {
                            let (status, _) = client
                                .send("POST", "/restate/send/Noop/waiting", steps.to_string())
                                .await?;
                            ensure!(status.is_success(), "restate answered {status}");
                            made += 1;
                            let sum = submitted.fetch_add(1, Ordering::Relaxed) + 1;
                            waiting.wait_for(|waiting| waiting + AHEAD >= sum).await?;
                        }
                        Ok(made)
                    })
                })
                .collect();
            let mut made = 0;
            for submitter in submitters {
                made += submitter.await??;
            }
            waiting
                .wait_for(|waiting| *waiting >= before + made)
                .await?;
            Ok(made)
        })
    }

    fn when_idle(&mut self) -> Result<Option<Duration>> {
        Ok(None)
    }

    fn written_bytes(&self) -> Result<u64> {
        let server = self.server.as_ref().context("it was not started")?;
        written_bytes(server.0.id())
    }
}
