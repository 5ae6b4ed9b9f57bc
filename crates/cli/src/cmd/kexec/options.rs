//! The arguments of kexec(8), parsed by the rules of getopt_long(3): options and operands in any order, long options by
//! any unambiguous prefix, several short options after one dash.
//!
//! Source of names, defaults and exit statuses: kexec-tools 2.0.25 and 2.0.29, `kexec/kexec.h`,
//! `kexec/arch/i386/include/arch/options.h`, `main` in `kexec/kexec.c`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Every option, by its long name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opt {
    /// An option that has an effect here.
    Known(Name),
    /// An option about how kexec-tools places or describes the image; kho decides that by itself.
    Moot,
    /// An option for something that this program cannot do.
    Cannot,
}

/// Options that have an effect here.
#[allow(missing_docs, reason = "the names are kexec(8)'s")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Help,
    Version,
    Debug,
    Force,
    NoSync,
    Load,
    Unload,
    Exec,
    Panic,
    Type,
    Address,
    FileSyscall,
    LoadSyscall,
    AutoSyscall,
    Status,
    CrashSize,
    Append,
    ReuseCmdline,
    Initrd,
}

/// Long name, short name, whether it takes a value, meaning.
const OPTIONS: &[(&str, Option<u8>, bool, Opt)] = &[
    ("help", Some(b'h'), false, Opt::Known(Name::Help)),
    ("version", Some(b'v'), false, Opt::Known(Name::Version)),
    ("debug", Some(b'd'), false, Opt::Known(Name::Debug)),
    ("force", Some(b'f'), false, Opt::Known(Name::Force)),
    ("no-checks", Some(b'i'), false, Opt::Moot),
    ("no-ifdown", Some(b'x'), false, Opt::Moot),
    ("no-sync", Some(b'y'), false, Opt::Known(Name::NoSync)),
    ("load", Some(b'l'), false, Opt::Known(Name::Load)),
    ("unload", Some(b'u'), false, Opt::Known(Name::Unload)),
    ("exec", Some(b'e'), false, Opt::Known(Name::Exec)),
    ("load-panic", Some(b'p'), false, Opt::Known(Name::Panic)),
    ("type", Some(b't'), true, Opt::Known(Name::Type)),
    (
        "kexec-file-syscall",
        Some(b's'),
        false,
        Opt::Known(Name::FileSyscall),
    ),
    (
        "kexec-syscall",
        Some(b'c'),
        false,
        Opt::Known(Name::LoadSyscall),
    ),
    (
        "kexec-syscall-auto",
        Some(b'a'),
        false,
        Opt::Known(Name::AutoSyscall),
    ),
    ("status", Some(b'S'), false, Opt::Known(Name::Status)),
    ("print-ckr-size", None, false, Opt::Known(Name::CrashSize)),
    ("mem-min", None, true, Opt::Known(Name::Address)),
    ("mem-max", None, true, Opt::Known(Name::Address)),
    ("append", None, true, Opt::Known(Name::Append)),
    ("command-line", None, true, Opt::Known(Name::Append)),
    ("reuse-cmdline", None, false, Opt::Known(Name::ReuseCmdline)),
    ("initrd", None, true, Opt::Known(Name::Initrd)),
    ("ramdisk", None, true, Opt::Known(Name::Initrd)),
    ("dtb", None, true, Opt::Moot),
    ("hotplug", None, false, Opt::Moot),
    ("reset-vga", None, false, Opt::Moot),
    ("serial", None, true, Opt::Moot),
    ("serial-baud", None, true, Opt::Moot),
    ("console-vga", None, false, Opt::Moot),
    ("console-serial", None, false, Opt::Moot),
    ("elf32-core-headers", None, false, Opt::Moot),
    ("elf64-core-headers", None, false, Opt::Moot),
    ("pass-memmap-cmdline", None, false, Opt::Moot),
    ("reuse-video-type", None, false, Opt::Moot),
    ("args-linux", None, false, Opt::Moot),
    ("real-mode", None, false, Opt::Moot),
    ("args-elf", None, false, Opt::Cannot),
    ("args-none", None, false, Opt::Cannot),
    ("module", None, true, Opt::Cannot),
    ("noefi", None, false, Opt::Cannot),
    ("entry", None, true, Opt::Cannot),
    ("entry-32bit", None, false, Opt::Cannot),
    ("reuseinitrd", None, false, Opt::Cannot),
    ("exec-live-update", None, false, Opt::Cannot),
    ("load-live-update", None, false, Opt::Cannot),
    ("load-preserve-context", None, false, Opt::Cannot),
    ("load-jump-back-helper", None, false, Opt::Cannot),
];

