//! The servers: the one for callers, and beside it, if that is configured, the one for machines that look after this service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use knm_http::{App, Entrance, Paths, ServeReport, ServerLimits, Tls};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::configuration::ServerSettings;

/// How long probes and scrapes may take at the end.
const MANAGEMENT_PATIENCE: Duration = Duration::from_secs(1);

/// The addresses that are listened on; whoever connects waits until the servers start.
pub struct Ports {
    main: Port,
    management: Option<Port>,
}

struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

/// The servers, each a task.
pub struct Servers {
    /// The one for callers.
    pub main: JoinHandle<ServeReport>,
    management: Option<Management>,
}

/// Health and metrics apart from the rest. It goes on until the other one has ended, so that probes see that the service is not ready.
struct Management {
    stop: CancellationToken,
    serving: JoinHandle<ServeReport>,
}

impl Ports {
    /// Listens on what is configured.
    ///
    /// # Errors
    /// [`Failure::Listen`] if the operating system refuses.
    pub async fn listen(settings: &ServerSettings) -> Result<Self, Failure> {
        let main = Port::listen(&settings.host, settings.port).await?;
        let management = match settings.management_port {
            Some(port) => Some(Port::listen(&settings.management_host, port).await?),
            None => None,
        };
        Ok(Self { main, management })
    }

    /// Where callers connect.
    #[must_use]
    pub fn main(&self) -> SocketAddr {
        self.main.address
    }

    /// Says in the log where is listened.
    pub fn announce(&self, mode: &str) {
        let address = self.main.address;
        tracing::info!(port = %address.port(), %address, mode, "server starting on port {}", address.port());
        if let Some(management) = &self.management {
            let address = management.address;
            tracing::info!(port = %address.port(), %address, "health and metrics on port {}", address.port());
        }
    }

    /// Serves `app`; the main server ends when `stop` is cancelled.
    #[must_use]
    pub fn serve(
        self,
        app: App,
        tls: Option<Arc<Tls>>,
        limits: &ServerLimits,
        stop: &CancellationToken,
        patience: Duration,
    ) -> Servers {
        let management = self.management.map(|port| {
            let stop = CancellationToken::new();
            let entrance = Entrance {
                listener: port.listener,
                tls: None,
                paths: Paths::Management,
            };
            let server = knm_http::serve(entrance, app.clone(), limits.clone(), stop.clone(), MANAGEMENT_PATIENCE);
            Management {
                stop,
                serving: tokio::spawn(server),
            }
        });
        let entrance = Entrance {
            listener: self.main.listener,
            tls,
            paths: match management {
                Some(_) => Paths::Interface,
                None => Paths::All,
            },
        };
        let main = knm_http::serve(entrance, app, limits.clone(), stop.clone(), patience);
        Servers {
            main: tokio::spawn(main),
            management,
        }
    }
}

impl Port {
    async fn listen(host: &str, port: u16) -> Result<Self, Failure> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let failed = |source| Failure::Listen {
            address: format!("{host}:{port}"),
            source,
        };
        let listener = TcpListener::bind((bare, port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }
}

impl Servers {
    /// Ends the server for probes and scrapes, if there is one of its own.
    pub async fn end_management(self) {
        let Some(management) = self.management else {
            return;
        };
        management.stop.cancel();
        if let Err(error) = management.serving.await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the server for health and metrics ended badly"
            );
        }
    }
}
