//! The next kernel: image, initrd and command line.

use super::arch;
use super::early;
use super::enter::{self, Way};
use super::initrd;
use super::native::{self, Native};
use super::unpacked;
use crate::args;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::output::Output;
use crate::shown;
use kho::PhysAddr;
use kho::image::{ImageNeeds, InitrdNeeds, KernelNeeds};
use kho_kexec::assemble::{self, AssembleError};
use kho_kexec::carrier::KernelConfig;
use kho_kexec::cmdline::{self, CommandLine};
use kho_kexec::image::{self, Image, Vmlinux};
use kho_kexec::sys::facts::host::{CpuFlags, memory_nodes};
use kho_kexec::sys::facts::meminfo::MemInfo;
use kho_kexec::sys::root::Root;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The files, unchecked. [`Files::parse`] checks them.
pub struct Files {
    kernel_path: PathBuf,
    /// The kernel: a file, or a part of a unified kernel image.
    pub kernel: Vec<u8>,
    /// The initrd, if there is one.
    pub initrd: Option<Vec<u8>>,
    unified: Option<Unified>,
}

/// Facts about a unified kernel image.
struct Unified {
    /// Its command line.
    line: Option<Vec<u8>>,
    /// Whether the initrd is that of the image.
    initrd: bool,
}

/// The next kernel, after the checks.
pub struct Next<'a> {
    /// The image.
    pub image: Box<dyn Image + 'a>,
    /// The image's file.
    file: &'a [u8],
    /// Entry into the kernel, as far as it can be decided before the kernel is unpacked.
    pub way: Way,
    /// Path of the image, for messages.
    pub path: String,
    /// Configuration of the kernel; `None` if it was not found.
    pub config: Option<KernelConfig>,
    /// The initrd.
    pub initrd: Option<&'a [u8]>,
    /// Unpacked size of the initrd, in bytes; if that exceeds this machine's memory, some number above the memory size.
    pub unpacked: u64,
    /// The command line, which starts the arrival program.
    pub cmdline: CommandLine,
    /// Decision about the kernel's own KHO; its argument is part of the command line.
    pub native: Native,
    /// Scratch size that this command's line, or the running kernel's line, asks for.
    pub scratch: Option<u64>,
}

