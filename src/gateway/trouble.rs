//! Why an allowed request comes to nothing, as the sandbox is told.

use hyper::StatusCode;

/// One answer of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Trouble {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Nobody accepts, or what answers is no HTTP.
    pub(super) fn unreachable(whom: impl std::fmt::Display) -> Self {
        let message = format!("{whom} does not accept, or does not speak HTTP");
        Self::new(StatusCode::BAD_GATEWAY, "UNREACHABLE", message)
    }

    /// The server is not who it should be.
    pub(super) fn certificate(host: &str, why: &str) -> Self {
        let message = format!("the certificate of {host} is not valid: {why}");
        Self::new(StatusCode::BAD_GATEWAY, "UPSTREAM_CERTIFICATE", message)
            .hint("an operator who trusts it adds its authority: network.ca_file in the configuration")
    }

    /// It does not speak TLS, or not with us.
    pub(super) fn tls(host: &str, why: &str) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "UPSTREAM_TLS", format!("no TLS with {host}: {why}"))
    }

    /// What the operator promised is not there.
    pub(super) fn no_credential(host: &str) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "CREDENTIAL_MISSING",
            format!("the credential for {host} is not known"),
        )
        .hint("set the network policy again, with the credential")
    }

    /// A credential that cannot be added.
    pub(super) fn bad_credential(host: &str, why: &str) -> Self {
        let message = format!("the credential for {host} cannot be added: {why}");
        Self::new(StatusCode::BAD_GATEWAY, "CREDENTIAL_UNUSABLE", message)
    }

    /// What a server would send back as it came.
    pub(super) fn echo(host: &str, method: &str) -> Self {
        let message = format!("{method} would show what is added for {host}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_REFUSED", message)
    }

    /// A body with signatures of its own in it.
    pub(super) fn signed_chunks() -> Self {
        let message = "the body has signatures in it, made with another key";
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
            .hint("turn the signing of payloads off in the client: payload_signing_enabled = false")
    }

    /// A body that would have to be read before it can be signed.
    pub(super) fn too_large(most: usize) -> Self {
        let message = format!("a body of more than {most} bytes is not signed here");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", message)
            .hint("send x-amz-content-sha256, then it is taken as it is")
    }

    /// Too many bodies are read, by this sandbox or by all.
    pub(super) fn no_place() -> Self {
        let message = "too many requests are being signed at the same time";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message)
            .hint("try again; with x-amz-content-sha256 a body is taken as it is")
    }

    /// The body does not come.
    pub(super) fn slow_body() -> Self {
        let message = "the body took too long to arrive";
        Self::new(StatusCode::REQUEST_TIMEOUT, "BODY_TIMEOUT", message)
            .hint("send it at once, or send x-amz-content-sha256, then it is taken as it comes")
    }

    /// The server accepts and does not answer.
    pub(super) fn late(whom: impl std::fmt::Display, seconds: u64) -> Self {
        let message = format!("{whom} did not begin to answer within {seconds} seconds");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "UPSTREAM_TIMEOUT", message)
    }

    /// The body did not come whole.
    pub(super) fn cut() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", "the body did not come whole")
    }

    /// Nobody is at the operator's socket.
    pub(super) fn unanswered(host: &str, why: &str) -> Self {
        let message = format!("the handler of {host} does not answer: {why}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "HANDLER_UNAVAILABLE", message)
            .hint("an operator starts it; its socket is looked for anew with each connection")
    }
}
