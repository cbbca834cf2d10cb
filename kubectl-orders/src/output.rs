//! Formats orders and results as text: a table, JSON, YAML, names or a sentence.

use jiff::Timestamp;
use kube::ResourceExt;
use orders_crds::Money;
use serde_json::{Value, json};

use crate::{
    age,
    api::{Action, ActionResult},
    arguments::{Format, PrintArgs},
    order::{Charge, Order},
    stuck,
    table::Table,
};

/// The cell for a value that an order does not have.
const NONE: &str = "<none>";

/// Formats orders. Successive tables of one printer have the same columns.
#[derive(Debug)]
pub struct Printer {
    format: Option<Format>,
    headers: bool,
    table: Table,
}

impl Printer {
    /// Creates a printer with the format that the command line selects.
    pub fn new(arguments: &PrintArgs) -> Self {
        Printer { format: arguments.output, headers: !arguments.no_headers, table: Table::default() }
    }

    /// Formats several orders as one document. Only the first table of a printer has headers.
    pub fn format_orders(&mut self, orders: &[Order], now: Timestamp) -> String {
        match self.format {
            None | Some(Format::Wide) => {
                let wide = self.format.is_some();
                let row = |order: &Order| order.namespace.iter().cloned().chain(cells(order, wide, now)).collect();
                let rows = orders.iter().map(row).collect();
                let is_namespaced = orders.iter().any(|order| order.namespace.is_some());
                let headers: Vec<&str> =
                    is_namespaced.then_some("NAMESPACE").into_iter().chain(headers(wide).iter().copied()).collect();
                self.format_rows(&headers, rows)
            }
            Some(Format::Name) => orders.iter().map(format_name).collect(),
            Some(Format::Json) => to_json(&list_document(orders)),
            Some(Format::Yaml) => to_yaml(&list_document(orders)),
        }
    }

    /// Formats one order as its own document.
    pub fn format_order(&mut self, order: &Order, now: Timestamp) -> String {
        match self.format {
            Some(Format::Json) => to_json(&order.json),
            Some(Format::Yaml) => to_yaml(&order.json),
            None | Some(Format::Wide | Format::Name) => self.format_orders(std::slice::from_ref(order), now),
        }
    }

    /// Formats several orders, each as its own document.
    pub fn format_stream(&mut self, orders: &[Order], now: Timestamp) -> String {
        match self.format {
            Some(Format::Json) => orders.iter().map(|order| to_json(&order.json)).collect(),
            Some(Format::Yaml) => orders.iter().map(|order| format!("---\n{}", to_yaml(&order.json))).collect(),
            None | Some(Format::Wide | Format::Name) => self.format_orders(orders, now),
        }
    }

    /// Formats the history of an order, and in a table also the phase of its charge.
    pub fn format_history(&mut self, order: &Order, charge: Option<&Charge>) -> String {
        match self.format {
            Some(Format::Name) => format_name(order),
            Some(Format::Json) => to_json(&order.json["history"]),
            Some(Format::Yaml) => to_yaml(&order.json["history"]),
            None | Some(Format::Wide) => {
                let entry = |entry: &crate::order::HistoryEntry| {
                    vec![entry.time.clone(), entry.action.clone(), entry.reason.clone(), entry.message.clone()]
                };
                // Without headers, a script reads the rows.
                let charge = charge.filter(|_| self.headers).and_then(describe_charge).unwrap_or_default();
                let entries = order.history.iter().map(entry).collect();
                self.format_rows(&["TIME", "ACTION", "REASON", "MESSAGE"], entries) + &charge
            }
        }
    }

    /// Formats the result of a requested action.
    pub fn format_result(&mut self, id: &str, action: Action, result: &ActionResult) -> String {
        match self.format {
            None | Some(Format::Wide) => describe(id, action, result) + "\n",
            Some(_) => self.format_order(&result.order, Timestamp::UNIX_EPOCH),
        }
    }