impl Files {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`Status::BadImage`], [`Status::BadInitrd`]; [`Status::Usage`] if the arguments name a profile and the kernel
    /// has none.
    pub fn read(args: &args::Next) -> Result<Self, Fail> {
        let file = image::read(&args.kernel).map_err(|err| bad_image(args, &err))?;
        let file = arch::unpack(file).map_err(|err| bad_image(args, &err))?;
        let path = || shown::path(&args.kernel);
        let uki = image::unified(&file, args.profile.unwrap_or(0)).map_err(|err| {
            Fail::new(Status::BadImage, format!("{}: {err}", path()))
                .fix("make the image again, or copy it again; --profile N chooses a profile")
        })?;
        let Some(uki) = uki else {
            if args.profile.is_some() {
                let what = format!("--profile: {} is no unified kernel image", path());
                return Err(Fail::new(Status::Usage, what).fix("leave --profile out"));
            }
            return Ok(Self {
                kernel_path: args.kernel.clone(),
                kernel: file,
                initrd: initrd::read(&initrd::of(args))?,
                unified: None,
            });
        };
        let named = args.no_initrd || !args.initrd.is_empty();
        let initrd = match named {
            true => initrd::read(&args.initrd)?,
            false => initrd::of_parts(&args.kernel, &uki.initrd)?,
        };
        Ok(Self {
            kernel_path: args.kernel.clone(),
            kernel: uki.linux.to_vec(),
            unified: Some(Unified {
                line: uki.cmdline.map(<[u8]>::to_vec),
                initrd: !named && initrd.is_some(),
            }),
            initrd,
        })
    }

    /// Reports the files and parts that the arguments did not name.
    pub fn report(&self, args: &args::Next, out: Output) {
        let Some(unified) = &self.unified else {
            return initrd::report(args, out);
        };
        let own = match (unified.initrd, self.own_line(args).is_some()) {
            (true, true) => "initrd and command line",
            (true, false) => "initrd",
            (false, true) => "command line",
            (false, false) => return,
        };
        out.remark(&format!(
            "{} is a unified kernel image; {own} are its own",
            shown::path(&self.kernel_path)
        ));
    }

    /// Returns the command line of a unified kernel image, unless the arguments ask for another one.
    fn own_line(&self, args: &args::Next) -> Option<&[u8]> {
        let asked = args.command_line.is_some() || args.reuse_cmdline;
        let line = self.unified.as_ref()?.line.as_deref();
        line.filter(|_| !asked)
    }

    /// Returns the command line without `--append`; `None` if the running kernel's command line is used.
    pub fn base_line(&self, args: &args::Next) -> Option<OsString> {
        let own = || Some(OsString::from_vec(self.own_line(args)?.to_vec()));
        args.command_line.clone().or_else(own)
    }

    /// Returns the command line for a kernel that is started without a handover.
    ///
    /// # Errors
    ///
    /// [`Status::BadCommandLine`].
    pub fn plain_line(&self, args: &args::Next, root: &Root, max: u64) -> Result<Vec<u8>, Fail> {
        let running = root
            .bytes("proc/cmdline", kho_kexec::sys::root::ATTRIBUTE_LIMIT)
            .or_status(Status::Failed)?;
        let (base, append) = base_line(args, self.own_line(args), &running)?;
        Ok(cmdline::build(&base, &append, false, max)
            .or_status(Status::BadCommandLine)?
            .line)
    }

    /// Returns the kernel image, parsed.
    ///
    /// # Errors
    ///
    /// [`Status::BadImage`].
    pub fn image(&self, args: &args::Next) -> Result<Box<dyn Image + '_>, Fail> {
        arch::parse(&self.kernel).map_err(|err| bad_image(args, &err))
    }

    /// Opens kernel and initrd for `kexec_file_load`, which takes one file of each.
    ///
    /// # Errors
    ///
    /// [`Status::BadImage`], [`Status::Failed`].
    pub fn open(&self) -> Result<(File, Option<File>), Fail> {
        let initrd = self.initrd.as_ref();
        let initrd = initrd.map(|initrd| initrd::open("initrd", initrd));
        Ok((self.open_kernel()?, initrd.transpose()?))
    }

    /// Opens the kernel for `kexec_file_load`.
    ///
    /// # Errors
    ///
    /// [`Status::BadImage`], [`Status::Failed`].
    pub fn open_kernel(&self) -> Result<File, Fail> {
        match &self.unified {
            // Opens the file itself: the kernel may look for a signature in its attributes.
            None => File::open(&self.kernel_path).map_err(|err| {
                let what = format!("{}: {err}", shown::path(&self.kernel_path));
                Fail::new(Status::BadImage, what)
            }),
            Some(_) => initrd::open("kernel", &self.kernel),
        }
    }

    /// Checks the files and builds the command line. A scratch size has an effect only on the `first` handover of a
    /// chain.
    ///
    /// # Errors
    ///
    /// [`Status::BadImage`], [`Status::NextKernel`], [`Status::BadCommandLine`]; [`Status::Scratch`] if the scratch
    /// size is not valid.
    pub fn parse(&self, args: &args::Next, root: &Root, first: bool) -> Result<Next<'_>, Fail> {
        let image = self.image(args)?;
        let cpu = CpuFlags::read(root).or_status(Status::Failed)?;
        let five_level = cpu.five_level_paging();
        assemble::check_receiver(image.header(), five_level)
            .map_err(|err| bad_receiver(args, &err))?;
        let running = root
            .bytes("proc/cmdline", kho_kexec::sys::root::ATTRIBUTE_LIMIT)
            .or_status(Status::Failed)?;
        let (base, append) = base_line(args, self.own_line(args), &running)?;
        let max = image.header().cmdline_max;
        let mut cmdline =
            cmdline::build(&base, &append, true, max).or_status(Status::BadCommandLine)?;
        let config = early::config(&self.kernel_path, image.release(), root);
        let memory = MemInfo::read(root).or_status(Status::Failed)?.total;
        let native = native::decide(
            &cmdline.line,
            native::Facts {
                release: image.release(),
                config,
                image: &self.needs(&*image),
                ram: memory,
                nodes: memory_nodes(root),
            },
        );
        if let Some(argument) = &native.add {
            let with = cmdline.with(argument.as_bytes(), max);
            cmdline = with.or_status(Status::BadCommandLine)?;
        }
        let scratch =
            match &args.scratch {
                _ if !first => None,
                Some(text) => Some(kho::scratch::parse_size(text).map_err(|err| {
                    Fail::new(Status::Scratch, format!("--scratch {text}: {err}"))
                })?),
                None => kho::scratch::size_from_cmdline(&running).map_err(|err| {
                    Fail::new(
                        Status::Scratch,
                        format!("kho_scratch= on the running kernel's command line: {err}"),
                    )
                })?,
            };
        let way = arch::way(args, &self.kernel, &*image, &cmdline.line, five_level)?;
        Ok(Next {
            unpacked: self.unpacked(memory)?,
            config,
            image,
            file: &self.kernel,
            way,
            path: shown::path(&self.kernel_path),
            initrd: self.initrd.as_deref(),
            cmdline,
            native,
            scratch,
        })
    }
}

