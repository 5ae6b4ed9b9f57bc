//! Sources from which this machine gets Debian, as its apt is configured.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// The Debian release of this machine, from which the first guest kernel comes too.
pub const CODENAME: &str = "bookworm";

/// One source of packages, with the fields that a deb822 file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// All other fields, such as `Signed-By` (which may be a whole key) or `Trusted`; kept unchanged.
    options: Vec<(String, String)>,
}

/// Finds the configured source that serves the archive of this release, from any mirror.
pub fn debian(etc_apt: &Path, codename: &str) -> Result<Source> {
    let all = read(etc_apt)?;
    all.into_iter().find(|source| source.is_debian(codename)).with_context(|| {
        format!(
            "no source under {} serves the suite {codename} of Debian (component main). Add one, or install by hand",
            etc_apt.display()
        )
    })
}

/// The content of a deb822 sources file with these suites of that source's mirror.
pub fn render(source: &Source, suites: &[&str]) -> String {
    let mut text = format!(
        "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\n",
        source.uris.join(" "),
        suites.join(" ")
    );
    for (name, value) in &source.options {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text
}

impl Source {
    fn is_debian(&self, codename: &str) -> bool {
        let signed_by = self.option("Signed-By");
        // Third parties use Debian's code names too, with their own keys or components.
        let keyring = signed_by.is_none_or(|value| value.contains("debian-archive-"));
        keyring
            && self.option("Enabled").is_none_or(|value| value != "no")
            && self.suites.iter().any(|suite| suite == codename)
            && self.components.iter().any(|component| component == "main")
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.options
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

fn read(etc_apt: &Path) -> Result<Vec<Source>> {
    let mut files = vec![etc_apt.join("sources.list")];
    let parts = etc_apt.join("sources.list.d");
    if parts.exists() {
        let mut names = std::fs::read_dir(&parts)
            .and_then(|entries| {
                entries
                    .map(|entry| entry.map(|entry| entry.path()))
                    .collect::<Result<Vec<_>, _>>()
            })
            .with_context(|| format!("reading {}", parts.display()))?;
        names.sort();
        files.append(&mut names);
    }
    let mut sources = Vec::new();
    for file in files {
        let deb822 = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => true,
            Some("list") => false,
            _ => continue,
        };
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
        };
        sources.extend(if deb822 {
            parse_deb822(&text)
        } else {
            parse_list(&text)
        });
    }
    if sources.is_empty() {
        bail!("apt has no sources under {}", etc_apt.display());
    }
    Ok(sources)
}

/// One-line style: `deb [option=value …] uri suite component…`.
fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_list_line).collect()
}

fn parse_list_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?.trim_start();
    if !line[3..].starts_with(char::is_whitespace) {
        return None;
    }
    let mut options = Vec::new();
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (inside, after) = bracketed.split_once(']')?;
        options = inside.split_whitespace().filter_map(list_option).collect();
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        options,
    })
}

/// The two styles name their options differently; see sources.list(5).
fn list_option(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    let name = match name.to_ascii_lowercase().as_str() {
        "signed-by" => "Signed-By",
        "trusted" => "Trusted",
        "check-valid-until" => "Check-Valid-Until",
        "check-date" => "Check-Date",
        "allow-insecure" => "Allow-Insecure",
        // Other options narrow the download (arch, lang, pdiffs …) and do not matter here.
        _ => return None,
    };
    Some((name.to_owned(), value.to_owned()))
}

fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(source_of(std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    sources
}

fn source_of(fields: Vec<(String, String)>) -> Option<Source> {
    let mut source = Source {
        uris: Vec::new(),
        suites: Vec::new(),
        components: Vec::new(),
        options: Vec::new(),
    };
    let mut binary = false;
    for (name, value) in fields {
        let words = || value.split_whitespace().map(str::to_owned).collect();
        match name.to_ascii_lowercase().as_str() {
            "types" => binary = value.split_whitespace().any(|word| word == "deb"),
            "uris" => source.uris = words(),
            "suites" => source.suites = words(),
            "components" => source.components = words(),
            "architectures" | "languages" | "targets" | "pdiffs" => {}
            _ => source.options.push((name, value)),
        }
    }
    (binary && !source.uris.is_empty()).then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_style() {
        let text = "# deb http://old x main\ndeb-src http://m x main\n\
                    deb [arch=amd64 signed-by=/k/debian-archive-keyring.gpg] http://mirror/debian bookworm main contrib # hm\n";
        let sources = parse_list(text);
        assert_eq!(sources.len(), 1);
        assert!(sources[0].is_debian("bookworm"));
        assert!(!sources[0].is_debian("trixie"));
        assert_eq!(
            render(&sources[0], &["trixie", "trixie-backports"]),
            "Types: deb\nURIs: http://mirror/debian\nSuites: trixie trixie-backports\nComponents: main\n\
             Signed-By: /k/debian-archive-keyring.gpg\n"
        );
    }

    #[test]
    fn deb822_style_with_an_embedded_key_and_third_parties() {
        let text = "Types: deb\nURIs: http://third/party\nSuites: bookworm\nComponents: stable\n\n\
                    # comment\nTypes: deb deb-src\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main\nArchitectures: amd64\n\n\
                    Types: deb\nURIs: http://own/key\nSuites: bookworm\nComponents: main\nSigned-By:\n key\n .\n more\n";
        let sources = parse_deb822(text);
        assert_eq!(sources.len(), 3);
        assert_eq!(
            sources
                .iter()
                .map(|source| source.is_debian("bookworm"))
                .collect::<Vec<_>>(),
            [false, true, false]
        );
        assert!(render(&sources[2], &["x"]).ends_with("Signed-By: \n key\n .\n more\n"));
    }

    #[test]
    fn a_disabled_source_is_not_used() {
        let text =
            "Types: deb\nEnabled: no\nURIs: http://m/debian\nSuites: bookworm\nComponents: main\n";
        assert!(!parse_deb822(text)[0].is_debian("bookworm"));
    }
}
