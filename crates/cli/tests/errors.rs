//! Tests of the command's messages for bad input, as far as the command finds it without a kernel.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// State of a machine, in a directory of its own.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kho"));
        command
            .env_remove("KHO_STATE_DIR")
            .arg("--state-dir")
            .arg(self.path().join("state"))
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that fails early does not read its input.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Checks that the command fails with this status and with all of these words, as text and as JSON, and that the
    /// directory stays unchanged.
    fn refuses(&self, status: i32, name: &str, words: &[&str], arguments: &[&str]) {
        let before = listing(self.path());
        let text = self.run(arguments, b"input");
        let json = self.run(&[&["--json"], arguments].concat(), b"input");
        for (output, json) in [(&text, false), (&json, true)] {
            let said = String::from_utf8(output.stderr.clone()).unwrap();
            assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
            assert!(output.stdout.is_empty(), "{arguments:?} prints a result");
            for word in words {
                assert!(
                    said.contains(word),
                    "{arguments:?} does not say {word}: {said}"
                );
            }
            if json {
                let document: Value = serde_json::from_str(&said).unwrap();
                assert_eq!(document["error"], name, "{said}");
                assert_eq!(document["status"], status, "{said}");
                assert!(
                    document["what"].is_string() && document["fix"].is_string(),
                    "{said}"
                );
                assert_eq!(document.as_object().unwrap().len(), 4, "{said}");
            } else {
                assert!(said.starts_with("kho: ") || status == 2, "{said}");
            }
        }
        assert_eq!(
            before,
            listing(self.path()),
            "{arguments:?} changed something"
        );
    }
}

/// Returns names and contents of all files except the lock file, which every command may create.
fn listing(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(listing(&path));
        } else if path.is_file() && path.file_name().is_some_and(|name| name != "lock") {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn kho(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kho"))
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_verb_has_help_with_examples() {
    let overview = stdout(&kho(&["--help"]));
    assert!(overview.contains("Examples:"), "{overview}");
    let commands = overview
        .split("Commands:")
        .nth(1)
        .unwrap()
        .split("Options:")
        .next()
        .unwrap();
    // A verb is indented by two columns; a continued line is indented further.
    let verbs: Vec<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for verb in [
        "doctor", "keep", "plan", "load", "exec", "reboot", "unload", "status", "restore", "get",
        "dump",
    ] {
        assert!(verbs.contains(&verb), "{verb} is not in the overview");
    }
    for verb in verbs {
        let output = kho(&[verb, "--help"]);
        let help = stdout(&output);
        assert!(output.status.success(), "{verb}");
        assert!(
            help.contains("Example"),
            "kho {verb} --help has no example: {help}"
        );
        assert!(
            help.contains(&format!("  kho {verb}")),
            "kho {verb} --help shows no use of itself: {help}"
        );
        // kexec(8) has no option --json.
        assert!(verb == "kexec" || help.contains("--json"), "{verb}");
    }
}

#[test]
fn wrong_command_lines_are_usage_errors() {
    let place = Place::new();
    for (arguments, words) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["load", "a", "--entry", "b"], "--entry"),
        (&["load", "a", "--profile", "first"], "first"),
        (&["load", "a", "b"], "'b'"),
        (
            &["load", "a", "--command-line", "x", "--reuse-cmdline"],
            "--reuse-cmdline",
        ),
        (&["load", "a", "--max-ranges", "many"], "many"),
        (&["keep"], "<PATH"),
        (&["keep", "--list", "/srv"], "--list"),
        (
            &["keep", "--name", "x", "/etc/hostname", "/etc/passwd"],
            "--name",
        ),
        (&["keep", "-"], "--name"),
        (&["keep", "-", "/etc"], "standard input"),
        (&["get"], "<NAME>"),
        (&["dump", "--raw", "--file", "x"], "--raw"),
        (&["status", "--forever"], "--forever"),
    ] {
        place.refuses(2, "usage", &[words], arguments);
    }
}

#[test]
fn names_that_are_none() {
    let place = Place::new();
    let long = "n".repeat(300);
    for (name, words) in [
        ("", "empty"),
        (".", "`.`"),
        ("..", "`..`"),
        ("/", "`/`"),
        ("../../etc/passwd", "`/`"),
        ("a/b", "`/`"),
        (long.as_str(), "300 bytes"),
        ("two\nlines", "0x0a"),
        ("\u{1b}[31m", "0x1b"),
    ] {
        place.refuses(
            30,
            "bad-name",
            &[words, "a name has 1 to 255 bytes"],
            &["keep", "--name", name, "-"],
        );
    }
    // A keep.d sync removes every entry whose name begins with this prefix and has no rule.
    for arguments in [
        &["keep", "--name", "keep.d:x", "-"][..],
        &["keep", "--name", "keep.d:x", "/etc/hostname"],
    ] {
        place.refuses(30, "bad-name", &["keep.d:x", "another --name"], arguments);
    }
    assert!(
        place
            .run(&["keep", "--name", "token", "-"], b"sesame")
            .status
            .success()
    );
    place.refuses(
        30,
        "bad-name",
        &["token is on the list already"],
        &["keep", "--name", "token", "-"],
    );
    place.refuses(
        34,
        "no-such-entry",
        &["nosuch"],
        &["keep", "--remove", "token", "nosuch"],
    );
}