impl Next<'_> {
    /// Whether the kernel is entered where the loader places it, and randomizes addresses.
    pub fn place_at_random(&self) -> bool {
        matches!(self.way, Way::Kernel { .. }) && enter::randomizes(&self.cmdline.line)
    }

    /// Unpacks the kernel if it is to be entered itself. Returns the kernel, and the [`Way`] that is possible. `still`
    /// is the number of bytes of memory that the load takes after this.
    ///
    /// # Errors
    ///
    /// As [`enter::unpacked`].
    pub fn kernel(
        &self,
        args: &args::Next,
        root: &Root,
        still: u64,
    ) -> Result<(Option<Vmlinux>, Way), Fail> {
        let (image, line) = (&*self.image, &self.cmdline.line);
        enter::unpacked(args, &self.way, self.file, image, line, root, still)
    }
}

impl Files {
    /// Returns the memory needs of the image and the initrd, without the parts that kho adds.
    fn needs(&self, image: &dyn Image) -> ImageNeeds {
        ImageNeeds {
            kernel: KernelNeeds::from(image.header()),
            initrd: self.initrd.as_ref().map(|initrd| InitrdNeeds {
                len: initrd.len() as u64,
                unpacked: 0,
                max_addr: PhysAddr::new(u64::MAX),
            }),
            params_len: kho::PAGE_SIZE,
        }
    }

    /// Returns the unpacked size of the initrd, in bytes; 0 if there is none. If that exceeds `memory`, returns some
    /// number above it.
    ///
    /// # Errors
    ///
    /// [`Status::BadInitrd`] if the kernel would not unpack all of it.
    pub fn unpacked(&self, memory: u64) -> Result<u64, Fail> {
        let Some(initrd) = &self.initrd else {
            return Ok(0);
        };
        unpacked::measure(initrd, memory).map_err(|damage| {
            Fail::new(Status::BadInitrd, damage.to_string())
                .fix("make it again (update-initramfs -u -k VERSION), or copy it again")
        })
    }
}

/// Returns the two parts of the command line before the arrival program is added: the base, and the text of `--append`.
/// `own` is the command line of a unified kernel image.
///
/// # Errors
///
/// [`Status::BadCommandLine`] if the whole command line is the text of `--append`, without a root file system, although
/// the running kernel's command line names one. The next kernel would stop early in its boot, and the content would be
/// lost.
fn base_line(
    args: &args::Next,
    own: Option<&[u8]>,
    running: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), Fail> {
    let added = args.append.clone().map(OsStringExt::into_vec);
    let given = args.command_line.as_ref().map(|line| line.as_bytes());
    let base = match (given.or(own), args.reuse_cmdline, &added) {
        (Some(line), _, _) => line.to_vec(),
        (None, true, _) | (None, false, None) => cmdline::reuse(running),
        (None, false, Some(line)) if loses_root(running, line) => {
            return Err(Fail::new(
                Status::BadCommandLine,
                "--append alone is the whole command line, and this one has no root=, although the running kernel's has one",
            )
            .fix("add --reuse-cmdline; or give the whole line with --command-line if it needs no root="));
        }
        (None, false, Some(_)) => Vec::new(),
    };
    Ok((base, added.unwrap_or_default()))
}

