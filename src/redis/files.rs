//! What a connection needs besides a URL, and its operator keeps in files.

use std::fs;
use std::path::{Path, PathBuf};

use super::OpenError;

/// Files that a connection needs besides its URL. Each new connection reads them again: a password or a certificate that was renewed
/// is used from the next connection on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The certificates (PEM) of the authorities that are trusted, and no others; without it, those of the system.
    pub ca: Option<PathBuf>,
    /// What is shown to a server that wants to know who connects.
    pub client: Option<ClientFiles>,
    /// The password, in the first line. The user is in the URL.
    pub password: Option<PathBuf>,
    /// The password of the sentinels, if they want one.
    pub sentinel_password: Option<PathBuf>,
}

impl Files {
    /// # Errors
    /// When there is one for sentinels.
    pub(super) fn need_no_sentinels(&self) -> Result<(), OpenError> {
        match self.sentinel_password {
            None => Ok(()),
            Some(_) => Err(OpenError::Files(
                "--sentinel-password-file is for sentinels, and --redis-url does not begin with redis+sentinel:// or \
                 rediss+sentinel://: it would not be used"
                    .to_owned(),
            )),
        }
    }
}

/// A certificate, and the key that proves whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificate (PEM), and those of the authorities between it and one that the server trusts.
    pub certificate: PathBuf,
    /// Its private key (PEM), not encrypted.
    pub key: PathBuf,
}

/// The password in a file: its first line.
///
/// # Errors
/// When there is none.
pub(super) fn password(file: &Path, setting: &str) -> Result<String, OpenError> {
    let text = String::from_utf8(read(file, setting)?);
    let line = text.as_deref().map(|text| text.lines().next().unwrap_or_default());
    match line {
        Ok("") => Err(unusable(file, setting, "its first line, the password, is empty")),
        Ok(password) => Ok(password.to_owned()),
        Err(_) => Err(unusable(file, setting, "it is not text in UTF-8")),
    }
}

pub(super) fn read(file: &Path, setting: &str) -> Result<Vec<u8>, OpenError> {
    fs::read(file).map_err(|error| OpenError::Files(format!("cannot read {} ({setting}): {error}", file.display())))
}

/// Its content is not in the message: it may be secret.
pub(super) fn unusable(file: &Path, setting: &str, why: &str) -> OpenError {
    OpenError::Files(format!("{} ({setting}): {why}", file.display()))
}
