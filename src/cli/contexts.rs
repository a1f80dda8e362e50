//! `context`: make, list, show, interrupt, restart and delete the interpreters that `run-code` uses.

use hyper::Method;

use super::arguments::Surroundings;
use super::client::segment;
use super::code::language;
use super::daemon::Daemon;
use super::failure::Failure;
use super::quantity::{self, environment};
use super::show;
use crate::api::schema::contexts::{ContextList, CreateContext};
use crate::sandbox::{ContextView, Language};

/// What `context --help` adds.
pub(super) const HELP: &str = "\
A context is an interpreter that stays: what one cell defines, the next ones find. One named as its language (python,
javascript, typescript, bash) is made by the first `run-code` that needs it; others have names, directories and variables
of their own, and share nothing but files.

Examples:
  stockade context create work --id analysis --cwd /workspace --env STAGE=test --timeout 30s
  stockade run-code --sandbox work --context analysis load.py
  stockade context ls work                       which there are, and what they do
  stockade context interrupt work analysis       as Ctrl-C: the code ends, the state stays
  stockade context restart work analysis         a new interpreter, which knows nothing
  stockade context rm work analysis";

/// What can be done with contexts.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Make a context, and print its id.
    Create {
        /// The sandbox.
        sandbox: String,
        /// Its language: python, javascript, typescript or bash.
        #[arg(long, value_name = "NAME", value_parser = language, default_value = "python")]
        lang: Language,
        /// Its id [default: chosen at random].
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// Its surroundings.
        #[command(flatten)]
        surroundings: Surroundings,
        /// Interrupt its runs after this time, unless they say: 500ms, 30s, 5m.
        #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
        timeout: Option<quantity::Duration>,
    },
    /// List contexts; those named as their language once they were used.
    #[command(visible_alias = "list")]
    Ls {
        /// The sandbox.
        sandbox: String,
    },
    /// Show a context, with all that is known of it, as JSON.
    #[command(visible_alias = "get")]
    Inspect(Named),
    /// Interrupt the code that runs in it, as Ctrl-C does. Its state stays.
    Interrupt(Named),
    /// Give it a new interpreter, which knows nothing.
    Restart(Named),
    /// Delete contexts, with everything that they started.
    #[command(visible_alias = "delete")]
    Rm {
        /// The sandbox.
        sandbox: String,
        /// Contexts.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

/// A context of a sandbox.
#[derive(clap::Args, Debug)]
pub struct Named {
    /// The sandbox.
    sandbox: String,
    /// The context.
    #[arg(value_name = "ID")]
    id: String,
}

impl Named {
    fn path(&self) -> String {
        path(&self.sandbox, &self.id)
    }
}

/// `stockade context`.
pub(super) async fn context(daemon: Daemon, wanted: Action, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let client = &connection.client;
    match wanted {
        Action::Create { sandbox, lang, id, surroundings, timeout } => {
            let env = environment(&surroundings.env_file, &surroundings.env)?;
            let wanted = CreateContext {
                id,
                language: Some(lang),
                cwd: surroundings.cwd,
                env,
                user: surroundings.user,
                timeout_ms: timeout,
            };
            let (_, made) = client.post::<_, ContextView>(&all(&sandbox), &wanted).await?;
            tell(&made, json)?;
        }
        Action::Ls { sandbox } => {
            let list: ContextList = client.get(&all(&sandbox)).await?;
            if json {
                show::print_json(&list)?;
            } else {
                let rows: Vec<Vec<String>> = list.contexts.iter().map(row).collect();
                let heads = ["ID", "LANGUAGE", "STATE", "CELLS", "PID", "CREATED"];
                show::print(&show::table(&heads, &rows))?;
            }
        }
        Action::Inspect(named) => {
            let found: ContextView = client.get(&named.path()).await?;
            show::print_json(&found)?;
        }
        Action::Interrupt(named) => {
            let path = format!("{}/interrupt", named.path());
            client.request::<()>(Method::POST, &path, None, "application/json").await?;
            if !json {
                show::print(&format!("{}\n", named.id))?;
            }
        }
        Action::Restart(named) => {
            let path = format!("{}/restart", named.path());
            let answer = client.request::<()>(Method::POST, &path, None, "application/json").await?;
            tell(&super::client::json::<ContextView>(answer).await?, json)?;
        }
        Action::Rm { sandbox, ids } => return client.delete_each(&all(&sandbox), &ids, json).await,
    }
    Ok(0)
}

/// Says which it is.
fn tell(context: &ContextView, json: bool) -> Result<(), Failure> {
    if json { show::print_json(context) } else { show::print(&format!("{}\n", context.id)) }
}

fn all(sandbox: &str) -> String {
    format!("/v1/sandboxes/{}/contexts", segment(sandbox))
}

fn path(sandbox: &str, context: &str) -> String {
    format!("{}/{}", all(sandbox), segment(context))
}

fn row(context: &ContextView) -> Vec<String> {
    let state = match (&context.input, context.busy, context.pid) {
        (Some(_), _, _) => "asks",
        (None, true, _) => "busy",
        (None, false, Some(_)) => "idle",
        (None, false, None) => "-",
    };
    vec![
        context.id.clone(),
        context.language.name().to_owned(),
        state.to_owned(),
        context.execution_count.to_string(),
        context.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        context.created_at.clone(),
    ]
}