/// Whether the running kernel's command line names a root file system and `line` does not.
pub fn loses_root(running: &[u8], line: &[u8]) -> bool {
    cmdline::value(running, "root").is_some() && cmdline::value(line, "root").is_none()
}

/// Returns a warning about a start without a handover (`kexec_file_load`) of a kernel that has to switch five-level
/// paging off; `line` is its command line. `None` if there is no such problem. `kho` enters such a kernel with the page
/// tables that it needs, see `kho_kexec::entry`. `kexec_file_load` does not change the page tables, and with them a
/// 5.10 kernel resets the machine.
///
/// # Errors
///
/// If the processor's flags cannot be read.
pub fn plain_warning(image: &dyn Image, line: &[u8], root: &Root) -> Result<Option<String>, Fail> {
    let cpu = CpuFlags::read(root).or_status(Status::Failed)?;
    let asked = line
        .split(u8::is_ascii_whitespace)
        .any(|word| word == b"no5lvl");
    let leaves = cpu.five_level_paging() && (asked || !image.header().five_level_on);
    Ok(leaves.then(|| {
        format!(
            "a start of {} without a handover has to switch the running kernel's five-level paging off, and may reset the machine without a message: boot the running kernel with no5lvl first",
            image.release().unwrap_or("that kernel")
        )
    }))
}

/// Returns the running kernel's command line without the arrival program; `None` if that line does not name the
/// program.
///
/// # Errors
///
/// If the command line cannot be read.
pub fn line_without_arrival(root: &Root) -> Result<Option<Vec<u8>>, Fail> {
    let running = root
        .bytes("proc/cmdline", kho_kexec::sys::root::ATTRIBUTE_LIMIT)
        .or_status(Status::Failed)?;
    Ok(cmdline::starts_arrival(&running).then(|| cmdline::reuse(&running)))
}

fn bad_receiver(args: &args::Next, err: &AssembleError) -> Fail {
    let fix = match err {
        AssembleError::FiveLevel => {
            "boot the running kernel with no5lvl, or hand over to another kernel"
        }
        _ => "hand over to Linux 5.5 or later",
    };
    let what = format!("{}: {}", args.kernel.display(), chain(err));
    Fail::new(Status::NextKernel, what).fix(fix)
}

