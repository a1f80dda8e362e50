//! The command line's words.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};

use super::limits::Limits;
use super::quantity::{self, Duration, Pair};
use super::{
    code, contexts, files, git, images, journal, lifecycle, mounts, network, ports, processes, recordings,
    selftest, snapshots, stats, terminals,
};
use crate::api::schema::mounts::AddMount;

const EXAMPLES: &str = "\
Examples:
  stockade run -- python3 -c 'print(6*7)'        run a command in a new sandbox, with this host's programs
  stockade run --image python:3.13 -m 512m -- python3 script.py
  echo hello | stockade run -- wc -c             input is passed on
  stockade doctor                                what this host offers, and how to mend what is missing

A sandbox that stays:
  stockade create --id work                      make it
  stockade exec work -- make -j2                 run commands in it
  stockade rm work                               throw it away

Exit codes: the command's own; 126 not executable, 127 not found, 128+n killed by signal n, 125 our own failure.";

/// Runs code you do not trust, in sandboxes on this host.
#[derive(Debug, Parser)]
#[command(name = "stockade", bin_name = "stockade", version, after_help = EXAMPLES, disable_help_subcommand = true)]
#[command(arg_required_else_help = true)]
pub struct Arguments {
    /// Socket of the daemon [default: $STOCKADE_SOCKET, or /run/stockade/stockade.sock].
    #[arg(long, global = true, value_name = "PATH", help_heading = "Everywhere")]
    pub socket: Option<PathBuf>,
    /// Write JSON, errors too.
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Subcommand,
}

