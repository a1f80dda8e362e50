//! A sandbox that is attacked, or attacked from.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Method, Request, header};
use tokio_util::io::ReaderStream;

use super::super::client::{Client, segment};
use super::super::images::body;
use super::Failure;
use crate::api::files::schema::FileExists;
use crate::api::schema::processes::StartProcess;
use crate::api::schema::{CommandResult, CreateSandbox, ResourceLimits, RunCommand};
use crate::error::ErrorCode;
use crate::sandbox::{NetworkPolicy, SandboxView};
use crate::selftest::{Neighbour, Place, Report, Scene, Sizes, audit};
use crate::wire::launch::Profile;

/// Where the payload is.
const PROGRAM: &str = "/workspace/attack";
/// An ordinary user.
pub(super) const USER: &str = "1000";
/// What attacks may mount over and write to.
pub(super) const PLACE: &str = "/workspace/attacked";
/// Limits that are quickly reached.
const PIDS: u64 = 128;
const MEMORY_BYTES: u64 = 384 << 20;
const TMPFS_BYTES: u64 = 64 << 20;
/// How long all attacks of one user may take, on an emulated machine.
const PATIENCE_MS: u64 = 1_800_000;
/// How often, and how many times, it is asked whether the neighbour is ready.
const READY_POLL: Duration = Duration::from_millis(50);
const READY_POLLS: u32 = 1200;

/// A sandbox, with the payload in it.
pub(super) struct Subject<'a> {
    client: &'a Client,
    view: SandboxView,
    pub(super) sizes: Sizes,
}

impl<'a> Subject<'a> {
    /// Makes a sandbox. One with a network makes the gateway run, if this host can have one.
    pub(super) async fn create(
        client: &'a Client,
        image: &str,
        profile: Profile,
        network: bool,
    ) -> Result<Self, Failure> {
        let policy = NetworkPolicy { allow: vec!["example.com".to_owned()], ..NetworkPolicy::default() };
        let mut wanted = CreateSandbox {
            image: image.to_owned(),
            profile,
            network: network.then_some(policy),
            ..CreateSandbox::default()
        };
        let mut sizes = Sizes { pids: Some(PIDS), memory: Some(MEMORY_BYTES), tmpfs: TMPFS_BYTES };
        let view = loop {
            wanted.resources = ResourceLimits {
                memory_bytes: sizes.memory,
                pids: sizes.pids,
                tmpfs_bytes: Some(sizes.tmpfs),
                ..ResourceLimits::default()
            };
            match client.post::<_, SandboxView>("/v1/sandboxes", &wanted).await {
                Ok((_, view)) => break view,
                // A host that cannot limit them says so; the attacks on them are then none.
                Err(failure)
                    if failure.code() == Some(ErrorCode::LimitUnsupported) && sizes.pids.is_some() =>
                {
                    (sizes.pids, sizes.memory) = (None, None);
                }
                Err(_) if wanted.network.is_some() => wanted.network = None,
                Err(failure) => return Err(failure),
            }
        };
        let subject = Self { client, view, sizes };
        if let Err(failure) = subject.furnish().await {
            // The first failure is the one to tell.
            let _ = subject.remove().await;
            return Err(failure);
        }
        Ok(subject)
    }

    fn route(&self, rest: &str) -> String {
        format!("/v1/sandboxes/{}/{rest}", segment(&self.view.id))
    }

    /// Puts this program inside, and makes the place that attacks may use.
    async fn furnish(&self) -> Result<(), Failure> {
        self.upload().await?;
        let command = RunCommand {
            // What has written the file has the rights of the sandbox's root, who may do with it what he likes: it is
            // ended (which spares the caller), so that no attack takes it for somebody else's.
            shell: Some(format!("mkdir {PLACE} && chmod 1777 {PLACE} && kill -KILL -1")),
            user: Some("0".to_owned()),
            ..RunCommand::default()
        };
        let (_, made) = self.client.post::<_, CommandResult>(&self.route("commands"), &command).await?;
        if made.end.exit_code == 0 {
            return Ok(());
        }
        Err(Failure::Usage(format!("cannot prepare the sandbox: {}", made.written.stderr.trim())))
    }

