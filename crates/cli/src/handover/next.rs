//! The next kernel: image, initrd, command line.

use super::early;
use super::enter::{self, Way};
use super::initrd;
use super::unpacked;
use crate::args;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::shown;
use kho_kexec::assemble::{self, AssembleError};
use kho_kexec::carrier::KernelConfig;
use kho_kexec::cmdline::{self, CommandLine};
use kho_kexec::image::{self, Image, Vmlinux};
use kho_kexec::sys::facts::host::CpuFlags;
use kho_kexec::sys::facts::meminfo::MemInfo;
use kho_kexec::sys::root::Root;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The files as read. [`Files::parse`] checks them.
pub struct Files {
    kernel_path: PathBuf,
    kernel: Vec<u8>,
    /// The initrd, if there is one.
    pub initrd: Option<Vec<u8>>,
}

/// The next kernel, checked.
pub struct Next<'a> {
    /// The image.
    pub image: Box<dyn Image + 'a>,
    /// The image's file.
    file: &'a [u8],
    /// Place at which the kernel is to be entered, as far as is known before it is unpacked.
    pub way: Way,
    /// Path of the image, for messages.
    pub path: String,
    /// Configuration of the kernel; `None` if it was not found.
    pub config: Option<KernelConfig>,
    /// The initrd.
    pub initrd: Option<&'a [u8]>,
    /// Number of bytes that the initrd unpacks to; if that is more than this machine's memory, any number above it.
    pub unpacked: u64,
    /// The command line with the arrival program in it.
    pub cmdline: CommandLine,
    /// Whether the running kernel uses five-level paging.
    pub five_level: bool,
    /// Scratch size that this command's line, or the running kernel's line, asks for.
    pub scratch: Option<u64>,
}

impl Files {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`Status::BadImage`], [`Status::BadInitrd`].
    pub fn read(args: &args::Next) -> Result<Self, Fail> {
        let kernel = image::read(&args.kernel).map_err(|err| bad_image(args, &err))?;
        Ok(Self {
            kernel_path: args.kernel.clone(),
            kernel,
            initrd: initrd::read(&initrd::of(args))?,
        })
    }

    /// Checks the files and builds the command line. A scratch size counts on the `first` handover of a chain only.
    ///
    /// # Errors
    ///
    /// [`Status::BadImage`], [`Status::NextKernel`], [`Status::BadCommandLine`]; [`Status::Scratch`] if the scratch
    /// size is not valid.
    pub fn parse(&self, args: &args::Next, root: &Root, first: bool) -> Result<Next<'_>, Fail> {
        let image = image::parse(&self.kernel).map_err(|err| bad_image(args, &err))?;
        let cpu = CpuFlags::read(root).or_status(Status::Failed)?;
        let five_level = cpu.five_level_paging();
        assemble::check_receiver(image.header(), five_level)
            .map_err(|err| bad_receiver(args, &err))?;
        let running = root
            .bytes("proc/cmdline", kho_kexec::sys::root::ATTRIBUTE_LIMIT)
            .or_status(Status::Failed)?;
        let (base, append) = base_line(args, &running)?;
        let cmdline = cmdline::build(&base, &append, true, image.header().cmdline_max)
            .or_status(Status::BadCommandLine)?;
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
        let way = enter::way(args, &self.kernel, &*image, &cmdline.line, five_level)?;
        Ok(Next {
            unpacked: self.unpacked(root)?,
            config: early::config(&self.kernel_path, image.release(), root),
            image,
            file: &self.kernel,
            way,
            path: shown::path(&self.kernel_path),
            initrd: self.initrd.as_deref(),
            cmdline,
            five_level,
            scratch,
        })
    }
}

impl Next<'_> {
    /// Unpacks the kernel if it is to be entered itself. Returns it, and the way that is taken. The load is going to take
    /// `still` bytes of memory after this.
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
    fn unpacked(&self, root: &Root) -> Result<u64, Fail> {
        let Some(initrd) = &self.initrd else {
            return Ok(0);
        };
        let memory = MemInfo::read(root).or_status(Status::Failed)?.total;
        unpacked::measure(initrd, memory).map_err(|damage| {
            Fail::new(Status::BadInitrd, damage.to_string())
                .fix("make it again (update-initramfs -u -k VERSION), or copy it again")
        })
    }
}

/// Returns the two parts of the command line before the arrival program is added: its base, and the text of `--append`.
///
/// # Errors
///
/// [`Status::BadCommandLine`] if `--append` alone is all of the line, and it names no root file system although the
/// running kernel's line does: the next kernel would not get far, with all that it was handed.
fn base_line(args: &args::Next, running: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Fail> {
    let added = args.append.clone().map(OsStringExt::into_vec);
    let base = match (&args.command_line, args.reuse_cmdline, &added) {
        (Some(line), _, _) => line.clone().into_vec(),
        (None, true, _) | (None, false, None) => cmdline::reuse(running),
        (None, false, Some(line)) if loses_root(running, line) => {
            return Err(Fail::new(
                Status::BadCommandLine,
                "--append alone is all of the command line, and this one names no root file system (root=), as the running kernel's does",
            )
            .fix("add --reuse-cmdline; or give a line that is meant so with --command-line"));
        }
        (None, false, Some(_)) => Vec::new(),
    };
    Ok((base, added.unwrap_or_default()))
}

/// Whether the running kernel's line names a root file system and `line` does not.
pub fn loses_root(running: &[u8], line: &[u8]) -> bool {
    cmdline::value(running, "root").is_some() && cmdline::value(line, "root").is_none()
}

/// Returns the command line for a kernel that is started without a handover.
///
/// # Errors
///
/// [`Status::BadCommandLine`].
pub fn plain_line(args: &args::Next, root: &Root, max: u64) -> Result<Vec<u8>, Fail> {
    let running = root
        .bytes("proc/cmdline", kho_kexec::sys::root::ATTRIBUTE_LIMIT)
        .or_status(Status::Failed)?;
    let (base, append) = base_line(args, &running)?;
    Ok(cmdline::build(&base, &append, false, max)
        .or_status(Status::BadCommandLine)?
        .line)
}

/// Returns a warning about a start without a handover (`kexec_file_load`) of a kernel that has to switch five-level
/// paging off, with `line` as its command line; `None` if there is nothing to warn of. If such a kernel is started by a
/// handover, it finds what it needs, see `kho_kexec::entry`; the system call leaves the page tables as they are, over
/// which 5.10 resets the machine.
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
            "started without a handover, {} has to switch this kernel's five-level paging off, and may reset the machine without a word: boot this kernel with no5lvl",
            image.release().unwrap_or("that kernel")
        )
    }))
}

/// Returns the running kernel's command line without the arrival program; `None` if that line does not start it.
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
    Fail::new(Status::BadImage, what)
        .fix("kho boots x86 bzImages of the 64-bit boot protocol, as in /boot/vmlinuz-*")
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
        let (base, append) = base_line(&args, running)?;
        let built = cmdline::build(&base, &append, false, 2047).unwrap();
        Ok(String::from_utf8(built.line).unwrap())
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
        // Words behind -- are not the kernel's.
        for append in ["debug", "", "debug -- root=/dev/vda1"] {
            let fail = line(false, None, Some(append)).unwrap_err();
            assert_eq!(fail.status, Status::BadCommandLine);
            assert!(fail.to_string().contains("--reuse-cmdline"), "{fail}");
        }
        assert!(!loses_root(b"console=ttyS0", b"quiet"), "nothing to lose");
    }
}
