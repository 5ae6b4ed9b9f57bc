use super::*;
use std::fs;

const QUIET: Output = Output {
    json: false,
    quiet: true,
};

struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> Root {
        Root::at(self.0.path())
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn resolve(&self, id: Option<&str>, next: &Next) -> Result<Next, Fail> {
        let choice = Choice {
            kernel: None,
            entry: id.map(OsString::from),
        };
        resolve(&choice, next, &self.root(), QUIET)
    }

    fn taken(&self, id: Option<&str>) -> Next {
        self.resolve(id, &Next::of_kernel("")).unwrap()
    }
}

/// Examples of the specification, from the oldest version to the newest.
#[test]
fn versions_are_in_order() {
    for (a, b) in [
        ("11", "122"),
        ("122.1", "123"),
        ("123~rc1-1", "123"),
        ("123", "123-a"),
        ("123-a", "123-a.1"),
        ("123-a.1", "123-1"),
        ("123-1", "123-1.1"),
        ("123-1.1", "123^post1"),
        ("123^post1", "123.a-1"),
        ("123.a-1", "123.1-1"),
        ("123.1-1", "123a-1"),
        ("123a-1", "124-1"),
        ("6.1.0-50-amd64", "6.12.95+deb12-amd64"),
        ("7.3.0-rc2", "7.3.0-rc10"),
        ("6.9.9", "6.12"),
        ("", "0"),
    ] {
        assert_eq!(
            versions(a.as_bytes(), b.as_bytes()),
            Ordering::Less,
            "{a} {b}"
        );
        assert_eq!(
            versions(b.as_bytes(), a.as_bytes()),
            Ordering::Greater,
            "{b} {a}"
        );
        assert_eq!(versions(a.as_bytes(), a.as_bytes()), Ordering::Equal, "{a}");
    }
    assert_eq!(versions(b"007", b"7"), Ordering::Equal);
}

#[test]
fn patterns_match_as_in_a_shell() {
    for (pattern, name, matches) in [
        ("debian-*", "debian-6.12.conf", true),
        ("*.conf", "a.conf", true),
        ("*-6.?.conf", "x-6.1.conf", true),
        ("*-6.?.conf", "x-6.12.conf", false),
        ("a*b*c", "aXbYbZc", true),
        ("a*b*c", "aXbYbZ", false),
        ("Debian", "debian", true),
        ("", "a", false),
        ("**", "a", true),
        ("*", "", true),
    ] {
        let found = wildcard(pattern.as_bytes(), name.as_bytes());
        assert_eq!(found, matches, "{pattern} {name}");
    }
}

#[test]
fn an_entry_gives_kernel_initrd_and_options() {
    let disk = Disk::new();
    let kernel = disk.put("boot/vmlinuz-6.12", "kernel");
    let (first, second) = (disk.put("boot/ucode", "1"), disk.put("boot/initrd", "2"));
    disk.put(
        "boot/loader/entries/debian-6.12.conf",
        "# comment\ntitle  Debian \nlinux\t/vmlinuz-6.12\ninitrd /ucode\ninitrd /initrd\noptions root=/dev/vda1 ro\noptions quiet\nlinuxx /none\n",
    );
    for id in ["debian-6.12.conf", "debian-6.12"] {
        let next = disk.taken(Some(id));
        assert_eq!(next.kernel, kernel);
        assert_eq!(next.initrd, [first.clone(), second.clone()]);
        let line = next.command_line.unwrap();
        assert_eq!(line, "root=/dev/vda1 ro quiet");
    }
    // Words of the command line replace those of the entry.
    let wanted = Next {
        no_initrd: true,
        reuse_cmdline: true,
        append: Some("debug".into()),
        ..Next::of_kernel("")
    };
    let next = disk.resolve(Some("debian-6.12"), &wanted).unwrap();
    assert_eq!((next.initrd.len(), next.command_line), (0, None));
    assert_eq!(next.append, Some("debug".into()));
    let fail = disk.resolve(Some("debian"), &wanted).unwrap_err();
    assert_eq!(fail.status, Status::BadImage);
    assert!(fail.to_string().contains("debian-6.12.conf"), "{fail}");
}

#[test]
fn entries_of_fedora_take_variables_of_grub() {
    let disk = Disk::new();
    // If /boot is no file system of its own, /boot is part of the paths.
    disk.put("boot/vmlinuz-7.0", "kernel");
    disk.put("boot/initramfs-7.0.img", "initrd");
    let tuned = disk.put("boot/tuned.img", "more");
    disk.put(
        "boot/loader/entries/fedora.conf",
        "linux /boot/vmlinuz-7.0\ninitrd /boot/initramfs-7.0.img $tuned_initrd\noptions $kernelopts $tuned_params quiet\n",
    );
    let fail = disk
        .resolve(Some("fedora"), &Next::of_kernel(""))
        .unwrap_err();
    assert!(fail.to_string().contains("kernelopts"), "{fail}");
    disk.put(
        "boot/grub2/grubenv",
        "# GRUB Environment Block\nsaved_entry=fedora\nkernelopts=root=/dev/sda2 ro rhgb\ntuned_initrd=/tuned.img\n####",
    );
    let next = disk.taken(Some("fedora"));
    assert_eq!(next.command_line.unwrap(), "root=/dev/sda2 ro rhgb quiet");
    assert_eq!(next.initrd.last(), Some(&tuned));
    assert_eq!(next.initrd.len(), 2);
}

