use super::*;
use crate::arrived::Blob;
use crate::state::Content;
use kho::abi::LeaveOut;
use kho::{PhysAddr, PhysRange};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

fn three(root: &Path) -> Vec<PathBuf> {
    ["etc", "run", "usr"].map(|name| root.join(name)).to_vec()
}

#[test]
fn earlier_folders_win_and_null_masks() {
    let root = tempfile::tempdir().unwrap();
    let dirs = three(root.path());
    write(&dirs[2].join("a.conf"), "d /usr-a\n");
    write(&dirs[2].join("b.conf"), "d /usr-b\n");
    write(&dirs[2].join("c.conf"), "d /usr-c\n");
    write(&dirs[2].join("ignored"), "nonsense\n");
    write(&dirs[2].join(".hidden.conf"), "nonsense\n");
    write(&dirs[1].join("a.conf"), "d /run-a\n");
    write(&dirs[0].join("a.conf"), "d /etc-a\n");
    symlink("/dev/null", dirs[0].join("b.conf")).unwrap();
    let paths: Vec<_> = read(&dirs)
        .unwrap()
        .into_iter()
        .map(|rule| rule.path)
        .collect();
    assert_eq!(paths, [Path::new("/etc-a"), Path::new("/usr-c")]);
}

#[test]
fn files_that_others_may_write_and_things_that_are_no_files_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let dirs = three(root.path());
    let open = dirs[0].join("open.conf");
    write(&open, "d /a\n");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o666)).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        dirs[0].join("pipe.conf"),
        rustix::fs::Mode::RUSR,
    )
    .unwrap();
    std::fs::create_dir(dirs[0].join("dir.conf")).unwrap();
    symlink("nowhere", dirs[0].join("dangling.conf")).unwrap();
    let long = "#".repeat(usize::try_from(parse::MAX_FILE).unwrap() + 1);
    write(&dirs[0].join("long.conf"), &long);
    let fail = read(&dirs).unwrap_err();
    assert_eq!(fail.status, Status::BadConfig);
    for name in [
        "open.conf: others",
        "pipe.conf: it is not a regular",
        "dir.conf: ",
        "dangling.conf: ",
        "long.conf: it is longer",
    ] {
        assert!(fail.what.contains(name), "{name} in {}", fail.what);
    }
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("keep.d");
    std::fs::create_dir(&folder).unwrap();
    write(&folder.join("a.conf"), "d /srv\n");
    let set = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&folder, mode).unwrap();
    };
    set(0o755);
    assert_eq!(read(std::slice::from_ref(&folder)).unwrap().len(), 1);
    for mode in [0o775, 0o1777] {
        set(mode);
        let fail = read(std::slice::from_ref(&folder)).unwrap_err();
        assert_eq!(fail.status, Status::BadConfig);
        assert!(
            fail.what.contains("keep.d: others than root"),
            "{}",
            fail.what
        );
    }
    let session = Session::new("/run/kho".into());
    assert!(dirs(&session).contains(&PathBuf::from("/usr/local/lib/kho/keep.d")));
}

#[test]
fn two_rules_for_one_thing_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let dirs = three(root.path());
    write(
        &dirs[0].join("a.conf"),
        "d /a name=x\nd /b name=x\nd /c\nf /c/d\n",
    );
    let what = read(&dirs).unwrap_err().what;
    assert!(
        what.contains("a.conf:2: same name as at") && what.contains("a.conf:4: /c/d is kept by"),
        "{what}"
    );
}

fn rules(text: &str) -> Vec<Rule> {
    parse::file(Path::new("x"), text.as_bytes()).unwrap()
}

fn arrived(labels: &[(&str, &Path)]) -> Arrived {
    let range = PhysRange::new(PhysAddr::new(0x10_0000), 0x1000).unwrap();
    let blob = |(label, path): &(&str, &Path)| Blob {
        label: (*label).to_owned(),
        path: Some(path.to_path_buf()),
        leave_out: LeaveOut::default(),
        size: 1,
        mem: vec![range],
        blake3: [0; 32],
        taken: 0,
        arrived_hop: 1,
    };
    Arrived {
        generation: 1,
        hop: 1,
        previous_release: "6.1".to_owned(),
        time: 0,
        carrier: kho::abi::Carrier::Memory,
        scratch: Some(range),
        mem_cache: vec![range],
        blobs: labels.iter().map(blob).collect(),
        kernel: None,
        no_kernel: None,
        late: Vec::new(),
        traces: None,
        unknown: Vec::new(),
    }
}

fn labels(arrived: Option<&Arrived>, keep: &KeepFile) -> Vec<String> {
    list::effective(arrived, keep)
        .into_iter()
        .map(|entry| entry.label)
        .collect()
}

