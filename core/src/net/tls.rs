//! Whom a TLS client of ours trusts.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Why the authorities cannot be used; names the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct AuthoritiesError {
    place: String,
    reason: String,
}

/// A client that trusts the authorities of this PEM file alone, or those of the system, and shows no certificate of its own.
///
/// # Errors
/// When the file cannot be read, holds something that is no certificate, or none at all.
pub fn client_trusting(ca_file: Option<&Path>) -> Result<ClientConfig, AuthoritiesError> {
    let place =
        ca_file.map_or_else(|| "the authorities of the system".to_owned(), |file| file.display().to_string());
    let unusable = |reason: String| AuthoritiesError { place: place.clone(), reason };
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            let certificates =
                CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
        }
        None => {
            // Single ones that cannot be used are no reason to trust none.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(unusable("holds no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&file, text).unwrap();
            let error = client_trusting(Some(&file)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}: ", file.display())), "{text:?}: {error}");
        }
        assert!(client_trusting(Some(&folder.path().join("missing"))).is_err());
    }
}