/// What can be done.
#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Run a command in a new sandbox, and throw the sandbox away.
    #[command(after_help = RUN_HELP)]
    Run(Run),
    /// Make a sandbox that stays.
    #[command(after_help = CREATE_HELP)]
    Create(Create),
    /// Run a command in a sandbox.
    #[command(after_help = EXEC_HELP)]
    Exec(Exec),
    /// Copy files into a sandbox, or out of one.
    #[command(after_help = CP_HELP)]
    Cp(Cp),
    /// List, show, search and change files of a sandbox.
    #[command(subcommand, after_help = files::HELP)]
    File(files::Action),
    /// Show changes to a sandbox's files as they happen.
    #[command(after_help = WATCH_HELP)]
    Watch(Watch),
    /// Open a terminal in a sandbox.
    #[command(after_help = SHELL_HELP)]
    Shell(Shell),
    /// List terminals, look at them, signal and close them.
    #[command(subcommand, after_help = terminals::HELP)]
    Terminal(terminals::Action),
    /// Keep what was seen on terminals and of commands, for asciinema.
    #[command(subcommand, after_help = recordings::HELP)]
    Recording(recordings::Action),
    /// Run commands in shells that stay: sessions.
    #[command(subcommand, after_help = SESSION_HELP)]
    Session(Session),
    /// Manage interpreters that keep their state: contexts.
    #[command(subcommand, after_help = contexts::HELP)]
    Context(contexts::Action),
    /// Run code in an interpreter that keeps its state.
    #[command(after_help = code::HELP)]
    RunCode(code::Arguments),
    /// List sandboxes.
    #[command(visible_alias = "ls")]
    Ps(Ps),
    /// Show a sandbox or an image, with all that is known of it, as JSON.
    Inspect(Inspect),
    /// Work with git in a sandbox.
    Git(git::Git),
    /// Stop sandboxes: nothing of them runs, and their files stay.
    Stop(lifecycle::Ids),
    /// Pause sandboxes: everything in them is frozen, with its memory.
    Pause(lifecycle::Ids),
    /// Start sandboxes again that were stopped or paused, or have ended.
    Start(lifecycle::Ids),
    /// Change when a sandbox stops and ends by itself.
    Lifecycle(lifecycle::Set),
    /// Show what sandboxes use.
    #[command(after_help = stats::HELP)]
    Stats(stats::Stats),
    /// Show what sandboxes use, live, the busiest first.
    Top(stats::Top),
    /// Show the limits of a sandbox, or give it others.
    #[command(subcommand, after_help = stats::LIMITS_HELP)]
    Limits(stats::Limits),
    /// Keep the files of sandboxes, and give them back.
    #[command(subcommand, after_help = snapshots::HELP)]
    Snapshot(snapshots::Action),
    /// Make sandboxes whose files begin as another's are now.
    Fork(snapshots::Fork),
    /// Make an image of a sandbox's files.
    Commit(snapshots::Commit),
    /// Send all files of a sandbox out: to a file, or to a bucket.
    #[command(after_help = super::export::HELP)]
    Export(Box<super::export::Export>),
    /// Push all files of a sandbox to a registry, as an image.
    Push(super::export::Push),
    /// Give a sandbox the files of one of its own snapshots.
    Rollback(snapshots::Rollback),
    /// Show what happens to sandboxes.
    #[command(after_help = journal::EVENTS_HELP)]
    Events(journal::Listen),
    /// Show how much you may have, and have.
    Quota,
    /// Show who asked for what, and check that nobody has changed that since.
    #[command(subcommand, after_help = journal::AUDIT_HELP)]
    Audit(journal::Audit),
    /// Destroy sandboxes, with everything in them.
    Rm(lifecycle::Rm),
    /// Start, watch and end processes that run on in a sandbox.
    #[command(subcommand, after_help = processes::HELP)]
    Process(processes::Action),
    /// Give ports of a sandbox addresses for browsers.
    #[command(subcommand, after_help = ports::HELP)]
    Port(ports::Action),
    /// Make ports of a sandbox ports of this host, for any protocol.
    #[command(after_help = ports::FORWARD_HELP)]
    Forward(ports::Forward),
    /// Mount buckets and directories of this host in a sandbox.
    #[command(subcommand, after_help = mounts::HELP)]
    Mount(mounts::Action),
    /// Show the variables of a sandbox, or change them.
    Env(processes::Env),
    /// Show what may leave a sandbox, change it, and see what was refused.
    #[command(subcommand, after_help = network::HELP)]
    Network(network::Action),
    /// List images, or remove some.
    Images(Images),
    /// Fetch an image from a registry.
    #[command(after_help = PULL_HELP)]
    Pull(Pull),
    /// Take in an image from a directory or an archive.
    #[command(after_help = IMPORT_HELP)]
    Import(images::Import),
    /// Examine this host: what isolation needs, what is missing, how to mend it.
    ///
    /// Ends with 1 when something is missing that sandboxes cannot do without. As root it finds out more.
    Doctor(Doctor),
    /// Attack sandboxes on this host, and say which attacks work.
    #[command(after_help = selftest::HELP)]
    Selftest(selftest::Arguments),
    /// Show the daemon and what its host offers, as JSON.
    Info,
    /// Start the daemon.
    #[command(after_help = SERVE_HELP)]
    Serve(Serve),
}

const RUN_HELP: &str = "\
Examples:
  stockade run -- sh -c 'id; hostname; ls /'
  stockade run --image node:24 --env NODE_ENV=test -- node -e 'console.log(process.env.NODE_ENV)'
  stockade run --memory 512m --cpus 1.5 --pids 100 --timeout 30s -- ./job
  stockade run --allow https://example.com -- curl -sI https://example.com
  tar -c src | stockade run -- tar -tv

Without a command the image's own is run. Uses the running daemon, or starts one for this command alone. Ctrl-C and SIGTERM are passed on to the command; \
the second one kills it. The sandbox is destroyed in any case.";

const CREATE_HELP: &str = "\
Prints the id. The same --id with the same options is the same sandbox; with other options it is refused.

Examples:
  stockade create
  stockade create --id build-42 --image gcc:15 --memory 2g --label job=42";

const EXEC_HELP: &str = "\
Arguments are UTF-8; other bytes come in on stdin, or by `sh -c` with printf and its octal escapes.

