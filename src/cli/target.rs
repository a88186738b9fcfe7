//! Which Redis a command works on, and how it is let in.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::output::complain;
use crate::redis::{ClientFiles, Files, OpenError, Redis};

/// The default loopback port of the private Redis.
const PRIVATE_PORT: u16 = 6390;

#[derive(Debug, Args)]
pub(super) struct Target {
    /// Redis to use, instead of the private one (also REDIS_URL): redis://, rediss:// for TLS, unix://, a cluster by some of its
    /// nodes, redis+cluster://HOST,HOST, or a master that sentinels name, redis+sentinel://HOST,HOST,HOST/?master=NAME; these two also
    /// with rediss
    #[arg(long, env = "STOCKHOLD_REDIS_URL", value_name = "URL", hide_env_values = true)]
    redis_url: Option<String>,

    /// Password of Redis, in the first line; read again for each new connection
    #[arg(long, env = "STOCKHOLD_REDIS_PASSWORD_FILE", value_name = "FILE")]
    redis_password_file: Option<PathBuf>,

    /// Password of the sentinels, in the first line, if they want one
    #[arg(long, env = "STOCKHOLD_SENTINEL_PASSWORD_FILE", value_name = "FILE")]
    sentinel_password_file: Option<PathBuf>,

    /// Certificates (PEM) of the authorities that may vouch for Redis, and no others [default: those that this machine trusts]
    #[arg(long, env = "STOCKHOLD_REDIS_CA", value_name = "FILE")]
    redis_ca: Option<PathBuf>,

    /// Certificate (PEM) to show to Redis, if it wants one; with --redis-key
    #[arg(long, env = "STOCKHOLD_REDIS_CERT", value_name = "FILE", requires = "redis_key")]
    redis_cert: Option<PathBuf>,

    /// Private key (PEM) of that certificate
    #[arg(long, env = "STOCKHOLD_REDIS_KEY", value_name = "FILE", requires = "redis_cert")]
    redis_key: Option<PathBuf>,

    /// Loopback port of the private Redis; serve picks a free one for 0
    #[arg(long, env = "STOCKHOLD_REDIS_PORT", default_value_t = PRIVATE_PORT, value_name = "PORT")]
    pub(super) redis_port: u16,
}

/// How long a command waits for a reply: longer than a server, for which many clients wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

impl Target {
    /// The Redis of the URL, or the private one of a server that runs.
    ///
    /// # Errors
    /// When the URL is not one, or does not go with the files, or a file cannot be used.
    pub(super) fn redis(&self) -> anyhow::Result<Redis> {
        // The port that was free when the server started is not known here.
        let port = if self.redis_port == 0 { PRIVATE_PORT } else { self.redis_port };
        let redis = match self.named()? {
            Some(redis) => redis,
            None => Redis::open(&format!("redis://127.0.0.1:{port}"))?,
        };
        self.exposed_secrets().for_each(complain);
        Ok(redis.with_call_timeout(CALL_TIMEOUT))
    }

    /// The Redis of the URL, if there is one.
    ///
    /// # Errors
    /// As for [`Self::redis`].
    pub(super) fn named(&self) -> anyhow::Result<Option<Redis>> {
        let Some(url) = &self.redis_url else {
            let files = [&self.redis_password_file, &self.sentinel_password_file, &self.redis_ca, &self.redis_cert];
            if files.into_iter().any(Option::is_some) {
                bail!(
                    "--redis-password-file, --sentinel-password-file, --redis-ca and --redis-cert are for the Redis of a \
                     --redis-url, and there is none (STOCKHOLD_REDIS_URL, REDIS_URL)"
                );
            }
            return Ok(None);
        };
        let client = self.redis_cert.clone().zip(self.redis_key.clone());
        let files = Files {
            ca: self.redis_ca.clone(),
            client: client.map(|(certificate, key)| ClientFiles { certificate, key }),
            password: self.redis_password_file.clone(),
            sentinel_password: self.sentinel_password_file.clone(),
        };
        let opened = Redis::open_with(url, files);
        let redis = match opened {
            Err(error @ OpenError::Url(_)) => Err(error).context("--redis-url (STOCKHOLD_REDIS_URL, REDIS_URL)"),
            other => Ok(other?),
        };
        redis.map(Some)
    }

    /// Another Redis, with the same files as far as its URL needs any, and a password of its own.
    ///
    /// # Errors
    /// As for [`Self::redis`].
    pub(super) fn other(&self, url: &str, password: Option<PathBuf>) -> anyhow::Result<Redis> {
        let has_tls = url.starts_with("rediss");
        let client = self.redis_cert.clone().zip(self.redis_key.clone()).filter(|_| has_tls);
        let files = Files {
            ca: self.redis_ca.clone().filter(|_| has_tls),
            client: client.map(|(certificate, key)| ClientFiles { certificate, key }),
            password,
            sentinel_password: self.sentinel_password_file.clone().filter(|_| url.contains("+sentinel:")),
        };
        Ok(Redis::open_with(url, files)?.with_call_timeout(CALL_TIMEOUT))
    }

    /// A warning for each file with a secret that others than its owner may read.
    pub(super) fn exposed_secrets(&self) -> impl Iterator<Item = String> {
        let secrets = [
            ("--redis-password-file", &self.redis_password_file),
            ("--sentinel-password-file", &self.sentinel_password_file),
            ("--redis-key", &self.redis_key),
        ];
        secrets.into_iter().filter_map(|(setting, file)| {
            let file = file.as_ref()?;
            let is_exposed = std::fs::metadata(file).is_ok_and(|data| data.permissions().mode() & 0o077 != 0);
            is_exposed.then(|| format!("others than its owner may read {} ({setting})", file.display()))
        })
    }
}
