//! The way to a Redis: to a fixed place, or to the one that sentinels name.

use std::fmt;

use super::connector::{Connector, Link};
use super::sentinel::Sentinels;
use super::{Failure, Files, OpenError};

/// How to reach a Redis.
pub(super) enum Way {
    Direct(Connector),
    Sentinels(Sentinels),
}

impl Way {
    /// # Errors
    /// When the URL is not one, or does not go with the files, or a file cannot be used.
    pub(super) fn new(url: &str, files: Files) -> Result<Self, OpenError> {
        if Sentinels::are_in(url) {
            return Sentinels::new(url, files).map(Self::Sentinels);
        }
        files.need_no_sentinels()?;
        Connector::new(url, files).map(Self::Direct)
    }

    /// Whether the files can be used now.
    ///
    /// # Errors
    /// When one of them cannot.
    pub(super) fn read_files(&self) -> Result<(), OpenError> {
        match self {
            Self::Direct(connector) => connector.read_files(),
            Self::Sentinels(sentinels) => sentinels.read_files(),
        }
    }

    /// Whether sentinels name it.
    pub(super) fn is_watched(&self) -> bool {
        matches!(self, Self::Sentinels(_))
    }

    /// How to reach another host in the same manner.
    pub(super) fn at(&self, host: String, port: u16) -> Self {
        Self::Direct(match self {
            Self::Direct(connector) => connector.at(host, port),
            Self::Sentinels(sentinels) => sentinels.at(host, port),
        })
    }

    /// # Errors
    /// [`Failure::Barred`] when a later attempt would fail too, and [`Failure::Unreachable`] otherwise.
    pub(super) async fn connect(&self) -> Result<Link, Failure> {
        match self {
            Self::Direct(connector) => connector.connect().await,
            Self::Sentinels(sentinels) => sentinels.connect().await,
        }
    }
}

/// Where it leads to, without any credentials.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(connector) => connector.fmt(f),
            Self::Sentinels(sentinels) => sentinels.fmt(f),
        }
    }
}
