//! Opening listening sockets, or taking over those that the service manager opened.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, sockopt};
use nix::unistd::{Gid, Group};

use crate::settings::{ListenAddress, ListenerSpec, ProcessSettings};

/// Connections that may wait to be accepted. Every smtpd process of a busy Postfix connects at the same moment after
/// a restart; the kernel cuts the number to net.core.somaxconn.
const BACKLOG: i32 = 1024;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another program listens there.
    #[error("cannot listen on {0}: another program is listening there")]
    InUse(ListenAddress),
    /// The operating system refused.
    #[error("cannot listen on {0}: {1}")]
    Refused(ListenAddress, #[source] io::Error),
    /// The group for UNIX sockets does not exist.
    #[error("group {0:?} of process.socket_group does not exist")]
    NoGroup(String),
    /// A socket was passed by the service manager, but it is not clear what for.
    #[error("inherited socket {0}: {1}")]
    Inherited(String, String),
}

impl BindError {
    /// The exit status of a daemon that cannot start because of this (conventions: 71, 77, 78).
    pub fn exit_code(&self) -> u8 {
        match self {
            BindError::NoGroup(_) => 78,
            BindError::Refused(_, error) if error.kind() == io::ErrorKind::PermissionDenied => 77,
            _ => 71,
        }
    }
}

/// A listening socket that is not yet attached to a runtime.
#[derive(Debug)]
pub enum Socket {
    /// IPv4 or IPv6.
    Tcp(TcpListener),
    /// A UNIX socket. The file is removed at the end if we made it.
    Unix(UnixListener, SocketFile),
}

/// The file of a UNIX socket; removed on drop if it is still the one that we made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl SocketFile {
    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // After a quick restart the new process has put its own socket there: leave that one.
        let ours = std::fs::symlink_metadata(&self.path).ok().map(|meta| (meta.dev(), meta.ino()));
        if self.inode.is_some() && ours == self.inode {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A socket on which the daemon listens now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundListener {
    /// The role, see [`ListenerSpec`].
    pub role: &'static str,
    /// The address with the port that was really taken.
    pub address: ListenAddress,
}

impl fmt::Display for BoundListener {
    /// `role=address`, as in the ready line.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}={}", self.role, self.address)
    }
}

/// Sockets passed by the service manager (`LISTEN_FDS`, sd_listen_fds(3)).
#[derive(Default)]
pub struct Inherited {
    sockets: Vec<(String, Socket, ListenAddress)>,
}

impl Inherited {
    /// None, as when started by hand.
    pub fn none() -> Inherited {
        Inherited::default()
    }

    /// Takes the sockets announced to this process. Call it once, before other files are opened.
    pub fn from_environment() -> Result<Inherited, BindError> {
        let mut passed = ListenFd::from_env();
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let name = names.get(index).copied().unwrap_or("unknown").to_owned();
            let refused = |error: io::Error| BindError::Inherited(name.clone(), error.to_string());
            // A descriptor that is no TCP socket is left in place and tried as a UNIX socket.
            let found = match passed.take_tcp_listener(index) {
                Ok(Some(listener)) => Some((tcp_address(&listener).map_err(refused)?, Socket::Tcp(listener))),
                Ok(None) => None,
                Err(_) => passed.take_unix_listener(index).map_err(refused)?.map(|listener| {
                    let path = unix_path(&listener);
                    let file = SocketFile { path: path.clone(), inode: None };
                    (ListenAddress::Unix(path), Socket::Unix(listener, file))
                }),
            };
            if let Some((address, socket)) = found {
                sockets.push((name, socket, address));
            }
        }
        Ok(Inherited { sockets })
    }

    /// Finds the role of each inherited socket: by its name, by the configured address, or because there is one role.
    fn assign(self, specs: &[ListenerSpec]) -> Result<Vec<(&'static str, Socket, ListenAddress)>, BindError> {
        let mut assigned = Vec::new();
        for (name, socket, address) in self.sockets {
            let by_name = specs.iter().find(|spec| spec.role == name);
            let by_address = || specs.iter().find(|spec| spec.address == address);
            let only = || specs.first().filter(|first| specs.iter().all(|spec| spec.role == first.role));
            match by_name.or_else(by_address).or_else(only) {
                Some(spec) => assigned.push((spec.role, socket, address)),
                None => {
                    let roles: Vec<&str> = specs.iter().map(|spec| spec.role).collect();
                    let reason = format!("name it with FileDescriptorName= as one of: {}", roles.join(", "));
                    return Err(BindError::Inherited(format!("{name} ({address})"), reason));
                }
            }
        }
        Ok(assigned)
    }
}

