//! `run-code`: a file of code in a context, its text to the terminal and what it shows to files. When the code asks for
//! input, lines of ours answer it.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use rustix::termios::{LocalModes, OptionalActions, Termios};
use tokio::io::{AsyncBufReadExt as _, BufReader, Stdin};

use super::attach::{PIPE, signalled};
use super::client::{Client, Event, Events, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::run::uninterrupted;
use super::signals::Signals;
use super::{OWN_FAILURE, quantity, show};
use crate::api::schema::contexts::{AnswerInput, CodeEnd, CodeOutputEvent, CodeRunView, RichOutput, RunCode};
use crate::api::schema::{CreateSandbox, Encoding};
use crate::error::ErrorCode;
use crate::sandbox::{ContextView, Language, Prompt, SandboxView};

/// SIGINT (signal(7)), which goes on to the code.
const INTERRUPT: i32 = 2;

/// How long one request waits for the end of a run.
const RESULT_WAIT_MS: u64 = 60_000;

/// Examples of `run-code`.
pub(super) const HELP: &str = "\
The code runs in the sandbox's context of that language, which keeps its state; without --sandbox in a new sandbox, which
is removed afterwards. Text goes to the terminal; figures, tables and other rich results are saved as files. Code that asks
for input gets lines of stdin, when the code itself does not come from there. Ctrl-C interrupts the code.

Examples:
  stockade run-code --lang python analysis.py --image python
  stockade run-code --lang javascript --sandbox work - <<< 'console.log(process.version); 6 * 7'
  stockade run-code --lang python --sandbox work --output charts plots.py
  stockade run-code --context analysis --sandbox work load.py       see `stockade context --help`
  stockade --json run-code --lang bash --sandbox work build.sh      one event a line
  stockade run-code --lang python --sandbox work --detach train.py    prints the run's name, as python-7
  stockade run-code --lang python --sandbox work --result python-7    what came of it, once it has ended";

/// Arguments of `run-code`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A file of code; `-` is the standard input.
    #[arg(value_name = "FILE|-", required_unless_present = "result")]
    file: Option<PathBuf>,
    /// The language: python, javascript, typescript or bash.
    #[arg(long, value_name = "NAME", value_parser = language, required_unless_present = "context")]
    lang: Option<Language>,
    /// The sandbox [default: a new one, removed afterwards].
    #[arg(long, short, value_name = "NAME")]
    sandbox: Option<String>,
    /// The image of a new sandbox.
    #[arg(long, value_name = "IMAGE", default_value = "host", conflicts_with = "sandbox")]
    image: String,
    /// A context made with `stockade context create` [default: the one named as the language].
    #[arg(long, value_name = "ID", requires = "sandbox")]
    context: Option<String>,
    /// Interrupt it after this time: 500ms, 30s, 5m.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    timeout: Option<quantity::Duration>,
    /// Print the run's name and leave it to itself.
    #[arg(long, requires = "sandbox")]
    detach: bool,
    /// Wait for the end of a run that was left to itself, and show what came of it.
    #[arg(long, value_name = "RUN", requires = "sandbox", conflicts_with_all = ["file", "detach", "timeout"])]
    result: Option<String>,
    /// Where rich results are saved.
    #[arg(long, short, value_name = "DIRECTORY", default_value = ".")]
    output: PathBuf,
}

/// A language by its name.
pub(super) fn language(text: &str) -> Result<Language, String> {
    let found = Language::ALL.into_iter().find(|language| language.name() == text);
    found.ok_or_else(|| "one of python, javascript, typescript and bash".to_owned())
}

/// `stockade run-code`.
pub(super) async fn run_code(daemon: Daemon, arguments: Arguments, json: bool) -> Result<u8, Failure> {
    let Some(file) = &arguments.file else { return result(&daemon, &arguments, json).await };
    let code = read(file)?;
    let mut signals = Signals::catch()?;
    let connection = daemon.running().await?;
    let client = &connection.client;
    if let Some(sandbox) = &arguments.sandbox {
        agree(client, sandbox, &arguments).await?;
    }
    if let (Some(sandbox), true) = (&arguments.sandbox, arguments.detach) {
        return detach(client, &path(sandbox, &arguments), code, arguments.timeout, json).await;
    }
    let (sandbox, temporary) = match &arguments.sandbox {
        Some(sandbox) => (sandbox.clone(), false),
        None => {
            let wanted = CreateSandbox { image: arguments.image.clone(), ..CreateSandbox::default() };
            let create = client.post::<_, SandboxView>("/v1/sandboxes", &wanted);
            let (made, interrupted) = uninterrupted(create, &mut signals).await;
            let sandbox = made?.1.id.to_string();
            if let Some(signal) = interrupted {
                client.delete(&format!("/v1/sandboxes/{}", segment(&sandbox))).await?;
                return Ok(signalled(signal));
            }
            (sandbox, true)
        }
    };
    let mut run = Run {
        client,
        path: path(&sandbox, &arguments),
        answers: Answers::new(file),
        output: arguments.output.clone(),
        saved: 0,
        json,
    };
    let ended = run.follow(code, arguments.timeout, &mut signals).await;
    if temporary {
        let path = format!("/v1/sandboxes/{}", segment(&sandbox));
        uninterrupted(client.delete(&path), &mut signals).await.0?;
    }
    ended
}

