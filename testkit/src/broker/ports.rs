//! Ports for brokers and proxies.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Below the range from which the system takes the local ports of outgoing connections. A client
/// that reconnects to a killed broker's port could otherwise be given that very port, connect to
/// itself, and keep the broker from binding it again.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

const ATTEMPTS_MAX: u32 = 100;

/// Binds a free loopback port; dropping the listener frees it for a broker.
pub(crate) fn reserve() -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS_MAX {
        let port = rand::random_range(PORTS);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}
