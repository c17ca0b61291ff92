//! TLS by rustls: the server's certificate, and whose clients' certificates are taken.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::limits::ClientId;
use crate::service::{Service, over};

/// How long a client may take for the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(20);

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has none of what it should have.
    #[error("cannot read {what} from {}: {source}", path.display())]
    File {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// A file has no certificate.
    #[error("there is no certificate in {}", .0.display())]
    Empty(PathBuf),
    /// Certificate and key cannot be used, or not together.
    #[error("cannot use the certificate and its key: {0}")]
    Certificate(#[from] rustls::Error),
    /// The certificates that clients' are to be signed by cannot be used.
    #[error("cannot use the certificates for clients: {0}")]
    Clients(#[from] VerifierBuilderError),
}

/// What a server shows of itself, and wants to be shown.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    asks_clients: bool,
}

/// Where what a server shows of itself is, in PEM.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    /// A certificate with those that lead to a root.
    pub certificate: &'a Path,
    /// Its key.
    pub key: &'a Path,
    /// With it clients must show a certificate that leads to one of this file.
    pub client_ca: Option<&'a Path>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files. `protocols` are the versions of HTTP that the server speaks, as ALPN calls them, the best first.
    ///
    /// # Errors
    ///
    /// Which file is wrong, and how.
    pub fn from_files(files: TlsFiles<'_>, protocols: &[&str]) -> Result<Self, TlsError> {
        let chain = certificates(files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(files.key).map_err(|source| TlsError::File {
            what: "a private key",
            path: files.key.to_owned(),
            source,
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(path)? {
                    roots.add(root)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            asks_clients: files.client_ca.is_some(),
        })
    }

    /// Whether clients must show a certificate.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.asks_clients
    }

    /// Shakes hands, in bounded time and not beyond the end of the daemon. There is nobody to tell why it came to nothing.
    pub(crate) async fn accept<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        client: &ClientId,
        transport: &'static str,
        service: &Service,
    ) -> Option<TlsStream<T>> {
        let mut stage = service.stage();
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(HANDSHAKE_MAX, self.acceptor.accept(stream)) => shaken,
            () = over(&mut stage) => return None,
        };
        match shaken {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%error, %client, "no TLS"),
            Err(_) => tracing::debug!(%client, "TLS takes too long"),
        }
        service.instruments().refused(transport, "tls");
        None
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File {
        what: "a certificate",
        path: path.to_owned(),
        source,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    match found.is_empty() {
        true => Err(TlsError::Empty(path.to_owned())),
        false => Ok(found),
    }
}
