//! `run-code`: a file of code in a context, its text to the terminal and what it shows to files.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;

use super::client::{Client, Events, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::{OWN_FAILURE, quantity, show};
use crate::api::schema::contexts::{CodeEnd, CodeOutputEvent, RichOutput, RunCode};
use crate::api::schema::{CreateSandbox, Encoding};
use crate::sandbox::{Language, SandboxView};

/// Examples of `run-code`.
pub(super) const HELP: &str = "\
The code runs in the sandbox's context of that language, which keeps its state; without --sandbox in a new sandbox, which
is removed afterwards. Text goes to the terminal; figures, tables and other rich results are saved as files.

Examples:
  stockade run-code --lang python analysis.py --image python
  stockade run-code --lang javascript --sandbox work - <<< 'console.log(process.version); 6 * 7'
  stockade run-code --lang python --sandbox work --output charts plots.py
  stockade --json run-code --lang bash --sandbox work build.sh      one event a line";

/// Arguments of `run-code`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A file of code; `-` is the standard input.
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// The language: python, javascript, typescript or bash.
    #[arg(long, value_name = "NAME", value_parser = language)]
    lang: Language,
    /// The sandbox [default: a new one, removed afterwards].
    #[arg(long, short, value_name = "NAME")]
    sandbox: Option<String>,
    /// The image of a new sandbox.
    #[arg(long, value_name = "IMAGE", default_value = "host", conflicts_with = "sandbox")]
    image: String,
    /// The context [default: the one named as the language].
    #[arg(long, value_name = "ID", requires = "sandbox")]
    context: Option<String>,
    /// Interrupt it after this time: 500ms, 30s, 5m.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    timeout: Option<quantity::Duration>,
    /// Where rich results are saved.
    #[arg(long, short, value_name = "DIRECTORY", default_value = ".")]
    output: PathBuf,
}

fn language(text: &str) -> Result<Language, String> {
    let found = Language::ALL.into_iter().find(|language| language.name() == text);
    found.ok_or_else(|| "one of python, javascript, typescript and bash".to_owned())
}

/// `stockade run-code`.
pub(super) async fn run_code(daemon: Daemon, arguments: Arguments, json: bool) -> Result<u8, Failure> {
    let code = read(&arguments.file)?;
    let connection = daemon.running().await?;
    let client = &connection.client;
    let (sandbox, temporary) = match &arguments.sandbox {
        Some(sandbox) => (sandbox.clone(), false),
        None => {
            let wanted = CreateSandbox { image: arguments.image.clone(), ..CreateSandbox::default() };
            let (_, made) = client.post::<_, SandboxView>("/v1/sandboxes", &wanted).await?;
            (made.id.to_string(), true)
        }
    };
    let ended = run(client, &sandbox, &arguments, code, json).await;
    if temporary {
        client.delete(&format!("/v1/sandboxes/{}", segment(&sandbox))).await?;
    }
    ended
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

async fn run(
    client: &Client,
    sandbox: &str,
    wanted: &Arguments,
    code: String,
    json: bool,
) -> Result<u8, Failure> {
    let context = wanted.context.as_deref().unwrap_or(wanted.lang.name());
    let path = format!("/v1/sandboxes/{}/contexts/{}/runs", segment(sandbox), segment(context));
    let body = RunCode { code, timeout_ms: wanted.timeout, ..RunCode::default() };
    let response = client.request(Method::POST, &path, Some(&body), "text/event-stream").await?;
    let mut events = Events::new(response);
    let mut saved = 0;
    while let Some(event) = events.next().await? {
        let data: serde_json::Value = serde_json::from_str(&event.data).map_err(Failure::NotOurs)?;
        if json {
            show::print(&format!("{}\n", serde_json::json!({"event": event.name, "data": data})))?;
        }
        match event.name.as_str() {
            "stdout" | "stderr" if !json => {
                let output: CodeOutputEvent = serde_json::from_value(data).map_err(Failure::NotOurs)?;
                put(event.name == "stderr", &output)?;
            }
            "display" | "result" if !json => {
                let rich: RichOutput = serde_json::from_value(data).map_err(Failure::NotOurs)?;
                present(&rich, &wanted.output, &mut saved)?;
            }
            "end" => {
                let end: CodeEnd = serde_json::from_value(data).map_err(Failure::NotOurs)?;
                return Ok(finish(&end, json));
            }
            "error" => return Ok(OWN_FAILURE),
            _ => {}
        }
    }
    Err(Failure::Lost("the events ended before the code".into()))
}

fn finish(end: &CodeEnd, json: bool) -> u8 {
    let Some(error) = &end.error else { return 0 };
    if !json {
        match error.traceback.is_empty() {
            false => {
                show::say(&error.traceback.iter().map(|line| show::safe(line)).collect::<Vec<_>>().join("\n"))
            }
            true => show::say(&format!("{}: {}", show::safe(&error.name), show::safe(&error.message))),
        }
    }
    1
}

fn put(to_stderr: bool, output: &CodeOutputEvent) -> Result<(), Failure> {
    let bytes = match output.encoding {
        Encoding::Utf8 => output.data.as_bytes().to_vec(),
        Encoding::Base64 => STANDARD.decode(&output.data).unwrap_or_default(),
    };
    let written = if to_stderr {
        std::io::stderr().write_all(&bytes)
    } else {
        let mut stdout = std::io::stdout();
        stdout.write_all(&bytes).and_then(|()| stdout.flush())
    };
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Local { what: "cannot write the output".to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// MIME types that are saved, the extension of their files, and whether they come in base64.
const SAVED: [(&str, &str, bool); 12] = [
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
];

/// Prints the text of what was shown and saves the rest.
fn present(rich: &RichOutput, directory: &Path, saved: &mut u32) -> Result<(), Failure> {
    if let Some(text) = rich.data.get("text/plain").and_then(|text| text.as_str()) {
        show::print(&format!("{text}\n"))?;
    }
    let kinds: Vec<_> = SAVED.iter().filter(|(mime, _, _)| rich.data.contains_key(*mime)).collect();
    if kinds.is_empty() {
        return Ok(());
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
    Ok(())
}

/// Writes a file of a new name: nothing that is there is replaced, and no link is followed.
fn save(directory: &Path, number: u32, extension: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let failed =
        |path: &Path, source| Failure::Local { what: format!("cannot write {}", path.display()), source };
    std::fs::create_dir_all(directory).map_err(|source| failed(directory, source))?;
    for attempt in 0..10_000 {
        let name = match attempt {
            0 => format!("result-{number}.{extension}"),
            _ => format!("result-{number}-{attempt}.{extension}"),
        };
        let path = directory.join(name);
        match std::fs::File::create_new(&path) {
            Ok(mut file) => {
                file.write_all(bytes).map_err(|source| failed(&path, source))?;
                return Ok(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(failed(&path, source)),
        }
    }
    Err(Failure::Usage(format!("{} is full of results", directory.display())))
}
