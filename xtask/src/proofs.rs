//! Tests that every unsafe block has its proof and is where unsafe code may be, that every sentence of the security
//! model has its tests, that every test is run, and that every doc comment opens with a thing or an act.
//!
//! clippy's `undocumented_unsafe_blocks` sees only the code that the workspace compiles. This module looks at every
//! Rust file, so also at the kernel modules and at the arrival program, which a build script compiles.

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use kho_lab::workspace::root;

    /// Files and folders that may hold unsafe code, as ARCHITECTURE.md says.
    const ALLOWED: [&str; 11] = [
        // A tool of the test guests, which maps files and examines their pages.
        "xtask/guest/src/map.rs",
        // Their tests run the entry code.
        "crates/kexec/src/entry.rs",
        "crates/kexec/src/stand_in.rs",
        "crates/kexec/src/sys/syscalls",
        "crates/kexec/src/sys/landing/map.rs",
        "crates/kexec/arrival/",
        "module/boundary/",
        "module/src/boundary/",
        "module/khofs/src/boundary/",
        // The boundary to kho.ko for drivers in Rust, and a driver that uses it and has a boundary to its own C half.
        "module/driver/src/",
        "module/samples/note/src/",
    ];

    fn files(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && name != "build" && name != ".git" {
                    files(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// The code of a line, without a comment at its end and without the content of string literals.
    fn code(line: &str) -> String {
        let line = line.trim_start();
        let mut code = String::new();
        let mut quoted = false;
        let mut letters = line.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' if quoted => {
                    letters.next();
                }
                '"' => quoted = !quoted,
                '/' if !quoted && letters.peek() == Some(&'/') => break,
                _ if !quoted => code.push(letter),
                _ => {}
            }
        }
        code
    }

    /// Whether the lines before line `at` hold the proof: comments and attributes, or the beginning of the statement.
    fn proved(lines: &[&str], at: usize) -> bool {
        let proof = |line: &str| line.contains("SAFETY:") || line.contains("# Safety");
        let mut left = 4;
        for line in lines[..at].iter().rev() {
            let line = line.trim();
            if proof(line) {
                return true;
            }
            if !(line.starts_with("//") || line.starts_with('#')) {
                // A statement may begin some lines above its unsafe part; a blank line or the end of another statement
                // ends it.
                if line.is_empty() || line.ends_with(';') || line.ends_with('}') || left == 0 {
                    return false;
                }
                left -= 1;
            }
        }
        false
    }

    #[test]
    fn every_unsafe_block_has_a_proof_and_its_place() {
        let mut all = Vec::new();
        files(root(), &mut all);
        let (mut seen, mut wrong) = (0, Vec::new());
        for path in all {
            let text = std::fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().display().to_string();
            let lines: Vec<&str> = text.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                let code = code(line);
                let begins = ["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern"];
                if !begins.iter().any(|begin| code.contains(begin)) {
                    continue;
                }
                // A type, or a declaration that does not say who calls it.
                if code.contains(": unsafe")
                    || code.contains("= unsafe extern")
                    || code.contains("(unsafe")
                {
                    continue;
                }
                seen += 1;
                if !ALLOWED.iter().any(|place| path.starts_with(place)) {
                    wrong.push(format!("{path}:{}: unsafe code has no place here", at + 1));
                } else if (code.contains("unsafe {") || code.contains("unsafe impl"))
                    && !proved(&lines, at)
                {
                    wrong.push(format!("{path}:{}: no proof: {}", at + 1, line.trim()));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(
            seen > 50,
            "only {seen} were found: this test looks at the wrong files"
        );
    }

    /// Sentences of the security model, each with the names in the parentheses at its end.
    fn sentences(text: &str) -> Vec<(String, Vec<String>)> {
        let mut items: Vec<String> = Vec::new();
        let mut inside = false;
        for line in text.lines() {
            if let Some(item) = line.strip_prefix("- ") {
                items.push(item.to_owned());
                inside = true;
            } else if inside && line.starts_with("  ") {
                let last = items.last_mut().unwrap();
                last.push(' ');
                last.push_str(line.trim());
            } else {
                inside = false;
            }
        }
        let names = |item: &str| {
            let last = item
                .strip_suffix(')')
                .and_then(|item| item.rsplit_once('('));
            let names = last.map_or("", |(_, names)| names).split(", ");
            names
                .filter_map(|name| Some(name.strip_prefix('`')?.strip_suffix('`')?.to_owned()))
                .collect()
        };
        items
            .into_iter()
            .map(|item| (item.clone(), names(&item)))
            .collect()
    }

    /// Rows of tables, each with the names in its last column.
    fn rows(text: &str) -> Vec<(String, Vec<String>)> {
        let row = |line: &str| {
            let shown = line.strip_suffix(" |")?.rsplit_once(" | ")?.1;
            let names = shown
                .split(", ")
                .filter_map(|name| Some(name.strip_prefix('`')?.strip_suffix('`')?.to_owned()));
            Some((line.to_owned(), names.collect()))
        };
        // A line of dashes follows the head of each table.
        let lines: Vec<&str> = text.lines().collect();
        let is_head = |at: usize| lines.get(at + 1).is_some_and(|next| next.starts_with("|-"));
        let rows = (0..lines.len()).filter(|at| lines[*at].starts_with("| ") && !is_head(*at));
        rows.filter_map(|at| row(lines[at])).collect()
    }

    #[test]
    fn what_is_promised_of_security_failures_and_findings_names_tests_that_exist() {
        let text = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
        let mut sentences = sentences(&text("docs/src/security.md"));
        assert!(sentences.len() >= 15, "{} sentences", sentences.len());
        let failures = rows(&text("docs/src/abi/failures.md"));
        assert!(failures.len() >= 20, "{} rows", failures.len());
        sentences.extend(failures);
        let findings = rows(&text("docs/src/findings.md"));
        assert!(findings.len() >= 40, "{} findings", findings.len());
        sentences.extend(findings);
        let guests: Vec<String> = kho_cases::scenarios::all()
            .into_iter()
            .map(|s| s.name)
            .collect();
        let mut all = Vec::new();
        files(root(), &mut all);
        let sources: Vec<String> = all
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        let is_test = |name: &str| {
            let head = format!("fn {name}(");
            // The attribute is in one of the few lines above.
            sources.iter().any(|source| {
                source.match_indices(&head).any(|(at, _)| {
                    let above: Vec<&str> = source[..at].lines().rev().take(6).collect();
                    above.iter().any(|line| line.trim() == "#[test]")
                })
            })
        };
        let mut wrong = Vec::new();
        for (sentence, names) in &sentences {
            if names.is_empty() {
                wrong.push(format!("no test is named: {sentence}"));
            }
            for name in names {
                if !guests.contains(name) && !is_test(name) {
                    wrong.push(format!("there is no test {name}: {sentence}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// `cargo xtask test` counts ignored tests as halves of other tests, not as skipped.
    #[test]
    fn a_test_that_is_ignored_is_run_by_another_one() {
        let mut all = Vec::new();
        files(root(), &mut all);
        let (mut seen, mut wrong) = (0, Vec::new());
        for path in all {
            let text = std::fs::read_to_string(&path).unwrap();
            for (at, line) in text.lines().enumerate() {
                let line = line.trim();
                // Examples in documentation that are not run count as ignored too.
                let example =
                    line.starts_with("//") && line.contains("```") && line.contains("ignore");
                let ignored = line.starts_with("#[ignore");
                if !example && !ignored {
                    continue;
                }
                seen += 1;
                let by = line.strip_prefix("#[ignore = \"run by ");
                let by = by.and_then(|rest| rest.strip_suffix("\"]"));
                if !by.is_some_and(|name| text.contains(&format!("fn {name}("))) {
                    wrong.push(format!("{}:{}: {line}", path.display(), at + 1));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(seen > 0, "this test looks at the wrong files");
    }

    /// Words that open a doc comment which a reader has to read twice, unless it asks a question.
    const OPENINGS: [&str; 6] = ["What", "Whatever", "Whoever", "Where", "Who", "How"];

    /// First sentences of the paragraphs of all doc comments, with the number of their first line.
    fn openings(text: &str) -> Vec<(usize, String)> {
        let mut found: Vec<(usize, String)> = Vec::new();
        let mut open = false;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            let body = ["///", "//!"]
                .iter()
                .find_map(|mark| line.strip_prefix(mark));
            let body = body.map_or("", str::trim);
            match found.last_mut().filter(|_| open) {
                Some((_, paragraph)) if !body.is_empty() => *paragraph += &format!(" {body}"),
                _ if !body.is_empty() => found.push((at + 1, body.to_owned())),
                _ => {}
            }
            open = !body.is_empty();
        }
        for (_, paragraph) in &mut found {
            let end = [". ", "? ", ": "]
                .iter()
                .filter_map(|end| paragraph.find(end));
            if let Some(end) = end.min() {
                paragraph.truncate(end + 1);
            }
        }
        found
    }

    #[test]
    fn doc_comments_open_with_a_thing_or_an_act() {
        let mut all = Vec::new();
        files(root(), &mut all);
        let (mut seen, mut wrong) = (0, Vec::new());
        for path in all {
            let text = std::fs::read_to_string(&path).unwrap();
            for (line, sentence) in openings(&text) {
                seen += 1;
                let first = sentence.split(|c: char| !c.is_alphanumeric()).next();
                if first.is_some_and(|first| OPENINGS.contains(&first)) && !sentence.ends_with('?')
                {
                    wrong.push(format!("{}:{line}: {sentence}", path.display()));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(seen > 5000, "{seen} doc comments");
    }

    #[test]
    fn a_comment_is_read_by_paragraphs() {
        let text = "/// What is it? A page.\n///\n/// Where it is\n/// now: here.\nfn a() {}\n//! Length. What else.";
        let found = openings(text);
        let sentences: Vec<&str> = found.iter().map(|(_, text)| &**text).collect();
        assert_eq!(sentences, ["What is it?", "Where it is now:", "Length."]);
        assert_eq!(
            found.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [1, 3, 6]
        );
    }

    #[test]
    fn what_it_looks_at() {
        assert_eq!(code("let a = \"unsafe {\"; // unsafe {"), "let a = ; ");
        let lines = [
            "// SAFETY: x",
            "let a =",
            "    unsafe { b };",
            "unsafe { c }",
        ];
        assert!(proved(&lines, 2));
        assert!(!proved(&lines, 3));
    }
}