/// System call that loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Syscall {
    /// No system call was asked for, or `-a`: `kexec_load`, which can hand over.
    #[default]
    Any,
    /// `-c`.
    Load,
    /// `-s`: `kexec_file_load`, which hands over in the initrd only.
    File,
}

/// Actions that the arguments ask for, after all options were read in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Load the kernel.
    pub load: bool,
    /// Whether `-l` was among the options (and is not only the default).
    pub said_load: bool,
    /// Then shut down the system.
    pub shutdown: bool,
    /// Write dirty data before the start.
    pub sync: bool,
    /// Start what is loaded.
    pub exec: bool,
    /// Unload what is loaded.
    pub unload: bool,
    /// Say whether something is loaded.
    pub status: bool,
    /// `-p`: all actions concern the crash kernel.
    pub panic: bool,
    /// Print more messages.
    pub debug: bool,
    /// System call that loads.
    pub syscall: Syscall,
    /// `-t`.
    pub kind: Option<OsString>,
    /// `--append`.
    pub append: Option<OsString>,
    /// `--reuse-cmdline`.
    pub reuse_cmdline: bool,
    /// `--initrd`, each of them: of several, kexec(8) takes the last one and drops the others without a word.
    pub initrd: Vec<OsString>,
    /// The first operand.
    pub kernel: Option<OsString>,
    /// Options without effect, as they were written.
    pub moot: Vec<String>,
}

/// Request of the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Print the size of the crash kernel's region.
    CrashSize,
    /// Carry out these actions.
    Work(Box<Wanted>),
}

/// Reads the arguments that follow the program's name.
///
/// # Errors
///
/// The message for standard error; the exit status is then 1.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut wanted = Wanted {
        load: true,
        said_load: false,
        shutdown: true,
        sync: true,
        exec: false,
        unload: false,
        status: false,
        panic: false,
        debug: false,
        syscall: Syscall::default(),
        kind: None,
        append: None,
        reuse_cmdline: false,
        initrd: Vec::new(),
        kernel: None,
        moot: Vec::new(),
    };
    let mut no_sync = false;
    let mut args = args.into_iter();
    let mut operands = Vec::new();
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        let mut found = Vec::new();
        if bytes == b"--" {
            operands.extend(args.by_ref());
        } else if let Some(long) = bytes.strip_prefix(b"--") {
            found.push(long_option(long, &mut args)?);
        } else if let Some(short @ [_, ..]) = bytes.strip_prefix(b"-") {
            found = short_options(short, &mut args)?;
        } else {
            operands.push(arg);
        }
        for (name, opt, value) in found {
            match opt {
                Opt::Moot => wanted.moot.push(name),
                Opt::Cannot => {
                    return Err(format!(
                        "{name}: kho cannot do this; use kexec(8) of kexec-tools"
                    ));
                }
                Opt::Known(Name::Help) => return Ok(Request::Help),
                Opt::Known(Name::Version) => return Ok(Request::Version),
                Opt::Known(Name::CrashSize) => return Ok(Request::CrashSize),
                Opt::Known(Name::NoSync) => no_sync = true,
                Opt::Known(Name::Address) => {
                    let value = value.unwrap_or_default();
                    if !is_number(value.as_bytes()) {
                        return Err(format!("Bad option value in {name}={}", value.display()));
                    }
                    wanted.moot.push(name);
                }
                Opt::Known(known) => wanted.apply(known, value),
            }
        }
    }
    if no_sync {
        wanted.sync = false;
    }
    wanted.kernel = operands.into_iter().next();
    if wanted.status {
        // Without -l the user asks about the crash kernel.
        wanted.panic |= !wanted.said_load;
        (wanted.load, wanted.unload, wanted.exec, wanted.shutdown) = (false, false, false, false);
    }
    if !wanted.load
        && (wanted.append.is_some() || !wanted.initrd.is_empty() || wanted.reuse_cmdline)
    {
        return Err("options of a load without a load".to_owned());
    }
    Ok(Request::Work(Box::new(wanted)))
}

