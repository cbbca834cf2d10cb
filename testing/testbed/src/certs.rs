//! A certificate authority for one cluster, with the certificates and kubeconfigs that it issues.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::json;

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key, readable by the owner only.
    pub key: PathBuf,
}

/// A certificate authority. It exists only while certificates are signed: its private key is never
/// written to a file.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    /// Creates an authority, whose certificate is `ca.crt` in this directory.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "orders testbed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self { issuer, directory: directory.to_owned() };
        fs::write(authority.certificate(), authority.issuer.pem())?;
        Ok(authority)
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// Signs a server's certificate for these addresses and names.
    ///
    /// # Errors
    /// If a name is not a valid DNS name, or a file cannot be written.
    pub fn server(&self, name: &str, addresses: &[IpAddr], names: &[&str]) -> Result<Pair> {
        let mut params = self.params(name, None);
        params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        for name in names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(name, params)
    }

    /// Signs a client's certificate. Kubernetes uses the common name as the user and the
    /// organization as the group.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn client(&self, file: &str, user: &str, group: Option<&str>) -> Result<Pair> {
        let mut params = self.params(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, params)
    }

    fn params(&self, user: &str, group: Option<&str>) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params
    }

    fn sign(&self, file: &str, params: CertificateParams) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let pair =
            Pair { certificate: self.directory.join(format!("{file}.crt")), key: self.directory.join(format!("{file}.key")) };
        fs::write(&pair.certificate, certificate.pem())?;
        write_secret(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }
}

/// Writes a new key pair for signing service-account tokens: `<file>.key` and `<file>.pub`.
///
/// # Errors
/// If a file cannot be written.
pub fn write_signing_key(file: &Path) -> Result<()> {
    let pair = KeyPair::generate()?;
    fs::write(file.with_extension("pub"), pair.public_key_pem())?;
    write_secret(&file.with_extension("key"), &pair.serialize_pem())
}

/// Writes a kubeconfig with embedded certificates and key. It is JSON, which is also valid YAML.
///
/// # Errors
/// If a file cannot be read or written.
pub fn write_kubeconfig(file: &Path, server: &str, authority: &Path, client: &Pair, cluster: &str) -> Result<()> {
    // A ByteString is serialized in base64, as kubeconfigs require.
    let embed = |path: &Path| -> Result<ByteString> {
        Ok(ByteString(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?))
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {
            "server": server,
            "certificate-authority-data": embed(authority)?,
        }}],
        "users": [{"name": cluster, "user": {
            "client-certificate-data": embed(&client.certificate)?,
            "client-key-data": embed(&client.key)?,
        }}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
        "current-context": cluster,
    });
    write_secret(file, &serde_json::to_string_pretty(&config)?)
}

fn write_secret(file: &Path, text: &str) -> Result<()> {
    let _ = fs::remove_file(file);
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_readable_by_the_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(directory.path()).unwrap();
        let pair = authority.client("admin", "admin", Some("system:masters")).unwrap();
        assert_eq!(fs::metadata(&pair.key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&pair.certificate).unwrap().starts_with("-----BEGIN CERTIFICATE"));
    }
}
