//! Reaches the public API: through the Kubernetes API server's proxy to the release's Service, or
//! directly at a URL.

use std::{path::Path, time::Duration};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, Config, ResourceExt,
    api::ListParams,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{arguments::AccessArgs, proxy};

/// The labels that the chart gives the Service of the public API.
pub const LABELS: &str = "app.kubernetes.io/part-of=orders,app.kubernetes.io/component=api-server";

/// The name that the chart gives the port of the Service.
const PORT: &str = "http";

/// The maximum size of a response, in bytes. It is larger than any valid response.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// There is no kubeconfig, or it cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the kubeconfig cannot be used: {0}")]
pub struct KubeconfigError(String);

/// The API cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// There is no kubeconfig, or it cannot be used.
    #[error("{0}. Or give the API's URL with --server")]
    Config(#[from] KubeconfigError),
    /// The services cannot be listed.
    #[error("the services of namespace {namespace} cannot be listed: {error}")]
    Services {
        /// The namespace.
        namespace: String,
        /// The cause.
        error: String,
    },
    /// There is no release in the namespace.
    #[error(
        "there is no order service in namespace {0}. Give the namespace of the release with -n (`kubectl get services -A -l {LABELS}` \
         shows it), or the API's URL with --server"
    )]
    NoService(String),
    /// There are several releases in the namespace.
    #[error("namespace {namespace} has several order services: choose one with --service ({names})")]
    SeveralServices {
        /// The namespace.
        namespace: String,
        /// The names of the services.
        names: String,
    },
    /// The command line selects one API, and all of them.
    #[error("--all-namespaces is for all releases of a cluster: do not set --server, ORDERS_SERVER or --service")]
    OnlyOne,
    /// There was no response to a request.
    #[error("{0}")]
    NoResponse(String),
}

/// An HTTP response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub text: String,
}

/// A client that reaches the public API.
pub struct Access {
    client: Client,
    /// The prefix of the API's own paths.
    prefix: String,
    /// The time limit of a request.
    timeout: Duration,
}

impl Access {
    /// Finds the APIs of all namespaces, each with its namespace.
    ///
    /// # Errors
    /// [`AccessError`], also if there is none.
    pub async fn find_all(arguments: &AccessArgs) -> Result<Vec<(String, Self)>, AccessError> {
        if arguments.server.is_some() || arguments.service.is_some() {
            return Err(AccessError::OnlyOne);
        }
        let (client, _) = connect(arguments).await?;
        let services: Api<Service> = Api::all(client.clone());
        let listed = services.list(&ListParams::default().labels(LABELS)).await;
        let found =
            listed.map_err(|error| AccessError::Services { namespace: "(all)".to_owned(), error: error_message(error) })?.items;
        if found.is_empty() {
            return Err(AccessError::NoService("(all)".to_owned()));
        }
        let timeout = arguments.timeout();
        let access = |service: Service| {
            let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
            let prefix = proxy_path(&namespace, &name, PORT);
            (namespace, Access { client: client.clone(), prefix, timeout })
        };
        Ok(found.into_iter().map(access).collect())
    }

    /// Finds the API that the command line selects.
    ///
    /// # Errors
    /// [`AccessError`], if the API is not found.
    pub async fn find(arguments: &AccessArgs) -> Result<Self, AccessError> {
        if let Some(server) = &arguments.server {
            let mut config = Config::new(server.clone());
            config.proxy_url = select_proxy(&config, None)?;
            let client = build_client(config)?;
            return Ok(Access { client, prefix: String::new(), timeout: arguments.timeout() });
        }
        let (client, namespace) = connect(arguments).await?;
        let (service, port) = match &arguments.service {
            Some(service) => service.split_once(':').map_or((service.as_str(), PORT), |parts| parts),
            None => (&*find_service(&client, &namespace).await?, PORT),
        };
        let prefix = proxy_path(&namespace, service, port);
        Ok(Access { client, prefix, timeout: arguments.timeout() })
    }

