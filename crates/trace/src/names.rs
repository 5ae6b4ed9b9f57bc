//! Names that the traced kernel used: names of tasks and symbols, and strings.

use std::collections::BTreeMap;

/// Names for numbers in records.
#[derive(Clone, Debug, Default)]
pub struct Names {
    tasks: BTreeMap<u32, String>,
    groups: BTreeMap<u32, u32>,
    strings: BTreeMap<u64, String>,
    /// Address and name with module, ascending by address.
    symbols: Vec<(u64, String)>,
}

impl Names {
    /// Reads the texts of `saved_cmdlines`, `saved_tgids`, `printk_formats` and of the saved lines of `kallsyms`. Lines
    /// that are not understood are left out.
    pub fn parse(cmdlines: &str, tgids: &str, printk: &str, kallsyms: &str) -> Self {
        let mut names = Self::default();
        for line in cmdlines.lines() {
            if let Some((pid, comm)) = line.trim_start().split_once(' ')
                && let Ok(pid) = pid.parse()
            {
                names.tasks.insert(pid, comm.to_owned());
            }
        }
        for line in tgids.lines() {
            if let Some((pid, group)) = line.trim().split_once(' ')
                && let (Ok(pid), Ok(group)) = (pid.parse(), group.trim().parse())
            {
                names.groups.insert(pid, group);
            }
        }
        for line in printk.lines() {
            if let Some((address, text)) = line.split_once(" : ")
                && let Some(address) = hex(address.trim())
            {
                let text = text.trim();
                let text = text.strip_prefix('"').unwrap_or(text);
                let text = text.strip_suffix('"').unwrap_or(text);
                names.strings.insert(address, unescape(text));
            }
        }
        for line in kallsyms.lines() {
            let mut words = line.split_whitespace();
            if let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next())
                && let Some(address) = hex(address)
            {
                let module = words.next().map(|m| format!(" {m}")).unwrap_or_default();
                names.symbols.push((address, format!("{name}{module}")));
            }
        }
        names.symbols.sort_by_key(|(address, _)| *address);
        names
    }

    /// Returns the name of a task: `<idle>` for 0, `<...>` if the name is not known.
    pub fn task(&self, pid: u32) -> &str {
        match self.tasks.get(&pid) {
            _ if pid == 0 => "<idle>",
            Some(name) => name,
            None => "<...>",
        }
    }

    /// The process that a task belongs to.
    pub fn group(&self, pid: u32) -> Option<u32> {
        self.groups.get(&pid).copied()
    }

    /// The string at an address of the old kernel.
    pub fn printk(&self, address: u64) -> Option<&str> {
        self.strings.get(&address).map(String::as_str)
    }

    /// The symbol that contains an address: name, offset, and the distance to the next symbol.
    fn find(&self, address: u64) -> Option<(&str, u64, u64)> {
        let after = self.symbols.partition_point(|(start, _)| *start <= address);
        let (start, name) = self.symbols.get(after.checked_sub(1)?)?;
        let end = self.symbols.get(after).map_or(address, |(next, _)| *next);
        // If an address has several names, the first one counts, as in the kernel.
        let first = self.symbols.partition_point(|(other, _)| other < start);
        let name = self.symbols.get(first).map_or(name, |(_, name)| name);
        (address < end).then_some((name.as_str(), address - start, end - start))
    }

    /// The symbol as `%ps` prints it.
    pub fn symbol(&self, address: u64) -> String {
        match self.find(address) {
            Some((name, ..)) => name.to_owned(),
            None => format!("{address:#x}"),
        }
    }

    /// The symbol as `%pS` prints it.
    pub fn symbol_offset(&self, address: u64) -> String {
        match self.find(address) {
            Some((name, offset, size)) => {
                let (name, module) = name.split_once(' ').unwrap_or((name, ""));
                let space = if module.is_empty() { "" } else { " " };
                format!("{name}+{offset:#x}/{size:#x}{space}{module}")
            }
            None => format!("{address:#x}"),
        }
    }
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// `\n`, `\t`, `\"`, `\\` as the kernel writes them (`t_show`, `kernel/trace/trace_printk.c`).
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, true) => match letters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            (other, false) => out.push(other),
        }
    }
    out
}