    async fn upload(&self) -> Result<(), Failure> {
        let local = |source| Failure::Local { what: "cannot read this program".to_owned(), source };
        let file = tokio::fs::File::open("/proc/self/exe").await.map_err(local)?;
        let length = file.metadata().await.map_err(local)?.size();
        let route =
            self.route(&format!("files/content?path={}&mode=755&user=0&parents=true", segment(PROGRAM)));
        let request = Request::put(route)
            .header(header::HOST, "stockade")
            .header(header::CONTENT_LENGTH, length)
            .body(body(ReaderStream::with_capacity(file, 256 << 10)))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let answer = self.client.send(request).await?.into_body().collect().await;
        answer.map(drop).map_err(|error| Failure::Lost(error.into()))
    }

    fn argv(place: Place) -> Option<Vec<String>> {
        let words = [PROGRAM, "selftest", "--payload", super::show::place(place)];
        Some(words.map(str::to_owned).to_vec())
    }

    /// Makes the scene's attacks as this user.
    pub(super) async fn attack(
        &self,
        scene: &Scene,
        user: &str,
        place: Place,
    ) -> Result<BTreeMap<String, Report>, Failure> {
        let command = RunCommand {
            argv: Self::argv(place),
            user: Some(user.to_owned()),
            cwd: Some("/".to_owned()),
            stdin: Some(serde_json::to_string(scene).map_err(Failure::NotOurs)?),
            timeout_ms: Some(PATIENCE_MS),
            ..RunCommand::default()
        };
        let (_, result) = self.client.post::<_, CommandResult>(&self.route("commands"), &command).await?;
        let said = result.written.stderr.trim();
        if !said.is_empty() {
            super::terminal::say(&format!("stockade selftest: the payload says: {said}"));
        }
        super::controls::parse(&result.written.stdout)
    }

    /// What it has that others may not reach.
    pub(super) fn house(&self) -> Neighbour {
        let id = &self.view.id;
        Neighbour {
            // Below the ports that clients get, and nobody else's in a network of its own.
            port: 4243,
            abstract_socket: format!("neighbour-{id}"),
            file: format!("/dev/shm/neighbour-{id}"),
            key: 0x5e1f,
            queue: format!("neighbour-{id}"),
            marker: format!("neighbour-{id}"),
        }
    }

    /// Lets the payload make it, and waits until it is there.
    pub(super) async fn keep_house(&self, scene: &Scene) -> Result<(), Failure> {
        let scene = serde_json::to_string(scene).map_err(Failure::NotOurs)?;
        let script = format!("exec {PROGRAM} selftest --payload neighbour");
        // `sh -c SCRIPT MARKER`: an argument of a process of its own, which the payload would not take.
        let marker = self.house().marker;
        let argv = ["sh", "-c", &format!("printf %s \"$SCENE\" | ({script}); exit"), &marker];
        let process = StartProcess {
            argv: Some(argv.map(str::to_owned).to_vec()),
            // The one whom the controls run as: of other users' processes /proc shows none.
            user: Some(USER.to_owned()),
            env: BTreeMap::from([("SCENE".to_owned(), scene)]),
            ..StartProcess::default()
        };
        self.client
            .request(Method::POST, &self.route("processes"), Some(&process), "application/json")
            .await?;
        let path = format!("{}.ready", self.house().file);
        let route = self.route(&format!("files/exists?path={}", segment(&path)));
        for _ in 0..READY_POLLS {
            match self.client.get::<FileExists>(&route).await {
                Ok(found) if found.exists => return Ok(()),
                // What `furnish` has killed may be asked before its end is noticed.
                Err(failure) if failure.code() != Some(ErrorCode::FilesUnavailable) => return Err(failure),
                _ => {}
            }
            tokio::time::sleep(READY_POLL).await;
        }
        Err(Failure::Usage("the neighbour was not ready in time".to_owned()))
    }

    /// Compares our processes with what they may be.
    pub(super) async fn audit(&self) -> Result<Vec<audit::Row>, Failure> {
        let launch = self.client.daemon().await?;
        Ok(audit::examine(launch, self.view.pid))
    }

    pub(super) async fn remove(&self) -> Result<(), Failure> {
        self.client.delete(&format!("/v1/sandboxes/{}", segment(&self.view.id))).await
    }
}