    /// Formats orders whose step is tried again, as resources or as a table.
    pub fn format_stuck(&mut self, orders: &[orders_crds::Order], with_namespace: bool, now: Timestamp) -> String {
        let document = || json!({"apiVersion": "v1", "kind": "List", "items": orders});
        match self.format {
            Some(Format::Name) => orders.iter().map(|order| format!("order.arch.homework/{}\n", order.name_any())).collect(),
            Some(Format::Json) => to_json(&document()),
            Some(Format::Yaml) => to_yaml(&document()),
            None | Some(Format::Wide) => {
                let namespace = |order: &orders_crds::Order| with_namespace.then(|| order.namespace().unwrap_or_default());
                let rows =
                    orders.iter().map(|order| namespace(order).into_iter().chain(stuck::cells(order, now)).collect()).collect();
                let headers: Vec<&str> = with_namespace.then_some("NAMESPACE").into_iter().chain(stuck::HEADERS).collect();
                self.format_rows(&headers, rows)
            }
        }
    }

    fn format_rows(&mut self, headers: &[&str], mut rows: Vec<Vec<String>>) -> String {
        if std::mem::take(&mut self.headers) {
            rows.insert(0, headers.iter().map(|&header| header.to_owned()).collect());
        }
        self.table.format_rows(&rows)
    }
}

/// Describes the result of a requested action in a sentence.
pub fn describe(id: &str, action: Action, result: &ActionResult) -> String {
    let order = &result.order;
    let (reason, mail) = (&order.reason, order.message_state.as_deref().unwrap_or(NONE));
    if !result.is_complete {
        return format!("order {id}: asked for; not done yet");
    }
    match action {
        Action::Cancel => format!("order {id} cancelled ({reason})"),
        Action::Retry if order.status == 1 => format!("order {id} charged ({reason})"),
        Action::Retry => format!("order {id} refused again ({reason})"),
        Action::Resend if mail == "Sent" => format!("order {id}: message sent ({mail})"),
        Action::Resend => format!("order {id}: message given up again ({mail})"),
    }
}

/// Describes the phase of a charge in a line; `None` if nothing was charged.
fn describe_charge(charge: &Charge) -> Option<String> {
    let (amount, phase) = (charge.amount, charge.phase.as_deref()?);
    let refunded = if phase == "Captured" && charge.refunded > Money::ZERO {
        format!(", {} refunded", charge.refunded)
    } else {
        String::new()
    };
    Some(format!("charge of {amount}: {phase}{refunded}\n"))
}

fn headers(wide: bool) -> &'static [&'static str] {
    if wide {
        &["ID", "LOGIN", "AMOUNT", "STATUS", "BALANCE", "MAIL", "AGE", "NAME", "ATTEMPT", "REFUNDED", "E-MAIL"]
    } else {
        &["ID", "LOGIN", "AMOUNT", "STATUS", "BALANCE", "MAIL", "AGE"]
    }
}

fn cells(order: &Order, wide: bool, now: Timestamp) -> Vec<String> {
    let or_none = |cell: Option<String>| cell.unwrap_or_else(|| NONE.to_owned());
    let mut cells = vec![
        or_none(order.id.map(|id| id.to_string())),
        order.login.clone(),
        order.amount.to_string(),
        order.reason.clone(),
        or_none(order.balance.map(|balance| balance.0.to_string())),
        or_none(order.message_state.clone()),
        order.created.map_or("<unknown>".to_owned(), |created| age::format_age(now.duration_since(created))),
    ];
    if wide {
        let refunded = or_none(order.refunded.map(|refunded| refunded.0.to_string()));
        cells.extend([order.name.clone(), order.attempt.to_string(), refunded, order.e_mail.clone()]);
    }
    cells
}

fn format_name(order: &Order) -> String {
    format!("order.arch.homework/{}\n", order.name)
}

fn list_document(orders: &[Order]) -> Value {
    json!({"items": orders.iter().map(|order| &order.json).collect::<Vec<_>>()})
}

fn to_json(value: &Value) -> String {
    format!("{value:#}\n")
}

