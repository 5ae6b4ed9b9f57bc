//! The stand-in that resets the machine: an image that is loaded while a kernel is armed and its content is not
//! captured yet. It is not a kernel, but a few instructions that report this on the serial console and reset the
//! machine.
//!
//! `kexec -e` and `systemctl kexec` with two `--force` start a loaded image without stopping the system and without
//! running kho. If the armed kernel itself were loaded, it would start without a handover and without a message. This
//! stand-in starts the machine through its firmware instead, which the administrator has chosen for a handover that
//! fails. If the administrator has chosen a plain start, the stand-in is a plain image of the armed kernel.
//!
//! The stand-in is entered as [`crate::entry`] describes, needs no stack and relies on no descriptor table. It resets
//! the machine by the port of the chipset (0xcf9, as `native_machine_emergency_restart` in `arch/x86/kernel/reboot.c`
//! does), then by the keyboard controller, then by a fault without a handler.
//!
//! ```text
//! 00  cli
//! 01  cld
//! 02  lea   rsi,[rip+0x8f]
//! 09  mov   ecx,DWORD PTR [rip+0x85]
//! 0f  mov   edi,DWORD PTR [rip+0x7b]
//! 15  test  edi,edi
//! 17  je    44
//! 19  lea   edx,[rdi+0x5]
//! 1c  mov   ebx,0x100000
//! 21  in    al,dx
//! 22  test  al,0x20
//! 24  jne   2a
//! 26  dec   ebx
//! 28  jne   21
//! 2a  test  ecx,ecx
//! 2c  je    36
//! 2e  mov   edx,edi
//! 30  lods  al,BYTE PTR ds:[rsi]
//! 31  out   dx,al
//! 32  dec   ecx
//! 34  jmp   19
//! 36  mov   ebx,0x100000
//! 3b  in    al,dx
//! 3c  test  al,0x40
//! 3e  jne   44
//! 40  dec   ebx
//! 42  jne   3b
//! 44  mov   edx,0xcf9
//! 49  mov   al,0x2
//! 4b  out   dx,al
//! 4c  mov   al,0xe
//! 4e  out   dx,al
//! 4f  mov   ecx,0x1000000
//! 54  pause
//! 56  dec   ecx
//! 58  jne   54
//! 5a  mov   al,0xfe
//! 5c  out   0x64,al
//! 5e  mov   ecx,0x1000000
//! 63  pause
//! 65  dec   ecx
//! 67  jne   63
//! 69  lidt  [rip+0x10]
//! 70  int3
//! ```

use crate::cmdline;
use kho::PAGE_SIZE;

/// Bytes of the image: one page.
pub const LEN: u64 = PAGE_SIZE;

const CODE: [u8; 0x71] = [
    0xfa, 0xfc, 0x48, 0x8d, 0x35, 0x8f, 0x00, 0x00, 0x00, 0x8b, 0x0d, 0x85, 0x00, 0x00,
    0x00, //
    0x8b, 0x3d, 0x7b, 0x00, 0x00, 0x00, 0x85, 0xff, 0x74, 0x2b, 0x8d, 0x57, 0x05, 0xbb,
    0x00, //
    0x00, 0x10, 0x00, 0xec, 0xa8, 0x20, 0x75, 0x04, 0xff, 0xcb, 0x75, 0xf7, 0x85, 0xc9,
    0x74, //
    0x08, 0x89, 0xfa, 0xac, 0xee, 0xff, 0xc9, 0xeb, 0xe3, 0xbb, 0x00, 0x00, 0x10, 0x00,
    0xec, //
    0xa8, 0x40, 0x75, 0x04, 0xff, 0xcb, 0x75, 0xf7, 0xba, 0xf9, 0x0c, 0x00, 0x00, 0xb0,
    0x02, //
    0xee, 0xb0, 0x0e, 0xee, 0xb9, 0x00, 0x00, 0x00, 0x01, 0xf3, 0x90, 0xff, 0xc9, 0x75,
    0xfa, //
    0xb0, 0xfe, 0xe6, 0x64, 0xb9, 0x00, 0x00, 0x00, 0x01, 0xf3, 0x90, 0xff, 0xc9, 0x75,
    0xfa, //
    0x0f, 0x01, 0x1d, 0x10, 0x00, 0x00, 0x00, 0xcc, //
];

// Offsets in the data area, as in the listing above.
/// Offset of the limit and base of an empty interrupt table: ten bytes, all 0.
const IDTR: usize = 0x80;
/// Offset of the port of the serial console (32 bits), 0 for none.
const PORT: usize = 0x90;
/// Offset of the length of the text, in bytes (32 bits).
const TEXT_LEN: usize = 0x94;
const TEXT: usize = 0x98;

const _: () = assert!(CODE.len() <= IDTR && IDTR + 10 <= PORT);
const _: () = assert!(PORT + 4 == TEXT_LEN && TEXT_LEN + 4 == TEXT);

/// Ports of `ttyS0` to `ttyS3` (`SERIAL_PORT_DFNS`, `arch/x86/include/asm/serial.h`).
const PORTS: [u16; 4] = [0x3f8, 0x2f8, 0x3e8, 0x2e8];

