//! The manifest of an order: the resource without its status. Billing stores it with the charge, so
//! that the charge can be settled even if the resource no longer exists.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orders_contracts::billing::{Authorization, NewAuthorization};
use orders_crds::{Order, OrderSpec, OrderStatus, order::charge_key};
use serde_json::Value;

/// Returns the authorization of a charge: the namespace and name of the order, and its manifest. The
/// manifest has neither labels nor annotations, which could be too large for billing. Of the status it
/// has only the UID of the order whose outcome was taken over, which the charge's key begins with.
pub fn authorization(metadata: &ObjectMeta, spec: &OrderSpec, adopted_from: Option<&str>) -> Option<NewAuthorization> {
    let (namespace, name) = metadata.namespace.as_ref().zip(metadata.name.as_ref())?;
    let metadata = ObjectMeta {
        namespace: Some(namespace.clone()),
        name: Some(name.clone()),
        uid: metadata.uid.clone(),
        creation_timestamp: metadata.creation_timestamp.clone(),
        generation: metadata.generation,
        resource_version: metadata.resource_version.clone(),
        ..ObjectMeta::default()
    };
    let reference = format!("{namespace}/{name}");
    let adopted = |uid: &str| OrderStatus { adopted_from: Some(uid.to_owned()), ..OrderStatus::default() };
    let manifest = serde_json::to_value(Order { metadata, spec: spec.clone(), status: adopted_from.map(adopted) }).ok()?;
    let Value::Object(manifest) = manifest else { return None };
    Some(NewAuthorization { reference, metadata: manifest })
}

/// Reads the order of an authorized charge, and the number of the attempt to charge. `None` if the
/// metadata is not the manifest of the order with this key.
pub fn read(authorization: &Authorization) -> Option<(Order, i32)> {
    let order: Order = serde_json::from_value(Value::Object(authorization.metadata.clone())).ok()?;
    let uid = Some(order.key_uid()).filter(|uid| !uid.is_empty())?;
    let attempt = match authorization.key.strip_prefix(uid)? {
        "" => 1,
        suffix => suffix.strip_prefix('.')?.parse().ok()?,
    };
    let has_name = order.metadata.namespace.is_some() && order.metadata.name.is_some();
    (has_name && charge_key(uid, attempt) == authorization.key).then_some((order, attempt))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use orders_contracts::billing::MAX_METADATA;
    use orders_crds::{Money, order::MAX_SECONDS};

    use super::*;

    #[test]
    fn the_largest_order_is_stored_with_its_charge_and_read_back() {
        let number = Some(9_007_199_254_740_991);
        let metadata = ObjectMeta {
            namespace: Some("n".repeat(63)),
            name: Some("o".repeat(253)),
            uid: Some("u".repeat(36)),
            creation_timestamp: Some(Time(Timestamp::UNIX_EPOCH)),
            generation: number,
            resource_version: Some(i64::MAX.to_string()),
            annotations: Some([("a".to_owned(), "b".repeat(100_000))].into()),
            ..ObjectMeta::default()
        };
        let spec = OrderSpec {
            id: number,
            login: "l".repeat(64),
            email: "e".repeat(254),
            cart_id: 9_007_199_254_740_991,
            amount: "999999999999.99".into(),
            cancel_requested: Some(true),
            deadline_seconds: Some(MAX_SECONDS),
            ttl_seconds_after_finished: Some(MAX_SECONDS),
        };
        let authorization = authorization(&metadata, &spec, None).unwrap();
        let manifest = authorization.validate().unwrap();
        assert!(manifest.len() <= MAX_METADATA / 2, "{} bytes", manifest.len());
        let order: Order = serde_json::from_str(&manifest).unwrap();
        assert_eq!((order.spec, order.metadata.uid, order.status), (spec, metadata.uid, None));
        assert_eq!(order.metadata.annotations, None);
    }

    #[test]
    fn the_manifest_counts_only_if_its_uid_is_that_of_the_key() {
        let metadata = ObjectMeta {
            namespace: Some("shop".to_owned()),
            name: Some("order-1".to_owned()),
            uid: Some("uid".to_owned()),
            ..ObjectMeta::default()
        };
        let new = authorization(&metadata, &OrderSpec::default(), None).unwrap();
        assert_eq!(new.reference, "shop/order-1");
        let adopted = authorization(&metadata, &OrderSpec::default(), Some("first")).unwrap();
        let read_from = |new: &NewAuthorization, key: &str| {
            read(&Authorization {
                id: 1,
                key: key.to_owned(),
                login: "a".to_owned(),
                amount: Money::ZERO,
                balance: Money::ZERO,
                created_at: 0,
                reference: new.reference.clone(),
                metadata: new.metadata.clone(),
            })
            .map(|(_, attempt)| attempt)
        };
        let read = |key: &str| read_from(&new, key);
        assert_eq!(["first.2", "uid.2"].map(|key| read_from(&adopted, key)), [Some(2), None]);
        let expected = [Some(1), Some(2), Some(11), None, None, None, None, None];
        assert_eq!(["uid", "uid.2", "uid.11", "uid.1", "uid.x", "uid2", "other", ""].map(read), expected);
        assert_eq!(authorization(&ObjectMeta::default(), &OrderSpec::default(), None), None);
    }
}
