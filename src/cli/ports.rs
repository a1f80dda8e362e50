//! `port` and `forward`: servers in a sandbox, for browsers and for programs on this host.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration as Time;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::client::{Client, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::quantity::{self, Duration};
use super::signals::Signals;
use super::{OWN_FAILURE, show};
use crate::api::schema::ports::{ExposePort, ExposedPort, PortList};

/// What `port --help` adds.
pub const HELP: &str = "\
Prints the address, which whoever knows it can open. Exposing a port again gives it another address.

Examples:
  stockade port expose work 8000                 http://8000-work-….localhost:7080/
  stockade port expose work 3000 --name app --wait 30s
  stockade port ls work
  stockade port revoke work 8000";

/// What `forward --help` adds.
pub const FORWARD_HELP: &str = "\
Listens here and passes every connection on, whatever protocol it speaks, until it is interrupted. The port does not
need to be exposed. Prints where it listens; LOCAL 0 is any port that is free.

Examples:
  stockade forward work 5432                     localhost:5432 is port 5432 in the sandbox
  stockade forward work 8080:80 9229             two ports, one under another number
  stockade forward work 8000 --address 0.0.0.0   for other hosts too";

/// Between two attempts to accept, when there are no descriptors left.
const ACCEPT_PAUSE: Time = Time::from_millis(50);

/// What can be done with exposed ports.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Give a port an address for browsers, and print it.
    Expose(Expose),
    /// List exposed ports.
    Ls {
        /// The sandbox.
        #[arg(value_name = "SANDBOX")]
        sandbox: String,
    },
    /// Take addresses away, and end what goes on by them.
    Revoke {
        /// The sandbox.
        #[arg(value_name = "SANDBOX")]
        sandbox: String,
        /// Ports.
        #[arg(required = true, value_name = "PORT")]
        ports: Vec<u16>,
    },
}

/// Arguments of `port expose`.
#[derive(Args, Debug)]
pub struct Expose {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// On which the server in the sandbox listens, now or later.
    #[arg(value_name = "PORT")]
    pub port: u16,
    /// What it is called in lists.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Its token, 1 to 16 of a-z, 0-9 and '_' [default: chosen at random].
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// How long a request waits for the server to listen, instead of failing at once: 500ms, 30s.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub wait: Option<Duration>,
}

/// Arguments of `forward`.
#[derive(Args, Debug)]
pub struct Forward {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// Ports of the sandbox, and ours for them if they are others.
    #[arg(required = true, value_name = "[LOCAL:]PORT", value_parser = pair)]
    pub ports: Vec<Forwarded>,
    /// Where to listen.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub address: IpAddr,
    /// How long a connection waits for the server to listen: 500ms, 30s.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub wait: Option<Duration>,
}

/// A port to forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Ours.
    pub local: u16,
    /// The sandbox's.
    pub port: u16,
}

fn pair(text: &str) -> Result<Forwarded, String> {
    let number = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is not a port"));
    let (local, port) = text.split_once(':').unwrap_or((text, text));
    let pair = Forwarded { local: number(local)?, port: number(port)? };
    if pair.port == 0 {
        return Err("a port of the sandbox is a number from 1 to 65535".to_owned());
    }
    Ok(pair)
}

fn path(sandbox: &str) -> String {
    format!("/v1/sandboxes/{}/ports", segment(sandbox))
}

/// Elsewhere a token comes by standard input.
fn own_flag(failure: Failure) -> Failure {
    match failure {
        Failure::Refused(mut body) => {
            if let Some(rest) = body.message.strip_prefix("token ") {
                body.message = format!("--token {rest}");
            }
            Failure::Refused(body)
        }
        other => other,
    }
}

