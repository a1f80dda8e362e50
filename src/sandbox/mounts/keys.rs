//! Credentials for buckets: those of a request, and those that the operator lends: keys, or a role for a web identity.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use super::super::Sandboxes;
use super::super::launcher::{LauncherError, launcher_error};
use super::spec::CredentialSource;
use crate::error::{Error, ErrorCode};
use crate::id::SandboxId;
use crate::limits::KEYS_BYTES_MAX;
use crate::sys::channel::Channel;
use crate::wire;
use crate::wire::bucket::{BucketStart, Credentials};
use crate::wire::fetch::{FetchEvent, FetchFailureKind, FetchJob, IdentityJob};
use crate::wire::launch::{Answer, Call, Failure, FailureKind};
use crate::wire::mount::MountCall;

/// A refusal that says which credentials are missing.
fn missing(why: impl Into<std::borrow::Cow<'static, str>>, fix: &'static str) -> Error {
    Error::new(ErrorCode::PermissionDenied, why)
        .hint(fix)
        .context(serde_json::json!({ "field": "credentials" }))
}

impl Sandboxes {
    /// The credentials of a mount. Those that came with the request are given, or are what its last worker had.
    pub(super) async fn credentials(
        &self,
        (id, number): (&SandboxId, u32),
        source: &CredentialSource,
        given: Option<Credentials>,
    ) -> Result<Credentials, Error> {
        match source {
            CredentialSource::Anonymous => Ok(Credentials::Anonymous),
            CredentialSource::Request => match given {
                Some(given) => Ok(given),
                None => self.recall(id, number).await,
            },
            CredentialSource::Environment => self.lent(false, "default").await,
            CredentialSource::Profile(name) => self.lent(true, name).await,
        }
    }

    async fn recall(&self, id: &SandboxId, number: u32) -> Result<Credentials, Error> {
        let call = Call::Mount { id: id.clone(), mount: number, call: MountCall::Recall };
        let lost = || {
            missing(
                "the mount's credentials have not survived the restart of the host",
                "unmount it and mount it again",
            )
        };
        let file = self.file(call).await?.ok_or_else(lost)?;
        let bytes = read(file, crate::limits::FRAME_BYTES_MAX)?;
        let start: BucketStart = wire::decode(&bytes)
            .map_err(|error| Error::internal("cannot read the mount's credentials", error))?;
        Ok(start.credentials)
    }

    /// Those that the operator lends to every client of the API.
    async fn lent(&self, profiles: bool, name: &str) -> Result<Credentials, Error> {
        let lends = match profiles {
            true => self.0.settings.mounts.credentials_file.is_some(),
            false => self.0.settings.mounts.environment,
        };
        let none = || {
            missing(
                "the operator lends no such credentials",
                "give access_key_id and secret_access_key; an operator sets mounts.environment or mounts.credentials_file",
            )
        };
        if !lends {
            return Err(none());
        }
        let file = self.file(Call::Keys { profiles }).await?.ok_or_else(none)?;
        let text = String::from_utf8(read(file, KEYS_BYTES_MAX)?)
            .map_err(|error| Error::internal("the operator's credentials are no text", error.utf8_error()))?;
        match profile(&text, name) {
            Some(Profile::Keys(keys)) => Ok(keys),
            Some(Profile::Role { token_file, job }) => self.assume(profiles, token_file, job).await,
            None => {
                Err(missing(format!("there is no profile {name}, or it lacks a key"), "name another profile"))
            }
        }
    }

    /// Keys of a role, which a process of their own asks for.
    async fn assume(&self, profiles: bool, path: String, job: IdentityJob) -> Result<Credentials, Error> {
        let token = self.file(Call::IdentityToken { profiles, path }).await?;
        let token = token
            .ok_or_else(|| missing("the operator's web identity has no token", "an operator can help"))?;
        let job = IdentityJob { ca_pem: self.0.settings.ca_pem.clone(), ..job };
        let socket = self.file(Call::Fetch).await?;
        let socket =
            socket.ok_or_else(|| Error::new(ErrorCode::Internal, "the launcher answered something else"))?;
        let asked = async {
            let channel = Channel::new(socket)?;
            channel
                .send(&FetchJob::Identify(Box::new(job)), &[token.as_fd()])
                .await
                .map_err(std::io::Error::other)?;
            channel.receive::<FetchEvent>().await.map_err(std::io::Error::other)
        };
        match asked.await.map_err(|error| Error::internal("cannot ask for the keys of a role", error))?.0 {
            FetchEvent::Keys(keys) => Ok(keys),
            FetchEvent::Failed(failure) => {
                let code = match failure.kind {
                    FetchFailureKind::Denied => ErrorCode::BucketDenied,
                    FetchFailureKind::Unreachable => ErrorCode::BucketUnreachable,
                    _ => ErrorCode::Internal,
                };
                Err(Error::new(code, format!("no keys for the role: {}", failure.detail)))
            }
            _ => Err(Error::new(ErrorCode::Internal, "fetch speaks out of turn")),
        }
    }

