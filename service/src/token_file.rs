//! Authentication of calls between services, on the caller's side: a projected service-account
//! token that the kubelet renews.

use std::{path::PathBuf, time::Duration};

use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString};

/// A token in a file. A token is cached for ten seconds and then read again, because the kubelet
/// replaces it long before it expires.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
    cache: Cache<(), SecretString>,
}

impl TokenFile {
    /// Uses the token in this file.
    pub fn new(path: PathBuf) -> Self {
        TokenFile { path, cache: Cache::builder().max_capacity(1).time_to_live(Duration::from_secs(10)).build() }
    }

    /// The value for an `Authorization` header: `Bearer …`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn bearer(&self) -> std::io::Result<String> {
        let read = async {
            let text = tokio::fs::read_to_string(&self.path).await;
            let text = text.map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))?;
            Ok(SecretString::from(text.trim().to_owned()))
        };
        let token = self.cache.try_get_with((), read).await;
        let token =
            token.map_err(|error: std::sync::Arc<std::io::Error>| std::io::Error::new(error.kind(), error.to_string()))?;
        Ok(format!("Bearer {}", token.expose_secret()))
    }
}
