//! Whether the certificate of a TLS server is for the address under which clients will call it.
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use shared_daemon::tls::onlooker;

/// How long to wait for each step.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What the server's certificate says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is for this host.
    Covers,
    /// It is for others: their DNS names (addresses can't be told).
    Lacks(Vec<String>),
    /// Nobody answered with a certificate, and why.
    Unknown(String),
}

/// Look at the certificate of `host:port`. Nothing is sent but a TLS greeting, and nothing is believed.
pub(super) fn look(host: &str, port: u16) -> Verdict {
    fetch(host, port)
        .and_then(|certificate| judge(&certificate, host))
        .unwrap_or_else(Verdict::Unknown)
}

fn fetch(host: &str, port: u16) -> Result<CertificateDer<'static>, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let name = ServerName::try_from(host.to_owned()).map_err(|e| text(&e))?;
    let mut addresses = (host, port).to_socket_addrs().map_err(|e| text(&e))?;
    let address: SocketAddr = addresses.next().ok_or("no address has this name")?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(|e| text(&e))?;
    stream
        .set_read_timeout(Some(TIMEOUT))
        .map_err(|e| text(&e))?;
    stream
        .set_write_timeout(Some(TIMEOUT))
        .map_err(|e| text(&e))?;
    let config = onlooker(Arc::default()).map_err(|e| text(&e))?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|e| text(&e))?;
    while connection.is_handshaking() && connection.peer_certificates().is_none() {
        connection.complete_io(&mut stream).map_err(|e| text(&e))?;
    }
    let certificates = connection.peer_certificates();
    let first = certificates.and_then(|all| all.first());
    first
        .map(|c| c.clone().into_owned())
        .ok_or_else(|| "it sent no certificate".to_owned())
}

fn judge(certificate: &CertificateDer<'_>, host: &str) -> Result<Verdict, String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(|e| e.to_string())?;
    let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
    if certificate.verify_is_valid_for_subject_name(&name).is_ok() {
        return Ok(Verdict::Covers);
    }
    let names = certificate.valid_dns_names().map(str::to_owned).collect();
    Ok(Verdict::Lacks(names))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ServerConfig, ServerConnection};

    use super::*;

    /// A server whose certificate is for these; answers one call.
    fn server(names: &[&str]) -> u16 {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::from(key))
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
            // The caller hangs up when it has seen enough.
            let _hung_up = connection.complete_io(&mut stream);
        });
        port
    }

    #[test]
    fn a_certificate_is_for_the_address_or_it_is_not() {
        let port = server(&["kubernetes", "127.0.0.1"]);
        assert_eq!(look("127.0.0.1", port), Verdict::Covers);
        let port = server(&["kubernetes", "k3s", "192.168.0.15"]);
        let names = vec!["kubernetes".to_owned(), "k3s".to_owned()];
        assert_eq!(look("127.0.0.1", port), Verdict::Lacks(names));
    }

    #[test]
    fn who_speaks_no_tls_or_nothing_is_unknown() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mute = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut greeting = [0; 5];
            stream.read_exact(&mut greeting).unwrap();
        });
        assert!(matches!(look("127.0.0.1", port), Verdict::Unknown(_)));
        mute.join().unwrap();
        assert!(
            matches!(look("127.0.0.1", port), Verdict::Unknown(_)),
            "nobody listens"
        );
    }
}
