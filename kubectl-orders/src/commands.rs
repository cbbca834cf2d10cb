//! Runs the commands that call the API.

use std::{
    io::{self, Write},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    api::{Api, ApiError, Wish},
    arguments::{ApiCommand, Format, ListArgs, PrintArgs},
    order::Order,
    output::Printer,
    watch::Seen,
};

/// The interval between two polls of a watch.
const LOOK: Duration = Duration::from_secs(1);

/// Runs a command and returns whether it succeeded. Errors are printed to standard error.
pub async fn run(api: &Api, command: ApiCommand, print: &PrintArgs) -> bool {
    let mut printer = Printer::new(print);
    match command {
        ApiCommand::List(wanted) if wanted.watch => watch(&mut printer, async || Ok(list(api, &wanted).await?)).await,
        ApiCommand::List(wanted) => match list(api, &wanted).await {
            Ok(orders) if orders.is_empty() && matches!(print.output, None | Some(Format::Wide)) => {
                eprintln!("No orders found.");
                true
            }
            Ok(orders) => say(&printer.orders(&orders, Timestamp::now())),
            Err(error) => failed(&error),
        },
        ApiCommand::Get { ids, watch: true } => watch(&mut printer, async || all(api, &ids).await).await,
        ApiCommand::Get { ids, watch: false } => get(api, &ids, &mut printer).await,
        ApiCommand::Cancel { id } => ask(api, id, Wish::Cancel, &mut printer).await,
        ApiCommand::Retry { id } => ask(api, id, Wish::Retry, &mut printer).await,
        ApiCommand::Resend { id } => ask(api, id, Wish::Resend, &mut printer).await,
        ApiCommand::History { id } => match api.get(id).await {
            Ok(order) => say(&printer.history(&order)),
            Err(error) => failed(&error),
        },
    }
}

async fn list(api: &Api, wanted: &ListArgs) -> Result<Vec<Order>, ApiError> {
    let listed = api.list(wanted).await?;
    if listed.more && !wanted.watch {
        eprintln!("There are more than {} orders: see --limit.", wanted.limit);
    }
    Ok(listed.orders)
}

/// Prints the orders that exist, and an error for each of the others.
async fn get(api: &Api, ids: &[i64], printer: &mut Printer) -> bool {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for id in ids {
        match api.get(*id).await {
            Ok(order) => found.push(order),
            Err(error) => errors.push(error),
        }
    }
    let now = Timestamp::now();
    let said = match &*found {
        [] => true,
        [order] if ids.len() == 1 => say(&printer.order(order, now)),
        orders => say(&printer.orders(orders, now)),
    };
    for error in &errors {
        failed(error);
    }
    said && errors.is_empty()
}

async fn all(api: &Api, ids: &[i64]) -> Result<Vec<Order>, ApiError> {
    let mut orders = Vec::new();
    for id in ids {
        orders.push(api.get(*id).await?);
    }
    Ok(orders)
}

async fn ask(api: &Api, id: i64, wish: Wish, printer: &mut Printer) -> bool {
    match api.ask(id, wish).await {
        Ok(granted) => say(&printer.granted(id, wish, &granted)),
        Err(error) => failed(&error),
    }
}

/// Polls the orders and prints the changed ones, until the reader closes the output. If the first
/// poll fails, the watch fails. If a later poll fails, the error is printed, and polling continues.
async fn watch(printer: &mut Printer, look: impl AsyncFn() -> Result<Vec<Order>, ApiError>) -> bool {
    let (mut seen, mut told) = (None::<Seen>, String::new());
    loop {
        match look().await {
            Ok(orders) => {
                // Lists begin with the newest order. Later changes are printed oldest first.
                let is_first = seen.is_none();
                let mut changed = seen.get_or_insert_default().changed(orders);
                if !is_first {
                    changed.reverse();
                }
                if !changed.is_empty() && !say(&printer.stream(&changed, Timestamp::now())) {
                    return true;
                }
                told.clear();
            }
            Err(error) if seen.is_none() => return failed(&error),
            Err(error) => {
                let text = error.to_string();
                if text != told {
                    failed(&error);
                    told = text;
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Prints immediately, and returns whether the output could be written.
pub(crate) fn say(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

fn failed(error: &ApiError) -> bool {
    eprintln!("error: {error}");
    false
}