/// A context has a language of its own: one that is named beside it must be the same.
async fn agree(client: &Client, sandbox: &str, wanted: &Arguments) -> Result<(), Failure> {
    let (Some(language), Some(context)) = (wanted.lang, &wanted.context) else { return Ok(()) };
    let own = match Language::named(context) {
        Some(own) => own,
        None => client.get::<ContextView>(&path(sandbox, wanted)).await?.language,
    };
    if own == language {
        return Ok(());
    }
    let (own, language) = (own.name(), language.name());
    Err(Failure::Usage(format!("context {context} is one of {own}, not of {language}: leave out --lang")))
}

/// Starts a run and leaves it to itself.
async fn detach(
    client: &Client,
    path: &str,
    code: String,
    timeout_ms: Option<quantity::Duration>,
    json: bool,
) -> Result<u8, Failure> {
    let body = RunCode { code: Some(code), timeout_ms, detach: true, ..RunCode::default() };
    let (_, run) = client.post::<_, CodeRunView>(&format!("{path}/runs"), &body).await?;
    let line = if json { serde_json::to_string(&run).map_err(Failure::NotOurs)? } else { run.id };
    show::print(&format!("{line}\n"))?;
    Ok(0)
}

/// Waits for the end of a run that was left to itself, and shows what came of it as if it had been followed.
async fn result(daemon: &Daemon, arguments: &Arguments, json: bool) -> Result<u8, Failure> {
    let (Some(sandbox), Some(run)) = (&arguments.sandbox, &arguments.result) else {
        return Err(Failure::Usage("name the run, and its sandbox".to_owned()));
    };
    let connection = daemon.running().await?;
    let path = format!("{}/runs/{}?wait_ms={RESULT_WAIT_MS}", path(sandbox, arguments), segment(run));
    let run = loop {
        let run: CodeRunView = connection.client.get(&path).await?;
        if run.ended {
            break run;
        }
    };
    if json {
        show::print(&format!("{}\n", serde_json::to_string(&run).map_err(Failure::NotOurs)?))?;
    }
    let Some(result) = run.result else { return Ok(OWN_FAILURE) };
    if !json {
        let streams =
            [(false, result.stdout, result.stdout_encoding), (true, result.stderr, result.stderr_encoding)];
        for (to_stderr, data, encoding) in streams {
            put(to_stderr, &CodeOutputEvent { data, encoding, background: false })?;
        }
        let mut saved = 0;
        for rich in &result.results {
            present(rich, &arguments.output, &mut saved)?;
        }
    }
    Ok(finish(&result.end, json))
}

/// Of the context.
fn path(sandbox: &str, wanted: &Arguments) -> String {
    // One of the two is there.
    let context = wanted.context.as_deref().or(wanted.lang.map(Language::name)).unwrap_or_default();
    format!("/v1/sandboxes/{}/contexts/{}", segment(sandbox), segment(context))
}

fn read(file: &Path) -> Result<String, Failure> {
    let read = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|source| Failure::Local { what: format!("cannot read {}", file.display()), source })
}

/// A run, and whoever it asks.
struct Run<'c> {
    client: &'c Client,
    /// Of the context.
    path: String,
    answers: Answers,
    output: PathBuf,
    /// Results that were saved.
    saved: u32,
    json: bool,
}

