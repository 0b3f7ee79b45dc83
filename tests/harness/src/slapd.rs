//! A private OpenLDAP server with iRedMail's object classes and a small tree of accounts.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::folder::Folder;
use crate::port::Port;
use crate::prerequisite;
use crate::process::{Process, Start, run};
use crate::wait::wait_for;

const PROGRAM: &str = "/usr/sbin/slapd";
const SCHEMA: &str = include_str!("slapd/iredmail.schema");
const SAMPLE: &str = include_str!("slapd/sample.ldif");
/// Root of the tree.
const SUFFIX: &str = "dc=example,dc=com";
const MANAGER: &str = "cn=Manager,dc=example,dc=com";
const MANAGER_PASSWORD: &str = "Manager-1";

/// A running server, stopped and removed on drop.
///
/// Its tree is that of `slapd/sample.ldif`; reading is allowed to `cn=vmail`, writing to `cn=vmailadmin`, and
/// nothing to anybody else.
#[derive(Debug)]
pub struct Slapd {
    process: Option<Process>,
    folder: Folder,
    port: Port,
    tls_port: Port,
}

impl Slapd {
    /// The entry below which the domains are.
    pub const BASE_DN: &str = "o=domains,dc=example,dc=com";
    /// The account that reads.
    pub const BIND_DN: &str = "cn=vmail,dc=example,dc=com";
    /// Its password.
    pub const BIND_PASSWORD: &str = "Read-1";

    /// Whether the programs are installed (Debian: slapd, ldap-utils, openssl).
    pub fn is_installed() -> bool {
        let is_there = fs::exists(PROGRAM).unwrap_or(false) && run("ldapadd", &["-VV"]).is_ok();
        prerequisite::met("slapd", is_there) && prerequisite::has_openssl()
    }

    /// Starts a server with the sample tree.
    pub fn start() -> Result<Self> {
        let folder = Folder::new("slapd")?;
        folder.sub("db")?;
        folder.write("iredmail.schema", SCHEMA)?;
        let sample = folder.write("sample.ldif", SAMPLE)?;
        certificates(&folder)?;
        let server = Self { process: None, folder, port: Port::reserve()?, tls_port: Port::reserve()? };
        let configuration = server.configure("unlimited")?;
        let arguments = ["-f", &configuration, "-l", &sample.display().to_string()];
        run("/usr/sbin/slapadd", &arguments).context("loading the sample tree")?;
        server.resumed()
    }

    fn resumed(mut self) -> Result<Self> {
        self.resume()?;
        Ok(self)
    }

    fn configure(&self, size_limit: &str) -> Result<String> {
        let folder = self.folder.path().display();
        let text = format!(
            "include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
include {folder}/iredmail.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
disallow bind_anon
require LDAPv3
loglevel stats
sizelimit {size_limit}
TLSCACertificateFile {folder}/ca.pem
TLSCertificateFile {folder}/server.pem
TLSCertificateKeyFile {folder}/server.key
database mdb
suffix {SUFFIX}
directory {folder}/db
maxsize 33554432
rootdn {MANAGER}
rootpw {MANAGER_PASSWORD}
index objectClass,mail,shadowAddress,domainName,domainAliasName eq
index accountStatus,enabledService,memberOfGroup,mailForwardingAddress,listAllowedUser eq
access to attrs=userPassword by anonymous auth by dn.exact=cn=vmailadmin,{SUFFIX} write by * none
access to * by dn.exact=cn=vmail,{SUFFIX} read by dn.exact=cn=vmailadmin,{SUFFIX} write by * none
"
        );
        Ok(self.folder.write("slapd.conf", &text)?.display().to_string())
    }

    /// `ldap://127.0.0.1:PORT`, which also offers STARTTLS.
    pub fn uri(&self) -> String {
        format!("ldap://{}", self.port.address())
    }

    /// `ldaps://localhost:PORT`.
    pub fn tls_uri(&self) -> String {
        format!("ldaps://localhost:{}", self.tls_port.number())
    }

    /// `ldapi://`, its UNIX socket.
    pub fn socket_uri(&self) -> String {
        format!("ldapi://{}", self.folder.path().join("ldapi").display().to_string().replace('/', "%2F"))
    }

    /// The authority that signed its certificate, which is for `localhost` only.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What it logged: every connection, search and result.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Adds entries.
    pub fn add(&self, ldif: &str) -> Result<()> {
        self.client("ldapadd", ldif)
    }