/// Opens all listeners in the order of `specs`. A role for which sockets were inherited uses only those.
pub fn bind(
    specs: &[ListenerSpec],
    inherited: Inherited,
    process: &ProcessSettings,
) -> Result<Vec<(BoundListener, Socket)>, BindError> {
    let mut inherited = inherited.assign(specs)?;
    let mut bound: Vec<(BoundListener, Socket)> = Vec::new();
    let given: Vec<&str> = inherited.iter().map(|(role, _, _)| *role).collect();
    for spec in specs {
        if given.contains(&spec.role) {
            while let Some(index) = inherited.iter().position(|(role, _, _)| *role == spec.role) {
                let (role, socket, address) = inherited.remove(index);
                bound.push((BoundListener { role, address }, socket));
            }
            continue;
        }
        let (socket, address) = open(&spec.address, process)?;
        bound.push((BoundListener { role: spec.role, address }, socket));
    }
    Ok(bound)
}

/// Opens one listening socket; port 0 takes any free port.
pub(crate) fn open(
    address: &ListenAddress,
    process: &ProcessSettings,
) -> Result<(Socket, ListenAddress), BindError> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address.clone()),
        _ => BindError::Refused(address.clone(), error),
    };
    match address {
        ListenAddress::Tcp(wanted) => {
            let listener = open_tcp(*wanted).map_err(refused)?;
            let taken = tcp_address(&listener).map_err(refused)?;
            Ok((Socket::Tcp(listener), taken))
        }
        ListenAddress::Unix(path) => {
            let group = socket_group(process)?;
            let listener =
                open_unix(path, process.socket_mode_bits().unwrap_or(0o660), group).map_err(refused)?;
            let inode = std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
            let file = SocketFile { path: path.clone(), inode };
            Ok((Socket::Unix(listener, file), address.clone()))
        }
    }
}

fn socket_group(process: &ProcessSettings) -> Result<Option<Gid>, BindError> {
    let Some(name) = &process.socket_group else { return Ok(None) };
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(group.gid)),
        _ => Err(BindError::NoGroup(name.clone())),
    }
}

fn open_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, SockType::Stream, flags, None)?;
    // Connections of the previous process in TIME_WAIT must not keep us from starting.
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    match address {
        SocketAddr::V4(address) => socket::bind(socket.as_raw_fd(), &SockaddrIn::from(address))?,
        SocketAddr::V6(address) => {
            // 0.0.0.0 and [::] can both be listed: each takes its own family.
            socket::setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
            socket::bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?;
        }
    }
    socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(socket))
}

fn open_unix(path: &Path, mode: u32, group: Option<Gid>) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    let finish = || {
        if let Some(group) = group {
            nix::unistd::chown(path, None, Some(group))?;
        }
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode))?;
        socket::listen(&listener, Backlog::new(BACKLOG)?)?;
        listener.set_nonblocking(true)
    };
    match finish() {
        Ok(()) => Ok(listener),
        Err(error) => {
            let _ = std::fs::remove_file(path);
            Err(error)
        }
    }
}

/// Whether the file is a socket that nobody listens on any more, left by a process that was killed.
fn is_abandoned(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn tcp_address(listener: &TcpListener) -> io::Result<ListenAddress> {
    listener.set_nonblocking(true)?;
    listener.local_addr().map(ListenAddress::Tcp)
}

fn unix_path(listener: &UnixListener) -> PathBuf {
    let _ = listener.set_nonblocking(true);
    let address = listener.local_addr().ok();
    address.and_then(|address| address.as_pathname().map(Path::to_path_buf)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(role: &'static str, address: &str) -> ListenerSpec {
        ListenerSpec { role, address: address.parse().unwrap() }
    }

    #[test]
    fn port_zero_takes_a_port_and_a_taken_port_is_named() {
        let process = ProcessSettings::default();
        let bound =
            bind(&[spec("a", "127.0.0.1:0"), spec("b", "[::1]:0")], Inherited::none(), &process).unwrap();
        let ListenAddress::Tcp(first) = &bound[0].0.address else { panic!("no tcp") };
        assert_ne!(first.port(), 0);
        let again = ListenAddress::Tcp(*first);
        let error = open(&again, &process).unwrap_err();
        assert!(matches!(error, BindError::InUse(_)), "{error}");
        assert_eq!(error.exit_code(), 71);
        assert!(error.to_string().contains(&first.to_string()));
    }

    #[test]
    fn unix_socket_has_its_mode_replaces_a_dead_one_and_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let address = ListenAddress::Unix(path.clone());
        let process = ProcessSettings { socket_mode: "0622".into(), ..ProcessSettings::default() };
        let (socket, _) = open(&address, &process).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o622);
        assert!(
            matches!(open(&address, &process), Err(BindError::InUse(_))),
            "a living socket is not replaced"
        );
        drop(socket);
        assert!(!path.exists());

        // What kill -9 leaves: the file without a listener.
        drop(UnixListener::bind(&path).unwrap());
        let (socket, _) = open(&address, &process).unwrap();
        // What a quick restart makes: the file is another process' now.
        std::fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists(), "the other process' socket stays");

        std::fs::write(folder.path().join("file"), "text").unwrap();
        let file = ListenAddress::Unix(folder.path().join("file"));
        assert!(open(&file, &process).is_err());
        assert_eq!(std::fs::read_to_string(folder.path().join("file")).unwrap(), "text");
    }
}
