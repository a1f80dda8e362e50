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

/// A time, or none.
#[derive(Clone, Copy, Debug)]
pub struct Within(Option<Duration>);

fn within(text: &str) -> Result<Within, String> {
    if text == "never" { Ok(Within(None)) } else { quantity::duration(text).map(Some).map(Within) }
}

/// Arguments of `lifecycle`: what is not given stays.
#[derive(Args, Debug)]
pub struct Set {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// Stop it when nobody has used it for so long, or `never`.
    #[arg(long, value_name = "TIME", value_parser = within)]
    pub idle_timeout: Option<Within>,
    /// Destroy it so long after its creation, or `never`.
    #[arg(long, value_name = "TIME", value_parser = within)]
    pub ttl: Option<Within>,
    /// Do neither for now; `--keep-alive=false` does both again.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub keep_alive: Option<bool>,
    /// Background processes that run keep it from being stopped; `--processes-hold=false`: they do not.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub processes_hold: Option<bool>,
}

impl Set {
    /// What a sandbox's is to be; nothing when it was only asked.
    fn over(&self, now: Lifecycle) -> Option<Lifecycle> {
        let asked = self.idle_timeout.is_none() && self.ttl.is_none();
        if asked && self.keep_alive.is_none() && self.processes_hold.is_none() {
            return None;
        }
        Some(Lifecycle {
            idle_timeout_ms: self.idle_timeout.map_or(now.idle_timeout_ms, |given| given.0),
            ttl_ms: self.ttl.map_or(now.ttl_ms, |given| given.0),
            keep_alive: self.keep_alive.unwrap_or(now.keep_alive),
            processes_hold: self.processes_hold.unwrap_or(now.processes_hold),
        })
    }
}

/// `stop`, `pause` and `start`: all of them, even when one cannot.
pub(super) async fn each(daemon: Daemon, arguments: Ids, verb: &str, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let mut code = 0;
    for id in &arguments.ids {
        let path = format!("/v1/sandboxes/{}/{verb}", segment(id));
        match connection.client.post::<_, SandboxView>(&path, &serde_json::json!({})).await {
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
    let sandbox = format!("/v1/sandboxes/{}", segment(&arguments.sandbox));
    let mut view: SandboxView = connection.client.get(&sandbox).await?;
    if let Some(wanted) = arguments.over(view.lifecycle) {
        let path = format!("{sandbox}/lifecycle");
        let response =
            connection.client.request(Method::PUT, &path, Some(&wanted), "application/json").await?;
        view = answer(response).await?;
    }
    if json {
        return show::print_json(&view).map(|()| 0);
    }
    let Lifecycle { idle_timeout_ms, ttl_ms, keep_alive, processes_hold } = view.lifecycle;
    let time = |time: Option<u64>| time.map_or("never".to_owned(), |ms| format!("{} s", ms as f64 / 1000.0));
    show::print(&format!(
        "stopped when idle for: {}\ndestroyed after: {}\nkept alive: {keep_alive}\nheld by processes: {processes_hold}\n",
        time(idle_timeout_ms),
        time(ttl_ms),
    ))?;
    Ok(0)
}
