//! The commands of the book and of the READMEs, and the scripts that run them in guests.
//!
//! The first line of a fenced block of commands (`console` or `sh`) says how the block is tested:
//!
//! ````text
//! ```console run=NAME              the guest scenario NAME runs it, after all earlier blocks of that name
//! ```console norun="why not"       no guest runs it; counted
//! ````
//!
//! In a `console` block a line that begins with `# ` or `$ ` is a command (`\` at its end continues it), and other
//! lines are the output of the command. The command must print the shown output, except for numbers and their units,
//! hashes and times; `...` alone in a line stands for any lines, and at the end of a line for the rest of it. A command
//! must succeed, unless `echo $?` comes next, which shows the exit status of the command. A `kho exec` that succeeds
//! ends a kernel: the commands after it run in the next kernel.
//!
//! A comment in the page, which readers do not see, makes things that a reader has and a guest lacks:
//!
//! ```text
//! <!-- run=NAME
//! mkdir -p /srv/cache
//! -->
//! ```

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::{links, read};
use kho_lab::workspace;

/// Languages of blocks that hold commands.
const COMMANDS: [&str; 4] = ["console", "sh", "bash", "shell"];

/// Treatment of a block: whether a guest runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The guest scenario of this name runs it.
    Run(String),
    /// No guest runs it, for this reason.
    Not(String),
}

/// One command and its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Line in the page, from 1.
    pub line: usize,
    /// Text without prompt, continued lines joined by newlines.
    pub text: String,
    /// Lines of output that the page shows.
    pub output: Vec<String>,
}

/// A block of commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Path of the page, from the workspace's root.
    pub page: String,
    /// Whether a guest runs the block.
    pub fate: Fate,
    /// Whether the block is a script that is not shown to readers.
    pub hidden: bool,
    /// Commands of the block, in order.
    pub commands: Vec<Command>,
}

/// The pages that readers follow: the READMEs and the book.
pub fn pages() -> Result<Vec<PathBuf>> {
    let root = workspace::root();
    let mut pages = vec![
        root.join("README.md"),
        root.join("module/README.md"),
        root.join("module/khofs/README.md"),
    ];
    // The summary gives the order in which readers read the book, and so the order in which its commands run.
    let book = root.join("docs/src");
    let summary = read(&book.join("SUMMARY.md"))?;
    pages.extend(
        links::targets(&summary)
            .into_iter()
            .map(|(_, target)| book.join(target)),
    );
    Ok(pages)
}

/// All blocks of commands, in the order of reading.
pub fn all() -> Result<Vec<Block>> {
    let mut out = Vec::new();
    for page in pages()? {
        let name = page.strip_prefix(workspace::root()).unwrap_or(&page);
        out.extend(parse(&name.display().to_string(), &read(&page)?)?);
    }
    Ok(out)
}

/// The blocks of a page.
pub fn parse(page: &str, text: &str) -> Result<Vec<Block>> {
    let mut out = Vec::new();
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    while let Some((at, line)) = lines.next() {
        if let Some(rest) = line.strip_prefix("<!-- run=") {
            let script: Vec<&str> = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| *line != "-->")
                .collect();
            out.push(Block {
                page: page.to_owned(),
                fate: Fate::Run(rest.trim().to_owned()),
                hidden: true,
                commands: vec![Command {
                    line: at,
                    text: script.join("\n"),
                    output: Vec::new(),
                }],
            });
            continue;
        }
        let Some(info) = line.trim_start().strip_prefix("```") else {
            ensure!(
                !line.starts_with("    ") || command(line).is_none(),
                "{page}:{at}: commands stand in a fenced block that says what becomes of them"
            );
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let inside: Vec<(usize, &str)> = lines
            .by_ref()
            .map(|(at, line)| (at, line.get(indent..).unwrap_or("")))
            .take_while(|(_, line)| !line.starts_with("```"))
            .collect();
        let language = info.split_ascii_whitespace().next().unwrap_or("");
        if !COMMANDS.contains(&language) {
            if let Some((at, _)) = inside.iter().find(|(_, line)| command(line).is_some()) {
                bail!("{page}:{at}: a command in a block that is not one of commands");
            }
            continue;
        }
        let fate = fate(info).with_context(|| {
            format!("{page}:{at}: a block of commands says neither run=NAME nor norun=\"why\"")
        })?;
        ensure!(
            language == "console" || matches!(fate, Fate::Not(_)),
            "{page}:{at}: what is run is `console`"
        );
        let commands = if language == "console" {
            commands(&inside)
        } else {
            inside
                .iter()
                .filter(|(_, line)| !line.trim().is_empty())
                .map(|(line, text)| Command {
                    line: *line,
                    text: (*text).to_owned(),
                    output: Vec::new(),
                })
                .collect()
        };
        ensure!(
            !commands.is_empty(),
            "{page}:{at}: a block without a command"
        );
        out.push(Block {
            page: page.to_owned(),
            fate,
            hidden: false,
            commands,
        });
    }
    Ok(out)
}

