//! Certificates for a Redis that speaks TLS: an authority of the tests, and what it issues.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// Whether every Redis of the tests speaks TLS only.
pub static IS_EVERYWHERE: LazyLock<bool> = LazyLock::new(|| std::env::var_os("REDIS_TLS").is_some_and(|on| on == "1"));

/// A folder with `ca.pem`, and `server.pem` and `server.key` for this machine. All test binaries share it.
pub static OF_ALL_TESTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (folder, authority) = (target.join("tls"), Authority::new("stockhold-test"));
    let new = tempfile::tempdir_in(target).unwrap();
    authority.write(new.path());
    authority.issue(&["127.0.0.1", "::1", "localhost"]).write(new.path(), "server");
    // Another binary may have made it meanwhile, or an earlier run: then that one is used.
    let _ = fs::rename(new.path(), &folder);
    folder
});

/// The same folder, if every Redis of the tests speaks TLS only.
pub static OF_ALL: LazyLock<Option<PathBuf>> = LazyLock::new(|| IS_EVERYWHERE.then(|| OF_ALL_TESTS.clone()));

/// An authority that vouches for certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for_years(names, [1975, 4096])
    }

    /// A certificate that is valid from the beginning of a year to that of another.
    pub fn issue_for_years(&self, names: &[&str], [from, to]: [i32; 2]) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        [params.not_before, params.not_after] = [from, to].map(|year| date_time_ymd(year, 1, 1));
        let key = KeyPair::generate().unwrap();
        Issued { certificate: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }

    /// Writes its certificate into a folder, and returns where.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.pem");
        fs::write(&path, self.0.pem()).unwrap();
        path
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` into a folder, and returns where.
    pub fn write(&self, folder: &Path, name: &str) -> [PathBuf; 2] {
        let paths = [folder.join(format!("{name}.pem")), folder.join(format!("{name}.key"))];
        fs::write(&paths[0], &self.certificate).unwrap();
        fs::write(&paths[1], &self.key).unwrap();
        paths
    }
}
