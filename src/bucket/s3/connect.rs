//! Connections to the one endpoint: asked from the dialer, and TLS with it.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use crate::sys::channel::{Channel, ChannelError};
use crate::tls::Stream;
use crate::wire::bucket::Dialled;

/// How long the dialer and the handshake may take together.
const CONNECT: Duration = Duration::from_secs(10);

/// How long the dialer may take to answer.
const ANSWER: Duration = Duration::from_secs(6);

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::bucket) enum ConnectError {
    /// The dialer could not, with this errno.
    #[error("cannot connect to the endpoint: {}", io::Error::from_raw_os_error(*.0))]
    Dial(i32),
    /// The dialer is gone, or takes too long.
    #[error("cannot connect to the endpoint: {0}")]
    Dialer(String),
    /// The server is not who it should be.
    #[error("the endpoint's certificate is refused: {0}")]
    Certificate(String),
    /// The server does not speak TLS as we do.
    #[error("no TLS with the endpoint: {0}")]
    Tls(String),
}

impl ConnectError {
    /// Whether another attempt may go better.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Dial(_) | Self::Dialer(_))
    }
}

/// Makes connections for the pool.
#[derive(Clone)]
pub(super) struct Connector {
    dialer: Arc<Mutex<Channel>>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Over TLS with a server of this name, if one is given.
    pub(super) fn new(
        dialer: OwnedFd,
        tls: Option<(Arc<rustls::ClientConfig>, String)>,
    ) -> Result<Self, ConnectError> {
        let words = |error: io::Error| ConnectError::Dialer(error.to_string());
        let dialer = Arc::new(Mutex::new(Channel::new(dialer).map_err(words)?));
        let tls = match tls {
            Some((config, host)) => {
                let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name =
                    ServerName::try_from(bare).map_err(|error| ConnectError::Tls(error.to_string()))?;
                Some((TlsConnector::from(config), name))
            }
            None => None,
        };
        Ok(Self { dialer, tls })
    }

    async fn connect(self) -> Result<Stream, ConnectError> {
        let connected = async {
            let plain = self.dial().await?;
            let Some((tls, name)) = self.tls else { return Ok(Stream::Plain(plain)) };
            let stream = tls.connect(name, plain).await.map_err(|error| {
                let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                match reason {
                    Some(rustls::Error::InvalidCertificate(_)) => {
                        ConnectError::Certificate(error.to_string())
                    }
                    Some(_) => ConnectError::Tls(error.to_string()),
                    None => ConnectError::Dialer(error.to_string()),
                }
            })?;
            Ok(Stream::Tls(Box::new(stream)))
        };
        let took_too_long = |_| ConnectError::Dialer("it takes too long".to_owned());
        tokio::time::timeout(CONNECT, connected).await.map_err(took_too_long)?
    }

    /// One question and its answer at a time. Whoever gives up while waiting would leave an answer behind for the next
    /// one, so the exchange is a task of its own; and one answer is as good as another: all connect to the same endpoint.
    async fn dial(&self) -> Result<TcpStream, ConnectError> {
        let dialer = Arc::clone(&self.dialer);
        let exchange = tokio::spawn(async move {
            let dialer = dialer.lock_owned().await;
            dialer.send(&0_u8, &[]).await?;
            // A question can be lost with a dialer that is replaced.
            tokio::time::timeout(ANSWER, dialer.receive::<Dialled>())
                .await
                .map_err(|_| ChannelError::Closed)?
        });
        let words = |error: &dyn std::fmt::Display| ConnectError::Dialer(error.to_string());
        let (said, fds) = exchange.await.map_err(|error| words(&error))?.map_err(|error| words(&error))?;
        said.map_err(ConnectError::Dial)?;
        let fd = fds.into_iter().next().ok_or_else(|| words(&"no connection came"))?;
        let stream = std::net::TcpStream::from(fd);
        stream.set_nonblocking(true).map_err(|error| words(&error))?;
        // Only slower without.
        let _ = stream.set_nodelay(true);
        TcpStream::from_std(stream).map_err(|error| words(&error))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}
