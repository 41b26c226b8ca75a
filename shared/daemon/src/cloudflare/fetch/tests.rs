//! Facts about one request, with a TLS server on the loopback that answers whatever it is told to.
use std::net::Ipv4Addr;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;

/// What a server does after it has read the request.
#[derive(Clone)]
enum Answer {
    /// These bytes, and the end.
    Bytes(String),
    /// These bytes, and the end of TCP without that of TLS, as when somebody cuts the connection.
    Cut(String),
    /// These bytes, and nothing more.
    Hang(String),
}

struct Server {
    url: ListUrl,
    trust: Arc<ClientConfig>,
    task: JoinHandle<String>,
}

impl Server {
    /// For one request, by a certificate for `127.0.0.1`.
    async fn start(answer: Answer) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(serve(listener, acceptor, answer));
        Self {
            url: format!("https://127.0.0.1:{port}/ips?v=4").parse().unwrap(),
            trust: trust(roots).unwrap(),
            task,
        }
    }

    async fn fetch(&self) -> Result<String, FetchError> {
        fetch(&self.url, "wg-edge-test/1", Arc::clone(&self.trust)).await
    }
}

/// Returns the request.
async fn serve(listener: TcpListener, acceptor: TlsAcceptor, answer: Answer) -> String {
    let (stream, _) = listener.accept().await.unwrap();
    let Ok(mut stream) = acceptor.accept(stream).await else {
        return String::new();
    };
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    match answer {
        Answer::Bytes(bytes) => {
            // A caller that has heard enough goes away in the middle.
            let _ = stream.write_all(bytes.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Answer::Cut(bytes) => {
            stream.write_all(bytes.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            stream.get_mut().0.shutdown().await.unwrap();
        }
        Answer::Hang(bytes) => {
            stream.write_all(bytes.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            std::future::pending::<()>().await;
        }
    }
    String::from_utf8(request).unwrap()
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
}

async fn said(answer: Answer) -> String {
    let server = Server::start(answer).await;
    let error = server.fetch().await.unwrap_err();
    crate::error::chain(&error)
}

#[tokio::test]
async fn a_text_is_fetched_by_an_honest_request() {
    let server = Server::start(Answer::Bytes(ok("192.0.2.0/24\n"))).await;
    assert_eq!(server.fetch().await.unwrap(), "192.0.2.0/24\n");
    let request = server.task.await.unwrap();
    assert!(
        request.starts_with("GET /ips?v=4 HTTP/1.1\r\n"),
        "{request}"
    );
    let host = format!("host: {}\r\n", server.url.authority());
    for header in [host.as_str(), "user-agent: wg-edge-test/1\r\n"] {
        assert!(request.contains(header), "{request}");
    }
}

#[tokio::test]
async fn whatever_is_no_whole_answer_is_an_error() {
    let status =
        |line: &str| Answer::Bytes(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"));
    let long = "x".repeat(LONGEST_TEXT + 1);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (answer, expected) in [
        (status("404 Not Found"), "the server answered 404 Not Found"),
        (status("503 Service Unavailable"), "the server answered 503"),
        (status("204 No Content"), "the server answered 204"),
        (
            status("301 Moved Permanently\r\nLocation: http://a.example/é"),
            "the server sends elsewhere (nowhere)",
        ),
        (
            status("302 Found\r\nLocation: http://a.example/"),
            "the server sends elsewhere (http://a.example/)",
        ),
        (Answer::Bytes(ok(&long)), "longer than 65536 bytes"),
        (
            Answer::Bytes(format!("{chunked}20000\r\n{long}")),
            "longer than 65536 bytes",
        ),
        (
            Answer::Bytes(ok("whole").replace(": 5", ": 50")),
            "broke off",
        ),
        (
            Answer::Bytes(format!("{chunked}5\r\nwhole\r\n")),
            "broke off",
        ),
        (
            Answer::Cut("HTTP/1.1 200 OK\r\n\r\nwhole".to_owned()),
            "broke off",
        ),
        (Answer::Bytes("SSH-2.0-server\r\n".to_owned()), "HTTP: "),
        (Answer::Bytes(String::new()), "HTTP: "),
    ] {
        let said = said(answer).await;
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(
        Server::start(Answer::Bytes(ok(&long[1..])))
            .await
            .fetch()
            .await
            .unwrap(),
        long[1..]
    );
}

#[tokio::test]
async fn a_server_that_is_slow_anywhere_is_given_up() {
    // Time stands still but for who waits for it: the first two need real time to get as far as they do.
    for answer in [
        Answer::Hang(String::new()),
        Answer::Hang("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n192.0".to_owned()),
    ] {
        let server = Server::start(answer).await;
        let fetching = tokio::spawn({
            let (url, trust) = (server.url.clone(), Arc::clone(&server.trust));
            async move { fetch(&url, "wg-edge-test/1", trust).await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!fetching.is_finished());
        tokio::time::pause();
        tokio::time::advance(TIMEOUT).await;
        let error = fetching.await.unwrap().unwrap_err();
        assert!(matches!(error, FetchError::Timeout), "{error}");
        tokio::time::resume();
        server.task.abort();
    }
}

#[tokio::test]
async fn who_can_not_prove_who_he_is_is_not_asked() {
    let server = Server::start(Answer::Bytes(ok("192.0.2.0/24"))).await;
    let trust = Server::start(Answer::Bytes(String::new())).await.trust;
    let error = fetch(&server.url, "wg-edge-test/1", trust)
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Handshake(_)), "{error}");
    assert_eq!(
        server.task.await.unwrap(),
        "",
        "not even the request is sent"
    );
    // Nor under another name than that of the certificate.
    let server = Server::start(Answer::Bytes(ok("192.0.2.0/24"))).await;
    let other = server.url.to_string().replace("127.0.0.1", "localhost");
    let other: ListUrl = other.parse().unwrap();
    let error = fetch(&other, "wg-edge-test/1", Arc::clone(&server.trust)).await;
    assert!(matches!(error, Err(FetchError::Handshake(_))), "{error:?}");
}

#[tokio::test]
async fn nobody_there_and_no_tls_are_errors_with_a_reason() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url: ListUrl = format!("https://127.0.0.1:{port}/").parse().unwrap();
    let clear = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let _ = stream.read(&mut [0; 1000]).await;
    });
    let nobody = || trust(RootCertStore::empty()).unwrap();
    let error = fetch(&url, "", nobody()).await.unwrap_err();
    assert!(matches!(error, FetchError::Handshake(_)), "{error}");
    clear.await.unwrap();
    let error = fetch(&url, "", nobody()).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect(..)), "{error}");
}