/// The program that a line calls, if the line looks like a shell command.
fn command(line: &str) -> Option<&str> {
    const PROGRAMS: [&str; 12] = [
        "apt",
        "cargo",
        "cat",
        "dkms",
        "echo",
        "insmod",
        "kho",
        "make",
        "modprobe",
        "mount",
        "systemctl",
        "umount",
    ];
    let line = line.trim_start();
    let line = ["# ", "$ "]
        .iter()
        .find_map(|prompt| line.strip_prefix(prompt))
        .unwrap_or(line);
    let word = line.split_ascii_whitespace().next()?;
    PROGRAMS.contains(&word).then_some(word)
}

/// `run=NAME` or `norun="why"` after the language.
fn fate(info: &str) -> Option<Fate> {
    let (_, rest) = info.split_once(' ')?;
    let rest = rest.trim();
    if let Some(name) = rest.strip_prefix("run=") {
        return Some(Fate::Run(name.to_owned()));
    }
    let why = rest.strip_prefix("norun=\"")?.strip_suffix('"')?;
    (!why.is_empty()).then(|| Fate::Not(why.to_owned()))
}

fn commands(lines: &[(usize, &str)]) -> Vec<Command> {
    let mut out: Vec<Command> = Vec::new();
    let mut continued = false;
    for (line, text) in lines {
        let prompt = text.strip_prefix("# ").or_else(|| text.strip_prefix("$ "));
        match (continued, prompt, out.last_mut()) {
            (true, _, Some(last)) => {
                last.text.push('\n');
                last.text.push_str(text);
                continued = text.ends_with('\\');
            }
            (_, Some(command), _) => {
                out.push(Command {
                    line: *line,
                    text: command.to_owned(),
                    output: Vec::new(),
                });
                continued = command.ends_with('\\');
            }
            (_, None, Some(last)) => last.output.push((*text).to_owned()),
            // Output without a command before it: an elision at the start.
            (_, None, None) => {}
        }
    }
    for command in &mut out {
        while command
            .output
            .last()
            .is_some_and(|line| line.trim().is_empty())
        {
            command.output.pop();
        }
    }
    out
}