    async fn file(&self, call: Call) -> Result<Option<OwnedFd>, Error> {
        match self.0.launcher.call(call, &[]).await {
            Ok((Answer::Connected, mut fds)) => Ok(fds.pop()),
            Ok(_) => Err(Error::new(ErrorCode::Internal, "the launcher answered something else")),
            Err(LauncherError::Refused(Failure { kind: FailureKind::NotFound, .. })) => Ok(None),
            Err(error) => Err(launcher_error(error)),
        }
    }
}

fn read(file: OwnedFd, most: usize) -> Result<Vec<u8>, Error> {
    let file = std::fs::File::from(file);
    let read = || -> std::io::Result<Vec<u8>> {
        let length = file.metadata()?.len();
        let length = usize::try_from(length).ok().filter(|length| *length <= most);
        let mut bytes = vec![0; length.ok_or_else(|| std::io::Error::other("it is too large"))?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    read().map_err(|error| Error::internal("cannot read credentials", error))
}

/// What a profile offers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Profile {
    /// Keys.
    Keys(Credentials),
    /// A role, for who has the token in this file.
    Role { token_file: String, job: IdentityJob },
}

/// A profile of a file like `~/.aws/credentials`: sections in brackets, `name = value`, comments after `#` or `;`. Keys go
/// before a role, as in the tools that read such files.
fn profile(text: &str, name: &str) -> Option<Profile> {
    let (mut inside, mut pairs) = (false, BTreeMap::new());
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.strip_suffix(']').is_some_and(|section| section.trim() == name);
        } else if inside && let Some((key, value)) = line.split_once('=') {
            pairs.insert(key.trim(), value.trim());
        }
    }
    let value = |key: &str| pairs.get(key).filter(|value| !value.is_empty()).map(|value| (*value).to_owned());
    if let (Some(access_key_id), Some(secret_access_key)) =
        (value("aws_access_key_id"), value("aws_secret_access_key"))
    {
        let session_token = value("aws_session_token");
        let keys = Credentials::Keys { access_key_id, secret_access_key, session_token, expires_ms: None };
        return Some(Profile::Keys(keys));
    }
    let endpoint = || match value("region") {
        Some(region) => format!("https://sts.{region}.amazonaws.com"),
        None => "https://sts.amazonaws.com".to_owned(),
    };
    let job = IdentityJob {
        role_arn: value("role_arn")?,
        session_name: value("role_session_name").unwrap_or_else(|| "stockade".to_owned()),
        endpoint: value("endpoint_url_sts").unwrap_or_else(endpoint),
        ca_pem: String::new(),
    };
    Some(Profile::Role { token_file: value("web_identity_token_file")?, job })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_what_stands_below_its_name() {
        let text = "[default]\naws_access_key_id = A\n# aws_access_key_id = X\naws_secret_access_key=s=1\n\n\
                    [ two ]\naws_access_key_id=B\naws_secret_access_key = t\naws_session_token = u\nregion = r\n\
                    [half]\naws_access_key_id=C\n";
        let keys = |id: &str, secret: &str, token: Option<&str>| {
            Some(Profile::Keys(Credentials::Keys {
                access_key_id: id.into(),
                secret_access_key: secret.into(),
                session_token: token.map(Into::into),
                expires_ms: None,
            }))
        };
        assert_eq!(profile(text, "default"), keys("A", "s=1", None));
        assert_eq!(profile(text, "two"), keys("B", "t", Some("u")));
        assert_eq!(profile(text, "half"), None);
        assert_eq!(profile(text, "three"), None);
    }
    #[test]
    fn a_profile_may_be_a_role_for_a_web_identity() {
        let text = "[a]\nrole_arn = arn:r\nweb_identity_token_file = /t\nregion = r\n\
                    [b]\nrole_arn=arn:r\nweb_identity_token_file=/t\nendpoint_url_sts=http://x:1\nrole_session_name=me\n\
                    [c]\nrole_arn=arn:r\n";
        let role = |endpoint: &str, session_name: &str| {
            let job = IdentityJob {
                endpoint: endpoint.into(),
                role_arn: "arn:r".into(),
                session_name: session_name.into(),
                ca_pem: String::new(),
            };
            Some(Profile::Role { token_file: "/t".into(), job })
        };
        assert_eq!(profile(text, "a"), role("https://sts.r.amazonaws.com", "stockade"));
        assert_eq!(profile(text, "b"), role("http://x:1", "me"));
        assert_eq!(profile(text, "c"), None);
    }
}