#[test]
fn the_list_follows_the_files_and_leaves_the_rest_alone() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("a")).unwrap();
    std::fs::write(root.join("f"), "").unwrap();
    let mut keep = KeepFile::default();
    let by_hand = Local {
        label: "hand".into(),
        content: Content::Files {
            path: "/srv".into(),
            skip_special: false,
            one_file_system: false,
        },
    };
    keep.entries.push(by_hand);
    let text = format!(
        "d {0}/a name=a\nf {0}/f name=f\nd- {0}/absent name=no\n",
        root.display()
    );
    let changes = sync(&rules(&text), None, When::Handover, &mut keep).unwrap();
    assert_eq!(changes.added, ["keep.d:a", "keep.d:f"]);
    assert_eq!(labels(None, &keep), ["hand", "keep.d:a", "keep.d:f"]);
    // The second sync only changes the option.
    let text = format!("d {0}/a name=a skip-special\n", root.display());
    let changes = sync(&rules(&text), None, When::Handover, &mut keep).unwrap();
    assert_eq!(
        (changes.added.len(), changes.removed),
        (0, vec!["keep.d:f".to_owned()])
    );
    assert!(matches!(
        keep.entries[1].content,
        Content::Files {
            skip_special: true,
            ..
        }
    ));
    sync(&[], None, When::Handover, &mut keep).unwrap();
    assert_eq!(labels(None, &keep), ["hand"]);
}

#[test]
fn wrong_kinds_absent_paths_and_links_on_the_way_are_refused_before_anything_changes() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("a")).unwrap();
    symlink("a", root.join("l")).unwrap();
    for (text, what) in [
        (format!("f {}/a", root.display()), "is not a regular file"),
        (format!("d {}/b", root.display()), "does not exist"),
        (format!("d {}/l", root.display()), "is not a directory"),
        (format!("L {}/a", root.display()), "is not a symbolic link"),
    ] {
        let fail = sync(
            &rules(&text),
            None,
            When::Handover,
            &mut KeepFile::default(),
        )
        .unwrap_err();
        assert!(
            fail.what.starts_with("x:1: ") && fail.what.contains(what),
            "{}",
            fail.what
        );
    }
    std::fs::create_dir(root.join("a/in")).unwrap();
    let fail = sync(
        &rules(&format!("d {}/l/in", root.display())),
        None,
        When::Handover,
        &mut KeepFile::default(),
    )
    .unwrap_err();
    assert!(fail.what.contains("by a symbolic link"), "{}", fail.what);
}

#[test]
fn what_arrived_is_carried_on_until_it_is_restored() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let a = root.join("a");
    std::fs::create_dir(&a).unwrap();
    let arrived = arrived(&[
        ("keep.d:a", &a),
        ("keep.d:gone", &root.join("gone")),
        ("hand", Path::new("/srv")),
    ]);
    let text = format!("d {} name=a skip-special", a.display());
    let mut keep = KeepFile::default();
    let changes = sync(&rules(&text), Some(&arrived), When::Handover, &mut keep).unwrap();
    assert!(changes.added.is_empty() && changes.removed.is_empty());
    assert_eq!(changes.remarks.len(), 2, "{:?}", changes.remarks);
    assert_eq!(
        labels(Some(&arrived), &keep),
        ["keep.d:a", "keep.d:gone", "hand"]
    );

    keep.restored = vec!["keep.d:a".into(), "keep.d:gone".into(), "hand".into()];
    let changes = sync(&rules(&text), Some(&arrived), When::Handover, &mut keep).unwrap();
    assert_eq!(changes.removed, ["keep.d:gone"]);
    let list = list::effective(Some(&arrived), &keep);
    assert_eq!(labels(Some(&arrived), &keep), ["hand", "keep.d:a"]);
    assert!(
        matches!(list[1].source, list::Source::Path) && list[1].leave_out.special,
        "the rule's options hold"
    );
    // A second sync changes nothing.
    let before = format!("{keep:?}");
    sync(&rules(&text), Some(&arrived), When::Handover, &mut keep).unwrap();
    assert_eq!(format!("{keep:?}"), before);
}

#[test]
fn no_file_is_kept_twice() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let (a, inner) = (root.join("a"), root.join("a/inner"));
    std::fs::create_dir_all(&inner).unwrap();
    let by_hand = |label: &str, path: &Path| Local {
        label: label.to_owned(),
        content: Content::Files {
            path: path.as_os_str().to_owned(),
            skip_special: false,
            one_file_system: false,
        },
    };
    let rule =
        |path: &Path, options: &str| rules(&format!("d {} name=a {options}", path.display()));
    let after =
        |entries: &[Local], restored: &[&str], arrived: Option<&Arrived>, rules: &[Rule]| {
            let mut keep = KeepFile {
                entries: entries.to_vec(),
                restored: restored.iter().map(|label| (*label).to_owned()).collect(),
                ..KeepFile::default()
            };
            let changes = sync(rules, arrived, When::Handover, &mut keep).unwrap();
            assert_eq!(changes.remarks.len(), 1, "{changes:?}");
            let mut labels = labels(arrived, &keep);
            labels.sort();
            labels
        };
    // An entry inside of another one is not kept a second time, whether the user or a rule keeps the outer one.
    assert_eq!(
        after(&[by_hand("x", &inner)], &[], None, &rule(&a, "")),
        ["keep.d:a"]
    );
    assert_eq!(
        after(&[by_hand("x", &a)], &[], None, &rule(&a, "")),
        ["keep.d:a"]
    );
    assert_eq!(
        after(&[by_hand("x", &a)], &[], None, &rule(&inner, "")),
        ["x"]
    );
    // With this option the entry may lack the part on another file system.
    let one = rule(&a, "one-file-system");
    assert_eq!(
        after(&[by_hand("x", &inner)], &[], None, &one),
        ["keep.d:a", "x"]
    );
    // Until it is restored, content that arrived exists nowhere else.
    let arrived = arrived(&[("x", &inner)]);
    assert_eq!(
        after(&[], &[], Some(&arrived), &rule(&a, "")),
        ["keep.d:a", "x"]
    );
    assert_eq!(
        after(&[], &["x"], Some(&arrived), &rule(&a, "")),
        ["keep.d:a"]
    );
}