fn to_yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|error| unreachable!("all JSON is YAML: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::tests::order;

    fn printer(output: Option<Format>) -> Printer {
        Printer::new(&PrintArgs { output, no_headers: false })
    }

    fn now() -> Timestamp {
        "2026-05-07T12:03:20Z".parse().unwrap()
    }

    #[test]
    fn the_table_has_kubectls_columns_and_its_headers_once() {
        let waiting = order(json!({"id": null, "reason": "Processing", "balance": null, "message_state": null}));
        let mut printer = printer(None);
        assert_eq!(
            printer.format_orders(&[order(json!({})), waiting], now()),
            "ID       LOGIN      AMOUNT   STATUS       BALANCE   MAIL     AGE\n\
             14       Aurore56   99.95    Paid         900.00    Sent     3m20s\n\
             <none>   Aurore56   99.95    Processing   <none>    <none>   3m20s\n"
        );
        assert_eq!(
            printer.format_stream(&[order(json!({}))], now()),
            "14       Aurore56   99.95    Paid         900.00    Sent     3m20s\n"
        );
    }

    #[test]
    fn wide_adds_columns_and_no_headers_omits_the_headers() {
        let mut printer = Printer::new(&PrintArgs { output: Some(Format::Wide), no_headers: true });
        let refunded = order(json!({"refunded": 99.95, "attempt": 2}));
        assert_eq!(
            printer.format_order(&refunded, now()),
            "14   Aurore56   99.95   Paid   900.00   Sent   3m20s   order-14   2   99.95   a@b.cd\n"
        );
        assert_eq!(headers(true).len(), cells(&refunded, true, now()).len());
        assert_eq!(headers(false).len(), cells(&refunded, false, now()).len());
    }

    #[test]
    fn json_and_yaml_have_everything_that_the_api_sent() {
        let given = order(json!({"created": "2026-05-07T12:00:00Z", "name": "no", "amount": 999999999999.99}));
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let read_yaml = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
        assert_eq!(read(&printer(Some(Format::Json)).format_order(&given, now())), given.json);
        assert_eq!(read_yaml(&printer(Some(Format::Yaml)).format_order(&given, now())), given.json);
        let expected = json!({"items": [given.json, given.json]});
        let both = [given.clone(), given.clone()];
        assert_eq!(read(&printer(Some(Format::Json)).format_orders(&both, now())), expected);
        assert_eq!(read_yaml(&printer(Some(Format::Yaml)).format_orders(&both, now())), expected);
        let stream = printer(Some(Format::Json)).format_stream(&both, now());
        let documents: Vec<Value> = serde_json::Deserializer::from_str(&stream).into_iter().map(Result::unwrap).collect();
        assert_eq!(documents, [given.json.clone(), given.json.clone()]);
    }

    #[test]
    fn names_are_accepted_by_kubectl() {
        assert_eq!(printer(Some(Format::Name)).format_orders(&[order(json!({}))], now()), "order.arch.homework/order-14\n");
    }

    #[test]
    fn history_is_a_separate_table() {
        let table = "TIME                   ACTION   REASON   MESSAGE\n2026-05-07T12:00:01Z   Charge   Paid     Charged.\n";
        assert_eq!(printer(None).format_history(&order(json!({})), None), table);
        for (charge, line) in [
            (json!({"amount": 100.0, "phase": "Authorized", "refunded": 0.0}), "charge of 100.00: Authorized\n"),
            (json!({"amount": 100.0, "phase": "Captured", "refunded": 0.0}), "charge of 100.00: Captured\n"),
            (json!({"amount": 100.0, "phase": "Captured", "refunded": 99.95}), "charge of 100.00: Captured, 99.95 refunded\n"),
            (json!({"amount": 100.0, "phase": "Voided", "refunded": 100.0}), "charge of 100.00: Voided\n"),
            (json!({"amount": 100.0, "refunded": 0.0}), ""),
        ] {
            let charge: Charge = serde_json::from_value(charge).unwrap();
            assert_eq!(printer(None).format_history(&order(json!({})), Some(&charge)), format!("{table}{line}"));
        }
    }

    #[test]
    fn the_result_of_an_action_is_described_and_an_incomplete_one_is_never_done() {
        let description =
            |action, is_complete, changes| describe("14", action, &ActionResult { order: order(changes), is_complete });
        assert_eq!(
            description(Action::Cancel, true, json!({"reason": "Refunded", "status": 0})),
            "order 14 cancelled (Refunded)"
        );
        assert_eq!(description(Action::Retry, true, json!({})), "order 14 charged (Paid)");
        let refused = json!({"reason": "InsufficientFunds", "status": 0});
        assert_eq!(description(Action::Retry, true, refused), "order 14 refused again (InsufficientFunds)");
        assert_eq!(description(Action::Resend, true, json!({})), "order 14: message sent (Sent)");
        let given_up = json!({"message_state": "DeadLettered"});
        assert_eq!(description(Action::Resend, true, given_up), "order 14: message given up again (DeadLettered)");
        for action in [Action::Cancel, Action::Retry, Action::Resend] {
            assert_eq!(description(action, false, json!({})), "order 14: asked for; not done yet");
        }
    }
}
