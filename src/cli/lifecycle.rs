//! `stop`, `pause`, `start`, `lifecycle`: sandboxes that rest, begin again, and end by themselves.

use clap::Args;
use hyper::Method;

use super::client::{json as answer, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::quantity::{self, Duration};
use super::{OWN_FAILURE, show};
use crate::sandbox::{Lifecycle, SandboxView};

/// When a sandbox rests and ends by itself.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Lifecycle")]
pub struct When {
    /// Stop it when nobody has used it for so long; the next call wakes it [default: never].
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub idle_timeout: Option<Duration>,
    /// Destroy it so long after its creation [default: never].
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub ttl: Option<Duration>,
    /// Do neither for now.
    #[arg(long)]
    pub keep_alive: bool,
    /// Background processes that run keep it from being stopped.
    #[arg(long)]
    pub processes_hold: bool,
}

impl From<When> for Lifecycle {
    fn from(when: When) -> Self {
        let When { idle_timeout, ttl, keep_alive, processes_hold } = when;
        Self { idle_timeout_ms: idle_timeout, ttl_ms: ttl, keep_alive, processes_hold }
    }
}

/// Arguments of `stop`, `pause` and `start`.
#[derive(Args, Debug)]
pub struct Ids {
    /// Sandboxes.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// Arguments of `rm`.
#[derive(Args, Debug)]
pub struct Rm {
    /// Sandboxes.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// It is no error when one is not there.
    #[arg(long, short)]
    pub force: bool,
}

/// Arguments of `lifecycle`: what is not given is never.
#[derive(Args, Debug)]
pub struct Set {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// When.
    #[command(flatten)]
    pub when: When,
}

/// `stop`, `pause` and `start`: all of them, even when one cannot.
pub(super) async fn each(daemon: Daemon, arguments: Ids, verb: &str, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let mut code = 0;
    for id in &arguments.ids {
        let path = format!("/v1/sandboxes/{}/{verb}", segment(id));
        match connection.client.post::<_, SandboxView>(&path, &()).await {
            Err(failure) => {
                failure.show(json);
                code = OWN_FAILURE;
            }
            Ok((_, sandbox)) if json => show::print_json(&sandbox)?,
            Ok(_) => show::print(&format!("{id}\n"))?,
        }
    }
    Ok(code)
}

/// `stockade lifecycle`.
pub(super) async fn set(daemon: Daemon, arguments: Set, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let path = format!("/v1/sandboxes/{}/lifecycle", segment(&arguments.sandbox));
    let wanted = Lifecycle::from(arguments.when);
    let response = connection.client.request(Method::PUT, &path, Some(&wanted), "application/json").await?;
    let sandbox: SandboxView = answer(response).await?;
    if json {
        show::print_json(&sandbox)?;
    } else {
        show::print(&format!("{}\n", arguments.sandbox))?;
    }
    Ok(0)
}