#[test]
fn unified_kernel_images_are_entries() {
    let disk = Disk::new();
    let image = disk.put("efi/EFI/Linux/debian-6.12+0-3.efi", "image");
    assert_eq!(disk.taken(Some("debian-6.12.efi")).kernel, image);
    let other = disk.put("efi/other.efi", "image");
    disk.put(
        "efi/loader/entries/rescue.conf",
        "uki /other.efi\nprofile 2\n",
    );
    let next = disk.taken(Some("rescue"));
    assert_eq!((next.kernel, next.profile), (other, Some(2)));
    assert_eq!((next.initrd.len(), next.command_line), (0, None));
}

#[test]
fn without_a_kernel_the_boot_loaders_default_is_taken() {
    let disk = Disk::new();
    let kernels = ["a-1", "a-2", "b-9"].map(|name| {
        disk.put(
            &format!("boot/loader/entries/{name}.conf"),
            format!(
                "linux /{name}\nsort-key {}\nversion {}\n",
                &name[..1],
                &name[2..]
            ),
        );
        disk.put(&format!("boot/{name}"), "kernel")
    });
    // GRUB reads such entries too, and has no loader.conf, so GRUB's choice is not known.
    let fail = disk.resolve(None, &Next::of_kernel("")).unwrap_err();
    assert!(fail.what.contains("there is none in /boot"), "{fail}");
    // The entry that sorts first: by sort key, then by the newest version.
    let conf = |text: &str| disk.put("boot/loader/loader.conf", text);
    conf("timeout 3\n");
    assert_eq!(disk.taken(None).kernel, kernels[1]);
    conf("default b-*\n");
    assert_eq!(disk.taken(None).kernel, kernels[2]);
    conf("default a-1.conf\n");
    assert_eq!(disk.taken(None).kernel, kernels[0]);
    conf("default @saved\n");
    assert_eq!(disk.taken(None).kernel, kernels[1]);
    // An entry without tries left sorts last.
    fs::rename(
        disk.0.path().join("boot/loader/entries/a-2.conf"),
        disk.0.path().join("boot/loader/entries/a-2+0-3.conf"),
    )
    .unwrap();
    assert_eq!(disk.taken(None).kernel, kernels[0]);
}

#[test]
fn without_a_boot_loader_the_newest_kernel_is_taken() {
    let disk = Disk::new();
    let image = crate::failing_calls::kernel();
    let of = |release: &[u8]| {
        let own = b"6.12.95";
        let at = image.windows(own.len()).position(|window| window == own);
        let at = at.unwrap();
        let mut other = image.clone();
        other[at..at + release.len()].copy_from_slice(release);
        other
    };
    disk.put("boot/vmlinuz-z", of(b"6.9.951"));
    let newest = disk.put("boot/vmlinuz-linux", of(b"6.12.95"));
    disk.put("boot/vmlinuz-6.13.old", of(b"6.13.95"));
    disk.put("boot/vmlinuz-0-rescue-x", of(b"7.12.95"));
    disk.put("boot/memtest86+x64.bin", of(b"9.12.95"));
    disk.put("boot/vmlinuz-9.9", b"cut short");
    let next = disk.taken(None);
    assert_eq!((next.kernel, next.command_line), (newest, None));
    // Only a kernel that cannot be read.
    fs::remove_dir_all(disk.0.path().join("boot")).unwrap();
    disk.put("boot/vmlinuz-9.9", b"cut short");
    let fail = disk.resolve(None, &Next::of_kernel("")).unwrap_err();
    assert!(fail.what.contains("vmlinuz-9.9"), "{fail}");
}

#[test]
fn hostile_entries_are_refused_by_name() {
    let disk = Disk::new();
    let put = |text: &[u8]| {
        disk.put("boot/loader/entries/x.conf", text);
        disk.resolve(Some("x"), &Next::of_kernel(""))
    };
    disk.put("outside", "kernel");
    for (text, words) in [
        (&b"linux /../outside\n"[..], "no path from the top"),
        (b"linux /none\n", "/none, which is not there"),
        (b"linux /loader\n", "which is not there"),
        (b"linux \n", "there is no boot loader entry x"),
        (b"title only\n", "there is no boot loader entry x"),
        (b"", "there is no boot loader entry x"),
        (b"linux /a\nlinux /\xff\n", "\\xff, which is not there"),
        (
            b"architecture aa64\nlinux /outside\n",
            "there is no boot loader entry x",
        ),
        (b"linux /outside\ninitrd /outside\ninitrd /none\n", "/none"),
        (b"linux /outside\noptions $kernelopts\n", "kernelopts"),
    ] {
        let fail = put(text).unwrap_err();
        assert_eq!(fail.status, Status::BadImage);
        assert!(fail.what.contains(words), "{fail}");
    }
    assert!(put(&[b'x'; 3 << 20]).is_err());
    // An error in one entry does not hide the other entries.
    disk.put(
        "boot/loader/entries/y.conf",
        "architecture x64\nlinux /outside\n",
    );
    assert!(disk.taken(Some("y")).kernel.ends_with("outside"));
}

#[test]
fn counts_of_tries_are_no_part_of_a_name() {
    for (file, id, bad) in [
        ("a+3.conf", "a.conf", false),
        ("a+0-3.conf", "a.conf", true),
        ("a+1-2.efi", "a.efi", false),
        ("6.12+deb12.conf", "6.12+deb12.conf", false),
        ("a+.conf", "a+.conf", false),
        ("a+1-.conf", "a+1-.conf", false),
    ] {
        assert_eq!(counted(Path::new(file)), (id.into(), bad), "{file}");
    }
}

proptest::proptest! {
    #[test]
    fn any_names_are_compared(a in "[~^.a1 -]{0,8}", b in "[~^.a1 -]{0,8}") {
        let order = versions(a.as_bytes(), b.as_bytes());
        proptest::prop_assert_eq!(order, versions(b.as_bytes(), a.as_bytes()).reverse());
    }
}
