//! For tests of what lies above: a launcher and agents without privilege. `Create` makes nothing, `Exec` starts an
//! ordinary process.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;

use crate::image::store::Store;
use crate::sandbox::Sandboxes;
use crate::sandbox::catalog::Catalog;
use crate::sandbox::launcher::Launcher;
use crate::sys::channel::Channel;
use crate::sys::socket;
use crate::wire::agent::{Event, Exec, Exit, Program, Request as AgentRequest, Step, Usage, VERSION};
use crate::wire::launch::{
    Answer, Call, Durability, Host, Isolation, Plan, PreviewSettings, Profile, Reply, Request, Running,
    Settings,
};

/// Sandboxes and images in this directory, with this twin below them.
pub(crate) async fn start(directory: &Path) -> (Sandboxes, Catalog) {
    let (ours, theirs) = socket::pair().expect("pair");
    tokio::spawn(launch(Channel::new(theirs).expect("channel")));
    let (launcher, _) = Launcher::start(ours).expect("launcher");
    let store = Store::open(directory).expect("store");
    let catalog = Catalog::new(store, launcher.clone(), crate::wire::launch::Quotas::default());
    std::fs::create_dir(directory.join("index")).expect("index");
    let sandboxes =
        Sandboxes::start(launcher, catalog.clone(), settings(directory), Host::default(), String::new());
    (sandboxes.await.expect("start"), catalog)
}

fn settings(directory: &Path) -> Settings {
    let directory = directory.to_str().expect("text").to_owned();
    Settings {
        runtime_dir: directory.clone(),
        state_dir: directory,
        ids_first: 0,
        slot_first: 1,
        socket: String::new(),
        socket_gid: None,
        operator_gid: None,
        quotas: crate::wire::launch::Quotas::default(),
        default_memory_bytes: 0,
        default_pids: 0,
        default_tmpfs_bytes: 0,
        require_limits: false,
        open_networks: Vec::new(),
        resolvers: Vec::new(),
        ca_pem: String::new(),
        handlers: String::new(),
        notify_socket: None,
        log: String::new(),
        log_json: false,
        private: false,
        preview: PreviewSettings::default(),
        mounts: crate::wire::launch::MountSettings::default(),
    }
}

async fn launch(channel: Channel) {
    while let Ok((Request { number, call }, _)) = channel.receive().await {
        let (answer, fd) = match call {
            Call::Create(plan) => {
                // Long enough to be left meanwhile.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                let (agent, fd) = socket::pair().expect("pair");
                tokio::spawn(self::agent(Channel::new(agent).expect("channel")));
                (Answer::Created(Box::new(running(&plan))), Some(fd))
            }
            Call::List { .. } => (Answer::Sandboxes(Vec::new()), None),
            Call::Layers { .. } => (Answer::Layers(Vec::new()), None),
            Call::Network { policy: None, .. } => (Answer::Network(Box::default()), None),
            _ => (Answer::Done, None),
        };
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        channel.send(&Reply { number, result: Ok(answer) }, &fds).await.expect("send");
    }
}

fn running(plan: &Plan) -> Running {
    Running {
        id: plan.id.clone(),
        pid: 1,
        isolation: Isolation {
            profile: Profile::Default,
            namespaces: std::collections::BTreeMap::new(),
            host_id_first: 0,
            host_id_count: 0,
            no_new_privs: false,
            seccomp_mode: 0,
            landlock_abi: 0,
            root_capabilities: Vec::new(),
            limits: std::collections::BTreeMap::new(),
            storage: "none".to_owned(),
            durability: Durability::Volatile,
            relaxations: Vec::new(),
        },
    }
}

async fn agent(channel: Channel) {
    let channel = Arc::new(channel);
    channel.send(&Event::Hello { version: VERSION, commands: Vec::new() }, &[]).await.expect("send");
    let mut pids = std::collections::HashMap::new();
    while let Ok((request, fds)) = channel.receive::<AgentRequest>().await {
        match request {
            // As an agent that was taken over may: no word about it.
            AgentRequest::Exec(exec) if exec.cwd == b"/silence" => {}
            AgentRequest::Exec(exec) => {
                let command = exec.command;
                if let Some(pid) = execute(&channel, exec, fds).await {
                    pids.insert(command, pid);
                }
            }
            AgentRequest::Signal { command, signal, tree } => kill(pids.get(&command), signal, tree),
            AgentRequest::Interrupt { command, .. } => {
                channel.send(&Event::Interrupted { command }, &[]).await.expect("send");
            }
            AgentRequest::Kill { command } => kill(pids.get(&command), libc::SIGKILL, true),
            AgentRequest::Reclaim { command } | AgentRequest::Adopt { command, .. } => {
                let failed = Event::Failed { command, step: Step::Fork, errno: libc::ESRCH };
                channel.send(&failed, &[]).await.expect("send");
            }
            AgentRequest::SetAside { .. } | AgentRequest::CloseInput { .. } | AgentRequest::Forget { .. } => {
            }
        }
    }
    // The sandbox is destroyed: nothing of it is left.
    for pid in pids.values() {
        kill(Some(pid), libc::SIGKILL, true);
    }
}

fn kill(pid: Option<&i32>, signal: i32, group: bool) {
    use nix::sys::signal::{kill, killpg};
    let Some(&pid) = pid else { return };
    let (pid, signal) =
        (nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::try_from(signal).expect("signal"));
    // It may have ended already.
    let _ = if group { killpg(pid, signal) } else { kill(pid, signal) };
}

/// Starts a process in a group of its own and reports its end.
async fn execute(channel: &Arc<Channel>, exec: Exec, mut fds: Vec<OwnedFd>) -> Option<i32> {
    let number = exec.command;
    let Program::Argv(argv) = exec.program else { panic!("the twin has only programs") };
    // What a kept command would have held.
    fds.truncate(3);
    let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(fds).expect("three descriptors");
    let mut argv = argv.into_iter().map(std::ffi::OsString::from_vec);
    let mut command = tokio::process::Command::new(argv.next().expect("a program"));
    command.args(argv).stdin(stdin).stdout(stdout).stderr(stderr).process_group(0);
    let child = command.spawn();
    drop(command);
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            let errno = error.raw_os_error().expect("errno");
            let failed = Event::Failed { command: number, step: Step::Exec, errno };
            channel.send(&failed, &[]).await.expect("send");
            return None;
        }
    };
    let pid = child.id().map(i32::try_from).expect("runs").expect("fits");
    channel.send(&Event::Started { command: number, pid }, &[]).await.expect("send");
    let channel = Arc::clone(channel);
    tokio::spawn(async move {
        let status = child.wait().await.expect("wait");
        kill(Some(&pid), libc::SIGKILL, true);
        let exit = match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.expect("signal")),
        };
        // serve may be gone.
        let _ = channel.send(&Event::Exited { command: number, exit, usage: Usage::default() }, &[]).await;
    });
    Some(pid)
}
