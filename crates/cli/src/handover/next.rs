//! The next kernel: image, initrd, command line.

use crate::args;
use crate::exit::{Fail, OrStatus, Status, chain};
use kho_kexec::cmdline::{self, CommandLine};
use kho_kexec::image::{self, Image};
use kho_kexec::sys::root::Root;
use std::path::PathBuf;

/// The files as read. [`Files::parse`] looks into them.
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
    /// Its path, for messages.
    pub path: String,
    /// The initrd.
    pub initrd: Option<&'a [u8]>,
    /// The command line with the arrival program in it.
    pub cmdline: CommandLine,
    /// Scratch size asked for on this command's line, or on the running kernel's.
    pub scratch: Option<u64>,
}

impl Files {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// [`Status::BadImage`], [`Status::BadInitrd`].
    pub fn read(args: &args::Next) -> Result<Self, Fail> {
        let kernel = image::read(&args.kernel).map_err(|err| bad_image(args, &err))?;
        let initrd = match &args.initrd {
            None => None,
            Some(path) => Some(std::fs::read(path).map_err(|err| {
                Fail::new(
                    Status::BadInitrd,
                    format!("cannot read the initrd {}: {err}", path.display()),
                )
                .fix("name the initrd that belongs to the kernel, as in /boot/initrd.img-*")
            })?),
        };
        if let (Some(bytes), Some(path)) = (&initrd, &args.initrd) {
            image::check_initrd(bytes).map_err(|err| {
                Fail::new(
                    Status::BadInitrd,
                    format!("{}: {}", path.display(), chain(&err)),
                )
            })?;
        }
        Ok(Self {
            kernel_path: args.kernel.clone(),
            kernel,
            initrd,
        })
    }

    /// Checks them and builds the command line. A scratch size counts on the `first` handover of a chain only.
    ///
    /// # Errors
    ///
    /// [`Status::BadImage`], [`Status::BadCommandLine`], [`Status::Scratch`] for a size that is none.
    pub fn parse(&self, args: &args::Next, root: &Root, first: bool) -> Result<Next<'_>, Fail> {
        let image = image::parse(&self.kernel).map_err(|err| bad_image(args, &err))?;
        let running = root
            .bytes("proc/cmdline", kho_kexec::sys::root::ATTRIBUTE_LIMIT)
            .or_status(Status::Failed)?;
        let (base, append) = base_line(args, &running);
        let cmdline = cmdline::build(&base, &append, true, image.needs().cmdline_max)
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
        Ok(Next {
            image,
            path: self.kernel_path.display().to_string(),
            initrd: self.initrd.as_deref(),
            cmdline,
            scratch,
        })
    }
}

/// The command line before the arrival program: what it starts from, and what is added.
fn base_line(args: &args::Next, running: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let base = match (&args.command_line, args.reuse_cmdline) {
        (Some(line), _) => line.clone().into_bytes(),
        (None, true) => cmdline::reuse(running),
        (None, false) => Vec::new(),
    };
    (base, args.append.clone().unwrap_or_default().into_bytes())
}

/// The command line for a kernel that is started without a handover.
///
/// # Errors
///
/// [`Status::BadCommandLine`].
pub fn plain_line(args: &args::Next, root: &Root, max: u64) -> Result<Vec<u8>, Fail> {
    let running = root
        .bytes("proc/cmdline", kho_kexec::sys::root::ATTRIBUTE_LIMIT)
        .or_status(Status::Failed)?;
    let (base, append) = base_line(args, &running);
    Ok(cmdline::build(&base, &append, false, max)
        .or_status(Status::BadCommandLine)?
        .line)
}

/// The running kernel's command line as it would be without the arrival program; none when it is so anyway.
///
/// # Errors
///
/// When it cannot be read.
pub fn line_without_arrival(root: &Root) -> Result<Option<Vec<u8>>, Fail> {
    let running = root
        .bytes("proc/cmdline", kho_kexec::sys::root::ATTRIBUTE_LIMIT)
        .or_status(Status::Failed)?;
    Ok(cmdline::starts_arrival(&running).then(|| cmdline::reuse(&running)))
}

fn bad_image(args: &args::Next, err: &image::ImageError) -> Fail {
    let (path, why) = (args.kernel.display().to_string(), chain(err));
    let what = if why.contains(&path) {
        why
    } else {
        format!("{path}: {why}")
    };
    Fail::new(Status::BadImage, what)
        .fix("kho boots x86 bzImages of the 64-bit boot protocol, as in /boot/vmlinuz-*")
}