Examples:
  stockade exec work -- ls -la
  stockade exec work --user nobody --cwd /tmp -- sh -c 'echo $PWD'
  stockade exec work --record -- make            keep what it writes, with times
  cat data.csv | stockade exec work -- python3 load.py";

const CP_HELP: &str = "\
One of the two is in a sandbox, written ID:PATH; a local name with a colon needs ./ before it. Directories are copied \
with all that is in them, and with their permissions. A relative PATH begins at the sandbox's working directory. `-` is stdin or stdout: of a \
directory a tar archive, which is also what goes to a PATH that is a directory or ends with a slash.

Examples:
  stockade cp data.csv work:/workspace/
  stockade cp src work:src
  stockade cp work:/workspace/out.tar.gz .
  stockade cp work:/etc/passwd -
  stockade cp work:/workspace - | zstd > workspace.tar.zst
  tar -c src | stockade cp - work:/workspace/
  echo hello | stockade cp - work:/tmp/hello.txt";

const WATCH_HELP: &str = "\
Prints create, modify, delete, attrib or rename and the path, until it is interrupted. Says on stderr when it has begun. \
Names are escaped, so that a line is one change; --json has them exactly. `stockade file changes` asks once.

Examples:
  stockade watch work /workspace --recursive --exclude .git --exclude node_modules
  stockade watch work /workspace/build.log";

const SHELL_HELP: &str = "\
Everything typed goes to the program, Ctrl-C too. Leaving (`exit`, Ctrl-D) closes the terminal, unless --keep is given. \
Ctrl-P Ctrl-Q leaves it with its program running, as docker has it; a Ctrl-P alone arrives with the key after it \
(--detach-keys sets other keys).

Examples:
  stockade shell work
  stockade shell work -- vim notes.txt
  stockade shell work --session build            where the session is, with what it exports
  stockade shell work --name top -- top          Ctrl-P Ctrl-Q leaves it running; to look at it again:
  stockade shell work --attach top";

const SESSION_HELP: &str = "\
A session is a bash whose directory, variables and functions live on between commands. Our input is passed on only with \
--stdin. Lines are UTF-8.

Examples:
  stockade session run work -- 'cd /tmp; X=1'    in the session `default`, which is always there
  stockade session run work -- 'echo $X $PWD'
  echo hello | stockade session run work --stdin -- 'read word'
  stockade session create work --id build --cwd /workspace";

const PULL_HELP: &str = "\
Examples:
  stockade pull localhost:5000/python:3.13 --plain-http
  stockade pull registry.example/team/app@sha256:…
  echo $PASSWORD | stockade pull registry.example/team/app --username me --password-stdin

Layers are fetched and unpacked side by side, each once, whichever images share it.";

const IMPORT_HELP: &str = "\
Takes an OCI layout (directory, or tar of one) and the archives of `docker save`; tar may be gzip or zstd.

Examples:
  stockade import ./layout --reference python:local
  docker save alpine:3 | stockade import -
  skopeo copy docker://alpine:3 oci-archive:alpine.tar && stockade import alpine.tar";

const SERVE_HELP: &str = "\
Flags go before the configuration file, which goes before the defaults. Needs root.

Examples:
  stockade serve
  stockade serve --config /etc/stockade/config.toml
  curl --unix-socket /run/stockade/stockade.sock http://stockade/v1/info";