impl Wanted {
    /// Applies one option. Options come in their order, and a later option overrides an earlier one.
    fn apply(&mut self, name: Name, value: Option<OsString>) {
        match name {
            Name::Debug => self.debug = true,
            Name::Force => {
                (self.load, self.shutdown, self.sync, self.exec) = (true, false, true, true)
            }
            Name::Load => {
                self.said_load = true;
                (self.load, self.exec, self.shutdown) = (true, false, false);
            }
            Name::Unload => {
                (self.load, self.shutdown, self.sync, self.unload) = (false, false, false, true)
            }
            Name::Exec => {
                (self.load, self.shutdown, self.sync, self.exec) = (false, false, true, true)
            }
            Name::Panic => {
                (self.load, self.exec, self.shutdown, self.sync) = (true, false, false, false);
                self.panic = true;
            }
            Name::Type => self.kind = value,
            Name::FileSyscall => self.syscall = Syscall::File,
            Name::LoadSyscall => self.syscall = Syscall::Load,
            Name::AutoSyscall => self.syscall = Syscall::Any,
            Name::Status => self.status = true,
            Name::Append => self.append = value,
            Name::ReuseCmdline => self.reuse_cmdline = true,
            Name::Initrd => self.initrd.extend(value),
            // The parser has handled these options already.
            Name::Help | Name::Version | Name::CrashSize | Name::NoSync | Name::Address => {}
        }
    }
}

type Found = (String, Opt, Option<OsString>);

fn long_option(text: &[u8], rest: &mut impl Iterator<Item = OsString>) -> Result<Found, String> {
    let mut halves = text.splitn(2, |byte| *byte == b'=');
    let given = halves.next().unwrap_or_default();
    let inline = halves
        .next()
        .map(|value| OsString::from_vec(value.to_vec()));
    let shown = String::from_utf8_lossy(given).into_owned();
    let exact = OPTIONS.iter().find(|(long, ..)| long.as_bytes() == given);
    let mut begins = OPTIONS
        .iter()
        .filter(|(long, ..)| long.as_bytes().starts_with(given));
    let (long, _, takes_value, opt) = match (exact, begins.next(), begins.next()) {
        (Some(exact), ..) | (None, Some(exact), None) => exact,
        (None, None, _) => return Err(format!("unrecognized option '--{shown}'")),
        (None, Some(first), Some(second)) => {
            let names: Vec<String> = [first, second]
                .into_iter()
                .chain(begins)
                .map(|(long, ..)| format!("'--{long}'"))
                .collect();
            return Err(format!(
                "option '--{shown}' is ambiguous; possibilities: {}",
                names.join(" ")
            ));
        }
    };
    let name = format!("--{long}");
    match (takes_value, inline) {
        (false, Some(_)) => Err(format!("option '{name}' doesn't allow an argument")),
        (false, None) => Ok((name, *opt, None)),
        (true, Some(value)) => Ok((name, *opt, Some(value))),
        (true, None) => match rest.next() {
            Some(value) => Ok((name, *opt, Some(value))),
            None => Err(format!("option '{name}' requires an argument")),
        },
    }
}

fn short_options(
    text: &[u8],
    rest: &mut impl Iterator<Item = OsString>,
) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for (at, letter) in text.iter().copied().enumerate() {
        let known = OPTIONS.iter().find(|(_, short, ..)| *short == Some(letter));
        let Some((_, _, takes_value, opt)) = known else {
            return Err(format!("invalid option -- '{}'", char::from(letter)));
        };
        let name = format!("-{}", char::from(letter));
        if !takes_value {
            found.push((name, *opt, None));
            continue;
        }
        let inline = text.get(at + 1..).filter(|value| !value.is_empty());
        let value = inline
            .map(|value| OsString::from_vec(value.to_vec()))
            .or_else(|| rest.next());
        let Some(value) = value else {
            return Err(format!(
                "option requires an argument -- '{}'",
                char::from(letter)
            ));
        };
        found.push((name, *opt, Some(value)));
        break;
    }
    Ok(found)
}

