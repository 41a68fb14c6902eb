//! Tells systemd how a service of `Type=notify` is doing: one datagram to the socket that it names.
//!
//! Deliberately absent: the watchdog; a server that is stuck is seen by its health check.

use std::env;
use std::io;
use std::os::unix::net::UnixDatagram;

/// Sends a state, such as `READY=1`, if systemd asked for it. A message that does not arrive is logged:
/// the server works without.
pub fn notify(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").and_then(|name| name.into_string().ok()) else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, "systemd could not be told {state}");
    }
}

/// A name that begins with `@` is no file but lives in Linux's abstract namespace.
fn send(socket: &str, state: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    match socket.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            sender.send_to_addr(state.as_bytes(), &address)?;
        }
        #[cfg(not(target_os = "linux"))]
        Some(_) => return Err(io::Error::from(io::ErrorKind::Unsupported)),
        None => {
            sender.send_to(state.as_bytes(), socket)?;
        }
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    #[test]
    fn a_state_arrives_at_a_file_and_at_an_abstract_name() {
        let received = |socket: &UnixDatagram| {
            let mut state = [0; 64];
            let length = socket.recv(&mut state).unwrap();
            String::from_utf8_lossy(&state[..length]).into_owned()
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let file = UnixDatagram::bind(&path).unwrap();
        send(path.to_str().unwrap(), "READY=1").unwrap();
        assert_eq!(received(&file), "READY=1");

        let name = format!("diptych-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstracted = UnixDatagram::bind_addr(&address).unwrap();
        send(&format!("@{name}"), "STOPPING=1").unwrap();
        assert_eq!(received(&abstracted), "STOPPING=1");

        drop(file);
        assert!(send(dir.path().join("absent").to_str().unwrap(), "READY=1").is_err());
    }
}