/// How a sandbox is made.
#[derive(Args, Debug, Default)]
pub struct Sandbox {
    /// Image: a reference or digest of the store, or `host` for this host's own /usr.
    #[arg(long, default_value = "host", value_name = "REF", help_heading = "Sandbox")]
    pub image: String,
    /// Its name, 1 to 40 of a-z, 0-9 and '-' [default: chosen at random].
    #[arg(long, value_name = "ID", help_heading = "Sandbox")]
    pub id: Option<String>,
    /// Host name inside [default: sandbox].
    #[arg(long, value_name = "NAME", help_heading = "Sandbox")]
    pub hostname: Option<String>,
    /// A note on it; `ps --label` finds it. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = quantity::pair, help_heading = "Sandbox")]
    pub label: Vec<Pair>,
    /// What the kernel offers inside.
    #[arg(long, value_enum, default_value_t, value_name = "NAME", help_heading = "Sandbox")]
    pub profile: Profile,
    /// Let its files survive a crash of the host; creating and destroying then wait for the disk.
    #[arg(long, help_heading = "Sandbox")]
    pub durable: bool,
    /// Limits.
    #[command(flatten)]
    pub limits: Limits,
    /// What may leave it.
    #[command(flatten)]
    pub network: network::Rules,
    /// A background process, by its id, that is started whenever the sandbox begins to run. May be repeated.
    #[arg(long, value_name = "ID=COMMAND", value_parser = quantity::pair, help_heading = "Sandbox")]
    pub startup: Vec<Pair>,
    /// A bucket, or a directory of the host, in its tree from the beginning: path=/data,bucket=photos,read-only and what
    /// else `mount add` takes. May be repeated.
    #[arg(long, value_name = "KEY=VALUE,…", value_parser = mounts::declared, help_heading = "Sandbox")]
    pub mount: Vec<AddMount>,
    /// When it rests and ends by itself.
    #[command(flatten)]
    pub lifecycle: lifecycle::When,
}

/// Whom, where and with what environment commands run.
#[derive(Args, Debug, Default)]
pub struct Surroundings {
    /// A variable of the environment; without `=VALUE`, ours. May be repeated.
    #[arg(long, short, value_name = "NAME[=VALUE]", help_heading = "Command")]
    pub env: Vec<String>,
    /// A file with one variable per line.
    #[arg(long, value_name = "PATH", help_heading = "Command")]
    pub env_file: Vec<PathBuf>,
    /// Working directory inside.
    #[arg(long, short = 'w', value_name = "DIR", help_heading = "Command")]
    pub cwd: Option<String>,
    /// User inside: name, uid, name:group or uid:gid.
    #[arg(long, short, value_name = "USER", help_heading = "Command")]
    pub user: Option<String>,
}

/// How a command is run.
#[derive(Args, Debug, Default)]
pub struct Execution {
    /// Kill the command and all that it started after this time: 500ms, 30s, 5m, 1h.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration, help_heading = "Command")]
    pub timeout: Option<Duration>,
    /// Pass on input even if it comes from a terminal.
    #[arg(long, short, help_heading = "Command")]
    pub interactive: bool,
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct Run {
    /// The sandbox.
    #[command(flatten)]
    pub sandbox: Sandbox,
    /// The command's surroundings.
    #[command(flatten)]
    pub surroundings: Surroundings,
    /// How it is run.
    #[command(flatten)]
    pub execution: Execution,
    /// Let the sandbox stay, and print its id to stderr.
    #[arg(long, help_heading = "Sandbox")]
    pub keep: bool,
    /// Program and arguments [default: what the image says].
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Arguments of `create`.
#[derive(Args, Debug)]
pub struct Create {
    /// The sandbox.
    #[command(flatten)]
    pub sandbox: Sandbox,
    /// What its commands inherit.
    #[command(flatten)]
    pub surroundings: Surroundings,
    /// Its files begin as those of this snapshot, with the image that is of.
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "image")]
    pub snapshot: Option<String>,
}

