//! Failures of pulls and imports, as every caller who waited for one job is told.

use std::borrow::Cow;
use std::sync::Arc;

use crate::error::{Error, ErrorCode};
use crate::image::reference::InvalidReference;
use crate::image::store::StoreError;
use crate::sandbox::launcher::LauncherError;
use crate::sys::channel::ChannelError;
use crate::wire::fetch::{FetchFailure, FetchFailureKind};
use crate::wire::launch::FailureKind;

/// A failure that every caller of a shared job can be told.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    pub(super) hint: Option<&'static str>,
    pub(super) cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
    pub(super) context: Option<serde_json::Value>,
}

const REFERENCE_HINT: &str =
    "a reference is [registry/]repository[:tag][@sha256:…], a platform os/architecture";

const INVALID_HINT: &str = "fetch or save the image anew; if it stays so, whoever made it must mend it";

const SEALED_HINT: &str = "give the identity of the recipient that it is encrypted to: `AGE-SECRET-KEY-1…`, in the header `x-stockade-identity` or the field `identity`; or `--identity` and the file that has it";

const NOT_IMAGE_HINT: &str = "send an OCI layout or a docker-archive; a tar of files becomes an image with `rootfs`, and wants a `reference`";

pub(super) type Outcome<T> = Result<T, Failed>;

impl Failed {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, cause: None, context: None }
    }

    pub(super) fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    fn source(self, error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { cause: Some(Arc::new(error)), ..self }
    }

    pub(super) fn bug(message: &'static str) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    pub(super) fn caused(operation: &str, error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::new(ErrorCode::Internal, format!("cannot {operation}")).source(error)
    }

    /// An archive that stopped on its way here.
    pub(super) fn unarrived(error: std::io::Error) -> Self {
        match error.downcast::<Error>() {
            // Whoever it comes from knows why.
            Ok(error) => error.into(),
            Err(error) => Self::new(ErrorCode::InvalidRequest, "the archive stopped arriving")
                .hint("send the whole archive, without a pause of minutes")
                .source(error),
        }
    }

    pub(super) fn into_error(self) -> Error {
        let mut error = Error::new(self.code, self.message);
        if let Some(hint) = self.hint {
            error = error.hint(hint);
        }
        if let Some(context) = self.context {
            error = error.context(context);
        }
        match self.cause {
            Some(cause) => error.source(cause as Arc<dyn std::error::Error + Send + Sync>),
            None => error,
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let hint = match error.hint {
            Some(Cow::Borrowed(hint)) => Some(hint),
            _ => None,
        };
        Self { hint, context: error.context, ..Self::new(error.code, error.message) }
    }
}

impl From<FetchFailure> for Failed {
    fn from(failure: FetchFailure) -> Self {
        let (code, hint) = match failure.kind {
            FetchFailureKind::Reference => (ErrorCode::InvalidReference, Some(REFERENCE_HINT)),
            FetchFailureKind::Denied => (
                ErrorCode::RegistryDenied,
                Some("give username and password, or a token, that may pull this image"),
            ),
            FetchFailureKind::NotFound => (
                ErrorCode::RegistryNotFound,
                Some("check the repository and the tag; private ones may need credentials"),
            ),
            FetchFailureKind::Unreachable => (
                ErrorCode::RegistryUnreachable,
                Some("check the registry's name, the network and the certificates"),
            ),
            FetchFailureKind::Invalid => (ErrorCode::ImageInvalid, Some(INVALID_HINT)),
            FetchFailureKind::Sealed => (ErrorCode::ImageInvalid, Some(SEALED_HINT)),
            FetchFailureKind::NotImage => (ErrorCode::ImageInvalid, Some(NOT_IMAGE_HINT)),
            FetchFailureKind::Platform => {
                (ErrorCode::PlatformNotFound, Some("ask for a platform that the image has"))
            }
            FetchFailureKind::Full => {
                (ErrorCode::CapacityExhausted, Some("the disk under the state directory is full"))
            }
            FetchFailureKind::Internal => {
                (ErrorCode::Internal, Some("see the daemon's log under this request id"))
            }
        };
        Self { hint, ..Self::new(code, failure.detail) }
    }
}

impl From<LauncherError> for Failed {
    fn from(error: LauncherError) -> Self {
        let LauncherError::Refused(failure) = error else {
            return Self::new(ErrorCode::ShuttingDown, error.to_string()).hint("try again in a second");
        };
        let (code, hint) = match failure.kind {
            FailureKind::LayerInvalid => (ErrorCode::ImageInvalid, INVALID_HINT),
            FailureKind::Capacity => {
                (ErrorCode::CapacityExhausted, "wait for other pulls, or free disk space")
            }
            FailureKind::HostUnsupported => (ErrorCode::HostUnsupported, "see `stockade doctor`"),
            _ => (ErrorCode::Internal, "see the daemon's log under this request id"),
        };
        let message = if code == ErrorCode::Internal { failure.what.clone() } else { failure.to_string() };
        Self::new(code, message).hint(hint).source(failure)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::caused("use the image store", error)
    }
}

impl From<ChannelError> for Failed {
    fn from(error: ChannelError) -> Self {
        Self::caused("talk to the fetch process", error)
    }
}

impl From<InvalidReference> for Failed {
    fn from(error: InvalidReference) -> Self {
        Self::new(ErrorCode::InvalidReference, error.to_string()).hint(REFERENCE_HINT)
    }
}
