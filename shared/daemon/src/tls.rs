//! TLS as a client: whom this host trusts, and how to look at a server without trusting anybody.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// This host trusts nobody.
#[derive(Debug, thiserror::Error)]
#[error(
    "this host trusts no certificates: install ca-certificates, or name a file in SSL_CERT_FILE{0}"
)]
pub struct NoTrust(String);

/// Whom to believe that he is who he says: certificates of this host, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
///
/// # Errors
/// There are none.
pub async fn roots_of_system() -> Result<RootCertStore, NoTrust> {
    // Hundreds of files.
    let loaded = tokio::task::spawn_blocking(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(found.certs);
        if taken > 0 {
            return Ok(roots);
        }
        let why = found.errors.first();
        Err(NoTrust(
            why.map(|why| format!(" ({why})")).unwrap_or_default(),
        ))
    });
    loaded
        .await
        .unwrap_or_else(|error| Err(NoTrust(format!(" ({error})"))))
}

/// A client that takes any certificate: it is looked at, nothing is entrusted to the connection. The client has no certificate;
/// `was_asked` is set when the server wants one.
///
/// # Errors
/// The cryptography can't do TLS 1.2 or 1.3.
pub fn onlooker(was_asked: Arc<AtomicBool>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider));
    Ok(config
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Onlooker(provider)))
        .with_client_cert_resolver(Arc::new(Nobody(was_asked))))
}

#[derive(Debug)]
struct Onlooker(Arc<CryptoProvider>);

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Has no certificate to show.
#[derive(Debug)]
struct Nobody(Arc<AtomicBool>);

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
