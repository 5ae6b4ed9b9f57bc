//! What is put into pages when they are rendered: the help of every verb, from the command line's own definition.

use std::fmt::Write as _;

use crate::dist::pages;

/// Where the help goes.
const COMMANDS: &str = "<!-- every verb -->";

/// The page with its marks replaced.
pub fn fill(page: &str) -> String {
    if page.contains(COMMANDS) {
        page.replace(COMMANDS, &commands())
    } else {
        page.to_owned()
    }
}

fn commands() -> String {
    let mut command = pages::command();
    command.build();
    let mut out = String::new();
    for verb in command.get_subcommands_mut() {
        let name = verb.get_name().to_owned();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "## kho {name}\n\n```text\n{}\n```\n",
            verb.render_long_help().to_string().trim_end()
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_its_help() {
        let page = fill("before\n<!-- every verb -->\nafter");
        for verb in pages::command().get_subcommands() {
            assert!(page.contains(&format!("## kho {}\n", verb.get_name())));
        }
        assert!(page.starts_with("before\n") && page.ends_with("\nafter"));
        assert!(page.contains("Usage: kho load [OPTIONS] <KERNEL>"));
        assert_eq!(fill("nothing"), "nothing");
    }
}
