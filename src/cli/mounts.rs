//! `mount`: buckets and directories of the host in a sandbox's tree.

use clap::Args;

use super::client::{Client, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::quantity::{self, Duration, Size};
use super::{OWN_FAILURE, show};
use crate::api::schema::mounts::{AddMount, MountCredentials, MountList};
use crate::sandbox::{MountState, MountView, Unmounted};

/// What `mount --help` adds.
pub const HELP: &str = "\
The key is taken from this command's environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), and stays
outside of the sandbox.

Examples:
  stockade mount add work /data --bucket photos --endpoint https://s3.example.com
  stockade mount add work /data --bucket photos --region eu-west-1 --prefix 2026 --read-only
  stockade mount add work /ref --endpoint file:///srv/data --read-only
  stockade mount ls work
  stockade mount rm work /data";

/// What can be done with mounts.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Mount a bucket, or a directory of the host.
    Add(Box<Add>),
    /// List mounts.
    Ls {
        /// The sandbox.
        #[arg(value_name = "SANDBOX")]
        sandbox: String,
    },
    /// Unmount, after what is left was uploaded.
    Rm {
        /// The sandbox.
        #[arg(value_name = "SANDBOX")]
        sandbox: String,
        /// Paths or names of mounts.
        #[arg(required = true, value_name = "PATH")]
        mounts: Vec<String>,
        /// How long to wait for uploads: 30s, 10m [default: 1m].
        #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
        timeout: Option<Duration>,
    },
}

/// Arguments of `mount add`.
#[derive(Args, Debug)]
pub struct Add {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// Where, absolute; made when it is missing.
    #[arg(value_name = "PATH")]
    pub path: String,
    /// What, and how.
    #[command(flatten)]
    pub what: What,
}

/// What is mounted, and how.
#[derive(Args, Debug)]
pub struct What {
    /// Whose bucket.
    #[command(flatten)]
    pub whose: Whose,
    /// Only what is below this.
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Nothing can be changed in it.
    #[arg(long)]
    pub read_only: bool,
    /// Uid that owns what is in it [default: 0].
    #[arg(long, value_name = "N")]
    pub uid: Option<u32>,
    /// Its gid [default: the uid].
    #[arg(long, value_name = "N")]
    pub gid: Option<u32>,
    /// Disk for what is read and written: 512m, 10g [default: 1g].
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    pub cache: Option<Size>,
    /// Do not overwrite what somebody else has changed meanwhile.
    #[arg(long)]
    pub conditional_writes: bool,
}

/// A bucket, and who asks for it.
#[derive(Args, Debug)]
pub struct Whose {
    /// The bucket; with file://, a directory in the endpoint's.
    #[arg(long, value_name = "NAME")]
    pub bucket: Option<String>,
    /// Whose server: `https://host[:port]`, `http://…`, or `file:///directory` [default: Amazon's of the region].
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// The bucket's region [default: us-east-1].
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Where the bucket's name goes: path or host.
    #[arg(long, value_name = "STYLE")]
    pub addressing: Option<String>,
    /// Use this profile of the operator's credentials.
    #[arg(long, value_name = "NAME", conflicts_with = "anonymous")]
    pub profile: Option<String>,
    /// Sign nothing.
    #[arg(long)]
    pub anonymous: bool,
}

impl Whose {
    /// None for a directory; otherwise what was asked for, or a key of our own environment if there is one.
    pub(super) fn credentials(&self) -> Option<MountCredentials> {
        if self.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("file:")) {
            return None;
        }
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut credentials = MountCredentials::default();
        if self.anonymous || self.profile.is_some() {
            (credentials.anonymous, credentials.profile) = (self.anonymous, self.profile.clone());
            return Some(credentials);
        }
        credentials.access_key_id = Some(variable("AWS_ACCESS_KEY_ID")?);
        credentials.secret_access_key = variable("AWS_SECRET_ACCESS_KEY");
        credentials.session_token = variable("AWS_SESSION_TOKEN");
        Some(credentials)
    }
}

impl What {
    fn at(self, path: String) -> AddMount {
        AddMount {
            path,
            credentials: self.whose.credentials(),
            endpoint: self.whose.endpoint,
            bucket: self.whose.bucket,
            prefix: self.prefix,
            region: self.whose.region,
            addressing: self.whose.addressing,
            read_only: self.read_only,
            uid: self.uid,
            gid: self.gid,
            cache_bytes: self.cache,
            conditional_writes: self.conditional_writes,
            ..AddMount::default()
        }
    }
}

