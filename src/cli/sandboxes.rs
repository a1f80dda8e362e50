//! `create`, `ps`, `inspect`, `rm`, `info`.

use hyper::StatusCode;

use super::arguments::{Create, Inspect, Ps};
use super::client::segment;
use super::daemon::Daemon;
use super::failure::Failure;
use super::lifecycle::Rm;
use super::{OWN_FAILURE, run, show};
use crate::api::schema::SandboxList;
use crate::error::ErrorCode;
use crate::id::SandboxId;
use crate::sandbox::{NetworkHost, SandboxView, State};

/// `stockade create`.
pub(super) async fn create(daemon: Daemon, arguments: Create, json: bool) -> Result<u8, Failure> {
    let mut wanted = run::specification(arguments.sandbox, arguments.surroundings)?;
    wanted.snapshot = arguments.snapshot;
    let connection = daemon.running().await?;
    let (status, sandbox) = connection.client.post::<_, SandboxView>("/v1/sandboxes", &wanted).await?;
    let hosts = wanted.network.iter().flat_map(|network| &network.hosts);
    if status != StatusCode::CREATED && hosts.into_iter().any(NetworkHost::has_credential) {
        // What it is compared by holds no secrets.
        let fix = format!("`stockade network set {} --add` changes them", sandbox.id);
        show::say(&format!(
            "stockade: {} is there already, with the credentials that it had; {fix}",
            sandbox.id
        ));
    }
    if json {
        show::print_json(&sandbox)?;
    } else {
        show::print(&format!("{}\n", sandbox.id))?;
    }
    Ok(0)
}

/// `stockade ps`.
pub(super) async fn ps(daemon: Daemon, arguments: Ps, json: bool) -> Result<u8, Failure> {
    let labels: Vec<String> =
        arguments.label.iter().map(|label| format!("label={}", segment(label))).collect();
    let connection = daemon.running().await?;
    let path = format!("/v1/sandboxes?{}", labels.join("&"));
    let list: SandboxList = connection.client.get(&path).await?;
    if json {
        show::print_json(&list)?;
    } else if arguments.quiet {
        let ids: Vec<String> = list.sandboxes.iter().map(|sandbox| format!("{}\n", sandbox.id)).collect();
        show::print(&ids.concat())?;
    } else {
        let rows: Vec<Vec<String>> = list.sandboxes.iter().map(row).collect();
        show::print(&show::table(&["ID", "IMAGE", "STATE", "OWNER", "CREATED", "LABELS"], &rows))?;
    }
    Ok(0)
}

fn row(sandbox: &SandboxView) -> Vec<String> {
    let labels: Vec<String> = sandbox.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        sandbox.id.to_string(),
        sandbox.image.reference.clone(),
        match sandbox.state {
            State::Running => "running".to_owned(),
            State::Paused => "paused".to_owned(),
            State::Stopped => "stopped".to_owned(),
            State::Dead => "dead".to_owned(),
        },
        sandbox.owner_uid.to_string(),
        sandbox.created_at.clone(),
        labels.join(" "),
    ]
}

/// `stockade inspect`: what has this name as a sandbox, or else as an image.
pub(super) async fn inspect(daemon: Daemon, arguments: Inspect) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let name = arguments.name;
    if SandboxId::parse(&name).is_ok() {
        let path = format!("/v1/sandboxes/{}", segment(&name));
        match connection.client.get::<serde_json::Value>(&path).await {
            Err(failure) if failure.code() == Some(ErrorCode::SandboxNotFound) => {}
            found => return found.and_then(|sandbox| show::print_json(&sandbox)).map(|()| 0),
        }
    }
    let path = format!("/v1/images/{}", segment(&name));
    match connection.client.get::<serde_json::Value>(&path).await {
        Err(failure) if failure.code() == Some(ErrorCode::ImageNotFound) => {
            Err(Failure::Usage(format!("there is neither a sandbox nor an image called {name}")))
        }
        found => found.and_then(|image| show::print_json(&image)).map(|()| 0),
    }
}

/// `stockade rm`: all that can be destroyed, even when one cannot.
pub(super) async fn rm(daemon: Daemon, arguments: Rm, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let mut code = 0;
    for id in &arguments.ids {
        match connection.client.delete(&format!("/v1/sandboxes/{}", segment(id))).await {
            Err(failure) if arguments.force && failure.code() == Some(ErrorCode::SandboxNotFound) => {}
            Err(failure) => {
                failure.show(json);
                code = OWN_FAILURE;
            }
            Ok(()) if json => show::print_json(&serde_json::json!({ "removed": id }))?,
            Ok(()) => show::print(&format!("{id}\n"))?,
        }
    }
    Ok(code)
}

/// `stockade info`.
pub(super) async fn info(daemon: Daemon) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let info: serde_json::Value = connection.client.get("/v1/info").await?;
    show::print_json(&info)?;
    Ok(0)
}
