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

const NOT_IMAGE_HINT: &str = "send an OCI layout or a docker-archive; a tar of files becomes an image with `rootfs`, and wants a `reference`";

pub(super) type Outcome<T> = Result<T, Failed>;

impl Failed {
    pub(super) fn bug(message: &'static str) -> Self {
        Self {
            code: ErrorCode::Internal,
            message: message.to_owned(),
            hint: None,
            cause: None,
            context: None,
        }
    }

    pub(super) fn caused(operation: &str, error: impl std::error::Error + Send + Sync + 'static) -> Self {
        let message = format!("cannot {operation}");
        Self { code: ErrorCode::Internal, message, hint: None, cause: Some(Arc::new(error)), context: None }
    }

    /// An archive that stopped on its way here.
    pub(super) fn unarrived(error: std::io::Error) -> Self {
        match error.downcast::<Error>() {
            // Whoever it comes from knows why.
            Ok(error) => error.into(),
            Err(error) => Self {
                code: ErrorCode::InvalidRequest,
                message: "the archive stopped arriving".to_owned(),
                hint: Some("send the whole archive, without a pause of minutes"),
                cause: Some(Arc::new(error)),
                context: None,
            },
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
        let message = error.message.into_owned();
        Self { code: error.code, message, hint, cause: None, context: error.context }
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
        Self { code, message: failure.detail, hint, cause: None, context: None }
    }
}

impl From<LauncherError> for Failed {
    fn from(error: LauncherError) -> Self {
        let LauncherError::Refused(failure) = error else {
            return Self {
                code: ErrorCode::ShuttingDown,
                message: error.to_string(),
                hint: Some("try again in a second"),
                cause: None,
                context: None,
            };
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
        Self { code, message, hint: Some(hint), cause: Some(Arc::new(failure)), context: None }
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
        let hint = Some(REFERENCE_HINT);
        Self {
            code: ErrorCode::InvalidReference,
            message: error.to_string(),
            hint,
            cause: None,
            context: None,
        }
    }
}