/// The scripts of a guest scenario, one for each kernel.
pub fn scripts(name: &str, blocks: &[Block]) -> Result<Vec<String>> {
    let mut out = vec![String::new()];
    let mine = blocks
        .iter()
        .filter(|block| block.fate == Fate::Run(name.to_owned()));
    for block in mine {
        let page = &block.page;
        if block.hidden {
            for command in &block.commands {
                let script = current(&mut out);
                let _ = writeln!(
                    script,
                    "echo '== {page}:{}: prepares'\n{}",
                    command.line, command.text
                );
                if command.text.contains("kho-guest loaded") {
                    out.push(String::new());
                }
            }
            continue;
        }
        for (index, command) in block.commands.iter().enumerate() {
            let place = format!("{page}:{}", command.line);
            let text = command.text.as_str();
            if text == "echo $?" {
                // The test of the previous command has already checked this status.
                continue;
            }
            let status = match block.commands.get(index + 1) {
                Some(next) if next.text == "echo $?" => match next.output.as_slice() {
                    [status] => status
                        .trim()
                        .parse::<u8>()
                        .with_context(|| format!("{place}: {status}"))?,
                    _ => bail!("{page}:{}: `echo $?` shows one number", next.line),
                },
                _ => 0,
            };
            if is_exec(text) && status == 0 {
                let stale = if text.contains("--stale-ok") {
                    " --stale-ok"
                } else {
                    ""
                };
                let script = current(&mut out);
                let _ = writeln!(script, "echo '== {place}: {text}'\nkho-guest loaded{stale}");
                out.push(String::new());
                continue;
            }
            let script = current(&mut out);
            let mut wanted = command.output.join("\n");
            if !wanted.is_empty() {
                wanted.push('\n');
            }
            ensure!(
                !wanted.contains("\nBOOK\n"),
                "{place}: shows the end of a here-document"
            );
            let _ = writeln!(script, "cat >/tmp/book.wanted <<'BOOK'\n{wanted}BOOK");
            let quoted = text.replace('\'', "'\\''");
            let _ = writeln!(script, "book '{place}' {status} '{quoted}'");
        }
    }
    Ok(out)
}

fn current(scripts: &mut Vec<String>) -> &mut String {
    if scripts.is_empty() {
        scripts.push(String::new());
    }
    let last = scripts.len() - 1;
    &mut scripts[last]
}

fn is_exec(command: &str) -> bool {
    let mut words = command.split_ascii_whitespace();
    words.next() == Some("kho") && words.next() == Some("exec")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "
<!-- run=tour
mkdir /x
-->

```console run=tour
# kho keep /x \\
    --quiet
# kho restore
kho: no
# echo $?
60
# kho exec
```

- a list

  ```console run=tour
  $ kho status   # what is here
  arrived   hop 1
  ...
  ```

```console norun=\"needs another machine\"
# halt
```

```text
# no command
```
";

    #[test]
    fn blocks_become_scripts_of_one_kernel_each() {
        let blocks = parse("p.md", PAGE).unwrap();
        assert_eq!(blocks.len(), 4);
        assert_eq!(blocks[3].fate, Fate::Not("needs another machine".into()));
        let scripts = scripts("tour", &blocks).unwrap();
        assert_eq!(
            scripts,
            [
                "echo '== p.md:2: prepares'\nmkdir /x\n\
                 cat >/tmp/book.wanted <<'BOOK'\nBOOK\nbook 'p.md:7' 0 'kho keep /x \\\n    --quiet'\n\
                 cat >/tmp/book.wanted <<'BOOK'\nkho: no\nBOOK\nbook 'p.md:9' 60 'kho restore'\n\
                 echo '== p.md:13: kho exec'\nkho-guest loaded\n",
                "cat >/tmp/book.wanted <<'BOOK'\narrived   hop 1\n...\nBOOK\n\
                 book 'p.md:19' 0 'kho status   # what is here'\n",
            ]
        );
    }

    #[test]
    fn commands_that_nobody_marked_are_an_error() {
        let error = parse("p.md", "x\n```console\n# kho exec\n```\n").unwrap_err();
        assert!(error.to_string().starts_with("p.md:2: "), "{error}");
        assert!(parse("p.md", "```console norun=\"\"\n# kho exec\n```\n").is_err());
        assert!(parse("p.md", "```sh run=x\nkho exec\n```\n").is_err());
        // Commands must not hide in another kind of block either.
        assert!(parse("p.md", "x\n\n    kho exec\n").is_err());
        assert!(parse("p.md", "```text\n# kho exec\n```\n").is_err());
        assert!(parse("p.md", "```text\nkhofs  vm\n```\n    as kho does\n").is_ok());
    }
}