/// Arguments of `exec`.
#[derive(Args, Debug)]
pub struct Exec {
    /// The sandbox.
    pub id: String,
    /// The command's surroundings.
    #[command(flatten)]
    pub surroundings: Surroundings,
    /// How it is run.
    #[command(flatten)]
    pub execution: Execution,
    /// Whether it is recorded.
    #[command(flatten)]
    pub recording: recordings::Recording,
    /// Program and arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Arguments of `cp`.
#[derive(Args, Debug)]
pub struct Cp {
    /// From: a path, ID:PATH, or `-` for stdin.
    pub source: OsString,
    /// To: a path, ID:PATH, or `-` for stdout.
    pub target: OsString,
    /// Whose rights inside: a user of the sandbox [default: the sandbox's].
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

/// Arguments of `watch`.
#[derive(Args, Debug)]
pub struct Watch {
    /// The sandbox.
    pub id: String,
    /// Directory or file in it.
    pub path: OsString,
    /// Directories in it too.
    #[arg(long, short)]
    pub recursive: bool,
    /// Only what matches this glob; may be repeated.
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Nothing that matches this glob, nor what is below it; may be repeated.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Whose rights inside: a user of the sandbox [default: the sandbox's].
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

/// Arguments of `shell`.
#[derive(Args, Debug)]
pub struct Shell {
    /// The sandbox.
    pub id: String,
    /// The program's surroundings.
    #[command(flatten)]
    pub surroundings: Surroundings,
    /// Begin where this session is, with what it exports.
    #[arg(long, value_name = "SESSION", help_heading = "Terminal")]
    pub session: Option<String>,
    /// The terminal's name [default: chosen at random].
    #[arg(long, value_name = "NAME", help_heading = "Terminal")]
    pub name: Option<String>,
    /// Let it stay when we leave, with its program.
    #[arg(long, help_heading = "Terminal")]
    pub keep: bool,
    /// Look at a terminal that is there. `stockade terminal` lists, signals and closes them.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "keep", "session", "command", "record", "record_input"], help_heading = "Terminal")]
    pub attach: Option<String>,
    /// How it is left.
    #[command(flatten)]
    pub leaving: terminals::Leaving,
    /// Whether it is recorded.
    #[command(flatten)]
    pub recording: recordings::Recording,
    /// Program and arguments [default: bash, or sh].
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// What can be done with sessions.
#[derive(Debug, clap::Subcommand)]
pub enum Session {
    /// Make a session.
    Create {
        /// The sandbox.
        sandbox: String,
        /// Its name [default: chosen at random].
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// Its surroundings.
        #[command(flatten)]
        surroundings: Surroundings,
    },
    /// List sessions.
    Ls {
        /// The sandbox.
        sandbox: String,
    },
    /// Run a line in a session, and end as it did; with the shell's exit code when it ended the shell.
    Run {
        /// The sandbox.
        sandbox: String,
        /// The session.
        #[arg(long, short, value_name = "ID", default_value = "default")]
        session: String,
        /// Interrupt it after this time: 500ms, 30s, 5m.
        #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
        timeout: Option<Duration>,
        /// Read our input up to its end, and then give it to the line; otherwise ours is not read, and its is empty.
        #[arg(long, short = 'i')]
        stdin: bool,
        /// A line for its bash. Several words are one line, with spaces between them.
        #[arg(required = true, trailing_var_arg = true, value_name = "LINE")]
        line: Vec<String>,
    },
    /// End sessions, with everything that they started.
    Rm {
        /// The sandbox.
        sandbox: String,
        /// Sessions.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

/// Arguments of `ps`.
#[derive(Args, Debug)]
pub struct Ps {
    /// Only those with this label. May be repeated: all must match.
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Only ids.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Arguments of `inspect`.
#[derive(Args, Debug)]
pub struct Inspect {
    /// A sandbox's id, or an image's reference or digest.
    #[arg(value_name = "ID|IMAGE")]
    pub name: String,
}

/// Arguments of `images`.
#[derive(Args, Debug)]
pub struct Images {
    /// What to do instead of listing.
    #[command(subcommand)]
    pub action: Option<ImagesAction>,
    /// Only references.
    #[arg(long, short)]
    pub quiet: bool,
}

/// What can be done with images.
#[derive(Debug, clap::Subcommand)]
pub enum ImagesAction {
    /// Remove images, and the layers that no other image uses.
    Rm {
        /// References or digests.
        #[arg(required = true, value_name = "REF")]
        references: Vec<String>,
    },
}

/// Arguments of `pull`.
#[derive(Args, Debug)]
pub struct Pull {
    /// `[registry/]repository[:tag][@digest]`
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Operating system and architecture [default: this host's].
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Whose it is, and how it is spoken to.
    #[command(flatten)]
    pub registry: RegistryOptions,
}

/// How a registry is spoken to.
#[derive(Args, Debug)]
pub struct RegistryOptions {
    /// Name at the registry.
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    pub username: Option<String>,
    /// Read the password from stdin: it never stands on a command line.
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// HTTP without TLS; for registries on this host.
    #[arg(long)]
    pub plain_http: bool,
    /// Certificates to trust beside the host's, PEM.
    #[arg(long, value_name = "PATH")]
    pub ca_file: Option<PathBuf>,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// The daemon's configuration file, TOML [default: /etc/stockade/config.toml, if it is there].
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Examine the file system of this directory for images and sandboxes' files [default: the configuration's].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Examine the file system of this directory for running state [default: the configuration's].
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
}

/// Arguments of `serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct Serve {
    /// Configuration file, TOML [default: /etc/stockade/config.toml, if it is there].
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Where images and sandboxes' files live [default: /var/lib/stockade].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where sockets and running state live [default: /run/stockade].
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
    /// Group (gid) whose members may connect, beside root.
    #[arg(long, value_name = "GID")]
    pub socket_gid: Option<u32>,
    /// Refuse to start when this host cannot enforce the default limits.
    #[arg(long)]
    pub require_limits: bool,
    /// TCP address at which browsers reach exposed ports, or `off` [default: 127.0.0.1:7080].
    #[arg(long, value_name = "ADDRESS")]
    pub preview_listen: Option<String>,
    /// What browsers see of it: `https://preview.example.com` behind a TLS proxy for `*.preview.example.com`
    /// [default: `http://localhost` and the port].
    #[arg(long, value_name = "URL")]
    pub preview_url: Option<String>,
    /// What to log: error, warn, info, debug, or a filter like `stockade::api=debug` [default: info].
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Log as JSON lines.
    #[arg(long)]
    pub log_json: bool,
    /// End when stdin closes: a daemon for one `stockade run`.
    #[arg(long, hide = true)]
    pub private: bool,
    /// First id slot: daemons that run beside each other start at different ones.
    #[arg(long, hide = true, value_name = "N")]
    pub slot_first: Option<u32>,
}

/// Isolation profiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// What ordinary programs need.
    #[default]
    Default,
    /// Less: no splice, no IPv6, no asynchronous I/O.
    Hardened,
    /// More, for programs that `default` breaks.
    Compat,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn run(line: &[&str]) -> Run {
        let arguments = Arguments::try_parse_from(line).expect("valid");
        let Subcommand::Run(run) = arguments.command else { panic!("not run") };
        run
    }

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_the_command_is_the_commands() {
        let line = ["stockade", "run", "-m", "512m", "--", "ls", "--json", "-la", "--", "x"];
        assert_eq!(run(&line).command, ["ls", "--json", "-la", "--", "x"]);
        let bare = run(&["stockade", "run", "--pids", "7", "sh", "-c", "exit 3"]);
        assert_eq!((bare.command.len(), bare.sandbox.limits.pids), (3, Some(7)));
        let arguments = Arguments::try_parse_from(["stockade", "exec", "a", "--", "b", "--user", "c"]);
        let Subcommand::Exec(exec) = arguments.expect("valid").command else { panic!("not exec") };
        assert_eq!((exec.id.as_str(), exec.command.len(), exec.surroundings.user), ("a", 3, None));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            &["stockade", "rm"][..],
            &["stockade", "run", "--memory", "much", "--", "a"],
            &["stockade", "run", "--cpus", "-1", "--", "a"],
            &["stockade", "run", "--timeout", "soon", "--", "a"],
            &["stockade", "run", "--label", "nothing", "--", "a"],
            &["stockade", "pull", "a", "--username", "b"],
            &["stockade", "exec", "a"],
        ] {
            assert!(Arguments::try_parse_from(line).is_err(), "{line:?}");
        }
    }
}
