//! Adds host names to the machine's hosts file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

const FILE: &str = "/etc/hosts";
/// Marks the lines that the testbed added and may remove.
const MARK: &str = "# orders testbed";

/// Makes a host name resolve to this machine.
///
/// # Errors
/// If the hosts file cannot be written. The error contains the line to add.
pub(crate) fn add(name: &str) -> Result<()> {
    let text = fs::read_to_string(FILE).unwrap_or_default();
    match add_name(&text, name) {
        Some(text) => write(&text).with_context(|| format!("add this line to {FILE} yourself: 127.0.0.1 {name}")),
        None => Ok(()),
    }
}

/// Removes the lines that [`add`] added.
///
/// # Errors
/// If the hosts file cannot be written.
pub(crate) fn remove() -> Result<()> {
    let text = fs::read_to_string(FILE).unwrap_or_default();
    let remaining = remove_names(&text);
    if remaining == text { Ok(()) } else { write(&remaining) }
}

/// Writes the file in place: in containers the file is a mount and cannot be replaced.
fn write(text: &str) -> Result<()> {
    if !Path::new(FILE).exists() {
        bail!("there is no {FILE}");
    }
    fs::write(FILE, text).with_context(|| format!("cannot write {FILE}"))
}

/// The text with the name added; `None` if the name is already there.
fn add_name(text: &str, name: &str) -> Option<String> {
    let names = |line: &str| -> bool {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        words.next() == Some("127.0.0.1") && words.any(|word| word == name)
    };
    if text.lines().any(names) {
        return None;
    }
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    Some(format!("{text}{newline}127.0.0.1 {name} {MARK}\n"))
}

fn remove_names(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.trim_end().ends_with(MARK)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_added_once_and_removed_again() {
        let before = "127.0.0.1 localhost";
        let after = add_name(before, "arch.homework").unwrap();
        assert_eq!(after, "127.0.0.1 localhost\n127.0.0.1 arch.homework # orders testbed\n");
        assert_eq!(add_name(&after, "arch.homework"), None);
        assert_eq!(remove_names(&after), "127.0.0.1 localhost\n");
    }

    #[test]
    fn a_name_of_another_address_or_in_a_comment_does_not_count() {
        assert!(add_name("10.0.0.1 arch.homework\n# 127.0.0.1 arch.homework\n", "arch.homework").is_some());
    }
}
