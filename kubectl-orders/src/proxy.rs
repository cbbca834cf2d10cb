//! Selects the proxy through which a cluster is reached, as kubectl does: the `proxy-url` of the
//! kubeconfig, otherwise `HTTPS_PROXY` or `HTTP_PROXY`, unless `NO_PROXY` has the host.
//!
//! kube selects a proxy too, but compares `NO_PROXY` with the host of the proxy instead of the cluster's.

use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

/// Returns the proxy for this URL. `configured` is the `proxy-url` of the kubeconfig, which counts for
/// every host. `variable` reads an environment variable.
///
/// # Errors
/// A description of a proxy that cannot be used.
pub fn select(url: &Uri, configured: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Uri>, String> {
    if let Some(proxy) = configured.filter(|proxy| !proxy.is_empty()) {
        return parse("proxy-url", proxy).map(Some);
    }
    // Programs set the variables in capital or small letters.
    let read = |name: &str| variable(name).or_else(|| variable(&name.to_lowercase())).filter(|value| !value.is_empty());
    let name = if url.scheme_str() == Some("http") { "HTTP_PROXY" } else { "HTTPS_PROXY" };
    let Some(proxy) = read(name) else { return Ok(None) };
    let no_proxy = hosts_of(&read("NO_PROXY").unwrap_or_default(), port_of(url));
    let rules = Matcher::builder().all("http://proxy").no(no_proxy.as_str()).build();
    // The matcher does not apply a * to addresses.
    let is_excluded = no_proxy.split(',').any(|host| host.trim() == "*") || rules.intercept(url).is_none();
    if is_excluded || is_this_machine(url) {
        return Ok(None);
    }
    parse(name, &proxy).map(Some)
}

/// The entries of `NO_PROXY` for this port. An entry may name one, such as `example.com:6443`.
fn hosts_of(no_proxy: &str, port: u16) -> String {
    let host = |entry: &str| match entry.trim().rsplit_once(':') {
        Some((host, of)) if !host.contains(':') && of.bytes().all(|byte| byte.is_ascii_digit()) => {
            (of.parse() == Ok(port)).then(|| host.to_owned())
        }
        _ => Some(entry.trim().to_owned()),
    };
    no_proxy.split(',').filter_map(host).collect::<Vec<_>>().join(",")
}

fn port_of(url: &Uri) -> u16 {
    url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 })
}

/// A proxy could not reach this machine under these names. Go's rules exclude them as well.
fn is_this_machine(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Parses a proxy's URL, by default with the scheme http.
fn parse(name: &str, proxy: &str) -> Result<Uri, String> {
    let url = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
    // The proxy resolves the host in any case.
    let url = url.replacen("socks5h://", "socks5://", 1);
    let parsed = url.parse().ok().filter(|url: &Uri| matches!(url.scheme_str(), Some("http" | "https" | "socks5")));
    // The value may have a password.
    parsed.ok_or_else(|| {
        format!("{name}: must be the URL of a proxy, such as http://proxy.example.com:3128 (http, https or socks5)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, configured: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let variable = |name: &str| variables.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned());
        select(&url.parse().unwrap(), configured, variable).map(|proxy| proxy.map(|proxy| proxy.to_string()))
    }

    #[test]
    fn the_proxy_is_that_of_the_kubeconfig_or_of_the_environment() {
        let cluster = "https://cluster.example.com:6443";
        let through = |proxy: &str| Ok(Some(proxy.to_owned()));
        assert_eq!(proxy(cluster, None, &[]), Ok(None));
        assert_eq!(proxy(cluster, Some(""), &[("HTTPS_PROXY", "")]), Ok(None));
        assert_eq!(proxy(cluster, None, &[("HTTPS_PROXY", "http://p:3128")]), through("http://p:3128/"));
        assert_eq!(proxy(cluster, None, &[("https_proxy", "p:3128")]), through("http://p:3128/"));
        assert_eq!(proxy(cluster, None, &[("HTTP_PROXY", "http://p:3128")]), Ok(None), "it is for http only");
        assert_eq!(proxy("http://shop", None, &[("HTTP_PROXY", "http://p:3128")]), through("http://p:3128/"));
        assert_eq!(proxy(cluster, None, &[("HTTPS_PROXY", "socks5h://u:w@p")]), through("socks5://u:w@p/"));
        let both = [("HTTPS_PROXY", "http://p"), ("NO_PROXY", "*")];
        assert_eq!(proxy(cluster, Some("http://own:1"), &both), through("http://own:1/"), "NO_PROXY does not concern it");
        for wrong in ["ftp://p", "http://", "http://a b"] {
            let error = proxy(cluster, Some(wrong), &[]).unwrap_err();
            assert!(error.starts_with("proxy-url: must be the URL of a proxy"), "{error}");
        }
        let error = proxy(cluster, None, &[("HTTPS_PROXY", "ftp://u:secret@p")]).unwrap_err();
        assert!(error.starts_with("HTTPS_PROXY: ") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn no_proxy_and_this_machine_are_reached_directly() {
        for (no_proxy, url, is_direct) in [
            ("example.com", "https://cluster.example.com:6443", true),
            (".example.com", "https://cluster.example.com:6443", true),
            ("other.com,cluster.example.com", "https://cluster.example.com:6443", true),
            ("p", "https://cluster.example.com:6443", false),
            ("10.0.0.0/8", "https://10.1.2.3:6443", true),
            ("10.0.0.0/8", "https://11.1.2.3:6443", false),
            ("*", "https://11.1.2.3:6443", true),
            ("cluster.example.com:6443", "https://cluster.example.com:6443", true),
            ("cluster.example.com:443", "https://cluster.example.com:6443", false),
            ("", "https://127.0.0.1:6443", true),
            ("", "https://[::1]:6443", true),
            ("", "https://localhost:6443", true),
        ] {
            let selected = proxy(url, None, &[("HTTPS_PROXY", "http://p"), ("NO_PROXY", no_proxy)]).unwrap();
            assert_eq!(selected.is_none(), is_direct, "{no_proxy} {url}");
        }
    }
}
