//! What went wrong with TLS, in words: which setting to look at, and whether it helps to wait.

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use ::redis::RedisError;
use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription as Alert, CertificateError, Error};

use super::Failure;

/// The error of TLS in an error of a stream.
pub(super) fn in_io(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// The error of TLS in an error of the client.
pub(super) fn in_redis(error: &RedisError) -> Option<&Error> {
    let inner: &Arc<dyn std::error::Error + Send + Sync> = error.source()?.downcast_ref()?;
    in_io(inner.downcast_ref()?)
}

/// What it means, for a connection to `host` that has a certificate of its own or not.
pub(super) fn explain(error: &Error, host: &str, shows_certificate: bool) -> Failure {
    match error {
        Error::InvalidCertificate(error) => Failure::Barred(of_the_server(error, host)),
        Error::InvalidMessage(_) => Failure::Barred(
            "it does not speak TLS there: without TLS, --redis-url begins with redis://; with TLS, Redis listens on \
             another port"
                .to_owned(),
        ),
        Error::PeerIncompatible(_) | Error::AlertReceived(Alert::ProtocolVersion) => {
            Failure::Barred(format!("it speaks neither TLS 1.3 nor TLS 1.2, or none of their ciphers: {error}"))
        }
        Error::AlertReceived(alert) => of_the_client(*alert, shows_certificate),
        other => Failure::Unreachable(format!("TLS failed: {other}")),
    }
}

/// Why the certificate of the server is not accepted.
fn of_the_server(error: &CertificateError, host: &str) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate has expired, {}: renew it, or see whether a clock is wrong", day(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid before {}: is a clock wrong?", day(*not_before))
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names = if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") };
            format!("its certificate is not for {host}, the host of --redis-url, but for {names}")
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is from an authority that is not trusted: name the file of that authority's certificate \
             (--redis-ca)"
                .to_owned()
        }
        other => format!("its certificate is not accepted: {other}"),
    }
}

/// Why the server does not accept us.
fn of_the_client(alert: Alert, shows_certificate: bool) -> Failure {
    const WANTED: &str = "it wants a certificate of its clients: name the files (--redis-cert, --redis-key)";
    match alert {
        Alert::CertificateRequired => Failure::Barred(WANTED.to_owned()),
        Alert::HandshakeFailure if !shows_certificate => {
            Failure::Barred(format!("it refused the TLS handshake ({alert:?}); perhaps {WANTED}"))
        }
        Alert::UnknownCA
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::AccessDenied
            if shows_certificate =>
        {
            Failure::Barred(format!("it does not accept our certificate (--redis-cert): {alert:?}"))
        }
        other => Failure::Unreachable(format!("it refused the TLS handshake: {other:?}")),
    }
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    seconds.map_or_else(|| format!("{} s after 1970", time.as_secs()), |time| time.to_string())
}