#[test]
fn a_warning_of_loss_is_said_whatever_the_form() {
    let place = Place::new();
    assert!(
        place
            .run(&["keep", "--name", "x", "-"], b"x")
            .status
            .success()
    );
    let rules = place.path().join("state/keep.d");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(
        rules.join("gone.conf"),
        "f /nonexistent/place best-effort\n",
    )
    .unwrap();
    let words = "is not handed over (best-effort)";
    for quiet in [&[][..], &["--quiet"]] {
        let text = place.run(&[quiet, &["keep", "--from-config"]].concat(), b"");
        let said = String::from_utf8(text.stderr).unwrap();
        assert_eq!(said.matches("kho: warning: ").count(), 1, "{said}");
        assert!(said.contains(words), "{said}");
        let json = place.run(&[quiet, &["--json", "keep", "--from-config"]].concat(), b"");
        assert!(json.stderr.is_empty(), "{json:?}");
        let document: Value = serde_json::from_slice(&json.stdout).unwrap();
        let warnings = document["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1, "{document}");
        assert!(warnings[0].as_str().unwrap().contains(words), "{document}");
    }
    // Without warnings there is no such member.
    let json = stdout(&place.run(&["--json", "keep", "--list"], b""));
    assert!(!json.contains("warnings"), "{json}");
}

#[test]
fn sources_that_cannot_be_kept() {
    let place = Place::new();
    let socket = place.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let missing = place.path().join("missing");
    let state = place.path().join("state");
    for (path, words) in [
        (socket.to_str().unwrap(), "a socket"),
        (missing.to_str().unwrap(), "No such file"),
        ("/dev/null", "a character device"),
        ("/proc", "proc"),
        ("/proc/version", "proc"),
        ("/", "cannot keep /"),
        (place.path().to_str().unwrap(), "kho's own state"),
        (state.to_str().unwrap(), "kho's own state"),
    ] {
        // The state directory must exist before `kho` can refuse it.
        assert!(place.run(&["keep", "--list"], b"").status.success());
        std::fs::create_dir_all(&state).unwrap();
        std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        place.refuses(31, "bad-source", &[path, words], &["keep", path]);
    }
}

#[test]
fn paths_that_overlap_are_kept_once() {
    let place = Place::new();
    let outer = place.path().join("outer");
    let inner = outer.join("inner");
    std::fs::create_dir_all(&inner).unwrap();
    let (outer, inner) = (outer.to_str().unwrap(), inner.to_str().unwrap());
    for (first, second) in [(outer, inner), (inner, outer)] {
        let kept = place.run(&["keep", "--name", "first", first], b"");
        assert!(kept.status.success(), "{kept:?}");
        let words = [first, second, "overlap", "kho keep --remove first"];
        place.refuses(31, "bad-source", &words, &["keep", second]);
        let removed = place.run(&["keep", "--remove", "first"], b"");
        assert!(removed.status.success(), "{removed:?}");
    }
    place.refuses(31, "bad-source", &["overlap"], &["keep", inner, outer]);
}

#[test]
fn a_path_is_bytes() {
    let place = Place::new();
    let raw = OsStr::from_bytes(b"caf\xe9 \x1b[2J\\");
    let dir = place.path().join(raw);
    std::fs::create_dir(&dir).unwrap();
    let base = place.path().canonicalize().unwrap();
    let shown = format!("{}/caf\\xe9 \\x1b[2J\\\\", base.display());
    let keep = |arguments: &[&OsStr]| {
        let output = place.command(&["keep"]).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{:?}: {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    };
    let text = keep(&[dir.as_os_str()]);
    assert!(text.contains(&shown) && !text.contains('\x1b'), "{text}");
    let list = || -> Value {
        serde_json::from_str(&keep(&["--list".as_ref(), "--json".as_ref()])).unwrap()
    };
    let document = list();
    let entry = &document["keep"][0];
    assert_eq!(
        (&entry["path"], &entry["from"]),
        (&shown.clone().into(), &shown.clone().into())
    );
    // The entry is removed by its path in bytes.
    let document: Value = serde_json::from_str(&keep(&[
        "--json".as_ref(),
        "--remove".as_ref(),
        dir.as_os_str(),
    ]))
    .unwrap();
    assert_eq!(document["keep"].as_array().unwrap().len(), 0);
    // The message about a missing path has the same form.
    let output = place
        .command(&["keep"])
        .arg(dir.join(raw))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(31), "{said}");
    assert!(said.contains(&shown) && !said.contains('\x1b'), "{said}");
}

#[test]
fn images_and_initrds_that_are_none() {
    let place = Place::new();
    let mut arm64 = vec![0; 4096];
    arm64[..2].copy_from_slice(b"MZ");
    arm64[56..60].copy_from_slice(b"ARM\x64");
    let cases = [
        ("empty", Vec::new(), "empty"),
        ("text", b"#!/bin/sh\n".to_vec(), "needed is a bzImage"),
        ("arm64", arm64, "arm64"),
        ("elf", std::fs::read("/proc/self/exe").unwrap(), "ELF"),
        (
            "gzip",
            [&[0x1f, 0x8b, 8, 0][..], &[0; 600]].concat(),
            "gzip",
        ),
        (
            "initrd",
            [b"070701".as_slice(), &[b'0'; 1024]].concat(),
            "cpio",
        ),
    ];
    for (name, bytes, words) in cases {
        let path = place.file(name, &bytes);
        for verb in ["plan", "load", "reboot"] {
            place.refuses(20, "bad-image", &[&path, words], &[verb, &path]);
        }
    }
    let kernel = place.file("kernel", b"not looked at before the initrd");
    let missing = place.path().join("missing");
    let elf = place.path().join("elf");
    let empty = place.path().join("empty");
    for (path, words) in [(&missing, "No such file"), (&elf, "ELF"), (&empty, "empty")] {
        let path = path.to_str().unwrap();
        place.refuses(
            21,
            "bad-initrd",
            &[path, words],
            &["load", &kernel, "--initrd", path],
        );
    }
    let missing = missing.to_str().unwrap();
    place.refuses(
        20,
        "bad-image",
        &[missing, "No such file"],
        &["load", missing],
    );
    let entry = "an-entry-that-nobody-has";
    place.refuses(20, "bad-image", &[entry], &["plan", "--entry", entry]);
    place.refuses(
        2,
        "usage",
        &["--profile", &kernel],
        &["load", &kernel, "--profile", "1"],
    );
}

#[test]
fn trees_that_are_none() {
    let place = Place::new();
    let garbage = place.file("garbage", &[0x5a; 4096]);
    place.refuses(
        61,
        "tree-corrupt",
        &["first word is 0x5a5a5a5a"],
        &["dump", "--file", &garbage],
    );
    let short = place.file("short", &[0xd0, 0x0d]);
    place.refuses(61, "tree-corrupt", &[], &["dump", "--file", &short]);
    place.refuses(
        1,
        "failed",
        &["/nosuch/file"],
        &["dump", "--file", "/nosuch/file"],
    );
}

#[test]
fn the_exit_statuses_are_listed_as_they_are() {
    let listed: Value =
        serde_json::from_str(&stdout(&kho(&["status", "--exit-statuses", "--json"]))).unwrap();
    let text = stdout(&kho(&["status", "--exit-statuses"]));
    let listed = listed.as_array().unwrap();
    for entry in listed {
        for field in ["status", "name", "meaning"] {
            let value = entry[field]
                .as_str()
                .map_or_else(|| entry[field].to_string(), str::to_owned);
            assert!(
                !value.is_empty() && text.contains(&value),
                "{field} of {entry}: {text}"
            );
        }
    }
    for (status, name) in [
        (2, "usage"),
        (20, "bad-image"),
        (30, "bad-name"),
        (51, "stale"),
        (61, "tree-corrupt"),
    ] {
        let found = listed.iter().find(|entry| entry["status"] == status);
        assert_eq!(found.unwrap()["name"], name);
    }
}

#[test]
fn somebody_without_rights_is_told_so() {
    let place = Place::new();
    // The directory of the build may be closed to others. Another process copies the program: a child that another test
    // starts meanwhile would inherit a file that is open for writing, and such a file cannot be executed.
    let program = place.path().join("kho");
    let mut copy = Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_kho")).arg(&program);
    assert!(copy.status().unwrap().success());
    let kernel = place.file("kernel", b"x");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.path(), open).unwrap();
    let root = std::fs::metadata("/proc/self")
        .is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    for arguments in [
        &["load", kernel.as_str()][..],
        &["reboot", kernel.as_str()],
        &["keep", "/etc/hostname"],
        &["exec"],
        &["unload"],
        &["restore"],
    ] {
        let mut command = Command::new(&program);
        // A directory that only root can create.
        command
            .env_remove("KHO_STATE_DIR")
            .args(["--state-dir", "/kho-state-of-root"])
            .args(arguments);
        if root {
            command.uid(65534).gid(65534);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(10), "{arguments:?}: {said}");
        assert!(said.contains("run as root"), "{arguments:?}: {said}");
    }
}