    /// Changes entries (LDIF with `changetype`).
    pub fn modify(&self, ldif: &str) -> Result<()> {
        self.client("ldapmodify", ldif)
    }

    fn client(&self, program: &str, ldif: &str) -> Result<()> {
        let file = self.folder.write("change.ldif", ldif)?.display().to_string();
        let uri = self.uri();
        run(program, &["-x", "-H", &uri, "-D", MANAGER, "-w", MANAGER_PASSWORD, "-f", &file]).map(drop)
    }

    /// Stops it.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop(Signal::SIGTERM, Duration::from_secs(30)).map(drop),
            None => Ok(()),
        }
    }

    /// Stops it in the middle of everything without ending it ([`Process::freeze`]).
    pub fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("it does not run")?.freeze()
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("it does not run")?.thaw()
    }

    /// Starts it again on the same ports with the same tree.
    pub fn resume(&mut self) -> Result<()> {
        if !fs::exists(PROGRAM)? {
            bail!("slapd is not installed (package slapd)");
        }
        let listen =
            format!("{}/ ldaps://127.0.0.1:{}/ {}/", self.uri(), self.tls_port.number(), self.socket_uri());
        let configuration = self.folder.path().join("slapd.conf").display().to_string();
        let process = Start::new("slapd", PROGRAM, self.folder.path().join("log"))
            .args(["-d", "stats", "-f", &configuration, "-h", &listen])
            .spawn()?;
        self.process = Some(process);
        let uri = self.uri();
        wait_for("slapd to answer", || {
            let gone = !self.process.as_mut().is_some_and(Process::is_running);
            assert!(!gone, "slapd ended while starting; see {}", self.folder.path().join("log").display());
            run("ldapwhoami", &["-x", "-H", &uri, "-D", MANAGER, "-w", MANAGER_PASSWORD]).ok()
        });
        Ok(())
    }

    /// Starts it again with at most so many entries an answer; `None` is as many as there are.
    pub fn restart_with_size_limit(&mut self, limit: Option<usize>) -> Result<()> {
        self.stop()?;
        self.configure(&limit.map_or("unlimited".to_owned(), |limit| limit.to_string()))?;
        self.resume()
    }
}

/// An authority and a certificate for `localhost` signed by it.
pub(crate) fn certificates(folder: &Folder) -> Result<()> {
    let path = |name: &str| folder.path().join(name).display().to_string();
    folder.write("server.ext", "subjectAltName=DNS:localhost\n")?;
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = [&path("ca.key"), &path("ca.pem")];
    let server = [&path("server.key"), &path("server.csr"), &path("server.pem"), &path("server.ext")];
    let mut make = vec!["req", "-x509", "-days", "30", "-subj", "/CN=Test authority"];
    make.extend(key);
    make.extend(["-keyout", authority[0], "-out", authority[1]]);
    run("openssl", &make)?;
    let mut ask = vec!["req", "-subj", "/CN=localhost"];
    ask.extend(key);
    ask.extend(["-keyout", server[0], "-out", server[1]]);
    run("openssl", &ask)?;
    let sign = ["x509", "-req", "-days", "30", "-in", server[1], "-CA", authority[1], "-CAkey", authority[0]];
    run("openssl", &[&sign[..], &["-CAcreateserial", "-extfile", server[3], "-out", server[2]]].concat())
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_entries_over_a_restart() {
        if !Slapd::is_installed() {
            return;
        }
        let mut server = Slapd::start().unwrap();
        let read = |server: &Slapd, password: &str| {
            let uri = server.uri();
            run(
                "ldapsearch",
                &[
                    "-x",
                    "-LLL",
                    "-H",
                    &uri,
                    "-D",
                    Slapd::BIND_DN,
                    "-w",
                    password,
                    "-b",
                    Slapd::BASE_DN,
                    "mail=new@example.com",
                    "mail",
                ],
            )
        };
        server
            .add(&format!(
                "dn: mail=new@example.com,ou=Groups,domainName=example.com,{}\nobjectClass: mailList\nmail: new@example.com\n",
                Slapd::BASE_DN
            ))
            .unwrap();
        server.stop().unwrap();
        assert!(read(&server, Slapd::BIND_PASSWORD).is_err());
        server.resume().unwrap();
        assert!(read(&server, Slapd::BIND_PASSWORD).unwrap().contains("mail: new@example.com"));
        assert!(read(&server, "wrong").is_err());
    }
}
