//! Tests of calls by browsers: from pages of allowed origins, and from pages of other sites.

use anyhow::Result;
use orders_testbed::Cluster;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::shop::Shop;

const SHOP: &str = "https://shop.example.com";

/// A request as a browser makes it for a page of another site.
fn from_page(request: RequestBuilder, origin: &str) -> RequestBuilder {
    request.header("origin", origin).header("sec-fetch-site", "cross-site")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_changes_nothing() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("paula", json!(500)).await?;
    let id = shop.place_order("paula", json!(100)).await?.id();
    for path in [format!("/orders/{id}/cancel"), "/billing/register?login=evil".to_owned(), format!("/orders/{id}/retry")] {
        let response = shop.send(from_page(shop.request(Method::POST, &path), "https://evil.example.com")).await?;
        response.assert_problem(403);
        assert!(!response.headers.contains_key("access-control-allow-origin"), "{path}");
    }
    assert_eq!(shop.balance("paula").await?, "400.0");
    shop.get("/billing/account/evil").await?.assert_problem(404);
    // A link from another site still works, and so does a page of this origin.
    let link = from_page(shop.request(Method::GET, &format!("/orders/{id}")), "https://evil.example.com");
    assert_eq!(shop.send(link).await?.status, 200);
    let own = shop.request(Method::POST, &format!("/orders/{id}/cancel")).header("sec-fetch-site", "same-origin");
    assert_eq!(shop.send(own).await?.json()["reason"], "Refunded");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_allowed_origin_places_orders() -> Result<()> {
    let shop = Shop::start_with(&Cluster::control_plane().await?, |mut options| {
        options.env.push(("api-server", "CORS_ORIGINS", format!("https://other.example.com,{SHOP}")));
        options
    })
    .await?;
    shop.open_account("petra", json!(500)).await?;
    let preflight = shop
        .request(Method::OPTIONS, "/orders/")
        .header("origin", SHOP)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,idempotency-key");
    let preflight = shop.send(preflight).await?;
    assert_eq!((preflight.status, &preflight.headers["access-control-allow-origin"]), (200, &SHOP.parse()?), "{preflight:?}");
    let allowed = preflight.headers["access-control-allow-headers"].to_str()?.to_owned();
    assert!(allowed.contains("idempotency-key") && allowed.contains("content-type"), "{allowed}");
    let placed = shop.send(from_page(shop.order_request("petra", json!(100)), SHOP)).await?;
    assert_eq!((placed.status, &placed.headers["access-control-allow-origin"]), (200, &SHOP.parse()?), "{placed:?}");
    let exposed = placed.headers["access-control-expose-headers"].to_str()?.to_owned();
    assert!(exposed.contains("location"), "{exposed}");
    // Another origin gets no permission.
    let refused = shop.send(from_page(shop.order_request("petra", json!(100)), "https://evil.example.com")).await?;
    refused.assert_problem(403);
    assert_eq!(shop.balance("petra").await?, "400.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_may_probe_the_start_page_or_a_path_of_its_own() -> Result<()> {
    let shop = Shop::start().await?;
    for path in ["/", "/livez", "/readyz"] {
        for method in [Method::GET, Method::HEAD] {
            let response = shop.send(shop.request(method.clone(), path)).await?;
            assert_eq!(response.status, 200, "{method} {path}: {response:?}");
        }
    }
    assert!(shop.get("/").await?.text.contains("/docs/"), "people find the documentation");

    shop.stack.billing.kill()?;
    assert_eq!(shop.get("/readyz").await?.text, "ok\n", "billing's outage does not take the API away: orders are accepted");
    Ok(())
}