/// `stockade port`.
pub(super) async fn port(daemon: Daemon, wanted: Action, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let client = &connection.client;
    match wanted {
        Action::Expose(Expose { sandbox, port, name, token, wait }) => {
            let wanted = ExposePort { port: port.into(), name, token, wait_ms: wait };
            let (_, exposed) =
                client.post::<_, ExposedPort>(&path(&sandbox), &wanted).await.map_err(own_flag)?;
            match &exposed.url {
                _ if json => show::print_json(&exposed)?,
                Some(url) => show::print(&format!("{url}\n"))?,
                None => show::say(&format!(
                    "the daemon serves no previews; `stockade forward {sandbox} {port}` reaches the port"
                )),
            }
            Ok(0)
        }
        Action::Ls { sandbox } => {
            let list: PortList = client.get(&path(&sandbox)).await?;
            if json {
                show::print_json(&list)?;
            } else {
                let rows: Vec<Vec<String>> = list.ports.iter().map(row).collect();
                show::print(&show::table(&["PORT", "NAME", "SINCE", "URL"], &rows))?;
            }
            Ok(0)
        }
        Action::Revoke { sandbox, ports } => {
            let mut code = 0;
            for port in ports {
                match client.delete(&format!("{}/{port}", path(&sandbox))).await {
                    Ok(()) if json => show::print_json(&serde_json::json!({ "revoked": port }))?,
                    Ok(()) => show::print(&format!("{port}\n"))?,
                    Err(failure) => {
                        failure.show(json);
                        code = OWN_FAILURE;
                    }
                }
            }
            Ok(code)
        }
    }
}

fn row(exposed: &ExposedPort) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let view = &exposed.view;
    vec![view.port.to_string(), text(&view.name), view.exposed_at.clone(), text(&exposed.url)]
}

/// `stockade forward`.
pub(super) async fn forward(daemon: Daemon, arguments: Forward, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let mut signals = Signals::catch()?;
    // A sandbox that is not there is known before anybody connects.
    let sandbox = format!("/v1/sandboxes/{}", segment(&arguments.sandbox));
    connection.client.get::<serde_json::Value>(&sandbox).await?;
    let mut listeners = Vec::new();
    for Forwarded { local, port } in &arguments.ports {
        let address = SocketAddr::new(arguments.address, *local);
        let failed = |source| Failure::Local { what: format!("cannot listen on {address}"), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if json {
            let line = serde_json::json!({"address": address.to_string(), "port": port});
            show::print(&format!("{line}\n"))?;
        } else {
            show::print(&format!("{address} -> {}:{port}\n", arguments.sandbox))?;
        }
        listeners.push((listener, *port));
    }
    let all: FuturesUnordered<_> = listeners
        .into_iter()
        .map(|(listener, port)| listen(&connection.client, listener, port, &arguments, json))
        .collect();
    tokio::select! {
        () = all.for_each(async |()| {}) => {}
        _ = signals.next() => {}
    }
    Ok(0)
}

/// Passes on every connection, side by side. Never ends.
async fn listen(client: &Client, listener: TcpListener, port: u16, arguments: &Forward, json: bool) {
    let wait = arguments.wait.unwrap_or_default();
    let path = format!("{}/{port}/connect?wait_ms={wait}", path(&arguments.sandbox));
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.push(pass(client, stream, &path)),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(ended) = connections.next() => if let Err(failure) = ended {
                // The next connection may be luckier.
                failure.show(json);
            },
        }
    }
}

async fn pass(client: &Client, mut stream: TcpStream, path: &str) -> Result<(), Failure> {
    // Without it the bytes only come later.
    let _ = stream.set_nodelay(true);
    let mut tunnel = TokioIo::new(client.tunnel(path).await?);
    // Whichever side broke: the other one is closed with it, which is how a connection says so.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut tunnel).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_port_is_one_number_or_two() {
        assert_eq!(pair("80"), Ok(Forwarded { local: 80, port: 80 }));
        assert_eq!(pair("0:80"), Ok(Forwarded { local: 0, port: 80 }));
        for bad in ["", "0", "80:0", "a", "80:", ":80", "1:2:3", "65536"] {
            assert!(pair(bad).is_err(), "{bad}");
        }
    }
}
