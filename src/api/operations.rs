//! Which operation of the description a request is, before a route has seen it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use axum::http::Method;

/// All of them, by path and method.
#[derive(Debug)]
pub(super) struct Operations(matchit::Router<HashMap<String, Arc<str>>>);

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// Its name.
    pub(super) name: Arc<str>,
    /// The sandbox in its path.
    pub(super) sandbox: Option<String>,
}

impl Operations {
    /// Those of a description.
    ///
    /// # Errors
    /// When two of its paths cannot be told apart.
    pub(super) fn of(document: &serde_json::Value) -> io::Result<Self> {
        let mut router = matchit::Router::new();
        for (path, methods) in document["paths"].as_object().into_iter().flatten() {
            let named = methods.as_object().into_iter().flatten().filter_map(|(method, operation)| {
                Some((method.to_ascii_uppercase(), Arc::from(operation["operationId"].as_str()?)))
            });
            // One segment or many.
            let path = path.replace("/proxy/{path}", "/proxy/{*path}");
            router.insert(path, named.collect()).map_err(io::Error::other)?;
        }
        Ok(Self(router))
    }

    /// The operation that a request is, if it is one.
    pub(super) fn find(&self, method: &Method, path: &str) -> Option<Operation> {
        let found = self.0.at(path).ok()?;
        let proxied = || found.value.values().next().filter(|name| &***name == "proxyToPort");
        let name = found.value.get(method.as_str()).or_else(proxied)?;
        Some(Operation { name: Arc::clone(name), sandbox: found.params.get("id").map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_found_by_its_path_and_method() {
        let operations = Operations::of(&crate::api::openapi()).expect("operations");
        let find = |method: Method, path: &str| {
            operations.find(&method, path).map(|found| (found.name.to_string(), found.sandbox))
        };
        let named = |name: &str, id: Option<&str>| Some((name.to_owned(), id.map(str::to_owned)));
        assert_eq!(find(Method::POST, "/v1/sandboxes"), named("createSandbox", None));
        assert_eq!(find(Method::DELETE, "/v1/sandboxes/box"), named("destroySandbox", Some("box")));
        assert_eq!(find(Method::PUT, "/v1/sandboxes/box"), None);
        assert_eq!(
            find(Method::PATCH, "/v1/sandboxes/a/ports/80/proxy/x/y"),
            named("proxyToPort", Some("a"))
        );
        assert_eq!(find(Method::GET, "/v2"), None);
    }
}
