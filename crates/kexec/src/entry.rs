//! The entry code: the instructions that run between kexec's last instruction and the kernel's first.
//!
//! # State that kexec leaves (`arch/x86/kernel/relocate_kernel_64.S`, `machine_kexec_64.c`)
//!
//! | | 6.1, 6.12 | 7.3 |
//! | --- | --- | --- |
//! | mode | 64-bit, identity mapping of all RAM and of the segments, writable and executable | the same |
//! | interrupts | off, flags 0 | the same |
//! | GDT | limit 0: no selector can be loaded | a small one inside kexec's control page |
//! | IDT | limit 0 | exception handlers inside the control page |
//! | general registers | 0 | 0 |
//! | `rsp` | in the control page, 0 on top | the same |
//! | CR0 | PG, PE on; WP, AM, TS, EM off | the same |
//! | CR4 | PAE, and LA57 if it was on (MCE in TDX guests) | the same |
//! | top page table | bit 58 of its entries clear in 6.1, set in 6.12 (`_PAGE_NOPTISHADOW`, `mm/ident_map.c`) | set |
//!
//! # State that the kernel requires (`Documentation/arch/x86/boot.rst`, "64-bit Boot Protocol")
//!
//! 64-bit mode with identity mapping; interrupts off; a GDT with flat 4 GiB segments in the selectors 0x10
//! (`__BOOT_CS`, execute and read) and 0x18 (`__BOOT_DS`, read and write); CS = 0x10, DS = ES = SS = 0x18;
//! `rsi` = address of `boot_params`; a jump to the load address + 0x200.
//!
//! If a kernel is entered with LA57 on and does not use it, the kernel switches LA57 off, from a trampoline below 4 GiB
//! (`paging_prepare` or `configure_5level_paging`, `arch/x86/boot/compressed/pgtable_64.c`). To do so it copies the
//! page table to which the first entry of the top table points. Kernels that lack "x86/boot: Fix page table access in
//! 5-level to 4-level paging transition" (5.10; 6.1 and 6.12 before the end of 2025) take every bit of that entry above
//! the page offset as part of the address, bit 58 included, and the machine resets. So the entry code clears bits 52 to
//! 63 of the entry.
//!
//! # The code
//!
//! Position independent, 256 bytes with its data and a stack. The IDT stays empty, so that a fault resets the machine
//! instead of running arbitrary memory.
//!
//! ```text
//! 00  cli
//! 01  cld
//! 02  lea  rsp, [rip + STACK_TOP]
//! 09  lidt [rip + IDTR]
//! 10  lgdt [rip + GDTR]
//! 17  mov  eax, 0x18
//! 1c  mov  ds, eax
//! 1e  mov  es, eax
//! 20  mov  ss, eax
//! 22  xor  eax, eax
//! 24  mov  fs, eax
//! 26  mov  gs, eax
//! 28  lea  rax, [rip + 0x5]        ; 34
//! 2f  push 0x10
//! 31  push rax
//! 32  retfq
//! 34  mov  rax, cr4
//! 37  bt   eax, 12                 ; LA57
//! 3b  jnc  54
//! 3d  mov  rax, cr3
//! 40  and  rax, -0x1000            ; the top page table
//! 46  mov  rcx, [rax]
//! 49  shl  rcx, 12                 ; bits 52 to 63 of its first entry
//! 4d  shr  rcx, 12
//! 51  mov  [rax], rcx
//! 54  mov  rsi, [rip + BOOT_PARAMS]
//! 5b  mov  rax, [rip + KERNEL_ENTRY]
//! 62  xor  ebx, ebx
//! 64  xor  ebp, ebp
//! 66  xor  edi, edi
//! 68  jmp  rax
//! ```

use kho::PhysAddr;

/// Bytes of the entry code with its data and stack.
pub const ENTRY_LEN: usize = 0x100;
/// Alignment of the entry code, in bytes, so that its quadwords are aligned.
pub const ENTRY_ALIGN: u64 = 16;

const CODE: [u8; 0x6a] = [
    0xfa, 0xfc, 0x48, 0x8d, 0x25, 0xf7, 0x00, 0x00, 0x00, 0x0f, 0x01, 0x1d, 0x90, 0x00, 0x00,
    0x00, //
    0x0f, 0x01, 0x15, 0x7f, 0x00, 0x00, 0x00, 0xb8, 0x18, 0x00, 0x00, 0x00, 0x8e, 0xd8, 0x8e,
    0xc0, //
    0x8e, 0xd0, 0x31, 0xc0, 0x8e, 0xe0, 0x8e, 0xe8, 0x48, 0x8d, 0x05, 0x05, 0x00, 0x00, 0x00,
    0x6a, //
    0x10, 0x50, 0x48, 0xcb, 0x0f, 0x20, 0xe0, 0x0f, 0xba, 0xe0, 0x0c, 0x73, 0x17, 0x0f, 0x20,
    0xd8, //
    0x48, 0x25, 0x00, 0xf0, 0xff, 0xff, 0x48, 0x8b, 0x08, 0x48, 0xc1, 0xe1, 0x0c, 0x48, 0xc1,
    0xe9, //
    0x0c, 0x48, 0x89, 0x08, 0x48, 0x8b, 0x35, 0x25, 0x00, 0x00, 0x00, 0x48, 0x8b, 0x05, 0x26,
    0x00, //
    0x00, 0x00, 0x31, 0xdb, 0x31, 0xed, 0x31, 0xff, 0xff, 0xe0, //
];

