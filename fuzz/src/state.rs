//! Files that a `kho` of the same boot wrote, or that another program wrote in their place.

use std::os::unix::ffi::OsStringExt;

use kho_cli::state::records::{ArmedFile, KeepFile, LoadedFile, ReservedFile, parse};
use kho_kexec::cmdline;
use serde::{Serialize, de::DeserializeOwned};

/// Id of the boot to which the files belong.
const BOOT: &str = "3f1c";

/// A byte that chooses the file, and its text.
pub fn records(data: &[u8]) {
    let (Some((which, text)), true) = (data.split_first(), data.len() < 1 << 20) else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    match which % 3 {
        0 => drop(again::<KeepFile>(text)),
        1 => drop(again::<LoadedFile>(text)),
        _ => {
            if let Some(file) = again::<ReservedFile>(text)
                && let Ok(ranges) = ReservedFile::ranges(&file.ranges)
            {
                assert_eq!(ranges.len(), file.ranges.len());
            }
        }
    }
}

/// Checks that an accepted text can be written again and then reads the same.
fn again<T: DeserializeOwned + Serialize>(text: &str) -> Option<T> {
    let content = parse::<T>(text, BOOT).ok()??;
    let once = serde_json::to_value(&content).expect("what was read can be written");
    let back: T = serde_json::from_value(once.clone()).expect("and read again");
    let twice = serde_json::to_value(&back).expect("and written again");
    assert_eq!(once, twice);
    Some(content)
}

/// Longest command line of any kernel that this target arms.
const LINE_MAX: u64 = 2047;

/// The running kernel's command line.
const RUNNING: &[u8] = b"root=/dev/vda1 rdinit=/kho-arrive quiet -- single";

/// The text of `armed.json`, and the steps of a capture before it opens a file.
pub fn armed(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some(armed) = again::<ArmedFile>(text) else {
        return;
    };
    if let Some(size) = &armed.scratch {
        let _ = kho::scratch::parse_size(size);
    }
    let base = match (&armed.command_line, armed.reuse_cmdline) {
        (Some(line), _) => line.clone().into_vec(),
        (None, true) => cmdline::reuse(RUNNING),
        (None, false) => Vec::new(),
    };
    let append = armed.append.unwrap_or_default().into_vec();
    if let Ok(built) = cmdline::build(&base, &append, true, LINE_MAX) {
        assert!(
            built.line.len() as u64 <= LINE_MAX,
            "as long as the kernel takes"
        );
        assert!(!built.line.contains(&0), "one line");
        assert!(cmdline::starts_arrival(&built.line), "it arrives");
    }
}

pub fn armed_files() -> Vec<Vec<u8>> {
    let armed = |text: &str| {
        format!(
            r#"{{"version":1,"boot_id":"{BOOT}","kernel":"/boot/vmlinuz","release":"6.12","initrd":true,{text},"time":5}}"#
        )
        .into_bytes()
    };
    vec![
        armed(
            r#""reuse_cmdline":true,"command_line":null,"append":"quiet -- 3","scratch":"64M","max_ranges":20,"enter":"kernel","no_activate":false,"no_module_check":true,"forget_arrived":false,"plain_line":[114,111],"on_failure":"stop""#,
        ),
        // The file as an older version writes it.
        armed(
            r#""reuse_cmdline":false,"command_line":"root=/dev/sda rdinit=/bin/sh \"a=b c\"","append":null,"scratch":null,"max_ranges":null,"forget_arrived":true,"plain_line":[],"on_failure":null"#,
        ),
    ]
}

pub fn files() -> Vec<Vec<u8>> {
    let bound = |which: u8, text: &str| {
        let mut out = vec![which];
        out.extend(format!("{{\"version\":1,\"boot_id\":\"{BOOT}\",{text}}}").as_bytes());
        out
    };
    vec![
        bound(
            0,
            r#""entries":[{"label":"a","content":{"files":{"path":{"Unix":[47,97]},"skip_special":true,"one_file_system":false}}},{"label":"b","content":{"raw":{"file":1,"size":3,"taken":5}}}],"removed":["x"],"restored":[],"released":["y"],"next_file":2,"trace":{"keep":{"limit":16777216,"hops":2,"configured":true}}"#,
        ),
        bound(
            1,
            r#""generation":7,"kernel_generation":9,"entered":true,"again":false,"kernel":"/boot/vmlinuz","release":"6.12","hop":2,"identity":{"start":1048576,"segments":[{"mem":1048576,"memsz":4096,"bufsz":100}]},"content_digest":"00ff","sources":[[{"Unix":[47,97]},"aa"]],"bytes":10,"time":5,"scratch":[16777216,33554432],"forget_arrived":false"#,
        ),
        bound(2, r#""ranges":[[4096,8192],[1048576,4096]]"#),
    ]
}