fn bad_image(args: &args::Next, err: &image::ImageError) -> Fail {
    let (path, why) = (shown::path(&args.kernel), chain(err));
    let what = if why.contains(&path) {
        why
    } else {
        format!("{path}: {why}")
    };
    let fix = match err {
        image::ImageError::WrongFormat {
            found: image::Found::Elf { .. },
        } => {
            "if it is the vmlinux of a kernel: give the bzImage of the same build (arch/x86/boot/bzImage, /boot/vmlinuz-*)"
        }
        _ => {
            "kho boots x86 bzImages of the 64-bit boot protocol, as in /boot/vmlinuz-*, and unified kernel images with one"
        }
    };
    Fail::new(Status::BadImage, what).fix(fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(reuse: bool, whole: Option<&str>, append: Option<&str>) -> Result<String, Fail> {
        let args = args::Next {
            reuse_cmdline: reuse,
            command_line: whole.map(Into::into),
            append: append.map(Into::into),
            ..args::Next::of_kernel("/boot/vmlinuz-6.12")
        };
        let running = b"BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro quiet\n";
        let (base, append) = base_line(&args, None, running)?;
        let built = cmdline::build(&base, &append, false, 2047).unwrap();
        Ok(String::from_utf8(built.line).unwrap())
    }

    #[test]
    fn a_unified_kernel_image_brings_initrd_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let image = kho_unify::unified(&[
            (".linux", b"kernel"),
            (".initrd", b"070701 main"),
            (".ucode", b"070701 early"),
            (".profile", b"ID=main"),
            (".cmdline", b"root=/dev/vda1\n"),
            (".profile", b"ID=debug"),
            (".cmdline", b"debug"),
        ]);
        let path = put("debian.efi", &image);
        let args = args::Next::of_kernel(&path);
        let files = Files::read(&args).unwrap();
        assert_eq!(files.kernel, b"kernel");
        assert_eq!(
            files.initrd.as_deref(),
            Some(&b"070701 early070701 main"[..])
        );
        assert_eq!(files.base_line(&args), Some("root=/dev/vda1".into()));
        let read = |args: &args::Next| Files::read(args).unwrap();
        let line = |args: &args::Next| {
            let own = read(args);
            let (base, append) = base_line(args, own.own_line(args), b"running root=x").unwrap();
            String::from_utf8([base, b"|".to_vec(), append].concat()).unwrap()
        };
        let of = || args::Next::of_kernel(&path);
        let append = args::Next {
            append: Some("quiet".into()),
            profile: Some(1),
            ..of()
        };
        assert_eq!(line(&append), "debug|quiet");
        let reuse = args::Next {
            reuse_cmdline: true,
            ..of()
        };
        assert_eq!(line(&reuse), "running root=x|");
        // Arguments of the user replace the parts of the image.
        let other = put("initrd", b"070701 other");
        let named = args::Next {
            initrd: vec![other],
            command_line: Some("mine".into()),
            ..of()
        };
        assert_eq!(read(&named).initrd.as_deref(), Some(&b"070701 other"[..]));
        assert_eq!(line(&named), "mine|");
        assert_eq!(read(&named).base_line(&named), Some("mine".into()));
        let none = args::Next {
            no_initrd: true,
            ..of()
        };
        assert_eq!(read(&none).initrd, None);
        let (kernel, initrd) = files.open().unwrap();
        let len = |file: File| file.metadata().unwrap().len();
        assert_eq!((len(kernel), initrd.map(len)), (6, Some(23)));
    }

    #[test]
    fn a_bad_unified_kernel_image_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |bytes: &[u8], profile| {
            let path = dir.path().join("x.efi");
            std::fs::write(&path, bytes).unwrap();
            let args = args::Next {
                profile,
                ..args::Next::of_kernel(&path)
            };
            match Files::read(&args) {
                Ok(_) => panic!("not refused"),
                Err(fail) => {
                    assert!(fail.what.contains("x.efi"), "{fail}");
                    (fail.status, fail.to_string())
                }
            }
        };
        let image = kho_unify::unified(&[(".linux", b"kernel"), (".initrd", b"no initrd")]);
        assert_eq!(refused(&image, None).0, Status::BadInitrd);
        let (status, text) = refused(&image, Some(1));
        assert_eq!(status, Status::BadImage);
        assert!(
            text.contains("no profile 1") && text.contains("--profile"),
            "{text}"
        );
        assert_eq!(refused(&image[..600], None).0, Status::BadImage);
        let (status, text) = refused(b"a kernel", Some(0));
        assert_eq!(status, Status::Usage);
        assert!(text.contains("no unified kernel image"), "{text}");
    }

    #[test]
    fn a_line_that_is_not_given_is_the_running_kernels() {
        let reused = "root=/dev/vda1 ro quiet";
        assert_eq!(line(false, None, None).unwrap(), reused);
        assert_eq!(line(true, None, None).unwrap(), reused);
        let more = format!("{reused} debug");
        assert_eq!(line(true, None, Some("debug")).unwrap(), more);
        assert_eq!(line(false, Some("quiet"), None).unwrap(), "quiet");
        assert_eq!(line(false, Some(""), Some("a")).unwrap(), "a");
        let other = "root=UUID=x debug";
        assert_eq!(line(false, None, Some(other)).unwrap(), other);
        // Words after `--` are for init, not for the kernel.
        for append in ["debug", "", "debug -- root=/dev/vda1"] {
            let fail = line(false, None, Some(append)).unwrap_err();
            assert_eq!(fail.status, Status::BadCommandLine);
            assert!(fail.to_string().contains("--reuse-cmdline"), "{fail}");
        }
        assert!(!loses_root(b"console=ttyS0", b"quiet"), "nothing to lose");
    }
}