impl Run<'_> {
    async fn follow(
        &mut self,
        code: String,
        timeout_ms: Option<quantity::Duration>,
        signals: &mut Signals,
    ) -> Result<u8, Failure> {
        let stdin = self.answers.open;
        let body = RunCode { code: Some(code), timeout_ms, stdin, ..RunCode::default() };
        let path = format!("{}/runs", self.path);
        let response = tokio::select! {
            // Its turn may come late; leaving takes it out of the queue.
            signal = signals.next() => return Ok(signalled(signal)),
            response = self.client.request(Method::POST, &path, Some(&body), "text/event-stream") => response?,
        };
        let mut events = Events::new(response);
        let interrupt = format!("{}/interrupt", self.path);
        let mut interrupted = false;
        loop {
            let event = tokio::select! {
                event = events.next() => event?,
                signal = signals.next() => {
                    if signal != INTERRUPT || std::mem::replace(&mut interrupted, true) {
                        return Ok(signalled(signal));
                    }
                    self.client.request::<()>(Method::POST, &interrupt, None, "application/json").await?;
                    continue;
                }
                answer = self.answers.next() => {
                    self.answer(answer).await?;
                    continue;
                }
            };
            let Some(event) = event else {
                return Err(Failure::Lost("the events ended before the code".into()));
            };
            if let Some(ended) = self.take(&event)? {
                return Ok(if interrupted && ended != 0 { signalled(INTERRUPT) } else { ended });
            }
        }
    }

    async fn answer(&mut self, value: Option<String>) -> Result<(), Failure> {
        let answer = AnswerInput { eof: value.is_none(), value };
        match self.client.post_empty(&format!("{}/input", self.path), &answer).await {
            // The code has been interrupted meanwhile.
            Err(failure) if failure.code() != Some(ErrorCode::InputNotWanted) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Shows an event; gives our exit code when it is the last.
    fn take(&mut self, event: &Event) -> Result<Option<u8>, Failure> {
        let data: serde_json::Value = serde_json::from_str(&event.data).map_err(Failure::NotOurs)?;
        let mut is_read = true;
        if self.json {
            is_read = print(&format!("{}\n", serde_json::json!({"event": event.name, "data": data})))?;
        }
        match event.name.as_str() {
            "stdout" | "stderr" if !self.json => {
                let output: CodeOutputEvent = serde_json::from_value(data).map_err(Failure::NotOurs)?;
                is_read = put(event.name == "stderr", &output)?;
            }
            "display" | "result" if !self.json => {
                let rich: RichOutput = serde_json::from_value(data).map_err(Failure::NotOurs)?;
                is_read = present(&rich, &self.output, &mut self.saved)?;
            }
            "input" => {
                let prompt: Prompt = serde_json::from_value(data).map_err(Failure::NotOurs)?;
                if !self.json {
                    is_read = print(&show::safe(&prompt.prompt))?;
                }
                self.answers.ask(prompt.password);
            }
            "end" => {
                let end: CodeEnd = serde_json::from_value(data).map_err(Failure::NotOurs)?;
                return Ok(Some(finish(&end, self.json)));
            }
            "error" => return Ok(Some(OWN_FAILURE)),
            _ => {}
        }
        // The run ends when we leave.
        Ok((!is_read).then(|| signalled(PIPE)))
    }
}

/// Lines of our standard input, for code that asks for them.
struct Answers {
    input: BufReader<Stdin>,
    /// What has been read of the next one.
    line: Vec<u8>,
    /// Whether there is anybody who could answer: the code itself may have come from here.
    open: bool,
    /// Whether the code waits for one.
    asked: bool,
    hidden: Option<Hidden>,
}

impl Answers {
    fn new(file: &Path) -> Self {
        let stdin = std::io::stdin();
        let open = file != Path::new("-") || stdin.is_terminal();
        let input = BufReader::new(tokio::io::stdin());
        Self { input, line: Vec::new(), open, asked: false, hidden: None }
    }

    /// The code waits for a line, which may be a secret.
    fn ask(&mut self, password: bool) {
        self.asked = true;
        self.hidden = if password { Hidden::begin() } else { None };
    }

    /// The next line without its end, when one is asked for; `None` is the end of the input. Cancel-safe: what has been
    /// read stays.
    async fn next(&mut self) -> Option<String> {
        if !self.asked {
            std::future::pending::<()>().await;
        }
        // What cannot be read is at its end.
        let read = self.input.read_until(b'\n', &mut self.line).await;
        self.asked = false;
        self.hidden = None;
        let mut line = std::mem::take(&mut self.line);
        if read.is_err() || line.is_empty() {
            return None;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Some(String::from_utf8_lossy(&line).into_owned())
    }
}

/// A terminal that does not show what is typed, until it is dropped.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> Option<Self> {
        let before = rustix::termios::tcgetattr(std::io::stdin()).ok()?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &modes).ok()?;
        Some(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // The line feed was not shown either.
        let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
        show::say("");
    }
}

fn finish(end: &CodeEnd, json: bool) -> u8 {
    let Some(error) = &end.error else { return 0 };
    // It has said what there was to say itself.
    let has_left = ["SystemExit", "ProcessExit"].contains(&&*error.name);
    let own = if has_left || error.name == "InterpreterDied" { end.exit_code.map(exit_status) } else { None };
    if own == Some(0) {
        return 0;
    }
    if !json && !has_left {
        // An entry may have several lines.
        let lines: Vec<_> = error.traceback.iter().flat_map(|entry| entry.lines()).map(show::safe).collect();
        lines.iter().for_each(|line| show::say(line));
        // What ended it from outside is not in the interpreter's own traceback.
        if !lines.iter().any(|line| line.contains(&error.name)) {
            show::say(&format!("{}: {}", show::safe(&error.name), show::safe(&error.message)));
        }
    }
    // That of a script of bash, or of an interpreter that was killed.
    own.or_else(|| u8::try_from(end.exit_code?).ok().filter(|&code| code != 0)).unwrap_or(1)
}

