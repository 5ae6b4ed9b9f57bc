//! The kernel module: producers, memory in place, consumers.

use super::Scenario;

const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    KERNELS.map(loads).into_iter().collect()
}

fn loads(kernel: &'static str) -> Scenario {
    Scenario::new(
        format!("module-loads-{kernel}"),
        "the module loads, enters and leaves the active phase, unloads and loads again",
    )
    .kernels(&[kernel])
    .kho_modules(&["kho", "kho_ring"])
    .first(
        "cd /sys/kernel/kho
         cat status
         for round in 1 2; do
             [ \"$(cat active)\" = 0 ] && [ ! -e dt ]
             echo 1 >active
             [ \"$(cat active)\" = 1 ] && [ \"$(wc -c <dt)\" -ge 100 ]
             echo 0 >active
         done
         [ ! -e in ] || [ ! -e in/dt ]
         cd /
         rmmod kho_ring
         rmmod kho
         [ ! -e /sys/kernel/kho ]
         insmod /lib/modules/$KHO_RELEASE/updates/kho.ko
         [ -e /sys/kernel/kho/active ]",
    )
}
