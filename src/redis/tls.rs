//! TLS: whom a connection trusts, and who it says it is.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};
use rustls_native_certs::CertificateResult;

use super::OpenError;
use super::files::{ClientFiles, Files, read, unusable};

const CA: &str = "--redis-ca";
const CERT: &str = "--redis-cert";
const KEY: &str = "--redis-key";

/// Reads the files for one connection.
///
/// # Errors
/// When they cannot be read, or are not what they should be.
pub(super) fn config(files: &Files) -> Result<ClientConfig, OpenError> {
    let roots = match &files.ca {
        Some(ca) => Arc::new(only(ca)?),
        None => of_the_system()?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError::Files(error.to_string()))?
        .with_root_certificates(roots);
    match &files.client {
        None => Ok(config.with_no_client_auth()),
        Some(ClientFiles { certificate, key }) => {
            let chain = certificates(certificate, CERT)?;
            let secret = PrivateKeyDer::from_pem_slice(&read(key, KEY)?)
                .map_err(|_| unusable(key, KEY, "it has no private key in PEM, or only an encrypted one"))?;
            config.with_client_auth_cert(chain, secret).map_err(|error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => unusable(
                    key,
                    KEY,
                    &format!("it is not the key of the certificate in {} ({CERT})", certificate.display()),
                ),
                other => {
                    unusable(certificate, CERT, &format!("it cannot be used with {} ({KEY}): {other}", key.display()))
                }
            })
        }
    }
}

fn certificates(file: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file, setting)?).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| unusable(file, setting, "it has no certificate in PEM, or a damaged one"))
}

fn only(ca: &Path) -> Result<RootCertStore, OpenError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, CA)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(ca, CA, &format!("a certificate in it cannot be used: {error}")))?;
    }
    Ok(roots)
}

/// Those that this machine trusts. They are read once: there are more than a hundred.
fn of_the_system() -> Result<Arc<RootCertStore>, OpenError> {
    static ROOTS: OnceLock<Result<Arc<RootCertStore>, String>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| trusted(rustls_native_certs::load_native_certs()).map(Arc::new));
    roots.clone().map_err(OpenError::Files)
}

/// The system's, or if it has none, as in a slim container, those of Mozilla.
fn trusted(found: CertificateResult) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match found.errors.first() {
        _ if !roots.is_empty() => {}
        // Somebody has named them, with SSL_CERT_FILE or SSL_CERT_DIR: to trust others instead would be wrong.
        Some(error) => {
            return Err(format!("cannot read the certificates that this system trusts ({CA} names others): {error}"));
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_certificates_trusts_those_of_mozilla() {
        let roots = trusted(CertificateResult::default()).unwrap();
        assert_eq!(roots.len(), webpki_roots::TLS_SERVER_ROOTS.len());
    }

    #[test]
    fn certificates_of_the_system_that_cannot_be_read_are_not_replaced() {
        let mut unreadable = CertificateResult::default();
        let error = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let kind = rustls_native_certs::ErrorKind::Io { inner: error, path: "/certificates".into() };
        unreadable.errors.push(rustls_native_certs::Error { context: "failed", kind });
        assert!(trusted(unreadable).unwrap_err().contains("--redis-ca"));
    }
}
