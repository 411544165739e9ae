//! The socket that is listened on.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that may wait to be accepted, as the Linux kernel's own limit is by default.
const WAITING: i32 = 4096;

/// Listens. All addresses of IPv6 are those of IPv4 too, as in Go's programs, even where `net.ipv6.bindv6only` is 1.
/// Others may listen on the same port if it is shared.
pub(crate) fn listen(address: SocketAddr, shares_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    // A port whose last connections are still winding down is free.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(WAITING)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn all_addresses_are_those_of_both_families() {
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let Ok(listener) = listen(everywhere, false) else {
            // This machine has no IPv6, which main() finds out before it asks for it.
            return;
        };
        assert!(!SockRef::from(&listener).only_v6().unwrap());
        let port = listener.local_addr().unwrap().port();
        let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        connected.unwrap();
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_refused_unless_all_share_it() {
        let somewhere = SocketAddr::from(([127, 0, 0, 1], 0));
        for shares in [false, true] {
            let first = listen(somewhere, shares).unwrap();
            let second = listen(first.local_addr().unwrap(), true);
            let refused = second.err().map(|error| error.kind());
            assert_eq!(refused, (!shares).then_some(io::ErrorKind::AddrInUse));
        }
    }
}
