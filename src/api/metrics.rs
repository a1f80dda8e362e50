//! Numbers for monitoring, in Prometheus' text format.
//!
//! How long each operation takes is counted as it ends, and by how. The rest is read when somebody asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;

use super::caller::Peer;
use super::error::Refused;
use super::schema::ErrorBody;
use super::{App, Shared};
use crate::error::{Error, ErrorCode};
use crate::sandbox::{SandboxStats, State as SandboxState};

/// Bounds of the buckets of times, in seconds: from a command that does nothing to a build.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// What the type of the answer is called (OpenMetrics 1.0.0).
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Asked {
    operation: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

/// The numbers.
#[derive(Debug)]
pub(super) struct Metrics {
    answered: AtomicU64,
    requests: Family<Asked, Histogram>,
    refusals: Family<Asked, Counter>,
    sandboxes: Family<Of, Gauge>,
    memory: Family<Of, Gauge>,
    gateway: Family<Of, Gauge>,
    store: Family<Of, Gauge>,
    processes: Gauge,
    records: Gauge,
    /// One reader at a time: what is read is put where all of them look.
    registry: Mutex<Registry>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let requests = Family::<Asked, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        let mut this = Self {
            answered: AtomicU64::new(0),
            requests,
            refusals: Family::default(),
            sandboxes: Family::default(),
            memory: Family::default(),
            gateway: Family::default(),
            store: Family::default(),
            processes: Gauge::default(),
            records: Gauge::default(),
            registry: Mutex::default(),
        };
        let mut registry = Registry::with_prefix("stockade");
        let (text, families) = (
            [
                ("sandboxes", "Sandboxes by state"),
                ("memory_bytes", "Memory of all sandboxes by kind"),
                ("gateway", "What went through the gateway, of the sandboxes that run now"),
                ("images", "Images, their layers, and bytes of the blobs that they came in"),
            ],
            [&this.sandboxes, &this.memory, &this.gateway, &this.store],
        );
        registry.register(
            "request_seconds",
            "Time to the head of the answer, by operation and outcome",
            this.requests.clone(),
        );
        registry.register(
            "refusals",
            "Requests that were refused or failed, by operation and outcome",
            this.refusals.clone(),
        );
        for ((name, help), family) in text.into_iter().zip(families) {
            registry.register(name, help, family.clone());
        }
        registry.register("processes", "Processes and threads of all sandboxes", this.processes.clone());
        registry.register(
            "audit_records",
            "Number of the last record of the audit log",
            this.records.clone(),
        );
        let build = Family::<Version, Gauge>::default();
        build.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build", "The version of this daemon", build);
        *this.registry.get_mut() = registry;
        this
    }

    /// Counts a request that was answered.
    pub(super) fn count(&self, operation: &Arc<str>, refusal: Option<ErrorCode>, took: Duration) {
        let outcome = match refusal {
            None => "done",
            Some(code) if super::error::status(code).is_server_error() => "failed",
            Some(_) => "refused",
        };
        self.answered.fetch_add(1, Ordering::Relaxed);
        let asked = Asked { operation: Arc::clone(operation), outcome };
        self.requests.get_or_create(&asked).observe(took.as_secs_f64());
        if refusal.is_some() {
            self.refusals.get_or_create(&asked).inc();
        }
    }

    /// How many requests were counted.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn read(&self, app: &Shared, all: &[SandboxStats]) {
        let set = |family: &Family<Of, Gauge>, kind: &'static str, value: u64| {
            family.get_or_create(&Of { kind }).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let count = |state: SandboxState| all.iter().filter(|one| one.state == state).count() as u64;
        for (kind, state) in [
            ("running", SandboxState::Running),
            ("paused", SandboxState::Paused),
            ("stopped", SandboxState::Stopped),
            ("dead", SandboxState::Dead),
        ] {
            set(&self.sandboxes, kind, count(state));
        }
        let sum = |of: fn(&SandboxStats) -> Option<u64>| all.iter().filter_map(of).sum::<u64>();
        set(&self.memory, "all", sum(|one| one.memory.current_bytes));
        set(&self.memory, "anonymous", sum(|one| one.memory.anonymous_bytes));
        set(&self.memory, "file", sum(|one| one.memory.file_bytes));
        set(&self.memory, "shared", sum(|one| one.memory.shared_bytes));
        set(&self.memory, "kernel", sum(|one| one.memory.kernel_bytes));
        set(&self.gateway, "sent_bytes", sum(|one| one.network.map(|network| network.sent_bytes)));
        set(&self.gateway, "received_bytes", sum(|one| one.network.map(|network| network.received_bytes)));
        set(
            &self.gateway,
            "connections_open",
            sum(|one| one.network.map(|network| network.connections_open)),
        );
        set(&self.gateway, "allowed", sum(|one| one.network.map(|network| network.allowed)));
        set(&self.gateway, "denied", sum(|one| one.network.map(|network| network.denied)));
        let images = app.state.catalog.list();
        let layers: std::collections::HashSet<_> =
            images.iter().flat_map(|image| image.layers.iter().map(|layer| layer.diff_id)).collect();
        set(&self.store, "images", images.len() as u64);
        set(&self.store, "layers", layers.len() as u64);
        set(&self.store, "blob_bytes", images.iter().map(|image| image.size_bytes).sum());
        let processes = sum(|one| one.pids.current);
        self.processes.set(i64::try_from(processes).unwrap_or(i64::MAX));
        self.records.set(i64::try_from(app.state.audit.head().0).unwrap_or(i64::MAX));
    }
}

/// Read numbers for monitoring.
///
/// Of the daemon and of everybody's sandboxes, in the text format of Prometheus (OpenMetrics): histograms of the time
/// that each operation took, sandboxes by state, memory, the gateway, the image store. For root and operators.
#[utoipa::path(
    get, path = "/v1/metrics", tag = "host", operation_id = "getMetrics",
    responses(
        (status = 200, description = "The numbers", body = String, content_type = "application/openmetrics-text"),
        (status = 403, description = "`PERMISSION_DENIED`", body = ErrorBody),
    )
)]
pub(super) async fn metrics(State(app): App, Peer(caller): Peer) -> Result<impl IntoResponse, Refused> {
    if !caller.operator {
        return Err(Error::new(
            ErrorCode::PermissionDenied,
            "the daemon's metrics are for root and operators",
        )
        .hint("GET /v1/stats shows what your own sandboxes use")
        .into());
    }
    let all = app.state.sandboxes.stats_of_all(&caller, false).await;
    let registry = app.metrics.registry.lock().await;
    app.metrics.read(&app, &all);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| Error::internal("cannot write the metrics", error))?;
    Ok(([(header::CONTENT_TYPE, TEXT)], text))
}
