//! A certificate authority of our own, and a server certificate for 127.0.0.1.

use std::path::PathBuf;

use crate::folder::Folder;
use crate::process::run;
use anyhow::Result;

/// The files a server needs, and the authority its clients have to trust.
#[derive(Debug)]
pub struct Authority {
    folder: Folder,
}

impl Authority {
    /// Makes keys and certificates; the server's key belongs to `account`.
    pub fn new(account: &str) -> Result<Authority> {
        let folder = Folder::new("tls")?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let extensions = folder.write("extensions", "subjectAltName=IP:127.0.0.1\n")?.display().to_string();
        let (ca, ca_key, request) = (path("ca.pem"), path("ca.key"), path("request"));
        let (certificate, key) = (path("server.pem"), path("server.key"));
        let new_key = ["-newkey", "rsa:2048", "-nodes", "-subj"];
        let own = ["req", "-x509", "-days", "2", "-keyout", &ca_key, "-out", &ca];
        run("openssl", &[&own[..], &new_key, &["/CN=test authority"]].concat())?;
        let ask = ["req", "-keyout", &key, "-out", &request];
        run("openssl", &[&ask[..], &new_key, &["/CN=127.0.0.1"]].concat())?;
        let sign = ["x509", "-req", "-days", "2", "-in", &request, "-CA", &ca, "-CAkey", &ca_key];
        let out = ["-CAcreateserial", "-extfile", &extensions, "-out", &certificate];
        run("openssl", &[&sign[..], &out].concat())?;
        run("chmod", &["600", &key])?;
        if nix::unistd::geteuid().is_root() {
            run("chown", &[account, &key])?;
        }
        Ok(Authority { folder })
    }

    /// The certificate of the authority.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The certificate of the server.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    /// The key of the server.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("server.key")
    }
}