/// What `--mount` of `create` and `run` holds, in the words of `mount add`.
#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Declared {
    /// Where.
    #[arg(long)]
    path: String,
    /// What, and how.
    #[command(flatten)]
    what: What,
}

/// `path=/data,bucket=photos,read-only`.
pub(super) fn declared(text: &str) -> Result<AddMount, String> {
    let words = text.split(',').map(|word| format!("--{word}"));
    let declared = <Declared as clap::Parser>::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        let why = text.lines().next().unwrap_or_default().trim_start_matches("error: ").replace("--", "");
        format!("{why}; write path=/data,bucket=NAME and what else `stockade mount add --help` names")
    })?;
    Ok(declared.what.at(declared.path))
}

fn path(sandbox: &str) -> String {
    format!("/v1/sandboxes/{}/mounts", segment(sandbox))
}

/// `stockade mount`.
pub(super) async fn mount(daemon: Daemon, wanted: Action, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let client = &connection.client;
    match wanted {
        Action::Add(add) => {
            let wanted = add.what.at(add.path);
            let (_, mounted) = client.post::<_, MountView>(&path(&add.sandbox), &wanted).await?;
            if json {
                show::print_json(&mounted)?;
            } else {
                show::print(&format!("{}\n", mounted.id))?;
            }
            Ok(0)
        }
        Action::Ls { sandbox } => {
            let list: MountList = client.get(&path(&sandbox)).await?;
            if json {
                show::print_json(&list)?;
            } else {
                let rows: Vec<Vec<String>> = list.mounts.iter().map(row).collect();
                show::print(&show::table(&["ID", "PATH", "STATE", "BUCKET", "ENDPOINT"], &rows))?;
            }
            Ok(0)
        }
        Action::Rm { sandbox, mounts, timeout } => {
            let mut code = 0;
            for mount in mounts {
                match unmount(client, &sandbox, &mount, timeout).await {
                    Ok(gone) if json => show::print_json(&gone)?,
                    Ok(gone) => {
                        show::print(&format!("{mount}\n"))?;
                        if gone.lost_count > 0 {
                            show::say(&format!("{} files are not in the bucket:", gone.lost_count));
                            gone.lost.iter().for_each(|file| show::say(file));
                            code = OWN_FAILURE;
                        }
                    }
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

async fn unmount(
    client: &Client,
    sandbox: &str,
    mount: &str,
    timeout: Option<Duration>,
) -> Result<Unmounted, Failure> {
    let mut name = mount.to_owned();
    if mount.starts_with('/') {
        let list: MountList = client.get(&path(sandbox)).await?;
        let found = list.mounts.into_iter().find(|one| one.path == mount.trim_end_matches('/'));
        // One that is not there is refused by its path.
        name = found.map_or(name, |found| found.id);
    }
    let query = timeout.map(|timeout| format!("?timeout_ms={timeout}")).unwrap_or_default();
    client.delete_with_answer(&format!("{}/{}{query}", path(sandbox), segment(&name))).await
}

fn row(mount: &MountView) -> Vec<String> {
    let state = match mount.state {
        MountState::Mounted => "mounted".to_owned(),
        MountState::Mounting => "mounting".to_owned(),
        MountState::Stopped => "stopped".to_owned(),
        MountState::Failed => mount
            .error
            .as_ref()
            .map_or_else(|| "failed".to_owned(), |error| format!("failed: {}", error.message)),
    };
    let bucket = mount.bucket.clone().unwrap_or_else(|| "-".to_owned());
    vec![mount.id.clone(), mount.path.clone(), state, bucket, mount.endpoint.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_declared_in_the_words_of_mount_add() {
        let mount =
            declared("path=/d,bucket=b,endpoint=https://x:1,prefix=p/q,read-only,anonymous,cache=64m");
        let mount = mount.expect("good");
        assert_eq!((mount.path.as_str(), mount.bucket.as_deref()), ("/d", Some("b")));
        assert_eq!((mount.endpoint.as_deref(), mount.prefix.as_deref()), (Some("https://x:1"), Some("p/q")));
        assert_eq!((mount.read_only, mount.cache_bytes), (true, Some(64 << 20)));
        assert!(mount.credentials.expect("some").anonymous);
        assert_eq!(declared("path=/d,endpoint=file:///srv").expect("good").credentials, None);
        for (text, why) in
            [("bucket=b", "path"), ("path=/d,bukket=b", "bukket"), ("path=/d,uid=x", "uid"), ("", "")]
        {
            let refusal = declared(text).expect_err(text);
            assert!(refusal.contains(why), "{refusal}");
            assert!(!refusal.contains('\n'), "{refusal}");
        }
    }
}
