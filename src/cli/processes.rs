//! `process` and `env`: what runs on in a sandbox, and the variables that it is given.

use std::io::{self, Write};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request, header};
use tokio_util::io::ReaderStream;

use super::OWN_FAILURE;
use super::arguments::Surroundings;
use super::client::{Client, Event, Events, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::quantity::{self, environment, pair};
use super::show;
use crate::api::schema::processes::{
    ChangeEnvironment, Environment, LogEntry, LogPart, Process, ProcessList, ProcessesKilled, SignalProcess,
    StartProcess, WaitFor, WaitForHttp, WaitForLog, WaitForPort, WaitForProcess, Waited,
};
use crate::api::schema::{Encoding, SignalName};
use crate::sandbox::{OnExit, ProcessState, Stream};

/// How long a followed log waits before it asks a daemon again that went away.
const RECONNECT: Duration = Duration::from_millis(200);

/// How often it asks: a daemon is back within a second.
const RECONNECTS_MAX: usize = 50;

/// What `process --help` adds.
pub const HELP: &str = "\
Examples:
  stockade process start work --id web -- python3 -m http.server 8000
  stockade process wait work web --text 'Serving HTTP' --timeout 10s
  stockade process logs work web --follow
  stockade process signal work web HUP
  stockade process rm work web

Processes outlive the command that started them, and the daemon. Their arguments are UTF-8, as those of `exec`.";

/// What can be done with processes.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Start one, and print its id.
    Start(Box<Start>),
    /// List those that run, and those that have ended and were not removed.
    Ls(List),
    /// Show one, with all that is known of it, as JSON.
    Inspect(Named),
    /// Write its output to ours, as far as it is kept.
    Logs(Logs),
    /// Wait for its end, and end with its exit code; or for a line of its output.
    Wait(Wait),
    /// Pass our input on to its stdin.
    Write(WriteInput),
    /// Send it a signal.
    Signal(Signal),
    /// Kill processes with everything that they started, and remove them with their logs.
    Rm(Rm),
}

/// A process of a sandbox.
#[derive(Args, Debug)]
pub struct Named {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// The process.
    #[arg(value_name = "PROCESS")]
    pub process: String,
}

/// Arguments of `process start`.
#[derive(Args, Debug)]
pub struct Start {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// Its id [default: from a number].
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// Its surroundings.
    #[command(flatten)]
    pub surroundings: Surroundings,
    /// Kill it and all that it started after this time: 500ms, 30s, 5m.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub timeout: Option<u64>,
    /// Keep its stdin open, for `process write`.
    #[arg(long, short)]
    pub interactive: bool,
    /// Remove it when it has ended, with its logs.
    #[arg(long)]
    pub rm: bool,
    /// How much of its output to keep [default: 8m].
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    pub log_size: Option<u64>,
    /// Program and arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Arguments of `process ls`.
#[derive(Args, Debug)]
pub struct List {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// Only ids.
    #[arg(long, short)]
    pub quiet: bool,
}

/// One of two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Only {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl From<Only> for Stream {
    fn from(only: Only) -> Self {
        match only {
            Only::Stdout => Self::Stdout,
            Only::Stderr => Self::Stderr,
        }
    }
}

/// Arguments of `process logs`.
#[derive(Args, Debug)]
pub struct Logs {
    /// Which process.
    #[command(flatten)]
    pub named: Named,
    /// Go on until it ends.
    #[arg(long, short)]
    pub follow: bool,
    /// Only this stream.
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<Only>,
    /// From this cursor on, as JSON answers say it.
    #[arg(long, value_name = "N")]
    pub cursor: Option<u64>,
}

/// Arguments of `process wait`.
#[derive(Args, Debug)]
pub struct Wait {
    /// Which process.
    #[command(flatten)]
    pub named: Named,
    /// How long: 500ms, 30s, 5m.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub timeout: Option<u64>,
    /// For a line that holds this.
    #[arg(long, value_name = "TEXT", conflicts_with = "regex")]
    pub text: Option<String>,
    /// For a line that matches this expression.
    #[arg(long, value_name = "REGEX")]
    pub regex: Option<String>,
    /// Only on this stream.
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<Only>,
    /// For a port of the sandbox that takes connections.
    #[arg(long, value_name = "N", conflicts_with_all = ["text", "regex"])]
    pub port: Option<u16>,
    /// And that answers a request for this path with neither an error nor silence.
    #[arg(long, value_name = "PATH", requires = "port")]
    pub http: Option<String>,
}

/// Arguments of `process write`.
#[derive(Args, Debug)]
pub struct WriteInput {
    /// Which process.
    #[command(flatten)]
    pub named: Named,
    /// Close its stdin afterwards.
    #[arg(long)]
    pub close: bool,
}

/// Arguments of `process signal`.
#[derive(Args, Debug)]
pub struct Signal {
    /// Which process.
    #[command(flatten)]
    pub named: Named,
    /// Name or number.
    #[arg(value_name = "SIGNAL")]
    pub signal: String,
    /// To everything that it started as well.
    #[arg(long)]
    pub tree: bool,
}