/// Whether all of the text is a number as strtoul(3) takes it with base 0.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8], radix| {
        !text.is_empty() && text.iter().all(|byte| char::from(*byte).is_digit(radix))
    };
    match text {
        [b'0', b'x' | b'X', hex @ ..] => digits(hex, 16),
        [b'0', octal @ ..] => octal.is_empty() || digits(octal, 8),
        decimal => digits(decimal, 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn work(line: &str) -> Wanted {
        match parse(line.split(' ').map(OsString::from)) {
            Ok(Request::Work(wanted)) => *wanted,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn error(line: &str) -> String {
        parse(line.split(' ').map(OsString::from)).expect_err(line)
    }

    #[test]
    fn what_systemd_and_the_hooks_of_debian_write() {
        // systemd 252 and 257, load_kexec_kernel.
        let wanted = work("--load /boot/k --append root=/dev/vda1 --initrd /boot/i");
        assert!(wanted.load && wanted.said_load && !wanted.exec && !wanted.shutdown);
        assert_eq!(wanted.kernel.as_deref(), Some("/boot/k".as_ref()));
        assert_eq!(wanted.append.as_deref(), Some("root=/dev/vda1".as_ref()));
        assert_eq!(wanted.initrd, ["/boot/i"]);
        // kexec-load of kexec-tools.
        let wanted = work("-l /vmlinuz --initrd=/initrd.img --append=ro");
        assert_eq!(
            (wanted.initrd, wanted.append.as_deref()),
            (vec!["/initrd.img".into()], Some("ro".as_ref()))
        );
        // Two initrds, microcode first, as a boot loader accepts them.
        assert_eq!(
            work("-l /k --initrd=/ucode --ramdisk /initrd").initrd,
            ["/ucode", "/initrd"]
        );
        // systemd-shutdown.
        let wanted = work("-e");
        assert!(wanted.exec && wanted.sync && !wanted.load && !wanted.shutdown);
        // kdump-tools.
        let wanted = work("-p -s --command-line=x --initrd=/i /k");
        assert!(wanted.panic && wanted.load && wanted.syscall == Syscall::File);
        assert!(work("-p -u").panic && work("-u -p").unload);
    }

    #[test]
    fn quirks_of_getopt() {
        assert!(
            work("k").shutdown,
            "without an option: load, then shut down"
        );
        assert_eq!(
            work("-sltbzImage --app x k").kind.as_deref(),
            Some("bzImage".as_ref())
        );
        assert_eq!(
            work("k -l --append=a --command-line b").append.as_deref(),
            Some("b".as_ref())
        );
        assert_eq!(work("-l -- -e").kernel.as_deref(), Some("-e".as_ref()));
        assert_eq!(work("-l -").kernel.as_deref(), Some("-".as_ref()));
        assert_eq!(
            work("-l --mem-min=0x10000 --dtb x -i -x k").moot,
            ["--mem-min", "--dtb", "-i", "-x"]
        );
        let wanted = work("-l -e");
        assert!(wanted.exec && !wanted.load, "the later one counts");
        let wanted = work("-f -y k");
        assert!(wanted.load && wanted.exec && !wanted.sync);
        assert!(work("-S").panic && !work("-S -l").panic);
        assert_eq!(work("-l -s -a k").syscall, Syscall::Any);
        assert_eq!(parse(["-lhv".into()]), Ok(Request::Help));
        assert_eq!(parse(["--vers".into()]), Ok(Request::Version));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, text) in [
            ("--frobnicate", "unrecognized option '--frobnicate'"),
            ("-q", "invalid option -- 'q'"),
            ("--load=x", "option '--load' doesn't allow an argument"),
            ("--append", "option '--append' requires an argument"),
            ("-t", "option requires an argument -- 't'"),
            ("--mem-min=12z", "Bad option value in --mem-min=12z"),
            ("-u --initrd=x", "options of a load without a load"),
        ] {
            assert_eq!(error(line), text);
        }
        assert!(
            error("--re")
                .starts_with("option '--re' is ambiguous; possibilities: '--reuse-cmdline'")
        );
        assert!(error("--load-jump-back-helper").contains("kho cannot do this"));
    }

    proptest! {
        #[test]
        fn any_arguments_are_read_or_refused(args in proptest::collection::vec("-{0,2}[a-zS=-]{0,12}", 0..6)) {
            let _ = parse(args.into_iter().map(OsString::from));
        }
    }
}
