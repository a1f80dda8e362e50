//! Why a request did not do what it was for, and what a program is told.

use std::time::Duration;

use serde::Deserialize;

use super::connect::ConnectError;
use crate::sys::Errno;
use crate::wire::bucket::{BucketFailure, BucketFailureKind};

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::bucket) enum Failure {
    /// There is no such object.
    #[error("there is no such object")]
    NotFound,
    /// There is no such bucket.
    #[error("there is no such bucket")]
    NoSuchBucket,
    /// Credentials that are not known, not allowed, or of another time.
    #[error("the server refuses: {0}")]
    Denied(String),
    /// Credentials that were good once.
    #[error("the credentials have expired")]
    Expired,
    /// The object is not the one that was meant.
    #[error("the object has changed")]
    Changed,
    /// A range behind the end.
    #[error("the object is shorter than the range")]
    Range,
    /// 429, 503 and their like.
    #[error("the server is busy: {0}")]
    Busy(String),
    /// The connection, or what came over it.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// There was no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nothing came for too long.
    #[error("no answer in time")]
    Timeout,
    /// The server wants us to go to another host.
    #[error("the server sends us to '{0}', where nobody goes")]
    Redirected(String),
    /// The bucket is somewhere else.
    #[error("the bucket is in another region{}", .0.as_ref().map(|region| format!(": {region}")).unwrap_or_default())]
    Region(Option<String>),
    /// An answer that S3 does not give.
    #[error("the server's answer makes no sense: {0}")]
    Protocol(String),
    /// A refusal without a meaning of its own.
    #[error("the server refuses with {status}: {code} {message}")]
    Refused {
        /// Status of HTTP.
        status: u16,
        /// S3's code.
        code: String,
        /// In words.
        message: String,
    },
    /// A file of our own.
    #[error("{0}")]
    Local(Errno),
}

impl Failure {
    /// Whether another attempt may go better.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Busy(_) | Self::Broken(_) | Self::Timeout => true,
            Self::Connect(error) => error.passes(),
            _ => false,
        }
    }

    /// What a program is told.
    pub(in crate::bucket) fn errno(&self) -> Errno {
        match self {
            Self::NotFound => Errno::NOENT,
            Self::Denied(_) | Self::Expired => Errno::ACCESS,
            Self::Changed => Errno::STALE,
            Self::Range => Errno::STALE,
            Self::Timeout => Errno::TIMEDOUT,
            Self::Connect(_) => Errno::HOSTUNREACH,
            Self::Local(errno) => *errno,
            _ => Errno::IO,
        }
    }

    /// What whoever mounts is told.
    pub(in crate::bucket) fn of_mount(&self) -> BucketFailure {
        let kind = match self {
            Self::NoSuchBucket | Self::NotFound => BucketFailureKind::NoSuchBucket,
            Self::Denied(_) | Self::Expired => BucketFailureKind::Denied,
            Self::Connect(ConnectError::Certificate(_)) => BucketFailureKind::BadCertificate,
            Self::Busy(_) | Self::Broken(_) | Self::Timeout | Self::Connect(_) => {
                BucketFailureKind::Unreachable
            }
            Self::Redirected(_) => BucketFailureKind::Redirected,
            Self::Region(expected) => BucketFailureKind::WrongRegion { expected: expected.clone() },
            Self::Local(_) => BucketFailureKind::Internal,
            _ => BucketFailureKind::Protocol,
        };
        BucketFailure { kind, message: self.to_string() }
    }
}

/// How long to wait before the next attempt: doubled each time from 50 ms to 3 s, and a part of it by chance, so that
/// those who were turned away together do not come back together.
pub(super) fn pause(attempt: u32) -> Duration {
    let whole = Duration::from_millis(50 << attempt.min(6));
    let mut random = [0; 4];
    // Without chance all wait the same.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    whole / 2 + (whole / 2).mul_f64(f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX))
}

/// The body of a refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Refusal {
    code: String,
    message: String,
    region: Option<String>,
    endpoint: Option<String>,
}

/// What a status, its body and two of its headers say went wrong.
pub(super) fn of_answer(
    status: u16,
    body: &[u8],
    region: Option<String>,
    location: Option<String>,
) -> Failure {
    let refusal: Refusal = super::xml::parse(body).unwrap_or_default();
    let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    let said = || format!("{} {}", short(&refusal.code), short(&refusal.message)).trim().to_owned();
    match (status, &*refusal.code) {
        (_, "NoSuchBucket") => Failure::NoSuchBucket,
        (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => Failure::Expired,
        (_, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            Failure::Region(refusal.region.or(region))
        }
        (301 | 302 | 307 | 308, _) => match region.or(refusal.region) {
            Some(region) => Failure::Region(Some(region)),
            None => Failure::Redirected(short(&location.or(refusal.endpoint).unwrap_or_default())),
        },
        (400, "RequestTimeout") | (429 | 500 | 502 | 503 | 504, _) => {
            Failure::Busy(format!("{status} {}", said()))
        }
        (400, "XAmzContentSHA256Mismatch" | "BadDigest" | "IncompleteBody") => Failure::Broken(said()),
        (401 | 403, _) => Failure::Denied(format!("{status} {}", said())),
        (404, _) => Failure::NotFound,
        (412, _) | (409, "ConditionalRequestConflict") => Failure::Changed,
        (416, _) => Failure::Range,
        _ => Failure::Refused { status, code: short(&refusal.code), message: short(&refusal.message) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, code: &str) -> Failure {
        let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        of_answer(status, body.as_bytes(), None, None)
    }

    #[test]
    fn answers_mean_what_programs_are_told() {
        for (status, code, errno, passes) in [
            (404, "NoSuchKey", Errno::NOENT, false),
            (403, "AccessDenied", Errno::ACCESS, false),
            (403, "SignatureDoesNotMatch", Errno::ACCESS, false),
            (400, "ExpiredToken", Errno::ACCESS, false),
            (412, "PreconditionFailed", Errno::STALE, false),
            (503, "SlowDown", Errno::IO, true),
            (429, "", Errno::IO, true),
            (500, "InternalError", Errno::IO, true),
            (400, "InvalidArgument", Errno::IO, false),
            (400, "XAmzContentSHA256Mismatch", Errno::IO, true),
        ] {
            let failure = of(status, code);
            assert_eq!((failure.errno(), failure.passes()), (errno, passes), "{status} {code}: {failure:?}");
        }
    }

    #[test]
    fn a_redirect_is_refused_and_says_where_it_went() {
        let failure = of_answer(307, b"", None, Some("http://169.254.169.254/latest".to_owned()));
        assert_eq!(failure.of_mount().kind, BucketFailureKind::Redirected);
        assert!(failure.to_string().contains("169.254.169.254"));
        let failure = of_answer(301, b"", Some("eu-west-1".to_owned()), None);
        let expected = Some("eu-west-1".to_owned());
        assert_eq!(failure.of_mount().kind, BucketFailureKind::WrongRegion { expected });
    }

    #[test]
    fn pauses_grow_and_end() {
        assert!((0..40).all(|attempt| pause(attempt) <= Duration::from_millis(3200)));
        assert!(pause(5) > pause(0));
    }
}