// Offsets in the data area, as in the listing above.
const BOOT_PARAMS: usize = 0x80;
const KERNEL_ENTRY: usize = 0x88;
/// Offset of the GDT register's limit (16 bits) and base (64 bits), chosen so that the base is aligned.
const GDTR: usize = 0x96;
/// Offset of the IDT register's limit and base, both 0.
const IDTR: usize = 0xa0;
const GDT: usize = 0xb0;
/// Lowest byte of the stack, which grows down from the end and holds two quadwords.
const STACK_BOTTOM: usize = ENTRY_LEN - 16;

/// Null, unused, `__BOOT_CS`, `__BOOT_DS`: base 0, limit 4 GiB, present, accessed; code: execute and read,
/// 64-bit; data: read and write.
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Offset of the table's last byte.
const GDT_LIMIT: u16 = 31;

const _: () = assert!(size_of::<[u64; 4]>() == GDT_LIMIT as usize + 1);
const _: () = assert!(CODE.len() <= BOOT_PARAMS && BOOT_PARAMS + 8 == KERNEL_ENTRY);
const _: () = assert!(KERNEL_ENTRY + 8 <= GDTR && GDTR + 10 == IDTR && IDTR + 10 <= GDT);
const _: () = assert!((GDTR + 2).is_multiple_of(8) && GDT.is_multiple_of(16));
const _: () = assert!(GDT + size_of::<[u64; 4]>() <= STACK_BOTTOM);
// Each displacement in the code counts from the next instruction.
const _: () = assert!(displacement(0x05) + 0x09 == ENTRY_LEN);
const _: () = assert!(displacement(0x0c) + 0x10 == IDTR);
const _: () = assert!(displacement(0x13) + 0x17 == GDTR);
const _: () = assert!(displacement(0x57) + 0x5b == BOOT_PARAMS);
const _: () = assert!(displacement(0x5e) + 0x62 == KERNEL_ENTRY);

const fn displacement(at: usize) -> usize {
    u32::from_le_bytes([CODE[at], CODE[at + 1], CODE[at + 2], CODE[at + 3]]) as usize
}

/// Returns the entry code for the address `at`. The code jumps to `kernel_entry` with `boot_params` in `rsi`. Enter it
/// at its first byte.
pub fn code(at: PhysAddr, boot_params: PhysAddr, kernel_entry: PhysAddr) -> [u8; ENTRY_LEN] {
    let mut bytes = [0; ENTRY_LEN];
    let mut put = |offset: usize, data: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(offset).zip(data) {
            *to = *from;
        }
    };
    put(0, &CODE);
    put(BOOT_PARAMS, &boot_params.get().to_le_bytes());
    put(KERNEL_ENTRY, &kernel_entry.get().to_le_bytes());
    put(GDTR, &GDT_LIMIT.to_le_bytes());
    put(GDTR + 2, &at.get().saturating_add(GDT as u64).to_le_bytes());
    for (n, descriptor) in DESCRIPTORS.iter().enumerate() {
        put(GDT + 8 * n, &descriptor.to_le_bytes());
    }
    bytes
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
        let at = PhysAddr::new(0x12_3456_7000);
        let code = code(
            at,
            PhysAddr::new(0x1_0000_1000),
            PhysAddr::new(0x2_0000_0200),
        );
        let long = |offset| kho::bytes::u64_at(&code, offset).unwrap();
        assert_eq!(long(BOOT_PARAMS), 0x1_0000_1000);
        assert_eq!(long(KERNEL_ENTRY), 0x2_0000_0200);
        assert_eq!(kho::bytes::u16_at(&code, GDTR), Some(31));
        assert_eq!(long(GDTR + 2), at.get() + GDT as u64);
        assert_eq!((code[IDTR..IDTR + 10]), [0; 10]);
        assert_eq!(long(GDT + 0x10), 0x00af_9b00_0000_ffff, "selector 0x10");
        assert_eq!(long(GDT + 0x18), 0x00cf_9300_0000_ffff, "selector 0x18");
    }

    #[cfg(target_arch = "x86_64")]
    core::arch::global_asm!(
        ".pushsection .rodata.kho_entry_listing, \"a\"",
        "kho_entry_listing:",
        "cli",
        "cld",
        "lea rsp, [rip + kho_entry_listing + 0x100]",
        "lidt [rip + kho_entry_listing + 0xa0]",
        "lgdt [rip + kho_entry_listing + 0x96]",
        "mov eax, 0x18",
        "mov ds, eax",
        "mov es, eax",
        "mov ss, eax",
        "xor eax, eax",
        "mov fs, eax",
        "mov gs, eax",
        "lea rax, [rip + 2f]",
        "push 0x10",
        "push rax",
        "retfq",
        "2:",
        "mov rax, cr4",
        "bt eax, 12",
        "jnc 3f",
        "mov rax, cr3",
        "and rax, -0x1000",
        "mov rcx, [rax]",
        "shl rcx, 12",
        "shr rcx, 12",
        "mov [rax], rcx",
        "3:",
        "mov rsi, [rip + kho_entry_listing + 0x80]",
        "mov rax, [rip + kho_entry_listing + 0x88]",
        "xor ebx, ebx",
        "xor ebp, ebp",
        "xor edi, edi",
        "jmp rax",
        "kho_entry_listing_end:",
        ".popsection",
    );

    /// The listing in the module's documentation, assembled, is the code.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn code_is_what_the_listing_assembles_to() {
        unsafe extern "C" {
            static kho_entry_listing: u8;
            static kho_entry_listing_end: u8;
        }
        let start = &raw const kho_entry_listing;
        let len = (&raw const kho_entry_listing_end).addr() - start.addr();
        // SAFETY: both labels are in the same section of this program, the second one after the first, and
        // nothing writes to the read-only bytes between them.
        let assembled = unsafe { core::slice::from_raw_parts(start, len) };
        assert_eq!(assembled, CODE);
    }
}
