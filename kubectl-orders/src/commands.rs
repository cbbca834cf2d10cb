//! Runs the commands that call the API.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    access::Access,
    api::{Action, Api, ApiError},
    arguments::{AccessArgs, AllNamespaces, ApiCommand, Format, ListArgs, PrintArgs},
    order::Order,
    output::Printer,
    stuck,
    watch::ChangeTracker,
};

/// The interval between two polls of a watch.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Runs a command and returns whether it succeeded. Errors are printed to standard error.
pub async fn run(api: &Api, command: ApiCommand, print: &PrintArgs) -> bool {
    let mut printer = Printer::new(print);
    match command {
        ApiCommand::List(arguments) if arguments.watch => watch(&mut printer, async || Ok(list(api, &arguments).await?)).await,
        ApiCommand::List(arguments) => match list(api, &arguments).await {
            Ok(orders) if orders.is_empty() && matches!(print.output, None | Some(Format::Wide)) => {
                eprintln!("No orders found.");
                true
            }
            Ok(orders) => print_text(&printer.format_orders(&orders, Timestamp::now())),
            Err(error) => print_error(&error),
        },
        ApiCommand::Get { ids, watch: true } => watch(&mut printer, async || get_all(api, &ids).await).await,
        ApiCommand::Get { ids, watch: false } => get(api, &ids, &mut printer).await,
        ApiCommand::Cancel { id } => request_action(api, &id, Action::Cancel, &mut printer).await,
        ApiCommand::Retry { id } => request_action(api, &id, Action::Retry, &mut printer).await,
        ApiCommand::Resend { id } => request_action(api, &id, Action::Resend, &mut printer).await,
        ApiCommand::History { id } => match api.get(&id).await {
            Ok(order) => match api.get_charge(&id).await {
                Ok(charge) => print_text(&printer.format_history(&order, charge.as_ref())),
                Err(error) => print_text(&printer.format_history(&order, None)) && print_error(&error),
            },
            Err(error) => print_error(&error),
        },
    }
}

/// Lists the orders of all releases, newest first, up to the limit of each.
pub async fn list_all(access: &AccessArgs, arguments: &ListArgs, print: &PrintArgs) -> ExitCode {
    let apis = match Access::find_all(access).await {
        Ok(apis) => apis,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (mut orders, mut is_complete) = (Vec::<Order>::new(), true);
    for (namespace, access) in apis {
        match list(&Api::new(access), arguments).await {
            Ok(listed) => orders.extend(listed.into_iter().map(|order| order.in_namespace(&namespace))),
            Err(error) => {
                eprintln!("error: namespace {namespace}: {error}");
                is_complete = false;
            }
        }
    }
    orders.sort_by_key(|order| std::cmp::Reverse(order.created));
    let is_empty_table = orders.is_empty() && matches!(print.output, None | Some(Format::Wide));
    if is_empty_table && is_complete {
        eprintln!("No orders found.");
    }
    let is_printed = is_empty_table || print_text(&Printer::new(print).format_orders(&orders, Timestamp::now()));
    if is_printed && is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lists the orders of which a step is tried again.
pub async fn run_stuck(access: &AccessArgs, print: &PrintArgs, all: &AllNamespaces) -> ExitCode {
    match stuck::list(access, print, all).await {
        Ok(text) if text.lines().count() <= 1 && matches!(print.output, None | Some(Format::Wide)) && !print.no_headers => {
            eprintln!("No orders are stuck.");
            ExitCode::SUCCESS
        }
        Ok(text) if print_text(&text) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn list(api: &Api, arguments: &ListArgs) -> Result<Vec<Order>, ApiError> {
    let listed = api.list(arguments).await?;
    if listed.has_more && !arguments.watch {
        eprintln!("There are more than {} orders: see --limit.", arguments.limit);
    }
    Ok(listed.orders)
}

/// Prints the orders that exist, and an error for each of the others.
async fn get(api: &Api, ids: &[String], printer: &mut Printer) -> bool {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for id in ids {
        match api.get(id).await {
            Ok(order) => found.push(order),
            Err(error) => errors.push(error),
        }
    }
    let now = Timestamp::now();
    let is_printed = match &*found {
        [] => true,
        [order] if ids.len() == 1 => print_text(&printer.format_order(order, now)),
        orders => print_text(&printer.format_orders(orders, now)),
    };
    for error in &errors {
        print_error(error);
    }
    is_printed && errors.is_empty()
}

async fn get_all(api: &Api, ids: &[String]) -> Result<Vec<Order>, ApiError> {
    let mut orders = Vec::new();
    for id in ids {
        orders.push(api.get(id).await?);
    }
    Ok(orders)
}

async fn request_action(api: &Api, id: &str, action: Action, printer: &mut Printer) -> bool {
    match api.request_action(id, action).await {
        Ok(result) => print_text(&printer.format_result(id, action, &result)),
        Err(error) => print_error(&error),
    }
}

/// Polls the orders and prints the changed ones, until the reader closes the output. If the first
/// poll fails, the watch fails. If a later poll fails, the error is printed, and polling continues.
async fn watch(printer: &mut Printer, poll: impl AsyncFn() -> Result<Vec<Order>, ApiError>) -> bool {
    let (mut tracker, mut last_error) = (None::<ChangeTracker>, String::new());
    loop {
        match poll().await {
            Ok(orders) => {
                // Lists begin with the newest order. Later changes are printed oldest first.
                let is_first = tracker.is_none();
                let mut changed = tracker.get_or_insert_default().take_changed(orders);
                if !is_first {
                    changed.reverse();
                }
                if !changed.is_empty() && !print_text(&printer.format_stream(&changed, Timestamp::now())) {
                    return true;
                }
                last_error.clear();
            }
            Err(error) if tracker.is_none() => return print_error(&error),
            Err(error) => {
                let text = error.to_string();
                if text != last_error {
                    print_error(&error);
                    last_error = text;
                }
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Prints the text immediately, and returns whether the output could be written.
pub(crate) fn print_text(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Prints an error to standard error. Returns `false`, the result of the failed command.
fn print_error(error: &ApiError) -> bool {
    eprintln!("error: {error}");
    false
}
