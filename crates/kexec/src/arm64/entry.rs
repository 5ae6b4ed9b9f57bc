//! The entry code: the instructions between kexec's last one and the kernel's first.
//!
//! kexec jumps with the MMU and the data cache off, interrupts masked, at the exception level at which the running
//! kernel started (`arch/arm64/kernel/relocate_kernel.S`, `cpu_soft_restart`). The kernel requires the same state,
//! `x0` = address of the devicetree, and `x1` to `x3` = 0 (`Documentation/arch/arm64/booting.rst`, section 4). So only
//! the registers are left. Without the MMU every load must be aligned, as both literals are.
//!
//! ```text
//! 00  ldr  x0, 20          ; the devicetree
//! 04  mov  x1, xzr
//! 08  mov  x2, xzr
//! 0c  mov  x3, xzr
//! 10  ldr  x4, 28          ; the kernel
//! 14  br   x4
//! 18  udf  #0
//! 1c  udf  #0
//! 20  .quad devicetree
//! 28  .quad kernel
//! ```

use kho::PhysAddr;

/// Bytes of the entry code with its data.
pub const ENTRY_LEN: usize = 0x30;
/// Alignment of the entry code, in bytes, so that its quadwords are aligned.
pub const ENTRY_ALIGN: u64 = 8;

const CODE: [u32; 8] = [
    0x5800_0100,
    0xaa1f_03e1,
    0xaa1f_03e2,
    0xaa1f_03e3,
    0x5800_00c4,
    0xd61f_0080,
    0,
    0,
];

/// Returns the entry code, which runs at any address that is a multiple of [`ENTRY_ALIGN`]. It jumps to `kernel` with
/// `devicetree` in `x0`. Enter it at its first byte.
pub fn code(devicetree: PhysAddr, kernel: PhysAddr) -> [u8; ENTRY_LEN] {
    let mut bytes = [0; ENTRY_LEN];
    let code = CODE.map(u32::to_le_bytes);
    let data = [devicetree, kernel].map(|address| address.get().to_le_bytes());
    let all = code.as_flattened().iter().chain(data.as_flattened());
    for (to, from) in bytes.iter_mut().zip(all) {
        *to = *from;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address that a "load literal" instruction at `at` reads (Arm Architecture Reference Manual, C6.2, LDR
    /// (literal)), and the register.
    fn literal(bytes: &[u8], at: usize) -> (u64, u32) {
        let word = kho::bytes::u32_at(bytes, at).unwrap();
        assert_eq!(word >> 24, 0x58, "a 64-bit load literal at {at:#x}");
        let distance = (word >> 5 & 0x7ffff) as usize * 4;
        (
            kho::bytes::u64_at(bytes, at + distance).unwrap(),
            word & 0x1f,
        )
    }

    #[test]
    fn registers_are_those_of_the_boot_protocol() {
        let bytes = code(PhysAddr::new(0x1234_5678_9000), PhysAddr::new(0x4020_0000));
        assert_eq!(literal(&bytes, 0), (0x1234_5678_9000, 0));
        assert_eq!(literal(&bytes, 0x10), (0x4020_0000, 4));
        for (at, register) in [(4, 1), (8, 2), (12, 3)] {
            let word = kho::bytes::u32_at(&bytes, at).unwrap();
            assert_eq!(word, 0xaa1f_03e0 | register, "mov x{register}, xzr");
        }
        assert_eq!(kho::bytes::u32_at(&bytes, 0x14), Some(0xd61f_0080), "br x4");
    }
}
