//! Reads a program's configuration from the command line and the environment.

use clap::Parser;

/// Parses the arguments like [`Parser::parse`]. An environment variable that is empty counts as not set, as a
/// chart or a script often leaves it: otherwise an optional URL would be an empty URL.
pub fn parse<C: Parser>() -> C {
    let is_empty = |arg: &&clap::Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let empty: Vec<_> = C::command().get_arguments().filter(is_empty).map(|arg| arg.get_id().clone()).collect();
    let command = empty.into_iter().fold(C::command(), |command, arg| command.mut_arg(arg, |arg| arg.env(None)));
    C::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}