/// Arguments of `process rm`.
#[derive(Args, Debug)]
pub struct Rm {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// Processes.
    #[arg(value_name = "PROCESS", required_unless_present = "all", conflicts_with = "all")]
    pub processes: Vec<String>,
    /// All of them.
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `env`.
#[derive(Args, Debug)]
pub struct Env {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// Set a variable. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Remove a variable. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub unset: Vec<String>,
}

fn processes(sandbox: &str) -> String {
    format!("/v1/sandboxes/{}/processes", segment(sandbox))
}

fn path(Named { sandbox, process }: &Named) -> String {
    format!("{}/{}", processes(sandbox), segment(process))
}

/// `stockade process`.
pub(super) async fn process(daemon: Daemon, action: Action, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let client = &connection.client;
    match action {
        Action::Start(start) => self::start(client, *start, json).await,
        Action::Ls(list) => self::list(client, list, json).await,
        Action::Inspect(named) => {
            let found: serde_json::Value = client.get(&path(&named)).await?;
            show::print_json(&found).map(|()| 0)
        }
        Action::Logs(logs) if logs.follow => follow(client, &logs, json).await,
        Action::Logs(logs) => read(client, &logs, json).await,
        Action::Wait(wait) => self::wait(client, wait, json).await,
        Action::Write(write) => self::write(client, &write).await,
        Action::Signal(signal) => {
            let body = SignalProcess { signal: SignalName::Name(signal.signal), tree: signal.tree };
            client.post_empty(&format!("{}/signal", path(&signal.named)), &body).await.map(|()| 0)
        }
        Action::Rm(rm) => self::rm(client, rm, json).await,
    }
}

async fn start(client: &Client, start: Start, json: bool) -> Result<u8, Failure> {
    let surroundings = start.surroundings;
    let wanted = StartProcess {
        id: start.id,
        argv: Some(start.command),
        shell: None,
        cwd: surroundings.cwd,
        env: environment(&surroundings.env_file, &surroundings.env)?,
        user: surroundings.user,
        stdin: start.interactive,
        timeout_ms: start.timeout,
        on_exit: if start.rm { OnExit::Remove } else { OnExit::Keep },
        log_bytes_max: start.log_size,
    };
    let (_, process) = client.post::<_, Process>(&processes(&start.sandbox), &wanted).await?;
    if json {
        show::print_json(&process)?;
    } else {
        show::print(&format!("{}\n", process.view.id))?;
    }
    Ok(0)
}

async fn list(client: &Client, list: List, json: bool) -> Result<u8, Failure> {
    let found: ProcessList = client.get(&processes(&list.sandbox)).await?;
    if json {
        show::print_json(&found)?;
    } else if list.quiet {
        let ids: Vec<String> = found.processes.iter().map(|one| format!("{}\n", one.view.id)).collect();
        show::print(&ids.concat())?;
    } else {
        let rows: Vec<Vec<String>> = found.processes.iter().map(row).collect();
        show::print(&show::table(&["ID", "STATE", "PID", "STARTED", "COMMAND"], &rows))?;
    }
    Ok(0)
}

fn row(Process { view, signal }: &Process) -> Vec<String> {
    let state = match (view.state, signal, view.exit_code) {
        (ProcessState::Running, _, _) => "running".to_owned(),
        (ProcessState::Failed, _, _) => "failed".to_owned(),
        (ProcessState::Lost, _, _) => "lost".to_owned(),
        (ProcessState::Exited, Some(signal), _) => signal.clone(),
        (ProcessState::Exited, None, code) => format!("exited {}", code.unwrap_or_default()),
    };
    vec![view.id.clone(), state, view.pid.to_string(), view.started_at.clone(), view.argv.join(" ")]
}

fn query(logs: &Logs, cursor: Option<u64>) -> String {
    let stream = match logs.stream {
        None => "both",
        Some(Only::Stdout) => "stdout",
        Some(Only::Stderr) => "stderr",
    };
    let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    format!("{}/logs?stream={stream}{cursor}", path(&logs.named))
}

/// Writes an entry to the stream that it is of. False when nobody reads ours any more.
fn emit(entry: &LogEntry) -> Result<bool, Failure> {
    let bytes = match entry.encoding {
        Encoding::Utf8 => entry.data.as_bytes().to_vec(),
        Encoding::Base64 => STANDARD
            .decode(&entry.data)
            .map_err(|error| Failure::Lost(format!("what came is not base64: {error}").into()))?,
    };
    let written = match entry.stream {
        Stream::Stdout => io::stdout().lock().write_all(&bytes).and_then(|()| io::stdout().lock().flush()),
        Stream::Stderr => io::stderr().lock().write_all(&bytes),
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(source) => Err(Failure::Local { what: "cannot write the log".to_owned(), source }),
        Ok(()) => Ok(true),
    }
}

fn say_dropped(bytes: u64) {
    if bytes > 0 {
        show::say(&format!("stockade: {bytes} bytes are not kept any more"));
    }
}

async fn read(client: &Client, logs: &Logs, json: bool) -> Result<u8, Failure> {
    let mut cursor = logs.cursor;
    loop {
        let part: LogPart = client.get(&query(logs, cursor)).await?;
        if json {
            return show::print_json(&part).map(|()| 0);
        }
        say_dropped(part.dropped_bytes);
        for entry in &part.entries {
            if !emit(entry)? {
                return Ok(0);
            }
        }
        if !part.more || cursor == Some(part.next_cursor) {
            return Ok(0);
        }
        cursor = Some(part.next_cursor);
    }
}

/// Follows a log through restarts of the daemon. Ends with the process.
async fn follow(client: &Client, logs: &Logs, json: bool) -> Result<u8, Failure> {
    let mut cursor = logs.cursor;
    let mut attempts = 0;
    loop {
        let lost = match follow_once(client, logs, &mut cursor, json).await {
            Ok(true) => return Ok(0),
            Ok(false) => Failure::Lost("the log ended without its process".into()),
            Err(lost @ (Failure::Lost(_) | Failure::Connect { .. })) => lost,
            Err(failure) => return Err(failure),
        };
        attempts += 1;
        if attempts > RECONNECTS_MAX {
            return Err(lost);
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// True when nothing more is to come.
async fn follow_once(
    client: &Client,
    logs: &Logs,
    cursor: &mut Option<u64>,
    json: bool,
) -> Result<bool, Failure> {
    let path = query(logs, *cursor);
    let response = client.request::<()>(Method::GET, &path, None, "text/event-stream").await?;
    let mut events = Events::new(response);
    while let Some(Event { name, data, id }) = events.next().await? {
        let parse = |data: &str| serde_json::from_str::<serde_json::Value>(data).map_err(Failure::NotOurs);
        if json {
            let line = serde_json::json!({ "event": name, "id": id, "data": parse(&data)? });
            show::print(&format!("{line}\n"))?;
        }
        *cursor = id.and_then(|id| id.parse().ok()).or(*cursor);
        match name.as_str() {
            "exit" => return Ok(true),
            _ if json => {}
            "dropped" => say_dropped(parse(&data)?["bytes"].as_u64().unwrap_or(0)),
            _ => {
                if !emit(&serde_json::from_str(&data).map_err(Failure::NotOurs)?)? {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

async fn wait(client: &Client, wait: Wait, json: bool) -> Result<u8, Failure> {
    let for_log = wait.text.is_some() || wait.regex.is_some();
    let http = wait.http.map(|path| WaitForHttp { path, ..WaitForHttp::default() });
    let port = wait.port.map(|port| WaitFor::Port(WaitForPort { port, http }));
    let for_exit = !for_log && port.is_none();
    let stream = wait.stream.map(Stream::from);
    let what = for_log.then_some(WaitFor::Log(WaitForLog {
        text: wait.text,
        regex: wait.regex,
        stream,
        cursor: None,
    }));
    let wanted = WaitForProcess { timeout_ms: wait.timeout, what: what.or(port) };
    let (_, waited) = client.post::<_, Waited>(&format!("{}/wait", path(&wait.named)), &wanted).await?;
    if json {
        show::print_json(&waited)?;
    } else if let Some(found) = &waited.log {
        show::print(&format!("{}\n", show::safe(&found.line)))?;
    }
    if !for_exit {
        return Ok(0);
    }
    // Codes of processes are 0 to 255; one that never ran, or was lost, has none.
    Ok(waited.process.view.exit_code.and_then(|code| u8::try_from(code).ok()).unwrap_or(OWN_FAILURE))
}

async fn write(client: &Client, write: &WriteInput) -> Result<u8, Failure> {
    let input = ReaderStream::new(tokio::io::stdin()).map_ok(Frame::data);
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/stdin?close={}", path(&write.named), write.close))
        .header(header::HOST, "stockade")
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .body(StreamBody::new(input).boxed_unsync())
        .map_err(|error| Failure::Usage(error.to_string()))?;
    client.send(request).await.map(|_| 0)
}

async fn rm(client: &Client, rm: Rm, json: bool) -> Result<u8, Failure> {
    if rm.all {
        let path = format!("{}?remove=true", processes(&rm.sandbox));
        let response = client.request::<()>(Method::DELETE, &path, None, "application/json").await?;
        let killed: ProcessesKilled = super::client::json(response).await?;
        if json {
            show::print_json(&killed)?;
        }
        return Ok(0);
    }
    client.delete_each(&processes(&rm.sandbox), &rm.processes, json).await
}

/// `stockade env`.
pub(super) async fn env(daemon: Daemon, env: Env, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let path = format!("/v1/sandboxes/{}/env", segment(&env.sandbox));
    let found: Environment = if env.set.is_empty() && env.unset.is_empty() {
        connection.client.get(&path).await?
    } else {
        let change = ChangeEnvironment { set: env.set.into_iter().collect(), unset: env.unset };
        let request =
            connection.client.request(Method::PATCH, &path, Some(&change), "application/json").await?;
        super::client::json(request).await?
    };
    if json {
        show::print_json(&found)?;
    } else {
        let lines: Vec<String> = found
            .env
            .iter()
            .map(|(name, value)| format!("{}={}\n", show::safe(name), show::safe(value)))
            .collect();
        show::print(&lines.concat())?;
    }
    Ok(0)
}
