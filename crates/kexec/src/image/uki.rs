//! Unified kernel images: PE programs for UEFI that hold kernel, initrd and command line in sections.
//!
//! Sections and profiles: "UKI" and "Multi-Profile UKIs" of the UAPI Group's specification of unified kernel images
//! (uapi-group.org/specifications). A file without profiles has one set of sections; in a file with profiles, the
//! sections before the first `.profile` belong to all profiles. The sections behind a `.profile` belong to that
//! profile, and replace sections of the same name from before the first `.profile`. kho ignores `.dtb`, `.dtbauto`,
//! `.splash` and the other sections that only the firmware's side needs.

use object::pe::{IMAGE_FILE_MACHINE_AMD64, ImageDosHeader, ImageNtHeaders64, ImageSectionHeader};
use object::read::pe::ImageNtHeaders;
use object::{LittleEndian, pe};
use thiserror::Error;

use super::sniff::{Found, identify};

/// Largest number of sections that kho reads, as in every PE loader (`NumberOfSections`: "PE Format", "COFF File
/// Header").
const MAX_SECTIONS: usize = 96;

/// Parts of one profile of a unified kernel image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uki<'a> {
    /// The kernel: `.linux`.
    pub linux: &'a [u8],
    /// Archives that make up the initrd, in their order: `.ucode`, `.initrd`.
    pub initrd: Vec<&'a [u8]>,
    /// The command line, without blanks and zeros at its end: `.cmdline`.
    pub cmdline: Option<&'a [u8]>,
    /// Number of profiles, at least 1.
    pub profiles: usize,
}

/// Reason why kho refuses a unified kernel image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UkiError {
    /// A header or a section that is cut short or damaged.
    #[error("the unified kernel image is cut short or damaged ({what})")]
    Damaged {
        /// Message of the parser, with the name of the section if the fault is in a section.
        what: String,
    },
    /// A section occurs twice that may occur once only.
    #[error("the unified kernel image has two sections {name} in one profile")]
    Twice {
        /// Name of the section.
        name: &'static str,
    },
    /// A kernel for another machine.
    #[error(
        "the unified kernel image is for another machine (COFF machine {machine:#x}), needed is x86_64 ({:#x})",
        pe::IMAGE_FILE_MACHINE_AMD64
    )]
    Machine {
        /// The COFF machine number.
        machine: u16,
    },
    /// A profile that the file does not have.
    #[error("the unified kernel image has no profile {asked}: it has {have}, numbered from 0")]
    NoProfile {
        /// Number of the requested profile.
        asked: usize,
        /// Number of profiles in the file.
        have: usize,
    },
    /// A profile without a kernel.
    #[error("profile {profile} of the unified kernel image has no kernel (section .linux)")]
    NoKernel {
        /// Number of the profile, from 0.
        profile: usize,
    },
}

/// Names of the sections that kho uses, in the order of [`Parts`].
const USED: [&str; 4] = [".linux", ".ucode", ".initrd", ".cmdline"];

type Parts<'a> = [Option<&'a [u8]>; USED.len()];

/// Splits a unified kernel image into its parts; `None` if the file has another format. `profile` counts from 0.
///
/// # Errors
///
/// [`UkiError`].
pub fn unified(file: &[u8], profile: usize) -> Result<Option<Uki<'_>>, UkiError> {
    if !matches!(identify(file), Found::Uki { .. }) {
        return Ok(None);
    }
    let damaged = |err: object::Error| UkiError::Damaged {
        what: err.to_string(),
    };
    let dos = ImageDosHeader::parse(file).map_err(damaged)?;
    let mut offset = dos.nt_headers_offset().into();
    let (headers, _) = ImageNtHeaders64::parse(file, &mut offset).map_err(damaged)?;
    let machine = headers.file_header().machine.get(LittleEndian);
    if machine != IMAGE_FILE_MACHINE_AMD64 {
        return Err(UkiError::Machine { machine: machine.0 });
    }
    let sections = headers.sections(file, offset).map_err(damaged)?;
    if sections.len() > MAX_SECTIONS {
        return Err(UkiError::Damaged {
            what: format!("{:#x} sections", sections.len()),
        });
    }
    let mut base = Parts::default();
    let mut own = Parts::default();
    let mut profiles = 0usize;
    for section in sections.iter() {
        if section.raw_name() == b".profile" {
            profiles = profiles.saturating_add(1);
            continue;
        }
        let of = match profiles.checked_sub(1) {
            None => &mut base,
            Some(current) if current == profile => &mut own,
            Some(_) => continue,
        };
        take(section, file, of)?;
    }
    let profiles = profiles.max(1);
    if profile >= profiles {
        return Err(UkiError::NoProfile {
            asked: profile,
            have: profiles,
        });
    }
    let mut parts = own.into_iter().zip(base).map(|(own, base)| own.or(base));
    let mut part = || parts.next().flatten();
    let linux = part().ok_or(UkiError::NoKernel { profile })?;
    let initrd = [part(), part()].into_iter().flatten().collect();
    Ok(Some(Uki {
        linux,
        initrd,
        cmdline: part().map(line),
        profiles,
    }))
}

/// Stores the content of a section that kho uses.
fn take<'a>(
    section: &ImageSectionHeader,
    file: &'a [u8],
    parts: &mut Parts<'a>,
) -> Result<(), UkiError> {
    let Some((name, part)) = USED
        .into_iter()
        .zip(parts)
        .find(|(name, _)| name.as_bytes() == section.raw_name())
    else {
        return Ok(());
    };
    if part.is_some() {
        return Err(UkiError::Twice { name });
    }
    // The size in memory is the true one; the content is padded in the file.
    *part = Some(section.pe_data(file).map_err(|err| UkiError::Damaged {
        what: format!("section {name}: {err}"),
    })?);
    Ok(())
}

fn line(section: &[u8]) -> &[u8] {
    let end = section
        .iter()
        .rposition(|byte| *byte != 0 && !byte.is_ascii_whitespace());
    section
        .get(..end.map_or(0, |at| at.saturating_add(1)))
        .unwrap_or_default()
}