/// What exit(3) leaves of it.
fn exit_status(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

fn put(to_stderr: bool, output: &CodeOutputEvent) -> Result<bool, Failure> {
    let bytes = match output.encoding {
        Encoding::Utf8 => output.data.as_bytes().to_vec(),
        Encoding::Base64 => STANDARD.decode(&output.data).unwrap_or_default(),
    };
    write(to_stderr, &bytes)
}

fn print(text: &str) -> Result<bool, Failure> {
    write(false, text.as_bytes())
}

/// Writes to a stream of ours. Gives whether anybody reads stdout; that nobody reads stderr ends nothing.
fn write(to_stderr: bool, bytes: &[u8]) -> Result<bool, Failure> {
    let written = if to_stderr {
        std::io::stderr().write_all(bytes)
    } else {
        let mut stdout = std::io::stdout();
        stdout.write_all(bytes).and_then(|()| stdout.flush())
    };
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(to_stderr),
        Err(source) => Err(Failure::Local { what: "cannot write the output".to_owned(), source }),
        Ok(()) => Ok(true),
    }
}

/// MIME types that are saved, the extension of their files, and whether they come in base64.
const SAVED: [(&str, &str, bool); 14] = [
    ("image/png", "png", true),
    ("image/jpeg", "jpeg", true),
    ("image/svg+xml", "svg", false),
    ("application/pdf", "pdf", true),
    ("text/html", "html", false),
    ("text/markdown", "md", false),
    ("text/latex", "tex", false),
    ("application/vnd.plotly.v1+json", "plotly.json", false),
    ("application/vnd.vegalite.v5+json", "vegalite.json", false),
    ("application/vnd.vegalite.v6+json", "vegalite.json", false),
    ("application/vnd.stockade.dataframe+json", "dataframe.json", false),
    ("application/vnd.stockade.chart+json", "chart.json", false),
    ("application/javascript", "js", false),
    (JSON, "json", false),
];

const JSON: &str = "application/json";

/// Prints the text of what was shown and saves the rest. Gives whether anybody reads the text.
fn present(rich: &RichOutput, directory: &Path, saved: &mut u32) -> Result<bool, Failure> {
    let text = rich.data.get("text/plain").and_then(|text| text.as_str());
    let is_read = text.map_or(Ok(true), |text| print(&format!("{text}\n")))?;
    // A value's text says as much as its JSON, unless it says no more than that it is some.
    let is_said = text.is_some_and(|text| !text.starts_with("<IPython.core.display.JSON"));
    let is_saved = |mime: &str| rich.data.contains_key(mime) && !(mime == JSON && is_said);
    let kinds: Vec<_> = SAVED.iter().filter(|(mime, _, _)| is_saved(mime)).collect();
    if kinds.is_empty() {
        return Ok(is_read);
    }
    *saved += 1;
    for (mime, extension, is_base64) in kinds {
        let bytes = match rich.data.get(*mime) {
            Some(serde_json::Value::String(text)) if *is_base64 => {
                let text: String = text.split_whitespace().collect();
                STANDARD.decode(text).unwrap_or_default()
            }
            Some(serde_json::Value::String(text)) => text.clone().into_bytes(),
            Some(other) => other.to_string().into_bytes(),
            None => continue,
        };
        let path = save(directory, *saved, extension, &bytes)?;
        show::say(&format!("saved {}", path.display()));
    }
    Ok(is_read)
}

/// Writes a file of a new name: nothing that is there is replaced, and no link is followed.
fn save(directory: &Path, number: u32, extension: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let failed =
        |path: &Path, source| Failure::Local { what: format!("cannot write {}", path.display()), source };
    if directory.exists() && !directory.is_dir() {
        let what = "is no directory: name one for what is saved";
        return Err(Failure::Usage(format!("{} {what}", directory.display())));
    }
    std::fs::create_dir_all(directory).map_err(|source| failed(directory, source))?;
    for attempt in 0..10_000 {
        let name = match attempt {
            0 => format!("result-{number}.{extension}"),
            _ => format!("result-{number}-{attempt}.{extension}"),
        };
        let path = directory.join(name);
        match std::fs::File::create_new(&path) {
            Ok(mut file) => {
                let written = file.write_all(bytes).map_err(|source| failed(&path, source));
                // Half a figure is none.
                return written.map(|()| path.clone()).inspect_err(|_| _ = std::fs::remove_file(&path));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(failed(&path, source)),
        }
    }
    Err(Failure::Usage(format!("{} is full of results", directory.display())))
}