#[test]
fn an_entry_that_may_be_absent_leaves_the_list_and_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let a = root.join("a");
    let arrived = arrived(&[("keep.d:a", &a)]);
    let text = format!("d- {} name=a", a.display());
    let mut keep = KeepFile {
        restored: vec!["keep.d:a".into()],
        ..KeepFile::default()
    };
    let changes = sync(&rules(&text), Some(&arrived), When::Handover, &mut keep).unwrap();
    assert_eq!(changes.removed, ["keep.d:a"]);
    assert!(labels(Some(&arrived), &keep).is_empty());
    std::fs::create_dir(&a).unwrap();
    let changes = sync(&rules(&text), Some(&arrived), When::Handover, &mut keep).unwrap();
    assert_eq!(changes.added, ["keep.d:a"]);
    assert_eq!(labels(Some(&arrived), &keep), ["keep.d:a"]);
}

#[test]
fn a_best_effort_entry_that_is_not_there_costs_nobody_else() {
    let root = tempfile::tempdir().unwrap();
    let real = root.path().canonicalize().unwrap();
    std::fs::create_dir(real.join("good")).unwrap();
    write(&real.join("file"), "x");
    let text = format!(
        "d {0}/good\nd {0}/gone best-effort\nd {0}/file best-effort\n",
        real.display()
    );
    let mut keep = KeepFile::default();
    let changes = sync(&rules(&text), None, When::Handover, &mut keep).unwrap();
    assert_eq!(labels(None, &keep).len(), 1);
    let why: Vec<_> = changes.left_out.iter().map(ToString::to_string).collect();
    assert!(
        why.len() == 2
            && why
                .iter()
                .any(|why| why.contains("gone") && why.contains("does not exist"))
            && why
                .iter()
                .any(|why| why.contains("file is not a directory")),
        "{why:?}"
    );
    // At boot a missing path is no failure: a service may create it later.
    let text = format!("d {0}/good\nd {0}/later\n", real.display());
    let changes = sync(&rules(&text), None, When::Boot, &mut KeepFile::default()).unwrap();
    assert!(
        changes
            .remarks
            .iter()
            .any(|remark| remark.contains("later does not exist"))
    );
    let strict = sync(
        &rules(&text),
        None,
        When::Handover,
        &mut KeepFile::default(),
    );
    assert_eq!(strict.unwrap_err().status, Status::BadSource);
    let text = format!(
        "d {0}/gone best-effort\nd {0}/file best-effort\nd {0}/good\n",
        real.display()
    );
    // The entry is taken once its path is right.
    std::fs::create_dir(real.join("gone")).unwrap();
    let changes = sync(&rules(&text), None, When::Handover, &mut keep).unwrap();
    assert_eq!((changes.added.len(), changes.left_out.len()), (1, 1));
    assert_eq!(labels(None, &keep).len(), 2);
}

#[test]
fn a_trace_that_a_file_asked_for_ends_with_its_line() {
    use crate::trace::wish::{Said, Wish};
    let rules = parse::file(Path::new("a.conf"), b"t - size=1M").unwrap();
    let rule = rules.first();
    let mut keep = KeepFile::default();
    let sync = |rule: Option<&Rule>, keep: &mut KeepFile| {
        let mut changes = Changes::default();
        sync_trace(rule, None, keep, &mut changes);
        (changes.added.len(), changes.removed.len())
    };
    assert_eq!(sync(None, &mut keep), (0, 0));
    assert_eq!(sync(rule, &mut keep), (1, 0));
    assert!(matches!(keep.trace, Said::Keep(wish) if wish.limit == 1 << 20 && wish.configured));
    assert_eq!(sync(rule, &mut keep), (0, 0));
    assert_eq!(sync(None, &mut keep), (0, 1));
    assert_eq!(keep.trace, Said::Drop);
    // The choice of a user stays.
    for said in [Said::Keep(Wish::default()), Said::Drop] {
        keep.trace = said;
        assert_eq!(sync(rule, &mut keep), (0, 0));
        assert_eq!(sync(None, &mut keep), (0, 0));
        assert_eq!(keep.trace, said);
    }
}