    /// Sends a request without a body.
    ///
    /// # Errors
    /// [`AccessError::NoResponse`] if there is no response. A refusal by the API is a response.
    pub async fn send(&self, method: Method, path: &str) -> Result<Response, AccessError> {
        let no_response = |error: String| AccessError::NoResponse(format!("no response to {method} {path}: {error}"));
        let request = Request::builder().method(&method).uri(format!("{}{path}", self.prefix));
        let request = request.body(Body::empty()).map_err(|error| no_response(error.to_string()))?;
        let exchange = async {
            let (parts, body) = self.client.send(request).await.map_err(|error| message_with_causes(&error))?.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| message_with_causes(&*error))?;
            Ok(Response { status: parts.status, text: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(response) => response.map_err(no_response),
            Err(_) => Err(no_response(format!("timed out after {} seconds", self.timeout.as_secs()))),
        }
    }
}

/// The path under which the Kubernetes API server proxies requests to a Service.
pub fn proxy_path(namespace: &str, service: &str, port: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/services/http:{service}:{port}/proxy")
}

/// Creates a client of the Kubernetes API, and returns it with the selected namespace.
///
/// # Errors
/// [`KubeconfigError`].
pub async fn connect(arguments: &AccessArgs) -> Result<(Client, String), KubeconfigError> {
    let mut config = load_config(arguments).await?;
    arguments.apply_to(&mut config.auth_info);
    let client = build_client(config)?;
    let namespace = arguments.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    Ok((client, namespace))
}

async fn load_config(arguments: &AccessArgs) -> Result<Config, KubeconfigError> {
    let options = KubeConfigOptions { context: arguments.context.clone(), ..KubeConfigOptions::default() };
    let to_error = |error: &dyn std::error::Error| KubeconfigError(message_with_causes(error));
    let kubeconfig = match read_kubeconfig(arguments.kubeconfig.as_deref()) {
        Ok(kubeconfig) => kubeconfig,
        // In a pod there is no kubeconfig.
        Err(error) if arguments.kubeconfig.is_none() && options.context.is_none() => {
            return Config::incluster().map_err(|_| to_error(&error));
        }
        Err(error) => return Err(to_error(&error)),
    };
    let configured = proxy_url(&kubeconfig, options.context.as_deref());
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| to_error(&error))?;
    config.proxy_url = select_proxy(&config, configured.as_deref())?;
    Ok(config)
}

/// Reads the kubeconfig. KUBECONFIG may be a list of files, of which the first one with a value counts. As in
/// kubectl, not all of them have to exist.
fn read_kubeconfig(file: Option<&Path>) -> Result<Kubeconfig, kube::config::KubeconfigError> {
    if let Some(file) = file {
        return Kubeconfig::read_from(file);
    }
    let files = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let mut existing = std::env::split_paths(&files).filter(|file| file.exists()).peekable();
    if existing.peek().is_none() {
        return Kubeconfig::read();
    }
    existing.try_fold(Kubeconfig::default(), |merged, file| merged.merge(Kubeconfig::read_from(file)?))
}

/// The `proxy-url` of the cluster of this context, or of the current one.
fn proxy_url(kubeconfig: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let name = context.or(kubeconfig.current_context.as_deref())?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == name)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster)?;
    cluster.cluster.as_ref()?.proxy_url.clone()
}

fn select_proxy(config: &Config, configured: Option<&str>) -> Result<Option<http::Uri>, KubeconfigError> {
    proxy::select(&config.cluster_url, configured, |name| std::env::var(name).ok()).map_err(KubeconfigError)
}

fn build_client(mut config: Config) -> Result<Client, KubeconfigError> {
    // No automatic retry: the user decides whether to request another attempt to charge again.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| KubeconfigError(message_with_causes(&error)))
}

async fn find_service(client: &Client, namespace: &str) -> Result<String, AccessError> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let found = services
        .list(&ListParams::default().labels(LABELS))
        .await
        .map_err(|error| AccessError::Services { namespace: namespace.to_owned(), error: error_message(error) })?;
    select_service(namespace, found.items).map(|service| service.name_any())
}

fn select_service(namespace: &str, found: Vec<Service>) -> Result<Service, AccessError> {
    let namespace = namespace.to_owned();
    select_only(found).map_err(|names| match names {
        None => AccessError::NoService(namespace),
        Some(names) => AccessError::SeveralServices { namespace, names },
    })
}

/// Returns the object, if exactly one was found. Otherwise, returns the names of the objects, or
/// `None` if there are none.
pub(crate) fn select_only<T: ResourceExt>(mut found: Vec<T>) -> Result<T, Option<String>> {
    match (found.len(), found.pop()) {
        (1, Some(only)) => Ok(only),
        (_, None) => Err(None),
        (_, Some(last)) => {
            found.push(last);
            Err(Some(found.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", ")))
        }
    }
}

/// The message of Kubernetes, or the reason why Kubernetes did not respond.
pub(crate) fn error_message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => message_with_causes(&other),
    }
}

/// The message of an error with its causes: the outermost message rarely says what happened.
fn message_with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_the_kubernetes_service_proxy() {
        assert_eq!(
            proxy_path("shop", "orders-api-server", "http"),
            "/api/v1/namespaces/shop/services/http:orders-api-server:http/proxy"
        );
    }

    #[test]
    fn the_error_without_a_service_says_what_to_do_and_with_several_lists_them() {
        let named = |name: &str| {
            let mut service = Service::default();
            service.metadata.name = Some(name.to_owned());
            service
        };
        assert_eq!(select_service("shop", vec![named("orders-api-server")]).unwrap().name_any(), "orders-api-server");
        let none = select_service("shop", Vec::new()).unwrap_err().to_string();
        assert!(none.contains("namespace shop. Give the namespace of the release with -n"), "{none}");
        let several = select_service("shop", vec![named("a"), named("b")]).unwrap_err().to_string();
        assert!(several.contains("--service (a, b)"), "{several}");
    }
}
