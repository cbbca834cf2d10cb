//! The address of a mail server, and how connections to it are encrypted.

use anyhow::{Context, ensure};
use lettre::transport::smtp::{
    authentication::Credentials,
    client::{Certificate, TlsParameters},
};
use percent_encoding::percent_decode_str;
use url::Url;

/// The beginning of a certificate in PEM (RFC 7468, 5.1).
const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// The address of a mail server, and how connections to it are encrypted.
#[derive(Clone)]
pub(super) struct Server {
    /// Without brackets if it is an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) encryption: Encryption,
    pub(super) credentials: Option<Credentials>,
}

/// The encryption of a connection.
#[derive(Clone)]
pub(super) enum Encryption {
    Never,
    /// STARTTLS (RFC 3207), if the server offers it.
    IfOffered(TlsParameters),
    /// STARTTLS. Without it, no message is sent.
    Required(TlsParameters),
    /// TLS from the first byte (RFC 8314).
    Implicit(TlsParameters),
}

impl Server {
    /// Parses `smtp://[USER:PASSWORD@]HOST[:PORT][?tls=required|opportunistic]` or `smtps://…`. The
    /// default port is 25, with `tls` 587, and for `smtps` 465. `ca`: PEM of certificate authorities that
    /// are trusted in addition to the public ones.
    pub(super) fn parse(url: &str, ca: Option<&[u8]>) -> anyhow::Result<Self> {
        let url = Url::parse(url)?;
        let host = url.host_str().context("the host is missing")?.trim_matches(['[', ']']).to_owned();
        let parameters = || tls_parameters(&host, ca);
        let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
        ensure!(matches!(url.scheme(), "smtp" | "smtps"), "the scheme is neither smtp nor smtps");
        let (port, encryption) = match (url.scheme(), tls.as_deref()) {
            ("smtps", _) => (465, Encryption::Implicit(parameters()?)),
            (_, None) => (25, Encryption::Never),
            (_, Some("required")) => (587, Encryption::Required(parameters()?)),
            (_, Some("opportunistic")) => (587, Encryption::IfOffered(parameters()?)),
            (_, Some(_)) => anyhow::bail!("tls is neither required nor opportunistic"),
        };
        let decoded = |text| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
        let credentials = match url.password() {
            Some(password) => Some(Credentials::new(decoded(url.username())?, decoded(password)?)),
            None => None,
        };
        Ok(Server { port: url.port().unwrap_or(port), host, encryption, credentials })
    }
}

fn tls_parameters(host: &str, ca: Option<&[u8]>) -> anyhow::Result<TlsParameters> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(ca) = ca {
        // The mail library takes a file without any certificate.
        let has_certificate = ca.windows(PEM_BEGIN.len()).any(|window| window == PEM_BEGIN);
        ensure!(has_certificate, "SMTP_CA_FILE has no certificate in PEM");
        let certificate = Certificate::from_pem(ca).context("SMTP_CA_FILE has no valid certificate in PEM")?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().context("the TLS parameters are invalid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_the_usual_ports() {
        let port = |url: &str| Server::parse(url, None).map(|server| server.port).ok();
        assert_eq!(port("smtp://mail.example.com"), Some(25));
        assert_eq!(port("smtp://user:p%40ss@mail.example.com?tls=required"), Some(587));
        assert_eq!(port("smtps://mail.example.com"), Some(465));
        assert_eq!(port("smtp://10.0.0.1:2525?tls=opportunistic"), Some(2525));
        for url in ["http://mail.example.com", "smtp://mail?tls=maybe", "mail.example.com", "smtp:///"] {
            assert_eq!(port(url), None, "{url}");
        }
    }

    #[test]
    fn an_ipv6_address_has_no_brackets() {
        assert_eq!(Server::parse("smtp://[fd00::1]:25", None).unwrap().host, "fd00::1");
    }
}
