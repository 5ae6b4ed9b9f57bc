//! Manual pages and completions, made from the definition of the command line.

use std::fmt::Write as _;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;
use kho_cli::{args, status};

use super::deb::Package;

/// The command line's definition.
pub fn command() -> clap::Command {
    args::Cli::command()
}

/// Every exit status: number, name, meaning.
pub fn statuses() -> impl Iterator<Item = (u8, &'static str, &'static str)> {
    let all = status::Status::ALL.iter();
    all.map(|status| (status.code(), status.name(), status.meaning()))
}

/// Adds the manual pages and the completions to a package.
pub fn add(package: &mut Package) -> Result<()> {
    for (name, text) in manuals()? {
        package.gzip(&format!("usr/share/man/man8/{name}.8"), text.as_bytes())?;
    }
    for (shell, path) in [
        (Shell::Bash, "usr/share/bash-completion/completions/kho"),
        (Shell::Zsh, "usr/share/zsh/vendor-completions/_kho"),
        (Shell::Fish, "usr/share/fish/vendor_completions.d/kho.fish"),
    ] {
        package.file(path, 0o644, completion(shell));
    }
    Ok(())
}

fn completion(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "kho", &mut text);
    text
}

/// Section FILES of the manual page: files and services that the package has besides the command.
const FILES: &str = "\
.SH FILES
.TP
.B /etc/kho/keep.d/*.conf
What is kept, see
.BR keep.d (5).
.TP
.B /etc/default/kho
What happens when the content cannot be taken at shutdown.
.TP
.B kho\\-capture.service
When it stops, on the way to a kexec, the content is taken for what
.B kho load \\-\\-arm
armed.
.TP
.B kho\\-restore.service
Before the services start, what arrived goes back to its place.
.TP
.B /run/kho/status.json
What
.B kho status \\-\\-json
said after that.
";

/// The manual pages: name and source, `kho` first.
fn manuals() -> Result<Vec<(String, String)>> {
    let mut command = command();
    command.build();
    let mut main = manual(command.clone(), "kho")?;
    main.push_str(".SH \"EXIT STATUS\"\nOf all verbs but\n.BR \"kho kexec\" :\n.TP\n.B 0\ndone\n");
    for (code, name, meaning) in statuses() {
        // Writing to a String cannot fail.
        let _ = writeln!(main, ".TP\n.BR {code} \" ({name})\"\n{meaning}");
    }
    let verbs: Vec<String> = command
        .get_subcommands()
        .map(|verb| format!("kho-{}", verb.get_name()))
        .collect();
    let also: Vec<String> = verbs.iter().map(|verb| format!(".BR {verb} (8)")).collect();
    let _ = writeln!(
        main,
        "{FILES}.SH \"SEE ALSO\"\n{},\n.BR keep.d (5),\n.BR khofs (5)",
        also.join(",\n")
    );
    let mut pages = vec![("kho".to_owned(), main)];
    for (verb, name) in command.get_subcommands().zip(verbs) {
        let mut page = manual(verb.clone(), &name)?;
        page.push_str(".SH \"SEE ALSO\"\n.BR kho (8)\n");
        pages.push((name, page));
    }
    Ok(pages)
}

fn manual(command: clap::Command, name: &str) -> Result<String> {
    let mut text = Vec::new();
    // No date: a page would have the date of its build.
    clap_mangen::Man::new(command)
        .title(name)
        .section("8")
        .date("")
        .manual("kho")
        .render(&mut text)?;
    let mut text = String::from_utf8(text)?;
    // The options of `kho kexec` are those of kexec(8), so the page describes no others.
    if name == "kho-kexec"
        && let (Some(from), Some(to)) = (text.find(".SH SYNOPSIS"), text.find(".SH EXTRA"))
    {
        let instead = ".SH SYNOPSIS\n\\fBkho kexec\\fR [\\fIOPTION\\fR]... [\\fIKERNEL\\fR]\n.SH DESCRIPTION\n\
                       What\n.BR kexec (8)\ndoes, with what is kept handed over.\n";
        text.replace_range(from..to, instead);
    }
    // Examples follow the options in the help; their lines must not be joined.
    Ok(match text.split_once(".SH EXTRA\n") {
        None => text,
        Some((before, after)) => {
            let (examples, rest) = match after.find("\n.SH ") {
                Some(end) => after.split_at(end + 1),
                None => (after, ""),
            };
            let lines: Vec<&str> = examples.lines().filter(|line| *line != ".br").collect();
            let begin = lines
                .iter()
                .position(|line| line.starts_with("Example"))
                .unwrap_or(lines.len());
            let (before_them, examples) = lines.split_at(begin);
            let examples = examples.get(1..).unwrap_or_default();
            let end = examples
                .iter()
                .position(|line| !line.is_empty() && !line.starts_with(' '))
                .unwrap_or(examples.len());
            let (examples, after_them) = examples.split_at(end);
            let notes = [before_them, after_them].concat();
            // `kho kexec` has the options of kexec(8) in this section.
            let heading = if name == "kho-kexec" {
                "\"OPTIONS OF KEXEC(8)\""
            } else {
                "NOTES"
            };
            let section = |heading: &str, lines: &[&str]| match lines.join("\n").trim() {
                "" => String::new(),
                text => format!(".SH {heading}\n.nf\n{text}\n.fi\n"),
            };
            format!(
                "{before}{}{}{rest}",
                section(heading, &notes),
                section("EXAMPLES", examples)
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_and_every_status_has_its_place_in_the_manual() {
        let pages = manuals().unwrap();
        assert_eq!(pages.len(), 1 + command().get_subcommands().count());
        for (name, text) in &pages {
            for section in [
                ".SH NAME",
                ".SH SYNOPSIS",
                ".SH DESCRIPTION",
                ".SH \"SEE ALSO\"",
            ] {
                assert!(text.contains(section), "{name}(8) has no {section}");
            }
            // A line that begins with a dot or an apostrophe and is not a known request would be lost.
            for line in text.lines().filter(|line| line.starts_with(['.', '\''])) {
                let request = line.split(' ').next().unwrap_or(line);
                assert!(
                    [
                        ".ie", ".el", ".TH", ".SH", ".SS", ".TP", ".B", ".BR", ".br", ".RS", ".RE",
                        ".PP", ".nf", ".fi", ".IP"
                    ]
                    .contains(&request),
                    "{name}(8): {line}"
                );
            }
        }
        let load = pages.iter().find(|(name, _)| name == "kho-load");
        let (_, load) = load.unwrap();
        assert!(
            load.contains(".SH EXAMPLES\n.nf\nkho load /boot/vmlinuz")
                && load.contains(".SH NOTES\n.nf\nA refused load changes nothing"),
            "{load}"
        );
        let main = &pages[0].1;
        for (code, name, meaning) in statuses() {
            assert!(main.contains(&format!(".BR {code} \" ({name})\"\n{meaning}\n")));
        }
    }

    #[test]
    fn shells_complete_every_verb() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = String::from_utf8(completion(shell)).unwrap();
            for verb in command().get_subcommands() {
                assert!(
                    text.contains(verb.get_name()),
                    "{shell}: {}",
                    verb.get_name()
                );
            }
        }
        // As bash does when a user types a beginning and presses the tabulator key.
        for (words, wanted) in [
            ("kho lo", "load log"),
            ("kho capture --se", "--settle"),
            ("kho load --arm --on-failure ", "plain cold stop"),
        ] {
            let script = format!(
                "source /dev/stdin; COMP_WORDS=({words}{last}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
                 _kho kho \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[*]}}\"",
                last = if words.ends_with(' ') { "''" } else { "" }
            );
            let bash = std::process::Command::new("bash")
                .args(["-euc", &script])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn();
            let mut bash = bash.unwrap();
            let mut input = bash.stdin.take().unwrap();
            std::io::Write::write_all(&mut input, &completion(Shell::Bash)).unwrap();
            drop(input);
            let output = bash.wait_with_output().unwrap();
            assert!(output.status.success(), "{words}");
            let said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(said.trim(), wanted, "{words}");
        }
    }

    #[test]
    fn the_book_says_what_to_do_for_every_status() {
        let page = kho_lab::workspace::root().join("docs/src/operations/when.md");
        let page = std::fs::read_to_string(page).unwrap();
        let rows: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
            .filter(|cell| cell.starts_with(|letter: char| letter.is_ascii_digit()))
            .collect();
        let wanted: Vec<String> = statuses()
            .map(|(code, name, _)| format!("{code} `{name}`"))
            .collect();
        assert_eq!(rows, wanted);
    }
}