/// Returns the image, which runs at any address. Enter it at its first byte. It writes `text` to the last serial
/// console in `cmdline`, the running kernel's command line; it writes no text if `cmdline` names no serial console.
/// Text that does not fit into the page is cut off.
pub fn image(text: &str, cmdline: &[u8]) -> Vec<u8> {
    let mut bytes = CODE.to_vec();
    bytes.resize(PORT, 0);
    let room = usize::try_from(LEN).unwrap_or(0).saturating_sub(TEXT);
    let text = text.as_bytes().get(..room).unwrap_or(text.as_bytes());
    let port = u32::from(serial_port(cmdline).unwrap_or(0));
    bytes.extend_from_slice(&port.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(text);
    bytes
}

/// Returns the port of the last `console=ttyS…` that has a port of its own.
fn serial_port(cmdline: &[u8]) -> Option<u16> {
    let console = |argument: cmdline::Argument<'_>| {
        let name = argument.value.filter(|_| argument.name == b"console")?;
        let digits = name.strip_prefix(b"ttyS")?.split(|b| *b == b',').next()?;
        let number: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        PORTS.get(number).copied()
    };
    cmdline::arguments(cmdline).filter_map(console).last()
}

#[cfg(test)]
#[allow(
    unsafe_code,
    reason = "one test reads the bytes between two labels of its own assembly"
)]
mod tests {
    use super::*;

    #[test]
    fn data_is_where_the_code_reads_it() {
        let image = image(
            "lost",
            b"root=/dev/vda console=tty0 console=ttyS1,115200n8 quiet",
        );
        assert_eq!(kho::bytes::u32_at(&image, PORT), Some(0x2f8));
        assert_eq!(kho::bytes::u32_at(&image, TEXT_LEN), Some(4));
        assert_eq!(image.get(TEXT..), Some(&b"lost"[..]));
        assert!(image[CODE.len()..PORT].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn only_a_console_of_its_own_port_is_written_to() {
        for (line, port) in [
            (&b"console=ttyS0"[..], Some(0x3f8)),
            (b"console=ttyS0 console=ttyS3,9600", Some(0x2e8)),
            (b"console=ttyS0 console=hvc0", Some(0x3f8)),
            (b"console=ttyS4", None),
            (b"console=ttyS", None),
            (b"console=tty0 ttyS0", None),
            (b"", None),
        ] {
            assert_eq!(serial_port(line), port, "{line:?}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_off() {
        let long = "x".repeat(5000);
        let image = image(&long, b"");
        assert_eq!(image.len() as u64, LEN);
        assert_eq!(
            kho::bytes::u32_at(&image, TEXT_LEN).map(u64::from),
            Some(LEN - TEXT as u64)
        );
    }

    #[cfg(target_arch = "x86_64")]
    core::arch::global_asm!(
        ".pushsection .rodata.kho_stand_in_listing, \"a\"",
        "kho_stand_in_listing:",
        "cli",
        "cld",
        "lea rsi, [rip + kho_stand_in_listing + 0x98]",
        "mov ecx, [rip + kho_stand_in_listing + 0x94]",
        "mov edi, [rip + kho_stand_in_listing + 0x90]",
        "test edi, edi",
        "jz 5f",
        "1:",
        "lea edx, [rdi + 5]",
        "mov ebx, 0x100000",
        "2:",
        "in al, dx",
        "test al, 0x20",
        "jnz 3f",
        "dec ebx",
        "jnz 2b",
        "3:",
        "test ecx, ecx",
        "jz 4f",
        "mov edx, edi",
        "lodsb",
        "out dx, al",
        "dec ecx",
        "jmp 1b",
        "4:",
        "mov ebx, 0x100000",
        "6:",
        "in al, dx",
        "test al, 0x40",
        "jnz 5f",
        "dec ebx",
        "jnz 6b",
        "5:",
        "mov edx, 0xcf9",
        "mov al, 2",
        "out dx, al",
        "mov al, 0xe",
        "out dx, al",
        "mov ecx, 0x1000000",
        "7:",
        "pause",
        "dec ecx",
        "jnz 7b",
        "mov al, 0xfe",
        "out 0x64, al",
        "mov ecx, 0x1000000",
        "8:",
        "pause",
        "dec ecx",
        "jnz 8b",
        "lidt [rip + kho_stand_in_listing + 0x80]",
        "int3",
        "kho_stand_in_listing_end:",
        ".popsection",
    );

    /// The listing in the module's documentation, assembled, is the code.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn code_is_what_the_listing_assembles_to() {
        unsafe extern "C" {
            static kho_stand_in_listing: u8;
            static kho_stand_in_listing_end: u8;
        }
        let start = &raw const kho_stand_in_listing;
        let len = (&raw const kho_stand_in_listing_end).addr() - start.addr();
        // SAFETY: both labels are in the same section of this program, the second one after the first, and
        // nothing writes to the read-only bytes between them.
        let assembled = unsafe { core::slice::from_raw_parts(start, len) };
        assert_eq!(assembled, CODE);
    }
}
